"""What attribution must remember through `kill -9`, as memos of the metric store.

Memos are committed in one transaction with the counters, the records and the shares. So after a crash the charges that
are known are exactly those that were counted, and the rest is divided again from the same facts.

* `attribution`: the clock, the rests of all divisions, the GPUs' baselines. A few hundred bytes, each second.
* `attribution_accounts`: who is being charged. Some 100 bytes each, each second.
* `attribution_interval`, by place in a ring: the seconds that are not divided. Written when they change.
* `attribution_ended`, in blocks: requests that ended since the last second. A request is acknowledged to its relay with
  the commit that has its record, and is not told again, so its end must be in that same commit.
"""

import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Final, NamedTuple

import msgspec

from inferwatch_collectors.attribution.accounts import Account, Ended
from inferwatch_collectors.attribution.joules import Baseline
from inferwatch_collectors.attribution.timeline import Interval
from inferwatch_collectors.attribution.weights import Sums
from inferwatch_collectors.metric_store import Memo, MetricStore

VERSION: Final = 1

# Undivided seconds: the horizon of 120 s, a gap of 60 s billed at once, and some that wait for their turn.
RING: Final = 256

# One block is written anew with each ended request: small enough for thousands a second.
BLOCK: Final = 64

_LENGTH: Final = struct.Struct(">I")


class Idle(msgspec.Struct, array_like=True):
    """What was idle in the minute that begins at `wall_ns` (Unix time), so far."""

    wall_ns: int
    nanodollars: int = 0
    energy_uj: int = 0
    measured: bool = False  # its energy is known


class State(msgspec.Struct, array_like=True):
    """Everything but accounts and intervals."""

    version: int
    now_ns: int  # CLOCK_MONOTONIC up to which the machine is billed
    wall_ns: int  # the same moment as Unix time
    divided_until: int
    next_number: int
    rests: tuple[str, str, str]  # fractions: of time, of energy, of carbon; as text, since they may be long
    baselines: dict[str, Baseline]
    sums: Sums
    idle: Idle | None


class Remembered(NamedTuple):
    """All of it."""

    state: State
    accounts: list[Account]
    intervals: list[Interval]
    ended: list[Ended]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_state: Final = msgspec.msgpack.Decoder(State).decode
_decode_accounts: Final = msgspec.msgpack.Decoder(list[Account]).decode
_decode_interval: Final = msgspec.msgpack.Decoder(Interval).decode
_decode_ended: Final = msgspec.msgpack.Decoder(Ended).decode


class Memory:
    """Writes and reads the memos."""

    def __init__(self, store: MetricStore) -> None:
        self._store = store
        self._block = bytearray()
        self._ended = 0

    def read(self) -> "Remembered | None":
        """Return what an earlier life left, None if it left nothing that can be read."""
        if not any(memo.data for memo in self._store.memos("attribution")):
            return None
        try:
            state = _decode_state(self._memo("attribution").data)
            if state.version != VERSION or any(Fraction(rest) < 0 for rest in state.rests):
                return None
            accounts = _decode_accounts(self._memo("attribution_accounts").data)
            rows = [memo.data for memo in self._store.memos("attribution_interval") if memo.data]
            intervals = sorted((_decode_interval(row) for row in rows), key=lambda each: each.index)
            blocks = sorted(self._store.memos("attribution_ended"), key=lambda memo: int(memo.labels[0]))
            ended = [_decode_ended(frame) for memo in blocks for frame in _frames(memo.data)]
        except (msgspec.DecodeError, ValueError, ZeroDivisionError, struct.error):
            return None
        kept = [each for each in intervals if each.index >= state.divided_until]
        return Remembered(state, accounts, kept, ended)

    def write(self, state: State, accounts: Iterable[Account], intervals: Iterable[Interval]) -> None:
        """Write the present state, and those `intervals` that have changed."""
        self._memo("attribution").set(_encode(state))
        self._memo("attribution_accounts").set(_encode(list(accounts)))
        for interval in intervals:
            self._memo("attribution_interval", interval.index % RING).set(_encode(interval))

    def clear(self) -> None:
        """Forget everything."""
        for name in ("attribution", "attribution_accounts", "attribution_interval"):
            for memo in self._store.memos(name):
                memo.set(b"")
        self.forget_ended()

    def divided(self, index: int) -> None:
        """Forget an interval."""
        self._memo("attribution_interval", index % RING).set(b"")

    def ended(self, ended: Ended) -> None:
        """Write down one request that ended."""
        frame = _encode(ended)
        self._block += _LENGTH.pack(len(frame)) + frame
        self._memo("attribution_ended", self._ended // BLOCK).set(bytes(self._block))
        self._ended += 1
        if self._ended % BLOCK == 0:
            self._block.clear()

    def forget_ended(self) -> None:
        """All that ended is in the accounts now."""
        self._block.clear()
        self._ended = 0
        for memo in self._store.memos("attribution_ended"):
            memo.set(b"")

    def _memo(self, name: str, place: int | None = None) -> Memo:
        return self._store.memo(name, () if place is None else (str(place),))


def _frames(data: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(data):
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        yield data[position : position + length]
        position += length
