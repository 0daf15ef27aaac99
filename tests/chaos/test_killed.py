"""Our own processes die under load: the traffic goes on, and the books are right afterwards."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from stack import Stack, chat, client, running, send, status, wait_until

from inferwatch_simulator.readings import total

REQUESTS = "inferwatch_requests_total"
TOKENS = "inferwatch_tokens_total"
COLLECTOR = "inferwatch_collectors"
RELAY = "inferwatch.relay"


@pytest.fixture(name="stack")
def _stack(tmp_path: Path) -> Iterator[Stack]:
    with running(tmp_path, "--workers", "2", simulate_flags=("--decode-step-ms-base", "5")) as stack:
        yield stack


async def _load(stack: Stack, session: aiohttp.ClientSession, count: int, over_s: float) -> list[tuple[int, bytes]]:
    """Send requests of all lengths, spread evenly over some seconds."""

    async def one(number: int) -> tuple[int, bytes]:
        await asyncio.sleep(over_s * number / count)
        body = chat(f"load {number}", stream=number % 4 != 0, max_tokens=10 + 7 * (number % 20))
        return await send(session, stack.url, body)

    return list(await asyncio.gather(*(one(number) for number in range(count))))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen for two seconds"])
async def test_the_collector_dies_under_load(stack: Stack, number: signal.Signals) -> None:
    """No request fails, none is missing from the counts, every token is booked."""

    async def trouble() -> None:
        for _ in range(2):
            await asyncio.sleep(1.5)
            wait_until(lambda: bool(stack.pids(COLLECTOR)), "a collector")
            pid = stack.kill(COLLECTOR, number)
            if number == signal.SIGSTOP:
                await asyncio.sleep(2)
                import os  # noqa: PLC0415

                os.kill(pid, signal.SIGCONT)

    async with client() as session:
        replies, _ = await asyncio.gather(_load(stack, session, 200, 4.0), trouble())
    scrape = stack.settled(200)

    assert {status for status, _ in replies} == {200}
    assert all(body.endswith((b"data: [DONE]\n\n", b"}")) for _, body in replies)
    assert total(scrape, REQUESTS) == total(scrape, REQUESTS, outcome="ok") == 200
    engine = stack.engine_scrape()
    assert total(scrape, TOKENS, type="completion") == total(engine, "vllm:generation_tokens_total")
    assert total(scrape, TOKENS, type="prompt") == total(engine, "vllm:prompt_tokens_total")
    assert total(scrape, "inferwatch_requests_in_flight") == 0


async def test_a_relay_dies_under_load(stack: Stack) -> None:
    """Its open requests end as interrupted with the tokens seen so far; those of the other do not notice."""
    async with client() as session:
        results = asyncio.gather(
            *(send(session, stack.url, chat(f"s {number}", max_tokens=400)) for number in range(30)),
            return_exceptions=True,
        )
        await asyncio.sleep(1.0)
        stack.kill(RELAY)
        done: list[Any] = await results
        broken = [result for result in done if isinstance(result, BaseException)]
        whole = [result for result in done if not isinstance(result, BaseException)]
        scrape = stack.settled(30)

        assert broken  # the killed relay had some
        assert whole  # and the other had some
        assert all(body.endswith(b"data: [DONE]\n\n") and body.count(b"\n\n") == 402 for _, body in whole)
        assert total(scrape, REQUESTS, outcome="interrupted") == len(broken)
        assert total(scrape, REQUESTS, outcome="ok") == len(whole)
        interrupted = total(scrape, TOKENS, type="completion") - 400 * len(whole)
        assert 0 < interrupted < 400 * len(broken)
        assert total(scrape, "inferwatch_requests_in_flight") == 0

        wait_until(lambda: len(stack.pids(RELAY)) == 2, "a new relay")
        replies = await asyncio.gather(*(send(session, stack.url, chat(f"after {i}")) for i in range(20)))
    assert {code for code, _ in replies} == {200}


async def test_connections_made_while_a_relay_is_gone_are_served(tmp_path: Path) -> None:
    """With a single relay: whoever connects while it is restarted waits, and is not refused."""
    with running(tmp_path) as stack:
        stack.kill(RELAY)
        async with client() as session:
            replies = await asyncio.gather(*(send(session, stack.url, chat(f"{i}")) for i in range(10)))
    assert {code for code, _ in replies} == {200}


async def test_liveness_is_the_data_paths(stack: Stack) -> None:
    """While the collector is away /healthz stays 200: a restarting collector must not restart the traffic."""
    answers = []
    stack.kill(COLLECTOR)
    for _ in range(40):
        answers.append(await asyncio.to_thread(status, f"{stack.admin}/healthz"))
        await asyncio.sleep(0.05)
    assert set(answers) == {200}


async def test_children_do_not_outlive_the_supervisor(tmp_path: Path) -> None:
    """kill -9 of the supervisor: relay and collector finish and go."""
    with running(tmp_path) as stack:
        pids = stack.pids(COLLECTOR) + stack.pids(RELAY)
        assert stack.supervisor is not None
        stack.supervisor.kill()
        stack.supervisor.wait()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the end of the children")
