"""lane: a read that takes the short way is shown, kept and mirrored as the long way would have it.

The oracle is the long way itself: everything here runs through a real connection, exchange and observer twice, once
with the lane and once without.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from unittest import mock

import msgspec
import pytest
from harness import RecordingTap, chunk
from hypothesis import given
from hypothesis import strategies as st
from test_exchange import Transport
from test_usage_filter import KINDS, Case

from inferwatch.record import ErrorType, Outcome
from inferwatch.relay.exchange import Exchange
from inferwatch.relay.lane import TAIL_READ_BYTES, Lane
from inferwatch.relay.observer import Observer, Subject
from inferwatch.relay.pool import Pool
from inferwatch.relay.upstream import Connection
from inferwatch.relay.usage_filter import Fingerprint, Hide, UsageFilter
from inferwatch.relay.usage_request import Facts

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ORDINARY = b'data: {"choices":[{"index":0,"text":"%d","finish_reason":null}],"usage":{"completion_tokens":%d}}\n\n'
FINISH = b'data: {"choices":[{"index":0,"text":"","finish_reason":"stop"}],"usage":{"completion_tokens":9}}\n\n'
USAGE_ONLY = b'data: {"choices":[],"usage":{"completion_tokens":9},"system_fingerprint":"fp"}\n\n'
DONE = b"data: [DONE]\n\n"

# What an engine may send beside the ordinary, and what only looks like it.
EVENTS = [
    *(ORDINARY % (number, number) for number in range(5)),
    FINISH,
    USAGE_ONLY,
    DONE,
    b": keep-alive\n\n",
    b'data: {"choices":[{"index":0,"text":"no usage","finish_reason":null}]}\n\n',
    b'data: {"choices":[{"index":0,"text":"no usage","finish_reason":"stop"}]}\n\n',
    b'data: {"choices":[{"index":0,"text":",\\"usage\\":{"}],"usage":{"completion_tokens":2}}\n\n',
    b'data: {"choices":[{"index":0}],"usage":{"completion_tokens":3,"details":{"cached_tokens":1}}}\n\n',
    b'data: {"choices":[{"index":1,"text":"}"}],"usage":{"completion_tokens":4},"more":{"a":1}}\n\n',
    b'data: {"choices":[{"index":0,"text":"broken"}],"usage":{"completion_tokens":5\n\n',
    b'data: {"choices":[{"index":0}],"usage":{}}\n\n',
    b'data: {"choices":[{"index":0}],"usage":null}\n\n',
    b',"usage":{"completion_tokens":6}}\n\n',
    b'event: message\ndata: {"choices":[{"index":0}],"usage":{"completion_tokens":7}}\n\n',
    b'data: {"choices":[{"index":0}],"usage":{"completion_tokens":8}}\r\n\r\n',
    b'{"message":{"content":"x"},"done":false}\n',
    b'data: {"choices":[{"index":0}],"usage":{"completion_tokens":9}}\n:',
    b"\n",
    b"\n\n",
    b"data: " + b"x" * TAIL_READ_BYTES + b',"usage":{"completion_tokens":9}}\n\n',
]


class Setting(NamedTuple):
    """What the client asked for, and what happens before the read of that number."""

    hide: Hide | None = Hide.ALL
    choices: int = 1
    chunked: bool = True
    at: int = -1
    happens: Callable[["Stream"], None] = lambda _: None


class Stream:
    """One reply on its way."""

    def __init__(self, setting: Setting) -> None:
        self.tap = RecordingTap()
        subject = Subject(arrival_ns=1, method="POST", path="/v1/completions", tenant="t", headers={})
        self.observer = Observer(self.tap, subject)  # type: ignore[arg-type]
        self.observer.opened(Facts("m", True, setting.choices), b"", 0, 2, asked_usage=setting.hide is not None)
        fingerprint = Fingerprint()
        if setting.hide is not None:
            self.observer.hide(setting.hide, fingerprint)
        self.client, self.engine = Transport(), Transport()
        self.exchange = Exchange(
            self.observer, self.client, arrival_ns=1, is_head_request=False, client_11=setting.chunked,  # type: ignore[arg-type]
            client_keep_alive=True, fingerprint=fingerprint,
        )  # fmt: skip
        self.connection = Connection(mock.create_autospec(Pool, instance=True))
        self.connection.transport = self.engine  # type: ignore[assignment]
        self.exchange.connection = self.connection
        self.connection.begin(self.exchange)

    def read(self, data: bytes) -> None:
        if not self.engine.is_closing():
            self.connection.data_received(data)

    def end(self) -> Any:
        self.observer.closed(Outcome.OK, ErrorType.NONE, status=200, stalled_ns=0, retried=False)
        close = self.tap.closes[-1]
        return msgspec.structs.replace(close, stamp_ns=0, head_ns=0, first_body_ns=0, last_body_ns=0)


def seen(reads: Sequence[bytes], setting: Setting, *, lane: bool) -> tuple[Any, ...]:
    """Run the reads; what there is to be compared."""
    with pytest.MonkeyPatch.context() as patch:
        if not lane:
            patch.setattr(Exchange, "lane", lambda _: None)
        stream = Stream(setting)
        for number, data in enumerate(reads):
            if number == setting.at:
                setting.happens(stream)
            stream.read(data)
        mirrored = [data for _, _, data in stream.tap.reads]
        end = stream.end()
        return (
            stream.client.written,
            stream.client.closed,
            stream.engine.closed,
            mirrored,
            end,
            stream.tap.observer_errors,
        )


def alike(reads: Sequence[bytes], setting: Setting) -> None:
    assert seen(reads, setting, lane=True) == seen(reads, setting, lane=False)


def cut_for_budget(stream: Stream) -> None:
    stream.exchange.cut(ErrorType.BUDGET)


def client_leaves(stream: Stream) -> None:
    stream.client.closed = "reset"


def relay_hangs_up(stream: Stream) -> None:
    stream.exchange.hang_up()


def filter_breaks(stream: Stream) -> None:
    stream.connection.lane = None
    if isinstance(stream.observer._filter, UsageFilter):
        stream.observer._filter.__class__ = Broken


class Broken(UsageFilter):
    """Of which nothing more can be had."""

    __slots__ = ()

    def feed(self, data: bytes) -> bytes:
        raise ValueError


HAPPENINGS = [lambda _: None, cut_for_budget, client_leaves, relay_hangs_up, filter_breaks]

settings = st.builds(
    Setting,
    hide=st.sampled_from([Hide.ALL, Hide.CONTINUOUS, Hide.DETAILS, None]),
    choices=st.sampled_from([1, 1, 1, 2]),
    chunked=st.sampled_from([True, True, True, False]),
    at=st.integers(1, 12),
    happens=st.sampled_from(HAPPENINGS),
)


@st.composite
def wires(draw: st.DrawFn) -> list[bytes]:
    """Reads of a stream: mostly one chunk with one event each, as engines send them."""
    parts: list[bytes] = []
    for event in draw(st.lists(st.sampled_from(EVENTS[:2]) | st.sampled_from(EVENTS), max_size=12)):
        match draw(st.integers(0, 12)):
            case 0:
                cut = draw(st.integers(1, len(event) - 1)) if len(event) > 1 else 1
                parts += [chunk(piece) for piece in (event[:cut], event[cut:]) if piece]
            case 1:
                parts.append(b"%X;ext=1\r\n%b\r\n" % (len(event), event))
            case 2:
                parts.append(b"0%x\r\n%b\r\n" % (len(event), event))
            case 3 if parts:
                parts[-1] += chunk(event)
            case 4:
                parts.append(chunk(event + ORDINARY % (7, 7)))
            case 5:
                parts.append(chunk(event)[:-2] + b"ab")
            case 6:
                whole = chunk(event)
                cut = draw(st.integers(1, len(whole) - 1))
                parts += [whole[:cut], whole[cut:]]
            case _:
                parts.append(chunk(event))
    if parts and draw(st.booleans()):
        parts[0] = HEAD + parts[0]
    else:
        parts.insert(0, HEAD)
    end = draw(st.sampled_from([b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0\r\n", b"garbage", b""]))
    return [*parts, end] if end else parts


@pytest.mark.parametrize("hide", [Hide.ALL, Hide.CONTINUOUS, None])
@pytest.mark.parametrize("first", EVENTS)
def test_both_ways_are_the_same_for_two_events_in_a_chunk(first: bytes, hide: Hide | None) -> None:
    """Also where only one of them is ordinary."""
    for second in EVENTS:
        events = [ORDINARY % (1, 1), first, first + second, second, ORDINARY % (2, 2)]
        alike([HEAD, *map(chunk, events), b"0\r\n\r\n"], Setting(hide))


@pytest.mark.parametrize("hide", [Hide.ALL, None])
def test_what_is_no_chunk_goes_the_long_way(hide: Hide | None) -> None:
    """Of any length, also of those that no chunk has; the parser refuses it."""
    for size in range(300):
        for read in (b"\n\n\r\n" + b"x" * size + b"\n\n\r\n", b"\0" * size + b"\n\n\r\n", b"x" * size + b"\r\n"):
            alike([HEAD, chunk(ORDINARY % (1, 1)), chunk(ORDINARY % (2, 2)), read], Setting(hide))


@given(wires(), settings)
def test_both_ways_are_the_same(reads: list[bytes], setting: Setting) -> None:
    """Bytes to the client, copies, counts, tail, usages, faults: whatever comes, and whatever happens meanwhile."""
    alike(reads, setting)


@given(wires(), settings, st.data())
def test_both_ways_are_the_same_for_any_split(reads: list[bytes], setting: Setting, data: st.DataObject) -> None:
    """The network cuts where it likes."""
    whole = b"".join(reads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    alike([whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True) if a < b], setting)


@pytest.mark.parametrize("hide", [Hide.ALL, Hide.CONTINUOUS, None])
@pytest.mark.parametrize("kind", KINDS)
def test_real_streams_are_the_same(kind: str, hide: Hide | None) -> None:
    """As vLLM sent them: one chunk a read, the head before."""
    case = Case(kind, "continuous")
    reads = [HEAD, *map(chunk, case.chunks), b"0\r\n\r\n"]
    alike(reads, Setting(hide, choices=2 if case.several else 1))


def long_way(stream: Stream, reads: Sequence[bytes]) -> list[bytes]:
    """Return those of the reads' bodies that the exchange was asked to handle."""
    asked: list[bytes] = []
    body = stream.exchange.observer.body

    def watched(stamp_ns: int, data: bytes) -> bytes:
        asked.append(data)
        return body(stamp_ns, data)

    with mock.patch.object(Observer, "body", lambda _, stamp_ns, data: watched(stamp_ns, data)):
        for data in reads:
            stream.read(data)
    return asked


def test_only_the_ordinary_takes_the_short_way() -> None:
    """The first event, all in which more is to be seen than a usage, and what follows something held back do not."""
    ordinary = [ORDINARY % (number, number) for number in range(10)]
    events = [*ordinary, FINISH, USAGE_ONLY, DONE]
    asked = long_way(Stream(Setting()), [HEAD, *map(chunk, events), b"0\r\n\r\n"])
    assert asked == [ordinary[0], FINISH, USAGE_ONLY, DONE]


def test_stream_of_which_nothing_is_hidden_takes_the_short_way_whole() -> None:
    """Nothing in it need be looked at; its end is kept all the same."""
    events = [*(ORDINARY % (number, number) for number in range(10)), FINISH, USAGE_ONLY, DONE]
    stream = Stream(Setting(None))
    assert long_way(stream, [HEAD, *map(chunk, events), b"0\r\n\r\n"]) == events[:1]
    assert stream.end().tail == b"".join([ORDINARY % (9, 9), FINISH, USAGE_ONLY, DONE])


@pytest.mark.parametrize(
    "setting",
    [Setting(chunked=False), Setting(choices=2), Setting(Hide.DETAILS)],
    ids=["HTTP/1.0 client", "several choices", "TGI"],
)
def test_other_streams_never_take_it(setting: Setting) -> None:
    """Their bytes or their books are not as simple."""
    events = [ORDINARY % (number, number) for number in range(5)]
    assert long_way(Stream(setting), [HEAD, *map(chunk, events)]) == events


def test_client_that_left_stops_the_engine_with_the_next_event() -> None:
    """Though it is an ordinary one."""
    stream = Stream(Setting())
    for data in [HEAD, *(chunk(ORDINARY % (number, number)) for number in range(3))]:
        stream.read(data)
    client_leaves(stream)
    stream.read(chunk(ORDINARY % (3, 3)))
    assert stream.engine.closed == "abort"


def test_without_room_for_copies_the_long_way_counts_what_is_dropped() -> None:
    """And when there is room again, ordinary reads are short again."""
    stream = Stream(Setting())
    events = [ORDINARY % (number, number) for number in range(6)]
    stream.read(HEAD)
    asked = long_way(stream, [chunk(event) for event in events[:2]])
    with mock.patch.object(RecordingTap, "make_room", return_value=False):
        asked += long_way(stream, [chunk(event) for event in events[2:4]])
    asked += long_way(stream, [chunk(event) for event in events[4:]])
    assert asked == [events[0], *events[2:4]]


def test_fault_in_the_account_ends_the_watching_and_not_the_stream() -> None:
    """The read that met it is through, and those behind it go the long way, unwatched."""
    stream = Stream(Setting())
    events = [ORDINARY % (number, number) for number in range(5)]
    reads = [HEAD, *map(chunk, events), b"0\r\n\r\n"]
    without = seen(reads, Setting(), lane=False)[0]
    for data in reads[:3]:
        stream.read(data)
    with mock.patch.object(RecordingTap, "make_room", side_effect=ValueError) as make_room:
        for data in reads[3:]:
            stream.read(data)
    assert stream.client.written == without
    assert stream.tap.observer_errors == 1
    assert make_room.call_count == 1


def test_observer_that_is_kept_keeps_no_connection() -> None:
    """It waits for the collector's acknowledgement, perhaps for long."""
    stream = Stream(Setting())
    for data in [HEAD, chunk(ORDINARY % (1, 1)), chunk(ORDINARY % (2, 2))]:
        stream.read(data)
    lane = stream.connection.lane
    assert lane is not None
    stream.end()
    assert not any(getattr(lane, name) for name in Lane.__slots__ if name.startswith(("_client", "_observer", "_tail")))
