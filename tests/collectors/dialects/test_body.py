"""Bodies: framing, compression and limits between the reads and the dialect."""

import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.dialects import body as body_module
from inferwatch_collectors.dialects.base import Observation, RequestFacts
from inferwatch_collectors.dialects.body import UNREAD, Body, body_reader
from inferwatch_collectors.dialects.openai_completions import OPENAI_COMPLETIONS
from inferwatch_collectors.dialects.unknown import UNKNOWN

EVENTS = [
    json.dumps({"choices": [{"index": 0, "text": f"µ{i}"}], "usage": {"prompt_tokens": 3, "completion_tokens": i}})
    for i in range(1, 9)
]
STREAM = "".join(f"data: {event}\n\n" for event in EVENTS).encode() + b"data: [DONE]\n\n"
REPLY = b'{"choices":[{"index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":8}}'


def raw_deflate(data: bytes) -> bytes:
    """Return `data` deflated without the zlib header, as some servers do."""
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(data) + deflate.flush()


ENCODED = [
    ("", STREAM),
    ("identity", STREAM),
    ("gzip", gzip.compress(STREAM)),
    ("x-gzip", gzip.compress(STREAM)),
    (" GZIP ", gzip.compress(STREAM[:100]) + gzip.compress(STREAM[100:])),
    ("deflate", zlib.compress(STREAM)),
    ("deflate", raw_deflate(STREAM)),
]


def reader(framing: str, encoding: str = "") -> tuple[Observation, Body]:
    """Return an observation and the body reader that fills it."""
    seen = Observation(RequestFacts())
    made = body_reader(OPENAI_COMPLETIONS, seen, framing, encoding)
    assert made is not None
    return seen, made


@pytest.mark.parametrize(("encoding", "data"), ENCODED)
@given(step=st.integers(min_value=1, max_value=400))
def test_a_stream_in_any_encoding_and_split(encoding: str, data: bytes, step: int) -> None:
    """Compression and the ends of the reads do not change what is read."""
    seen, body = reader("sse", encoding)
    for start in range(0, len(data), step):
        body.feed(start + 1, data[start : start + step])
    body.finish(len(data) + 1)
    assert (seen.events, seen.done, seen.lossy) == (8, True, False)
    assert OPENAI_COMPLETIONS.totals(seen, 1)[:2] == (3, 8)


@pytest.mark.parametrize(
    ("encoding", "data"), [("", REPLY), ("gzip", gzip.compress(REPLY)), ("deflate", zlib.compress(REPLY))]
)
def test_a_plain_reply_is_read_when_it_is_whole(encoding: str, data: bytes) -> None:
    """A reply over several reads is one document."""
    seen, body = reader("json", encoding)
    for start in range(0, len(data), 7):
        body.feed(1, data[start : start + 7])
    assert seen.final is None
    body.finish(1)
    assert OPENAI_COMPLETIONS.totals(seen, 1)[:2] == (3, 8)
    assert seen.choices[0].finish == "stop"


def test_a_reply_with_a_hole_is_not_read() -> None:
    """Half a document is none: it is not parsed, and what is known is known to be incomplete."""
    seen, body = reader("json")
    body.feed(1, REPLY[:20])
    body.gap()
    body.feed(1, REPLY[20:])
    body.finish(1)
    assert (seen.final, seen.lossy, seen.malformed) == (None, True, 0)


def test_a_reply_above_the_limit_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is neither kept nor parsed."""
    monkeypatch.setattr(body_module, "MAX_REPLY_BYTES", len(REPLY) - 1)
    seen, body = reader("json")
    body.feed(1, REPLY[:50])
    body.feed(1, REPLY[50:])
    body.finish(1)
    assert (seen.final, seen.lossy) == (None, True)
    assert seen.cuts == {"long_replies"}


def test_after_a_hole_nothing_can_be_inflated() -> None:
    """What follows in a compressed stream is lost; what came before counts."""
    deflate = zlib.compressobj(wbits=31)
    first = deflate.compress(STREAM[:200]) + deflate.flush(zlib.Z_SYNC_FLUSH)
    rest = deflate.compress(STREAM[200:]) + deflate.flush()
    seen, body = reader("sse", "gzip")
    body.feed(1, first)
    before = seen.events
    assert before == STREAM[:200].count(b"\n\n") > 0
    body.gap()
    body.feed(2, rest)
    body.finish(3)
    assert (seen.events, seen.lossy) == (before, True)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_broken_compression_is_survived(encoding: str) -> None:
    """Bytes that are not what the head says raise nothing and leave the rest unknown."""
    seen, body = reader("sse", encoding)
    for data in (b"x", b"not compressed at all", b"more"):
        body.feed(1, data)
    body.finish(1)
    assert (seen.events, seen.lossy) == (0, True)


@pytest.mark.parametrize("cut", [1, 2, 15, 60])
def test_a_cut_compressed_stream_gives_what_came(cut: int) -> None:
    """The end may be missing."""
    seen, body = reader("sse", "gzip")
    body.feed(1, gzip.compress(STREAM)[:cut])
    body.finish(1)
    assert seen.events < 8
    assert not seen.done


def test_a_bomb_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that would inflate to more than the limit ends the reading, not the memory."""
    monkeypatch.setattr(body_module, "MAX_INFLATED_BYTES", 1_000_000)
    seen, body = reader("sse", "gzip")
    body.feed(1, gzip.compress(b"data: x\n" * 1_000_000))
    body.feed(1, gzip.compress(STREAM))
    body.finish(1)
    assert (seen.events, seen.lossy) == (0, True)
    assert seen.cuts == {"inflated"}


def test_the_last_event_may_lack_its_blank_line() -> None:
    """A whole object at the very end is read; half an object is no fault of anybody's."""
    event = f"data: {EVENTS[0]}".encode()
    seen, body = reader("sse")
    body.feed(1, event)
    body.finish(2)
    assert (seen.events, seen.first_ns) == (1, 2)
    for cut in range(6, len(event)):
        seen, body = reader("sse")
        body.feed(1, event[:cut])
        body.finish(2)
        assert (seen.events, seen.malformed, seen.lossy) == (0, 0, False)


def test_an_oversized_event_is_known_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was given up for its size may have held a count."""
    seen, body = reader("sse")
    monkeypatch.setattr(body._parser, "_max", 50)  # type: ignore[attr-defined]
    body.feed(1, b"data: " + b"x" * 100 + b"\n\n")
    assert seen.lossy
    assert seen.cuts == {"long_events"}


@pytest.mark.parametrize(("dialect", "framing"), [(UNKNOWN, "sse"), (UNKNOWN, "json"), (OPENAI_COMPLETIONS, "")])
def test_what_nobody_reads_costs_nothing(dialect: object, framing: str) -> None:
    """No buffer and no parser for a body that no dialect reads."""
    assert body_reader(dialect, Observation(RequestFacts()), framing, "gzip") is UNREAD  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br", "compress"])
def test_an_unknown_encoding_has_no_reader(encoding: str) -> None:
    """Whoever asks has to know that the body cannot be read."""
    assert body_reader(OPENAI_COMPLETIONS, Observation(RequestFacts()), "sse", encoding) is None
