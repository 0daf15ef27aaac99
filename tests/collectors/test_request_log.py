"""One line per request on stdout, which nobody may be reading."""

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from inferwatch.record import ErrorType, Outcome
from inferwatch_collectors import request_log
from inferwatch_collectors.request_log import FLUSH_LINES, LineWriter, RequestLog, line


class Pipe:
    """A pipe that is read only when asked."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def read_all(self) -> bytes:
        """Read until the writing end is closed."""
        with os.fdopen(self.reader, "rb") as file:
            self.reader = -1
            return file.read()

    def close(self) -> None:
        for fd in (self.reader, self.writer):
            if fd >= 0:
                os.close(fd)

    def close_writer(self) -> None:
        os.close(self.writer)
        self.writer = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_a_line_is_json_with_what_is_known(frames: Any) -> None:
    """What is set is in it under the record's names; what is unknown is absent."""
    record = frames.record(1, outcome=Outcome.REJECTED, error=ErrorType.ENGINE_4XX, prompt_tokens=None)
    text = line(record)
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    fields = json.loads(text)
    assert fields["event"] == "request"
    assert (fields["request_id"], fields["outcome"], fields["error"]) == (record.request_id, "rejected", "engine_4xx")
    assert (fields["completion_tokens"], fields["duration_s"]) == (3, 0.5)
    assert "prompt_tokens" not in fields


def test_where_the_time_went_is_in_it(frames: Any) -> None:
    """Seconds of each phase that took any; they sum to the duration."""
    fields = json.loads(line(frames.record(1, sent_s=0.1, ttft_s=0.3)))
    assert fields["phases_s"] == {"proxy": 0.1, "wait": 0.2, "decode": 0.2}
    assert json.loads(line(frames.record(1, duration_s=0.0)))["phases_s"] == {}


def test_who_the_user_is_is_not_in_it(frames: Any) -> None:
    """User and session stay in the ledger."""
    text = line(frames.record(1, user="alice@example.org", session="session-4711", feature="search"))
    assert b"alice" not in text
    assert b"4711" not in text
    assert json.loads(text)["feature"] == "search"


def test_a_name_cannot_begin_a_line(frames: Any) -> None:
    """Whatever a client calls its model, a request is one line."""
    text = line(frames.record(1, model='x"\n{"event":"request"}\n'))
    assert text.count(b"\n") == 1
    assert json.loads(text)["model"] == 'x"\n{"event":"request"}\n'


def test_lines_arrive_in_order(pipe: Pipe) -> None:
    """What is queued is written, in order, before `close` returns."""
    writer = LineWriter(pipe.writer)
    for start in range(0, 100, 10):
        writer.write([b"%d\n" % number for number in range(start, start + 10)])
    writer.close(10)
    pipe.close_writer()
    assert pipe.read_all() == b"".join(b"%d\n" % number for number in range(100))
    assert writer.dropped == 0


def test_a_blocked_pipe_blocks_nobody(pipe: Pipe) -> None:
    """When nobody reads, lines above the bound are dropped and counted; what was queued comes when somebody does."""
    bound = 1_000_000
    writer = LineWriter(pipe.writer, max_bytes=bound)
    text = b"x" * 999 + b"\n"
    for _ in range(3000):
        writer.write([text])
    assert writer.dropped >= 3000 - (bound + 65536 + 4096) // len(text)
    writer.close(0.01)  # returns although the thread is stuck
    received: list[bytes] = []
    reading = threading.Thread(target=lambda: received.append(pipe.read_all()))
    reading.start()
    writer._thread.join(10)
    pipe.close_writer()
    reading.join(10)
    assert received[0].count(b"\n") == 3000 - writer.dropped
    assert set(received[0].splitlines()) == {b"x" * 999}


def test_a_reader_that_went_away(pipe: Pipe) -> None:
    """A closed pipe costs the lines, nothing else."""
    os.close(pipe.reader)
    pipe.reader = -1
    writer = LineWriter(pipe.writer)
    writer.write([b"a\n", b"b\n"])
    writer.write([b"c\n"])
    writer.close(10)
    assert writer.dropped == 3


def test_a_non_blocking_descriptor(pipe: Pipe) -> None:
    """A descriptor that somebody made non-blocking loses nothing."""
    os.set_blocking(pipe.writer, False)
    writer = LineWriter(pipe.writer)
    writer.write([b"x" * 500_000 + b"\n"])
    received: list[bytes] = []
    reading = threading.Thread(target=lambda: received.append(pipe.read_all()))
    reading.start()
    writer.close(10)
    pipe.close_writer()
    reading.join(10)
    assert len(received[0]) == 500_001


class ListWriter:
    """Keeps the blocks."""

    def __init__(self) -> None:
        self.blocks: list[list[bytes]] = []

    def write(self, lines: list[bytes]) -> None:
        self.blocks.append(lines)


async def test_lines_are_handed_on_together(frames: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that end within the interval make one block."""
    monkeypatch.setattr(request_log, "FLUSH_INTERVAL_S", 0.01)
    writer = ListWriter()
    log = RequestLog(writer)
    for number in range(5):
        log.add(frames.record(number))
    assert writer.blocks == []
    async with asyncio.timeout(10):
        while not writer.blocks:
            await asyncio.sleep(0.005)
    assert [len(block) for block in writer.blocks] == [5]


async def test_many_lines_do_not_wait(frames: Any) -> None:
    """FLUSH_LINES lines are a block; `flush` hands on the rest, and nothing twice."""
    writer = ListWriter()
    log = RequestLog(writer)
    for number in range(FLUSH_LINES + 3):
        log.add(frames.record(number))
    log.flush()
    log.flush()
    assert [len(block) for block in writer.blocks] == [FLUSH_LINES, 3]
