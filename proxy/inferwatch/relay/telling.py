"""What the tap's messages are made of: those that say everything, and those that tell again of finished requests.

Nothing in here has a state, and `written` is for the spool's thread.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from inferwatch import tap
from inferwatch.relay.masking import masked_batch
from inferwatch.relay.observer import Observer
from inferwatch.relay.spool import Copy

# What a request takes in the spool file beside its end and its usages: names, times and their keys, some 700 bytes.
SPOOLED_BYTES: Final = 1024
USAGE_BYTES: Final = 128

# Text that is none, a number that 64 bits do not hold: they got past the relay's checks. Each time they were sent they
# would fail, and with them all that came since.
_UNSAID: Final = (UnicodeEncodeError, OverflowError)

# A finished request: the batch that told of it last, and its copy in the spool file, made while nobody could be told.
Entry = tuple[int, Copy | None, Observer, tap.Close]


def encoded(batch: tap.Batch) -> tuple[bytes, bool]:
    """Return a message, and whether it has all of it."""
    try:
        return tap.encode(batch), True
    except _UNSAID:
        # Without what others said in it each request is still booked, and the others' are whole.
        opens = [frame if _can_be_said(frame) else _bare(frame) for frame in batch.opens]
        heads = [frame if _can_be_said(frame) else msgspec.structs.replace(frame, headers={}) for frame in batch.heads]
        closes = [frame if _can_be_said(frame) else msgspec.structs.replace(frame, usages={}) for frame in batch.closes]
        return tap.encode(tap.Batch(batch.seq, opens, heads, batch.reads, closes, batch.stats)), False


def resent(seq: int, entries: Sequence[Entry]) -> tap.Batch:
    """Return the batch that tells again of finished requests: at least one."""
    opens, closes = zip(*_told(entries), strict=True)
    return tap.Batch(seq, list(opens), [], [], list(closes))


def written(entries: Iterable[Entry]) -> tuple[bytes, bool, list[str]]:
    """Return their message in the spool file, whether it has all of it, and the types of what went wrong."""
    batch, faults = masked_batch(_told(entries))
    return *encoded(batch), faults


def spooled_bytes(entries: Iterable[Entry]) -> int:
    """Return how many bytes that message may have."""
    return sum(SPOOLED_BYTES + len(frame.tail) + len(frame.usages) * USAGE_BYTES for *_, frame in entries)


def has_copy(entry: Entry) -> bool:
    """Whether the spool file has it, or will."""
    return entry[1] is not None and not entry[1].failed


def _told(entries: Iterable[Entry]) -> Iterator[tuple[tap.Open, tap.Close]]:
    """Yield the frames that tell again of finished requests, of which nothing changes any more."""
    return ((observer.open_frame(resumed=True), frame) for _, _, observer, frame in entries)


def _can_be_said(frame: tap.Open | tap.Head | tap.Close) -> bool:
    try:
        msgspec.msgpack.encode(frame)
    except _UNSAID:
        return False
    return True


def _bare(frame: tap.Open) -> tap.Open:
    return msgspec.structs.replace(frame, path="", model="", headers={}, body=b"", max_tokens=0)
