"""Three sidecars and one Redis: one budget, whatever becomes of Redis."""

import asyncio
import contextlib
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import trustme
from stack import Stack, chat, client, send, wait_until

from inferwatch_simulator.readings import total

from .redis_server import RedisServer

HOSTS = 3
ANSWER = 100
BODY = chat("shared", max_tokens=ANSWER, stream=False)
# A token for each byte of the body and 512 for the template, and the answer: docs/topics/budgets.md.
WORST = len(json.dumps(BODY)) + 512 + ANSWER
# Some reports, and what is taken for a burst.
GIVEN_BACK_S = 4.0
WHO = {"x-inferwatch-tenant": "acme"}


def configure(path: Path, url: str, limit: int, reserve: str, on_limit: str = "reject", **redis: Any) -> None:
    """A budget of tenant acme in tokens, which no midnight renews."""
    rule = {
        "name": "acme",
        "tenant": "acme",
        "limit": limit,
        "unit": "tokens",
        "on_limit": on_limit,
        "reserve": reserve,
        "period": "rolling",
        "window_s": 86_400,
    }
    shared = {"url": url, "lease_s": 4, "report_interval_s": 0.5} | redis
    settings = {
        "identity": {"trusted_peers": ["127.0.0.1/32"]},
        "budgets": {"rules": [rule], "default_reserve_tokens": 512, "redis": shared},
    }
    path.write_bytes(msgspec.yaml.encode(settings))


@contextlib.contextmanager
def sidecars(
    folder: Path, url: str, limit: int, reserve: str = "worst", speed: float = 5, **redis: Any
) -> Iterator[list[Stack]]:
    """So many of them before one engine."""
    configure(folder / "config.yaml", url, limit, reserve, **redis)
    stacks: list[Stack] = []
    try:
        for number in range(HOSTS):
            home = folder / f"host{number}"
            home.mkdir()
            stack = Stack(home, "--config", str(folder / "config.yaml"), simulate_flags=("--speed", str(speed)))
            stacks.append(stack)
            if number == 0:
                stack.start()
            else:
                stack.engine = stacks[0].engine
                stack.serve()
        yield stacks
    finally:
        for stack in reversed(stacks):
            stack.close()


def gauge(stack: Stack, name: str) -> float:
    return total(stack.scrape(), f"inferwatch_budget_{name}")


def failures(stack: Stack, reason: str) -> float:
    return stack.total("inferwatch_budget_redis_failures_total", reason=reason)


def thawed(stacks: list[Stack]) -> None:
    """Wait until Redis lends."""

    def lends() -> bool:
        return all(gauge(stack, "redis_up") == 1 and gauge(stack, "redis_frozen") == 0 for stack in stacks)

    wait_until(lends, "Redis lends", 20)


def booked(stacks: list[Stack]) -> int:
    """Tokens of all requests in all ledgers."""
    found = 0
    for stack in stacks:
        with contextlib.closing(sqlite3.connect(stack.folder / "state" / "ledger.sqlite3")) as ledger:
            row = ledger.execute("SELECT SUM(prompt_tokens + completion_tokens) FROM usage_day").fetchone()
            found += row[0] or 0
    return found


def told(stacks: list[Stack], server: RedisServer, tokens: int) -> None:
    """Wait until the ledgers have just what clients got, Redis has what the ledgers have, and each host knows it."""
    seen: list[Any] = []

    def same() -> bool:
        spent = [gauge(stack, "spent") for stack in stacks]
        held = sum(gauge(stack, "reserved") for stack in stacks)
        seen[:] = [booked(stacks), server.spent(), spent, held]
        return seen == [tokens, tokens, [tokens] * HOSTS, 0]

    wait_until(same, f"{tokens} everywhere", 40, lambda: f"ledgers, Redis, hosts, held: {seen}")


class Load:
    """Clients that send to all hosts in turn."""

    def __init__(self, stacks: list[Stack]) -> None:
        self.stacks = stacks
        self.stop = asyncio.Event()
        self.answers: dict[int, int] = {}
        self.tokens = 0

    async def run(self, clients: int, pause_s: float = 0.0) -> None:
        async with client(headers=WHO) as session, asyncio.TaskGroup() as group:
            for number in range(clients):
                _ = group.create_task(self._client(session, number, pause_s))

    async def _client(self, session: aiohttp.ClientSession, number: int, pause_s: float) -> None:
        while not self.stop.is_set():
            number += 1
            status, body = await send(session, self.stacks[number % HOSTS].url, BODY)
            self.answers[status] = self.answers.get(status, 0) + 1
            if status == 200:
                usage = json.loads(body)["usage"]
                self.tokens += usage["prompt_tokens"] + usage["completion_tokens"]
            await asyncio.sleep(pause_s)


async def spend_all(load: Load, clients: int = 12) -> None:
    """Until all are refused, for as long as hosts need to give back what they have no use for."""
    running = asyncio.create_task(load.run(clients, 0.1))
    before = -1
    async with asyncio.timeout(60):
        while load.tokens != before:
            before = load.tokens
            await asyncio.sleep(GIVEN_BACK_S)
    load.stop.set()
    await running


async def test_three_sidecars_keep_one_budget(tmp_path: Path, redis_server: RedisServer) -> None:
    """`worst`: spent by all to within a request of each host, and nothing more; each host shows what all have spent."""
    limit = 30 * WORST
    with sidecars(tmp_path, redis_server.url, limit) as stacks:
        await asyncio.to_thread(thawed, stacks)
        load = Load(stacks)
        await spend_all(load)
        assert limit - 2 * HOSTS * WORST < load.tokens <= limit
        assert set(load.answers) == {200, 429}
        await asyncio.to_thread(told, stacks, redis_server, load.tokens)


async def test_one_busy_host_gets_nearly_all_of_it(tmp_path: Path, redis_server: RedisServer) -> None:
    """The others have nothing to do; what they might have begun with goes to the one that asks."""
    limit = 30 * WORST
    with sidecars(tmp_path, redis_server.url, limit) as stacks:
        await asyncio.to_thread(thawed, stacks)
        load = Load([stacks[0]] * HOSTS)
        await spend_all(load)
        assert limit - 3 * WORST < load.tokens <= limit


@pytest.mark.parametrize("data", ["kept", "lost"])
async def test_a_redis_killed_in_mid_run_loses_nothing_and_doubles_nothing(
    tmp_path: Path, redis_server: RedisServer, data: str
) -> None:
    """Nobody is refused while the leases last; afterwards Redis has what all ledgers have."""
    with sidecars(tmp_path, redis_server.url, 100_000_000) as stacks:
        await asyncio.to_thread(thawed, stacks)
        load = Load(stacks)
        running = asyncio.create_task(load.run(6, 0.05))
        await asyncio.sleep(2)
        redis_server.kill()
        if data == "lost":
            redis_server.forget()
        await asyncio.sleep(3)
        await asyncio.to_thread(
            wait_until, lambda: not any(gauge(stack, "redis_up") for stack in stacks), "an outage that all know of"
        )
        await asyncio.to_thread(redis_server.start)
        await asyncio.sleep(2)
        load.stop.set()
        await running
        assert set(load.answers) == {200}
        await asyncio.to_thread(thawed, stacks)
        await asyncio.to_thread(told, stacks, redis_server, load.tokens)
        assert [gauge(stack, "redis_outages_total") for stack in stacks] == [1, 1, 1]


@pytest.mark.parametrize("data", ["kept", "lost"])
async def test_a_tight_budget_holds_through_the_death_of_redis(
    tmp_path: Path, redis_server: RedisServer, data: str
) -> None:
    """Killed while it is being spent: never overspent, and after its return the rest can be spent."""
    limit = 60 * WORST
    with sidecars(tmp_path, redis_server.url, limit) as stacks:
        await asyncio.to_thread(thawed, stacks)
        load = Load(stacks)
        running = asyncio.create_task(load.run(9, 0.05))
        while load.tokens < limit / 4:
            await asyncio.sleep(0.05)
        redis_server.kill()
        if data == "lost":
            redis_server.forget()
        await asyncio.sleep(4)
        assert load.tokens <= limit
        await asyncio.to_thread(redis_server.start)
        load.stop.set()
        await running
        await asyncio.to_thread(thawed, stacks)
        rest = Load(stacks)
        await spend_all(rest)
        assert limit - 2 * HOSTS * WORST < load.tokens + rest.tokens <= limit
        await asyncio.to_thread(told, stacks, redis_server, load.tokens + rest.tokens)


async def test_a_collector_and_a_host_that_die_change_nothing(tmp_path: Path, redis_server: RedisServer) -> None:
    """A killed collector goes on with what was lent; a host that is started anew is the same host."""
    with sidecars(tmp_path, redis_server.url, 100_000_000) as stacks:
        await asyncio.to_thread(thawed, stacks)
        load = Load(stacks)
        running = asyncio.create_task(load.run(6, 0.05))
        await asyncio.sleep(1)
        stacks[0].kill("inferwatch_collectors")
        await asyncio.sleep(2)
        load.stop.set()
        await running
        assert set(load.answers) == {200}
        assert await asyncio.to_thread(stacks[1].stop_serving) == 0
        await asyncio.to_thread(stacks[1].serve)
        await asyncio.to_thread(told, stacks, redis_server, load.tokens)
        assert len(redis_server.client().hkeys("{inferwatch}:hosts")) == HOSTS


async def test_streams_of_all_hosts_are_cut_at_one_limit(tmp_path: Path, redis_server: RedisServer) -> None:
    """`cut`: each stream ends in good form, and ledgers and Redis have the tokens that clients were told."""
    limit, streams, longest = 12_000, 8 * HOSTS, 2_000
    usage = {"stream_options": {"include_usage": True}}
    with sidecars(tmp_path, redis_server.url, limit, "expected", speed=1, on_limit="cut", initial_percent=16) as stacks:
        await asyncio.to_thread(thawed, stacks)
        async with client(headers=WHO) as session:

            async def tokens(number: int, max_tokens: int) -> int:
                """Return what a stream says it has come to; 0 if it was refused."""
                body = chat(f"stream {number}", max_tokens=max_tokens, **usage)
                status, reply = await send(session, stacks[number % HOSTS].url, body)
                assert status in (200, 429)
                if status == 429:
                    return 0
                *_, last, counts, done = reply.decode().strip().split("\n\n")
                assert done == "data: [DONE]"
                if max_tokens == longest:
                    assert json.loads(last.removeprefix("data: "))["choices"][0]["stop_reason"] == "budget_exceeded"
                return int(json.loads(counts.removeprefix("data: "))["usage"]["total_tokens"])

            # Each host knows what its requests come to after 50 of them.
            short = 0
            for number in range(60 * HOSTS):
                short += await tokens(number, 4)
            long = await asyncio.gather(*(tokens(number, longest) for number in range(streams)))
        assert sum(spent > 0 for spent in long) > HOSTS
        total_spent = short + sum(long)
        # Alone, they would have spent four times as much. How close it comes hangs on how fast hosts hear of each other.
        assert limit / 2 < total_spent < 2 * limit
        await asyncio.to_thread(told, stacks, redis_server, total_spent)


@pytest.mark.parametrize("trusted", [True, False])
async def test_redis_behind_tls(tmp_path: Path, trusted: bool) -> None:
    """With its authority in `tls_ca_file` hosts share; with another's they do not, and traffic goes on as without Redis."""
    server = RedisServer(tmp_path / "redis", authority=trustme.CA())
    await asyncio.to_thread(server.start)
    ca_file = server.folder / "ca.pem" if trusted else tmp_path / "other.pem"
    if not trusted:
        trustme.CA().cert_pem.write_to_path(ca_file)
    configure(tmp_path / "config.yaml", server.url, 1_000_000, "worst", tls_ca_file=str(ca_file))
    folder = tmp_path / "host"
    folder.mkdir()
    stack = Stack(folder, "--config", str(tmp_path / "config.yaml"))
    try:
        await asyncio.to_thread(stack.start)
        if trusted:
            await asyncio.to_thread(thawed, [stack])
        else:
            await asyncio.to_thread(wait_until, lambda: failures(stack, "connection") > 0, "the first try")
        async with client(headers=WHO) as session:
            status, body = await send(session, stack.url, BODY)
        assert status == 200
        if trusted:
            await asyncio.to_thread(
                wait_until, lambda: server.spent() == json.loads(body)["usage"]["total_tokens"], "it"
            )
        else:
            assert gauge(stack, "redis_up") == 0
            assert server.spent() == 0
    finally:
        stack.close()
        server.kill()


async def test_a_password_never_shows(tmp_path: Path, redis_server: RedisServer) -> None:
    """From a file; a wrong one is told as refused, and the right one is taken up with the next try."""
    redis_server.client().config_set("requirepass", "right-one")
    secret = tmp_path / "redis-url"
    secret.write_text(f"redis://:wrong-one@127.0.0.1:{redis_server.port}/0\n")
    folder = tmp_path / "host"
    folder.mkdir()
    configure(tmp_path / "config.yaml", "", 1000, "worst", url_file=str(secret))
    stack = Stack(folder, "--config", str(tmp_path / "config.yaml"))
    try:
        await asyncio.to_thread(stack.start)
        await asyncio.to_thread(wait_until, lambda: failures(stack, "refused") > 0, "the first try")
        assert gauge(stack, "redis_up") == 0
        secret.write_text(f"redis://:right-one@127.0.0.1:{redis_server.port}/0\n")
        await asyncio.to_thread(wait_until, lambda: gauge(stack, "redis_up") == 1, "Redis", 10)
        async with client() as session, session.get(f"{stack.admin}/config") as reply:
            shown = await reply.text()
        assert str(secret) in shown
        assert not {"wrong-one", "right-one"} & set(re.split(r"[^a-z-]+", shown + stack.log))
    finally:
        stack.close()
