"""The tap's framing: any split of the bytes gives the same messages, and nothing but messages."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch import tap
from inferwatch.record import ErrorType
from inferwatch.tap import Ack, Batch, Bye, Close, Cut, FrameError, Head, Hello, Open, Stats

numbers = st.integers(0, 2**63)
names = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3)
opens = st.builds(
    Open,
    id=numbers,
    request_id=st.text(max_size=24),
    wall_ns=numbers,
    arrival_ns=numbers,
    sent_ns=numbers,
    method=st.sampled_from(["GET", "POST", ""]),
    path=st.text(max_size=20),
    tenant=st.text(max_size=12),
    model=st.text(max_size=12),
    stream=st.booleans(),
    asked_usage=st.booleans(),
    choices=st.integers(0, 65536),
    headers=names,
    body=st.binary(max_size=40),
    body_bytes=numbers,
    resumed=st.booleans(),
)
heads = st.builds(Head, id=numbers, stamp_ns=numbers, status=st.integers(100, 599), headers=names)
reads = st.tuples(numbers, numbers, st.binary(max_size=60))
closes = st.builds(
    Close,
    id=numbers,
    stamp_ns=numbers,
    outcome=st.sampled_from(["ok", "client_abort"]),
    error=st.just(""),
    status=st.integers(0, 599),
    usages=st.dictionaries(st.integers(-1, 100), st.binary(max_size=30), max_size=3),
    tail=st.binary(max_size=40),
)
stats = st.builds(Stats, **dict.fromkeys(Stats.__struct_fields__, numbers))
batches = st.builds(
    Batch,
    seq=numbers,
    opens=st.lists(opens, max_size=2),
    heads=st.lists(heads, max_size=2),
    reads=st.lists(reads, max_size=4),
    closes=st.lists(closes, max_size=2),
    stats=st.none() | stats,
)
hellos = st.builds(Hello, protocol=numbers, worker=numbers, pid=numbers, boot=st.text(max_size=16))
messages = st.lists(hellos | batches | st.just(Bye()), max_size=4)


def fed_in_pieces(reader: tap.FrameReader, data: bytes, cuts: list[int]) -> list[Any]:
    """Feed `data` cut at `cuts` (any integers) and return all messages."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [message for start, end in itertools.pairwise(edges) for message in reader.feed(data[start:end])]


@given(messages, st.lists(st.integers(0), max_size=8))
def test_any_split_of_the_bytes_gives_the_same_messages(sent: list[Any], cuts: list[int]) -> None:
    """However the socket cuts the stream, the collector reads what the relay wrote."""
    data = b"".join(tap.encode(message) for message in sent)

    assert sent == fed_in_pieces(tap.collector_side(), data, cuts)


def test_byte_by_byte_is_a_split_like_any_other() -> None:
    """One byte at a time, across length prefixes as well."""
    sent = [Hello(tap.PROTOCOL_VERSION, 3, 1234, "b00t"), Batch(1, [], [], [(1, 2, b"data"), (1, 3, b"")], []), Bye()]
    data = b"".join(tap.encode(message) for message in sent)

    assert sent == fed_in_pieces(tap.collector_side(), data, list(range(len(data))))


@given(st.lists(numbers, max_size=5), st.lists(st.integers(0), max_size=8))
def test_the_relay_reads_acknowledgements(sequence: list[int], cuts: list[int]) -> None:
    """The way back carries nothing but Ack."""
    data = b"".join(tap.encode(Ack(seq)) for seq in sequence)

    assert [Ack(seq) for seq in sequence] == fed_in_pieces(tap.relay_side(), data, cuts)


def test_why_a_stream_is_cut_came_later_and_breaks_neither_side() -> None:
    """A collector from before says no reason, which is a budget; a relay from before passes over one."""

    class CutOfBefore(msgspec.Struct, array_like=True, tag="cut", frozen=True):
        ids: tuple[int, ...]

    payload = msgspec.msgpack.encode(CutOfBefore((3, 4)))
    (read,) = tap.relay_side().feed(tap.LENGTH.pack(len(payload)) + payload)
    assert read == Cut((3, 4), "budget")
    assert tap.CUT_REASONS[read.reason] is ErrorType.BUDGET
    said = tap.encode(Cut((3, 4), ErrorType.LOOP.value))[tap.LENGTH.size :]
    assert msgspec.msgpack.decode(said, type=CutOfBefore) == CutOfBefore((3, 4))


def test_the_length_goes_first_in_four_big_endian_bytes() -> None:
    """The framing is fixed: another version of either side must be able to read the first message."""
    data = tap.encode(Bye())

    assert (len(data) - 4).to_bytes(4, "big") == data[:4]
    assert msgspec.msgpack.decode(data[4:]) == ["bye"]


def test_the_shape_of_the_first_message_does_not_change() -> None:
    """A collector of another version reads the protocol number before anything else."""
    payload = tap.encode(Hello(protocol=7, worker=2, pid=99, boot="abc"))[4:]

    assert msgspec.msgpack.decode(payload) == ["hello", 7, 2, 99, "abc"]


def test_a_longer_message_than_any_is_refused_before_it_is_read() -> None:
    """The length alone is enough: nobody waits for four gigabytes."""
    reader = tap.collector_side()
    length = tap.MAX_MESSAGE_BYTES + 1

    with pytest.raises(
        FrameError, match=rf"^message of {length} bytes, expected no more than {tap.MAX_MESSAGE_BYTES}$"
    ):
        reader.feed(tap.LENGTH.pack(length))


def test_a_message_of_the_largest_length_is_waited_for() -> None:
    """The bound itself is allowed."""
    assert tap.collector_side().feed(tap.LENGTH.pack(tap.MAX_MESSAGE_BYTES) + b"\x00") == []


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",  # the one byte that msgpack never uses
        b"\x93\xa5batch",  # ends in the middle
        msgspec.msgpack.encode(["batch", 1]),
        msgspec.msgpack.encode(["batch", "one", [], [], [], []]),
        msgspec.msgpack.encode(["batch", 1, [], [], [[1, 2]], []]),
        msgspec.msgpack.encode(["batch", 1, [], [], [[1, 2, "text"]], []]),
        msgspec.msgpack.encode(["batch", 1, [[]], [], [], []]),
        msgspec.msgpack.encode(["hello", 1, 2, 3]),
        msgspec.msgpack.encode(["welcome", 1]),
        msgspec.msgpack.encode({"batch": 1}),
        msgspec.msgpack.encode(None),
        msgspec.msgpack.encode(["ack", 1]),
        tap.encode(Bye())[4:] + b"\x00",  # something behind the message
    ],
)
def test_what_is_no_message_to_the_collector_is_refused(payload: bytes) -> None:
    """Garbage, missing fields, wrong types, unknown tags, the wrong direction: one kind of error."""
    with pytest.raises(FrameError, match=r"^not a tap message: "):
        tap.collector_side().feed(tap.LENGTH.pack(len(payload)) + payload)


@pytest.mark.parametrize("message", [Bye(), Hello(1, 0, 1, "b"), Batch(1, [], [], [], [])])
def test_what_a_relay_says_is_no_message_to_a_relay(message: Any) -> None:
    """A relay that is connected to another relay notices."""
    with pytest.raises(FrameError):
        tap.relay_side().feed(tap.encode(message))


@given(st.binary(max_size=200), st.lists(st.integers(0), max_size=4))
def test_bytes_of_any_kind_are_messages_or_a_frame_error(data: bytes, cuts: list[int]) -> None:
    """No input makes the reader raise anything else."""
    try:
        received = fed_in_pieces(tap.collector_side(), data, cuts)
    except FrameError:
        return
    assert all(isinstance(message, Hello | Batch | Bye) for message in received)


def test_the_messages_before_a_broken_one_are_gone_with_it() -> None:
    """A peer that breaks the protocol is not believed in the same breath; it will send them again."""
    reader = tap.collector_side()

    with pytest.raises(FrameError):
        reader.feed(tap.encode(Bye()) + tap.LENGTH.pack(1) + b"\xc1")


def test_what_was_delivered_is_not_kept() -> None:
    """The reader holds the unfinished message only."""
    reader = tap.collector_side()
    for seq in range(1, 100):
        reader.feed(tap.encode(Batch(seq, [], [], [(1, 2, b"x" * 10_000)], [])))
    reader.feed(b"\x00\x00")

    assert bytes(reader._buffer) == b"\x00\x00"


def test_a_close_needs_little() -> None:
    """What a relay cannot know is left out, and comes back as zero or empty."""
    close = Close(id=1, stamp_ns=5, outcome="rejected", error="malformed_request", status=400)
    batch = Batch(1, [], [], [], [close])

    (received,) = tap.collector_side().feed(tap.encode(batch))

    assert batch == received
    assert (close.head_ns, close.reads, close.usages, close.tail) == (0, 0, {}, b"")


def test_frames_are_values() -> None:
    """Nobody changes a frame that another still holds."""
    with pytest.raises(AttributeError):
        Ack(1).seq = 2  # type: ignore[misc]
