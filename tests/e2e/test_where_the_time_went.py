"""Phases of real requests, and the long prompt that stood in front of them."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stack import Stack, chat, client, running, send, wait_until

from inferwatch_collectors.ledger.packing import Shapes
from inferwatch_collectors.ledger.sqlite import FILE_NAME
from inferwatch_simulator.readings import total

# 100,000 prompt tokens take two seconds, in which nobody else is begun with.
PROMPT_TOKENS = 100_000
SIMULATE = (
    *("--max-model-len", "120000", "--kv-tokens", "400000", "--max-num-batched-tokens", "8192"),
    *("--prefill-tokens-per-s", "50000", "--enable-per-request-metrics"),
)
SMALL = 6
PHASES = "inferwatch_tenant_phase_seconds_total"


@pytest.fixture(scope="module", name="stack")
def _stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("time"), "--workers", "2", simulate_flags=SIMULATE) as stack:
        yield stack


def key(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer sk-{name}"}


def log_lines(stack: Stack) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stack.log.splitlines() if line.startswith('{"event":"request"')]


def records(folder: Path) -> list[Any]:
    path = folder / "state" / FILE_NAME
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as ledger:
        unpack = Shapes.read(ledger).unpack
        return [unpack(row[0]) for row in ledger.execute("SELECT record FROM requests")]


async def test_the_long_prompt_in_front_is_named(stack: Stack) -> None:
    """Small requests behind a prompt of 100,000 tokens: their phases tell that they queued, and behind whom."""
    long_prompt = "word " * PROMPT_TOKENS
    async with client() as session:
        long = asyncio.create_task(send(session, stack.url, chat(long_prompt, max_tokens=4), headers=key("bulk")))
        await asyncio.sleep(0.4)  # its prefill has begun, and takes five times as long
        bodies = [chat(f"small {number}", max_tokens=4, stream=number % 2 == 0) for number in range(SMALL)]
        replies = await asyncio.gather(*(send(session, stack.url, body, headers=key("small")) for body in bodies))
        replies.append(await long)
    assert {status for status, _ in replies} == {200}

    scrape = stack.settled(SMALL + 1)
    wait_until(lambda: len(log_lines(stack)) == SMALL + 1, "the log lines")  # written in blocks
    lines = {line["request_id"]: line for line in log_lines(stack)}
    (bulk,) = [line for line in lines.values() if line["prompt_tokens"] > PROMPT_TOKENS / 2]
    victims = [line for line in lines.values() if line is not bulk]
    assert len(victims) == SMALL
    for line in lines.values():
        assert sum(line["phases_s"].values()) == pytest.approx(line["duration_s"], abs=1e-9)
        assert line["timing_source"] == "engine_body"
        assert "wait" not in line["phases_s"]
    for line in victims:
        assert line["blocked_by"] == bulk["request_id"]
        assert line["blocked_by_tenant"] == bulk["tenant"] != line["tenant"]
        assert line["phases_s"]["queue"] > line["phases_s"]["decode"]
        assert line["blocked_s"] <= line["duration_s"]

    delay_s = total(scrape, "inferwatch_neighbour_delay_seconds_total", tenant=bulk["tenant"], victims="others")
    assert delay_s == pytest.approx(sum(line["blocked_s"] for line in victims))
    assert total(scrape, "inferwatch_prefill_blocked_seconds_total") == pytest.approx(delay_s)
    assert total(scrape, PHASES) == pytest.approx(sum(line["duration_s"] for line in lines.values()))
    kept = {record.request_id: record for record in await asyncio.to_thread(records, stack.folder)}
    assert {kept[line["request_id"]].blocked_by for line in victims} == {bulk["request_id"]}
