"""The event parser: what it takes for an event, whatever the line ends and however the bytes are split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.dialects.sse import MAX_EVENT_BYTES, Event, SSEParser

CASES = [
    ("line feeds", b"data: a\n\ndata: b\n\n", [(b"", b"a"), (b"", b"b")]),
    ("carriage returns", b"data: a\r\rdata: b\r\r", [(b"", b"a"), (b"", b"b")]),
    ("both", b"data: a\r\n\r\ndata: b\r\n\r\n", [(b"", b"a"), (b"", b"b")]),
    ("mixed", b"data: a\r\n\ndata: b\n\r\n", [(b"", b"a"), (b"", b"b")]),
    ("no space after the colon", b"data:a\n\n", [(b"", b"a")]),
    ("just one space is the separator", b"data:  a\n\n", [(b"", b" a")]),
    ("blanks at the end belong to the data", b'data: {"a":1} \n\n', [(b"", b'{"a":1} ')]),
    ("several data lines are joined", b"data: a\ndata:b\ndata\n\n", [(b"", b"a\nb\n")]),
    ("a comment alone is no event", b": keep-alive\n\n: keep-alive\n\ndata: a\n\n", [(b"", b"a")]),
    ("an empty comment", b":\n\ndata: a\n\n", [(b"", b"a")]),
    ("a comment inside an event", b"data: a\n: busy\ndata: b\n\n", [(b"", b"a\nb")]),
    ("a named event", b'event: error\ndata: {"error":1}\n\n', [(b"error", b'{"error":1}')]),
    ("a name holds for one event", b"event: x\ndata: a\n\ndata: b\n\n", [(b"x", b"a"), (b"", b"b")]),
    ("the last name counts", b"event: x\nevent:y\ndata: a\n\n", [(b"y", b"a")]),
    ("a name without data is no event", b"event: ping\n\ndata: a\n\n", [(b"", b"a")]),
    ("id, retry and unknown fields are ignored", b"id: 7\nretry: 5\nfoo: x\ndata: a\n\n", [(b"", b"a")]),
    ("field names are exact", b" data: a\nDATA: b\ndata : c\ndatas: d\n\ndata: e\n\n", [(b"", b"e")]),
    ("empty data", b"data\n\ndata:\n\ndata: \n\n", [(b"", b"")] * 3),
    ("a byte order mark", b"\xef\xbb\xbfdata: a\n\ndata: b\n\n", [(b"", b"a"), (b"", b"b")]),
    ("a byte order mark counts once", b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [(b"", b"a")]),
    ("many blank lines", b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n\n", [(b"", b"a"), (b"", b"b")]),
    ("a colon in the data", b'data: {"a": "data: x"}\n\n', [(b"", b'{"a": "data: x"}')]),
    ("two events hidden in what looks like one", b"data: a\ndata: b\n\ndata: c\n\n", [(b"", b"a\nb"), (b"", b"c")]),
    ("an end without a blank line", b"data: a\n\ndata: [DONE]\n", [(b"", b"a"), (b"", b"[DONE]")]),
    ("an end without any line end", b"data: a\n\ndata: b", [(b"", b"a"), (b"", b"b")]),
    ("nothing", b"", []),
]

LINES = st.sampled_from(
    [
        b"data: {}",
        b"data:x",
        b"data",
        b"data: ",
        b": comment",
        b":",
        b"event: error",
        b"event",
        b"id: 1",
        b"\xef\xbb\xbfdata: y",
        b"",
        b"",
        b"data: " + "µ→".encode(),
        b"data: 0123456789012345678901234567890123456789",
    ]
)
STREAMS = st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r", b"\r\n"])), max_size=30).map(
    lambda lines: b"".join(line + end for line, end in lines)
)


def parse(*reads: bytes, max_event_bytes: int = MAX_EVENT_BYTES) -> list[Event]:
    """Return all events of a stream that came in these reads."""
    parser = SSEParser(max_event_bytes)
    return [event for data in reads for event in parser.feed(data)] + parser.finish()


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """Return `data` cut at these places (modulo its length)."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@pytest.mark.parametrize(("data", "events"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_events_of_a_stream(data: bytes, events: list[Event]) -> None:
    """The events are those that the WHATWG rules give, in one read and byte by byte."""
    assert parse(data) == events
    assert parse(*(data[i : i + 1] for i in range(len(data)))) == events


@given(
    data=STREAMS,
    cuts=st.lists(st.integers(min_value=0), max_size=20),
    limit=st.sampled_from([20, 45, MAX_EVENT_BYTES]),
)
def test_any_split_gives_the_same_events(data: bytes, cuts: list[int], limit: int) -> None:
    """Where the reads end changes nothing, also when events are given up for their size."""
    whole, pieces = SSEParser(limit), SSEParser(limit)
    expected = [*whole.feed(data), *whole.finish()]
    assert [event for part in split(data, cuts) for event in pieces.feed(part)] + pieces.finish() == expected
    assert pieces.oversized == whole.oversized


@given(data=STREAMS, cuts=st.lists(st.integers(min_value=0), max_size=5))
def test_each_event_comes_with_the_read_that_ends_it(data: bytes, cuts: list[int]) -> None:
    """An event is handed out as soon as its blank line has begun, never later: its stamp depends on that."""
    parser = SSEParser()
    seen: list[Event] = []
    fed = b""
    for part in split(data, cuts):
        fed += part
        seen += parser.feed(part)
        assert seen == SSEParser().feed(fed)


@given(data=STREAMS, cuts=st.lists(st.integers(min_value=0), max_size=8), limit=st.sampled_from([20, 45, 8_000]))
def test_a_lone_event_is_what_feeding_it_gives(data: bytes, cuts: list[int], limit: int) -> None:
    """Readers may try `lone_event` before `feed`: together they find what `feed` alone finds, in every state."""
    usual, quick = SSEParser(limit), SSEParser(limit)
    for part in [b"data: {}\n\n", *split(data, cuts), b"data: {}\n\n"]:
        lone = quick.lone_event(part)
        assert usual.feed(part) == ([(b"", lone)] if lone is not None else quick.feed(part))


def test_an_ordinary_read_is_a_lone_event() -> None:
    """After the first event, a read of one event takes the short way; two events, or half of one, do not."""
    parser = SSEParser()
    parser.feed(b"data: first\n\n")
    assert parser.lone_event(b"data: {}\n\n") == b"{}"
    assert parser.lone_event(b"data: {}\n\ndata: {}\n\n") is None
    parser.feed(b"data: {")
    assert parser.lone_event(b"data: {}\n\n") is None


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(min_value=0), max_size=10))
def test_garbage_is_survived(data: bytes, cuts: list[int]) -> None:
    """Bytes that are no event stream raise nothing."""
    assert isinstance(parse(*split(data, cuts), max_event_bytes=64), list)


def test_a_fast_read_after_an_unfinished_one() -> None:
    """A read that looks like a whole event is the rest of the line that has begun, if one has."""
    assert parse(b"data: a\n\n", b"data: x", b"data: b\n\n") == [(b"", b"a"), (b"", b"xdata: b")]
    assert parse(b"data: a\n\n", b"event: e\n", b"data: b\n\n") == [(b"", b"a"), (b"e", b"b")]


def test_a_read_that_only_looks_like_plain_events() -> None:
    """Between its first and its last bytes a read may hold other fields and other line ends."""
    named = parse(b"data: a\n\n", b"data: b\nevent: e\n\ndata: c\n\n")
    assert named == [(b"", b"a"), (b"e", b"b"), (b"", b"c")]
    assert parse(b"data: a\n\n", b"data: b\rdata: c\n\n") == [(b"", b"a"), (b"", b"b\nc")]
    assert parse(b"data: a\n\n", b"data: b\n\n: hi\n\ndata: c\n\n") == [(b"", b"a"), (b"", b"b"), (b"", b"c")]
    assert parse(b"data: a\r", b"\ndata: b\n\n") == [(b"", b"a\nb")]


def test_an_event_of_half_a_megabyte() -> None:
    """The largest event seen in the wild passes, in one read or in many."""
    big = b'{"logprobs":"' + b"x" * 552_790 + b'"}'
    stream = b"data: a\n\ndata: " + big + b"\n\ndata: b\n\n"
    expected = [(b"", b"a"), (b"", big), (b"", b"b")]
    assert parse(stream) == expected
    assert parse(*(stream[i : i + 65_536] for i in range(0, len(stream), 65_536))) == expected


def test_an_event_above_the_limit_is_given_up() -> None:
    """It is counted and skipped up to its blank line; the next one is read."""
    one = [b"data: " + b"x" * 100 + b"\ndata: y\n\ndata: b\n\n"]
    many = [b"data: xxxx"] * 20 + [b"\n\n", b"data: b\n\n"]
    its_line_ends_alone = [b"data: " + b"x" * 60, b"\ndata: y\n\ndata: b\n\n"]
    for reads in (one, many, its_line_ends_alone):
        parser = SSEParser(50)
        assert [event for data in reads for event in parser.feed(data)] == [(b"", b"b")]
        assert parser.oversized == 1


def test_memory_stays_bounded_without_any_line_end() -> None:
    """A stream that never ends its line is not kept."""
    parser = SSEParser(1000)
    for _ in range(100):
        parser.feed(b"x" * 100)
    assert len(parser._partial) <= 1000
    for _ in range(1000):
        parser.feed(b"data:\n")
    assert sum(map(len, parser._lines)) <= 1000
    assert len(parser._lines) <= 1000


@pytest.mark.parametrize(
    ("before", "after", "events"),
    [
        (b'data: {"a', b'b"}\n\ndata: 1\n\n', [(b"", b"1")]),
        (b"data: 0\n\n", b"data: 1\n\ndata: 2\n\n", [(b"", b"1"), (b"", b"2")]),
        (b"data: 0", b"\n\ndata: 1\n\n", [(b"", b"1")]),
        (b"data: 0\n", b"\ndata: 1\n\n", [(b"", b"1")]),
        (b"event: error\n", b": still here\n\ndata: 1\n\n", [(b"", b"1")]),
        (b"event: error\n", b"event: x\ndata: 1\n\n", [(b"x", b"1")]),
        (b"data: 0\r", b'rest"}\r\n\r\ndata: 1\r\n\r\n', [(b"", b"1")]),
        (b"", b"tail of an event\ndata: not the start\n\ndata: 1\n\n", [(b"", b"1")]),
    ],
)
def test_after_missing_bytes_it_finds_the_next_event(before: bytes, after: bytes, events: list[Event]) -> None:
    """What the gap cut in two is dropped; a line that begins like a field begins an event."""
    for step in (1, len(after)):
        parser = SSEParser()
        parser.feed(before)
        parser.resync()
        got = [event for i in range(0, len(after), step) for event in parser.feed(after[i : i + step])]
        assert got == events


@given(data=STREAMS, rest=STREAMS, cut=st.integers(min_value=0))
def test_a_gap_never_invents_an_event(data: bytes, rest: bytes, cut: int) -> None:
    """After a gap the events are those of the rest, but for what the cut took from its beginning."""
    parser = SSEParser()
    parser.feed(data[: cut % (len(data) + 1)])
    parser.resync()
    got = parser.feed(rest)
    whole = SSEParser()
    whole.feed(b"\n")  # a mark in the middle of a stream is no mark
    expected = whole.feed(rest)
    assert got == expected[len(expected) - len(got) :]
