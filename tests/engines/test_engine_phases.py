"""Where the time of requests to a real vLLM went: our clocks joined with the engine's own numbers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from engine_counters import booked_after, booked_tokens
from engine_process import Engine, Figures, running_inferwatch
from engine_wire import Request, exchange

from inferwatch.record import RequestRecord, TimingSource
from inferwatch_collectors.ledger.packing import Shapes
from inferwatch_collectors.ledger.sqlite import FILE_NAME
from inferwatch_collectors.phases import of

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

CLIENTS = 4
MAX_TOKENS = 60


class Place(NamedTuple):
    """Inferwatch in front of an engine that tells its times."""

    url: str
    admin_url: str
    state_dir: Path

    def records(self) -> list[RequestRecord]:
        path = self.state_dir / FILE_NAME
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as ledger:
            unpack = Shapes.read(ledger).unpack
            return [unpack(row[0]) for row in ledger.execute("SELECT record FROM requests ORDER BY seq")]


@pytest.fixture(scope="module", name="place")
def _place(timed_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    state_dir = tmp_path_factory.mktemp("phases")
    with running_inferwatch(timed_engine.url, state_dir) as (url, admin_url):
        yield Place(url, admin_url, state_dir)


def chat(**more: Any) -> Request:
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Where does the time go?"}],
        "max_tokens": MAX_TOKENS,
        "ignore_eos": True,
    }
    return Request.post("/v1/chat/completions", body | more)


async def booked(place: Place, requests: list[Request]) -> list[RequestRecord]:
    """Send `requests` at once; return their records."""
    before = len(await asyncio.to_thread(place.records))
    requests_before = (await booked_tokens(place.admin_url)).requests
    replies = await asyncio.gather(*(exchange(place.url, request) for request in requests))
    assert {reply.status for reply in replies} == {200}
    await booked_after(place.admin_url, requests_before + len(requests))
    return (await asyncio.to_thread(place.records))[before:]


async def test_phases_sum_to_the_duration_and_have_the_engines_numbers(place: Place, figures: Figures) -> None:
    """Streams and plain replies that queue for one slot: every nanosecond is in one phase, the queue is vLLM's own."""
    records = await booked(place, [chat(stream=number % 2 == 0) for number in range(2 * CLIENTS)])
    assert len(records) == 2 * CLIENTS
    for record in records:
        phases = of(record)
        assert sum(phases.known().values()) == round(record.duration_s * 1e9)
        assert record.timing_source is TimingSource.ENGINE_BODY
        assert phases.source is TimingSource.ENGINE_BODY
        assert None not in (phases.queue_ns, phases.prefill_ns, phases.decode_ns)
        assert phases.wait_ns is None
        # On one host, with one clock rate: the engine cannot have worked for longer than we waited for it.
        before_s = (record.queue_s or 0) + (record.prefill_s or 0)
        assert before_s + (record.decode_s or 0) <= record.duration_s
        assert record.ttft_s is None or before_s <= record.ttft_s
    queued = sorted(of(record).known()["queue"] / record.duration_s / 1e9 for record in records)
    assert queued[-1] > 0.5, "of eight requests for one slot the last waited for most of its time"
    shares: dict[str, float] = {}
    for record in records:
        for phase, spent_ns in of(record).known().items():
            shares[phase] = shares.get(phase, 0.0) + spent_ns / 1e9
    whole_s = sum(shares.values())
    figures.append(("phases of requests that queue", ", ".join(f"{k} {v / whole_s:.1%}" for k, v in shares.items())))


async def test_several_choices_have_no_numbers_of_the_engine(place: Place) -> None:
    """vLLM gives none for n = 2, and queue and prefill stay one phase."""
    (record,) = await booked(place, [chat(stream=True, n=2, temperature=1.0)])
    phases = of(record)
    assert record.timing_source is TimingSource.NONE
    assert (phases.queue_ns, phases.prefill_ns) == (None, None)
    assert phases.wait_ns is not None
    assert sum(phases.known().values()) == round(record.duration_s * 1e9)


async def test_a_client_that_asked_for_nothing_gets_no_times(place: Place) -> None:
    """The engine's `metrics` ride on the usage that we asked for, and are taken out with it."""
    reply = await exchange(place.url, chat(stream=True))
    events = [line[6:] for line in reply.body.splitlines() if line.startswith(b"data: {")]
    assert events
    assert not any("metrics" in json.loads(event) or "usage" in json.loads(event) for event in events)
