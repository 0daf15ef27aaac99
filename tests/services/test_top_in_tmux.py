"""`inferwatch top` in a real terminal, before the real Inferwatch: keys are sent, and its screen is compared with
`/metrics`."""

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from agreement import Pair, agreed
from stack import Stack, chat, client, hang_up_after, running, send
from terminal import Terminal

from inferwatch_simulator.readings import Scrape, total

CONFIG = """
cost: {hourly_dollars: 3.5}
gpu: {source: none}
prices:
  rules: [{input: 1, output: 2}]
budgets:
  rules:
    - {name: day, per: [tenant], limit: 1000000, unit: tokens, period: day}
"""

STREAMS = 30


@pytest.fixture(scope="module", name="stack")
def _stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("top")
    config = folder / "inferwatch.yml"
    config.write_text(CONFIG)
    with running(folder, "--config", str(config)) as stack:
        yield stack


@pytest.fixture(name="terminal")
def _terminal(stack: Stack, tmp_path: Path) -> Iterator[Terminal]:
    address = stack.admin.removeprefix("http://")
    terminal = Terminal(tmp_path, sys.executable, "-m", "inferwatch", "top", "--admin", address)
    try:
        terminal.until("1 Tenants")
        yield terminal
    finally:
        terminal.close()


async def ask(stack: Stack, count: int, key: str) -> None:
    async with client() as session:
        headers = {"authorization": f"Bearer {key}"}
        await asyncio.gather(*(send(session, stack.url, chat(), headers=headers) for _ in range(count)))


@contextlib.asynccontextmanager
async def streaming(stack: Stack) -> AsyncIterator[None]:
    """Keep streams of two tenants open."""
    async with client() as session, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                hang_up_after(
                    session, stack.url, chat(f"say {number}", max_tokens=8000, user=str(number)), events=1_000_000
                )
            )
            for number in range(STREAMS)
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


def rows(screen: str) -> list[list[str]]:
    """Return the table's rows, by words."""
    lines = screen.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith(" 1 Tenants")) + 2
    return [re.split(r" {2,}", line.strip()) for line in lines[start:-1] if line.strip()]


def figure(screen: str, pattern: str) -> float:
    found = re.search(pattern, screen)
    assert found is not None, screen
    return float(found[1].replace(",", ""))


def dollars(scrape: Scrape, **where: str) -> Any:
    """Return a sum as it may be shown: with four places."""
    return pytest.approx(total(scrape, "inferwatch_cost_dollars_total", **where), abs=6e-5)


def whole(shown: str) -> int:
    return int(shown.replace(",", ""))


async def header(stack: Stack, terminal: Terminal) -> list[Pair]:
    """Each figure of the header beside the sum of its series."""
    screen = await asyncio.to_thread(terminal.screen)
    scrape = await asyncio.to_thread(stack.scrape)
    tokens = {kind: total(scrape, "inferwatch_tokens_total", type=kind) for kind in ("prompt", "completion")}
    requests = total(scrape, "inferwatch_requests_total")
    return [
        Pair("requests", f", {requests:,.0f} in all" in screen, True),
        *(Pair(kind, figure(screen, rf"{kind} +\S+(?: k)? tok/s, ([\d,]+)"), tokens[kind]) for kind in tokens),
        Pair("cost", figure(screen, r"cost +\$([\d.]+)"), dollars(scrape, basis="gpu")),
        Pair("by prices", figure(screen, r"by prices +\$([\d.]+)"), dollars(scrape, basis="price")),
    ]


async def tenants(stack: Stack, terminal: Terminal) -> list[Pair]:
    """Each tenant's requests, tokens and costs beside the sums of its series."""
    shown = rows(await asyncio.to_thread(terminal.screen))
    scrape = await asyncio.to_thread(stack.scrape)
    pairs = [Pair("tenants", len(shown), 2)]
    for tenant, _, _, _, _, asked, tokens, cost, priced in shown:
        counted = [
            total(scrape, "inferwatch_tokens_total", tenant=tenant, type=kind) for kind in ("prompt", "completion")
        ]
        pairs += [
            Pair(f"requests of {tenant}", whole(asked), total(scrape, "inferwatch_requests_total", tenant=tenant)),
            Pair(f"tokens of {tenant}", whole(tokens), sum(counted)),
            Pair(f"cost of {tenant}", figure(cost, r"\$([\d.]+)"), dollars(scrape, tenant=tenant, basis="gpu")),
            Pair(f"price of {tenant}", figure(priced, r"\$([\d.]+)"), dollars(scrape, tenant=tenant, basis="price")),
        ]
    return pairs


async def test_every_number_is_that_of_metrics(stack: Stack, terminal: Terminal) -> None:
    """Header and tenants, at rest: the sums that a scrape gives."""
    await ask(stack, 12, "one")
    await ask(stack, 5, "two")
    await asyncio.to_thread(stack.charged)
    await agreed(lambda: header(stack, terminal))
    await agreed(lambda: tenants(stack, terminal))
    spent = sum((await asyncio.to_thread(stack.scrape)).samples["inferwatch_budget_spent"].values())
    await asyncio.to_thread(terminal.keys, "5")
    screen = await asyncio.to_thread(terminal.until, "gone in")
    assert sum(figure(row[2], r"([\d,]+) tokens") for row in rows(screen)) == spent


async def test_streams_as_they_stream(stack: Stack, terminal: Terminal) -> None:
    """All of them, with tokens that grow; none when they are over."""
    terminal.keys("3")
    async with streaming(stack):
        first = await asyncio.to_thread(terminal.until, lambda screen: len(rows(screen)) >= 25 and " ms " in screen)
        assert figure(first, r"in flight +([\d,]+)") == total(
            await asyncio.to_thread(stack.scrape), "inferwatch_requests_in_flight"
        )

        def tokens(screen: str) -> list[float]:
            return [float(row[5].replace(",", "")) for row in rows(screen) if row[5] != "-"]

        before = sum(tokens(first)[:20])
        await asyncio.to_thread(terminal.until, lambda screen: sum(tokens(screen)[:20]) > before + 20)
        await asyncio.to_thread(terminal.keys, "K")
        screen = await asyncio.to_thread(terminal.until, "tokens v")
        assert tokens(screen) == sorted(tokens(screen), reverse=True)
        await asyncio.to_thread(terminal.keys, "r")
        screen = await asyncio.to_thread(terminal.until, "tokens ^")
        assert tokens(screen) == sorted(tokens(screen))
    await asyncio.to_thread(terminal.until, "nothing is under way")


async def test_filter_pause_and_help(stack: Stack, terminal: Terminal) -> None:
    """What is typed is looked for; paused, nothing changes; help says which keys there are."""
    for who in ("one", "two", "three"):
        await ask(stack, 1, who)
    screen = await asyncio.to_thread(terminal.until, lambda screen: len(rows(screen)) >= 3)
    name = rows(screen)[-1][0]
    terminal.keys("/", name[4:], "Enter")
    screen = await asyncio.to_thread(terminal.until, lambda screen: len(rows(screen)) == 1)
    assert rows(screen)[0][0] == name
    assert f"1 with {name[4:]!r}" in screen
    terminal.keys("Escape")
    await asyncio.to_thread(terminal.until, lambda screen: len(rows(screen)) >= 3)
    terminal.keys("Space")
    paused = await asyncio.to_thread(terminal.until, "paused")
    await ask(stack, 3, "three")
    requests = total(await asyncio.to_thread(stack.charged), "inferwatch_requests_total")
    await asyncio.sleep(1.5)  # a frame
    assert terminal.screen() == paused
    terminal.keys("Space")
    await asyncio.to_thread(terminal.until, f", {requests:,.0f} in all")
    terminal.keys("?")
    await asyncio.to_thread(terminal.until, "Any key goes back")
    terminal.keys("x")
    await asyncio.to_thread(terminal.until, "1 Tenants")


async def test_it_fits_when_the_window_changes(stack: Stack, terminal: Terminal) -> None:
    """At once, without a key: the table stays, and the keys are in the last line."""
    for columns, height in ((50, 12), (200, 50), (80, 24)):
        terminal.resize(columns, height)

        def fits(screen: str, height: int = height) -> bool:
            return screen.split("\n")[height - 1].startswith("h help") and " 1 Tenants " in screen

        await asyncio.to_thread(terminal.until, fits)


async def test_it_survives_a_restart_of_the_collector(stack: Stack, terminal: Terminal) -> None:
    """It says that the connection is lost, and goes on by itself when it is back, with the same sums."""
    await ask(stack, 1, "one")
    requests = total(await asyncio.to_thread(stack.charged), "inferwatch_requests_total")
    await asyncio.to_thread(terminal.until, f", {requests:,.0f} in all")
    stack.kill("inferwatch_collectors")
    await asyncio.to_thread(terminal.until, "connection lost: ")
    screen = await asyncio.to_thread(
        terminal.until, lambda screen: "connection lost" not in screen and "\nwell" in screen
    )
    assert f", {requests:,.0f} in all" in screen
    await ask(stack, 1, "one")
    await asyncio.to_thread(terminal.until, f", {requests + 1:,.0f} in all")


@pytest.mark.parametrize("key", ["q", "F10", "C-c"])
def test_it_ends(terminal: Terminal, key: str) -> None:
    """With nothing left behind and exit code 0."""
    terminal.keys(key)
    assert terminal.exit_code() == 0
    assert "1 Tenants" not in terminal.screen()
