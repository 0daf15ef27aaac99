"""The tap: what the relay tells the collector about each request, and the framing on the Unix socket between them.

One relay process keeps one connection. It sends `Hello`, then numbered `Batch`es, and `Bye` before a clean exit. The
collector answers `Ack(seq)` once everything up to that batch is durable, and says `Cut` when streams must end. The
rules that make loss impossible:

* `reads` (copies of the answer) may be dropped when the collector is slow or gone. A read with empty data marks the
  place where a copy is missing, so that a parser can find its feet again.
* `opens`, `heads` and `closes` are never dropped. The relay keeps each `Close`, with its `Open`, until it is
  acknowledged, and sends both again after a reconnect; the collector ignores a `request_id` that it has booked
  already.
* `Close` alone is enough to book a request: it carries the last usage the engine reported and the end of the answer,
  kept by the relay in O(1) memory. Copies make the record richer, never more right.
* A connection that ends without `Bye` and is not taken up again is a dead relay: its open requests are `interrupted`.

All stamps are CLOCK_MONOTONIC nanoseconds, which every process of one host shares.
Within a batch the collector takes opens first, then heads, reads and closes: a request has just one of each but reads,
so that order is the true one for each request.
"""

import struct
from typing import Final

import msgspec

from inferwatch.record import ErrorType

PROTOCOL_VERSION: Final = 1

LENGTH: Final = struct.Struct(">I")

# A batch holds some 100 ms of traffic and its request bodies; more than this is a broken peer, not traffic.
MAX_MESSAGE_BYTES: Final = 256 * 1024 * 1024

# (id, stamp_ns, data): one read of the answer's body as the engine sent it, before anything was taken out.
# A plain tuple, not a struct: this is the one frame of which there are thousands a second.
Read = tuple[int, int, bytes]


class Hello(msgspec.Struct, array_like=True, tag="hello", frozen=True):
    """First message of a connection. `boot` names one life of one relay process; a reconnect repeats it."""

    protocol: int
    worker: int
    pid: int
    boot: str


class Open(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """A request was admitted and is on its way to the engine (or was refused: then `Close` follows at once).

    All of its body is known by then, unless the reply began before.
    """

    id: int  # unique within `boot`
    request_id: str  # unique for ever: the key of the ledger
    wall_ns: int  # Unix time of arrival
    arrival_ns: int  # the request's head was complete
    sent_ns: int  # its last byte was handed to the engine's socket (0: never, or not yet)
    method: str
    path: str  # without the query string
    tenant: str  # a configured name or a keyed hash, never a key
    model: str  # as requested; "" if the body does not say
    stream: bool  # the client asked for a stream
    asked_usage: bool  # we asked for usage that the client did not ask for, and take it out again
    choices: int  # n × prompts as far as the relay could see; 0: unknown
    headers: dict[str, str]  # allow-listed request headers, lower-case names
    body: bytes  # as the client sent it; empty when `resumed` or dropped
    body_bytes: int  # its true length, also when `body` is cut
    trace_id: str = ""  # 32 hex digits, "" without trace context
    span_id: str = ""  # ours: the engine's span has it as its parent
    parent_span_id: str = ""  # the client's
    user: str = ""  # keyed hashes, as `session`
    feature: str = ""
    session: str = ""
    n: int = 1  # choices asked for per prompt
    max_tokens: int = 0  # the most that each answer may have; 0: the body does not say
    resumed: bool = False  # sent again after a reconnect: copies from before it are lost
    # What it holds on the board, a row for each budget: slot, expected, worst, and the sum of all that was ever taken
    # there after this was: whether it came before or after a given moment.
    reserved: tuple[tuple[int, int, int, int], ...] = ()
    trace_sampled: bool = True  # False: the client's trace context says that nobody keeps this trace


class Head(msgspec.Struct, array_like=True, frozen=True):
    """The final response head arrived from the engine."""

    id: int
    stamp_ns: int
    status: int
    headers: dict[str, str]  # lower-case names; without cookies


class Close(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """A request ended, with all that is needed to book it."""

    id: int
    stamp_ns: int
    outcome: str  # inferwatch.record.Outcome, as far as the transport can tell
    error: str  # inferwatch.record.ErrorType or ""
    status: int  # sent to the client; 0: none
    head_ns: int = 0  # response head came; 0: never
    first_body_ns: int = 0
    last_body_ns: int = 0
    reads: int = 0
    response_bytes: int = 0  # body bytes read from the engine
    dropped_bytes: int = 0  # of those, not mirrored
    stalled_ns: int = 0  # the engine's socket was paused because the client read too slowly
    retried: bool = False
    # The last usage object of each choice as raw JSON (`{"prompt_tokens":…}`), key -1: the usage-only event at the end
    # or the usage of a plain reply.
    usages: dict[int, bytes] = {}
    tail: bytes = b""  # end of the body, for finish reasons when copies are missing


class Stats(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """The relay about itself, once a second. Everything cumulative since `boot` unless a gauge."""

    stamp_ns: int
    cpu_ns: int
    loop_lag_max_ns: int  # gauge: worst lag of a timer since the last Stats
    open_requests: int  # gauge
    client_connections: int  # gauge
    upstream_idle: int  # gauge
    upstream_connects: int
    upstream_connect_errors: int
    upstream_retries: int
    tap_pending_bytes: int  # gauge
    tap_dropped_bytes: int
    tap_dropped_reads: int
    tap_spooled: int  # closes written to disk because the collector was away
    tap_lost: int  # closes that found neither memory nor disk; must stay 0
    observer_errors: int  # faults of the observing side that were kept away from the traffic
    budget_unsure: int = 0  # requests that passed unchecked because the budgets' lock was not to be had


class Batch(msgspec.Struct, array_like=True, tag="batch", frozen=True):
    seq: int
    opens: list[Open]
    heads: list[Head]
    reads: list[Read]
    closes: list[Close]
    stats: Stats | None = None


class Bye(msgspec.Struct, array_like=True, tag="bye", frozen=True):
    """Clean end: whatever is still open on this connection was closed before."""


class Ack(msgspec.Struct, array_like=True, tag="ack", frozen=True):
    """Everything up to and including batch `seq` is durable."""

    seq: int


class Cut(msgspec.Struct, array_like=True, tag="cut", frozen=True):
    """End these open streams in good form. Ids as in `Open`; ended ones are ignored.

    `reason` came later, at the end and with a default: who does not know it passes over it, and ends the stream all the
    same. So the protocol's version stays.
    """

    ids: tuple[int, ...]
    reason: str = ErrorType.BUDGET.value  # one of CUT_REASONS


# Why a stream may be ended. Any other word, of a collector that is newer than the relay, ends it for a budget.
CUT_REASONS: Final = {error.value: error for error in (ErrorType.BUDGET, ErrorType.LOOP)}

ToCollector = Hello | Batch | Bye
ToRelay = Ack | Cut

_encoder = msgspec.msgpack.Encoder()


def encode(message: ToCollector | ToRelay) -> bytes:
    """Return `message` with its four-byte big-endian length in front."""
    payload = _encoder.encode(message)
    return LENGTH.pack(len(payload)) + payload


class FrameError(ValueError):
    """The peer sent something that is not this protocol."""


class FrameReader:
    """Cut a byte stream into messages. Feed any split of the bytes; memory is bounded by MAX_MESSAGE_BYTES."""

    def __init__(self, decoder: "msgspec.msgpack.Decoder[ToCollector] | msgspec.msgpack.Decoder[ToRelay]") -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    def feed(self, data: bytes) -> "list[ToCollector | ToRelay]":
        """Return the messages completed by `data`.

        Raises:
            FrameError: a length above MAX_MESSAGE_BYTES, or a payload of another shape.
        """
        buffer = self._buffer
        buffer += data
        messages: list[ToCollector | ToRelay] = []
        start = 0
        try:
            while len(buffer) - start >= LENGTH.size:
                (length,) = LENGTH.unpack_from(buffer, start)
                if length > MAX_MESSAGE_BYTES:
                    raise FrameError(f"message of {length} bytes, expected no more than {MAX_MESSAGE_BYTES}")
                end = start + LENGTH.size + length
                if len(buffer) < end:
                    break
                with memoryview(buffer) as view:
                    messages.append(self._decoder.decode(view[start + LENGTH.size : end]))
                start = end
        except msgspec.DecodeError as error:
            raise FrameError(f"not a tap message: {error}") from None
        finally:
            del buffer[:start]
        return messages


def collector_side() -> FrameReader:
    """Return a reader for what relays send."""
    return FrameReader(msgspec.msgpack.Decoder(ToCollector))


def relay_side() -> FrameReader:
    """Return a reader for what the collector answers."""
    return FrameReader(msgspec.msgpack.Decoder(ToRelay))
