"""Do budgets hold: Inferwatch and LiteLLM before the same engine, with the same prices, caps and requests, in one run.

Run as `bench/budgets.sh`, which installs LiteLLM first; `--only ours` needs it not. What was spent is what the engine
generated, times the price list: nobody's own books are believed. Three situations, each with a proxy started anew:

* *first*: 1,000 requests at once at a fresh budget, of which about a tenth fits.
* *idle*: 200 requests at once that name no `max_tokens`, when the budget's first half is idle and stays so.
* *streams*: 64 streams at once with most of the budget left, all longer than what came before: together they run into
  the limit. Afterwards 20 more ask.

LiteLLM's budgets of keys want a Postgres, which it reads and writes by Prisma. Prisma's engine is in no package
registry: it is fetched from a host of its own while LiteLLM's client is generated. So there is none here. Instead a
`custom_auth` hands LiteLLM a key with `max_budget`, and with `custom_auth_run_common_checks` it checks and reserves as
for any key, in memory; with its database it may do better. Its budgets of providers (`provider_budget_config`) need no
database by themselves.
"""

import argparse
import asyncio
import datetime as dt
import os
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from bench import contenders, procs
from bench.mock_engine import PROMPT_TOKENS, Pace, Totals

# Nano-dollars a token: a dollar for a million prompt tokens, 300 for a million completion tokens. A plain answer of the
# engine costs 4.7 cents, so a budget of dollars is some hundred requests.
PROMPT_PRICE: Final = 1_000
TOKEN_PRICE: Final = 300_000
NANO: Final = 1_000_000_000

MODEL: Final = "bench"
STREAMS: Final = 64
STREAM_RATE: Final = 10.0  # events a second each: what LiteLLM can carry with 64
LATER: Final = 20

HEADER: Final = """# Budgets

Written by `bench/budgets.sh` on {date:%Y-%m-%d}, in one run on {cores} cores, with a load average of {load} (what it
starts itself makes 1 to 2). Spent is what the engine generated, at 1 $ for a million prompt tokens and 300 $ for a
million completion tokens: nobody's own books are believed. LiteLLM's budget of a key is kept in its memory, without its
database. 100 ms of the 64 streams are 64 tokens. What it means: [README.md](README.md).
"""

CUSTOM_AUTH: Final = """
from litellm.proxy._types import UserAPIKeyAuth

async def auth(request, api_key):
    return UserAPIKeyAuth(api_key=api_key, max_budget={cap}, spend=0.0)
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One way to keep a budget. `command` gets the place, the engine's port and the cap in dollars."""

    key: str
    title: str
    command: Callable[[contenders.Place, float], list[str]]
    env: dict[str, str]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one situation."""

    let_in: int
    refused: int
    failed: int  # neither: time-outs, errors
    later: int  # of those who asked when it was over, who was let in
    spent: int  # nano-dollars, by what the engine generated
    cap: int

    @property
    def over(self) -> int:
        return max(0, self.spent - self.cap)


def _ours(key: str, title: str, **rule: str) -> Entry:
    base = contenders.find("ours")

    def command(place: contenders.Place, cap: float) -> list[str]:
        config = place.folder / "inferwatch.yaml"
        config.write_bytes(
            msgspec.yaml.encode(
                {
                    "prices": {"rules": [{"model": "*", "input": 1, "output": 300}]},
                    "budgets": {"rules": [{"name": "cap", "limit": cap, "period": "month", **rule}]},
                }
            )
        )
        return [*base.command(place), "--config", str(config)]

    return Entry(key, f"{base.title} {base.version}, {title}", command, base.env, base.start_timeout_s)


def _litellm(key: str, title: str, more: Callable[[Path, float], dict[str, Any]]) -> Entry:
    base = contenders.find("litellm")

    def command(place: contenders.Place, cap: float) -> list[str]:
        argv = base.command(place)
        conf = place.folder / "litellm.yaml"
        settings = msgspec.yaml.decode(conf.read_bytes())
        settings["model_list"][0]["litellm_params"] |= {
            "input_cost_per_token": PROMPT_PRICE / NANO,
            "output_cost_per_token": TOKEN_PRICE / NANO,
        }
        conf.write_bytes(msgspec.yaml.encode(settings | more(place.folder, cap)))
        return argv

    return Entry(key, f"{base.title} {base.version}, {title}", command, base.env, base.start_timeout_s)


def _key_budget(folder: Path, cap: float) -> dict[str, Any]:
    (folder / "bench_auth.py").write_text(CUSTOM_AUTH.format(cap=cap))
    # Without a master key no check is made at all.
    general = {
        "master_key": "sk-bench-0123456789abcdef0123456789",
        "custom_auth": "bench_auth.auth",
        "custom_auth_run_common_checks": True,
    }
    return {"general_settings": general}


def _provider_budget(_: Path, cap: float) -> dict[str, Any]:
    limits = {"openai": {"budget_limit": cap, "time_period": "30d"}}
    return {"router_settings": {"provider_budget_config": limits}}


ENTRIES: Final[dict[str, Callable[[], Entry]]] = {
    "ours-reject": lambda: _ours("ours-reject", "`reject`", on_limit="reject"),
    "ours-worst": lambda: _ours("ours-worst", "`reject`, `reserve: worst`", on_limit="reject", reserve="worst"),
    "ours-cut": lambda: _ours("ours-cut", "`cut`", on_limit="cut"),
    "litellm-key": lambda: _litellm("litellm-key", "budget of a key", _key_budget),
    "litellm-provider": lambda: _litellm("litellm-provider", "budget of a provider", _provider_budget),
}


class Client:
    """Asks one proxy, and its engine what it generated."""

    def __init__(self, session: aiohttp.ClientSession, port: int, engine: int) -> None:
        self._session = session
        self._url = f"http://127.0.0.1:{port}/v1/chat/completions"
        self._engine = f"http://127.0.0.1:{engine}"

    async def pace(self, **changes: Any) -> None:
        await self._post("/bench/pace", msgspec.json.encode(Pace(**changes)))

    async def spent(self) -> int:
        """Return what was generated since the last call, in nano-dollars."""
        totals = msgspec.json.decode(await self._post("/bench/totals", b""), type=Totals)
        return totals.requests * PROMPT_TOKENS * PROMPT_PRICE + totals.tokens * TOKEN_PRICE

    async def ask(self, **changes: Any) -> str:
        """Ask once, and read the answer to its end; return `let_in`, `refused` or `failed`."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": "What is in a license?"}], **changes}
        if changes.get("stream"):
            body["stream_options"] = {"include_usage": True}
        try:
            async with self._session.post(self._url, json=body, headers={"authorization": "Bearer sk-bench"}) as reply:
                text = await reply.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            return "failed"
        if reply.status == 200:
            return "let_in"
        # LiteLLM says it of a provider's budget with the status of a server without deployments.
        if reply.status == 429 or b"budget" in text.lower():
            return "refused"
        sys.stderr.write(f"{reply.status}: {text[:300]!r}\n")
        return "failed"

    async def _post(self, path: str, body: bytes) -> bytes:
        async with self._session.post(self._engine + path, data=body) as reply:
            return await reply.read()


async def first(client: Client) -> list[str]:
    """A thousand at once."""
    await client.pace(plain_s=1.0)
    return list(await asyncio.gather(*(client.ask(max_tokens=156) for _ in range(1000))))


async def idle(client: Client) -> list[str]:
    """What requests come to is known; then two hundred at once that do not say how long they may become."""
    for _ in range(60):
        await client.ask()
    await asyncio.sleep(1.0)
    await client.pace(plain_s=1.0)
    return list(await asyncio.gather(*(client.ask() for _ in range(200))))


async def streams(client: Client) -> list[str]:
    """Short ones, one by one; then 64 long ones at once."""
    await client.pace(events_per_s=500.0, stream_tokens=20)
    for _ in range(60):
        await client.ask(stream=True, max_tokens=1000)
    await asyncio.sleep(1.0)
    await client.pace(events_per_s=STREAM_RATE, stream_tokens=300)
    return list(await asyncio.gather(*(client.ask(stream=True, max_tokens=1000) for _ in range(STREAMS))))


# Situation, cap in dollars.
SITUATIONS: Final[dict[str, tuple[Callable[[Client], Coroutine[Any, Any, list[str]]], float]]] = {
    "first": (first, 5.0),
    "idle": (idle, 50.0),
    "streams": (streams, 5.0),
}


@contextmanager
def started(entry: Entry, cap: float, core: int | None = None) -> Iterator[tuple[int, int]]:
    """An engine and the proxy before it; yields their ports (proxy, engine)."""
    with tempfile.TemporaryDirectory(prefix="bench-budgets-") as name:
        folder = Path(name)
        port, engine, *spare = free_ports(4)
        argv = [sys.executable, "-m", "bench.mock_engine", str(engine)]
        with procs.running(argv, core=core, log=folder / "engine.log"):
            await_port(engine, 10.0)
            place = contenders.Place(port, engine, (spare[0], spare[1]), folder)
            env = entry.env | {"PYTHONPATH": str(folder)}
            with procs.running(entry.command(place, cap), core=core, log=folder / "proxy.log", cwd=folder, env=env):
                await_port(port, entry.timeout_s)
                if entry.key.startswith("ours"):
                    await_ready(place.spare[0], entry.timeout_s)
                yield port, engine


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def await_port(port: int, timeout_s: float) -> None:
    """Return when somebody listens there."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    sys.exit(f"nobody listened on port {port} after {timeout_s:.0f} s")


def await_ready(admin: int, timeout_s: float) -> None:
    """Return when our collector is there: until then nothing that ends is settled."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=2.0).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    sys.exit(f"no collector at port {admin} after {timeout_s:.0f} s")


async def run(entry: Entry, situation: str) -> Outcome:
    """One situation at one proxy."""
    act, cap = SITUATIONS[situation]
    with started(entry, cap) as (port, engine):
        timeout = aiohttp.ClientTimeout(total=180.0)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True), timeout=timeout
        ) as session:
            client = Client(session, port, engine)
            await client.spent()
            answers = await act(client)
            await asyncio.sleep(2.0)  # what is booked late, and streams that nobody reads any more
            await client.pace()
            later = [await client.ask(max_tokens=156) for _ in range(LATER)]
            spent = await client.spent()
    counts = {word: answers.count(word) for word in ("let_in", "refused", "failed")}
    return Outcome(**counts, later=later.count("let_in"), spent=spent, cap=round(cap * NANO))


def table(results: dict[str, dict[str, Outcome]], titles: dict[str, str]) -> str:
    """The results as Markdown."""
    texts = {
        "first": "1,000 first requests at once, cap 5 $",
        "idle": "200 at once without `max_tokens`, after 60 one by one; cap 50 $, of which they need 12",
        "streams": f"{STREAMS} streams of 300 tokens at once, after 60 of 20; `max_tokens` 1,000, cap 5 $",
    }
    lines = []
    for situation, outcomes in results.items():
        lines += [f"\n{texts[situation]}:\n"]
        lines += ["| | let in | refused | failed | spent, $ | overspent, $ | overspent, tokens | let in afterwards |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        for key, each in outcomes.items():
            cells = [titles[key], each.let_in, each.refused, each.failed, f"{each.spent / NANO:.4f}"]
            cells += [f"{each.over / NANO:.4f}", f"{each.over / TOKEN_PRICE:.0f}", f"{each.later} of {LATER}"]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is asked for and print, or write, the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(ENTRIES), help="some of " + ",".join(ENTRIES))
    parser.add_argument("--situations", default=",".join(SITUATIONS), help="some of " + ",".join(SITUATIONS))
    parser.add_argument("--out", type=Path, help="write there")
    arguments = parser.parse_args(argv)
    entries = [ENTRIES[key]() for key in arguments.only.split(",")]
    results: dict[str, dict[str, Outcome]] = {}
    loads: list[float] = []
    for situation in arguments.situations.split(","):
        for entry in entries:
            outcome = asyncio.run(run(entry, situation))
            results.setdefault(situation, {})[entry.key] = outcome
            loads.append(os.getloadavg()[0])
            sys.stderr.write(f"{situation} {entry.key}: {outcome}\n")
    text = table(results, {entry.key: entry.title for entry in entries})
    if arguments.out is None:
        sys.stdout.write(text + "\n")
    else:
        load = f"{min(loads):.1f} to {max(loads):.1f}"
        arguments.out.write_text(
            HEADER.format(date=dt.datetime.now(dt.UTC), cores=os.cpu_count(), load=load) + text + "\n"
        )


if __name__ == "__main__":
    main()
