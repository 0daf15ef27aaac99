"""What the open requests of one account hold, and so what may be let go of: exactly once, whoever dies. Pure.

Relays only ever add to `taken` on the board; the collector publishes `released`, and what is held is the difference. It
is not enough to add up what has ended: a request is told of twice after a crash, and of one whose relay was killed
between taking and telling nobody ever hears. So the collector knows a `position`, up to which everything that was
taken has been accounted for, and derives

    held = rest of the known holds taken up to the position + (taken - position) - what is gone of those taken later

The position moves on by audits: note `taken` now, wait until each relay must have told of all that it took before, and
count afresh from what is known to be open. What nobody claims has expired with that. A restarted collector begins with
an audit: until it is over nothing from before is let go of.

As an open request spends, its hold becomes spending: the part of it that is spent is no longer held.
All sums are modulo 2**62, as on the board.
"""

from typing import Final, NamedTuple

from inferwatch.board import (
    COUNT_MASK,
    RELEASED_EXPECTED,
    RELEASED_WORST,
    TAKEN_EXPECTED,
    TAKEN_WORST,
)

NS_PER_S: Final = 1_000_000_000

# Relays are back within a second, and tell of all that is open with their first message.
FIRST_AUDIT_NS: Final = 5 * NS_PER_S

# A relay tells of a request when it has sent it: after waiting for a connection, for the engine's name, and for the end
# of a long body. What takes longer is held anew when it is told.
AUDIT_NS: Final = 120 * NS_PER_S


class Pair(NamedTuple):
    """An amount twice over: what is expected, and the worst."""

    expected: int
    worst: int


NOTHING: Final = Pair(0, 0)


def held_on(words: "memoryview[int]", base: int) -> Pair:
    """Return what is held of an account, by the board. Under its lock."""
    return Pair(
        (words[base + TAKEN_EXPECTED] - words[base + RELEASED_EXPECTED]) & COUNT_MASK,
        (words[base + TAKEN_WORST] - words[base + RELEASED_WORST]) & COUNT_MASK,
    )


class _Hold:
    __slots__ = ("amount", "rest", "ticket")

    def __init__(self, amount: Pair, ticket: int) -> None:
        self.amount = amount
        self.ticket = ticket  # `taken` (worst) just after it
        self.rest = amount


class Holds:
    """Of one account. `taken` is the board's, read at the same moment as everything that is published."""

    __slots__ = (
        "_closed_since",
        "_gone",
        "_inherited",
        "_noted",
        "_noted_ns",
        "_old",
        "_open",
        "_position",
        "_wait_ns",
        "released",
    )

    def __init__(self, taken: Pair, released: Pair, now_ns: int) -> None:
        """Begin with a board on which `taken` and `released` stand, perhaps from an earlier life of ours."""
        self._open: dict[str, _Hold] = {}
        # Until the first audit: what was held stays held, as if it were one hold.
        self._position = taken
        self._old = _minus(taken, released)
        self._gone = NOTHING
        self._inherited = taken != released
        self._noted: Pair | None = taken if self._inherited else None
        self._noted_ns = now_ns
        self._closed_since = NOTHING  # of those taken after `_noted`
        self._wait_ns = FIRST_AUDIT_NS if self._inherited else AUDIT_NS
        self.released = released

    def __len__(self) -> int:
        return len(self._open)

    def opened(self, request_id: str, amount: Pair, ticket: int) -> None:
        """A request holds `amount`. The same one told again changes nothing."""
        if request_id in self._open:
            return
        self._open[request_id] = _Hold(amount, ticket)
        if not self._is_late(ticket) and not self._inherited:
            self._old = _plus(self._old, amount)  # it had been given up as expired
            self._publish()

    def spent(self, request_id: str, amount: int) -> None:
        """An open request is known to have spent `amount` so far."""
        hold = self._open.get(request_id)
        if hold is not None:
            whole = hold.amount
            self._shrink(hold, Pair(max(0, whole.expected - amount), max(0, whole.worst - amount)))

    def closed(self, request_id: str) -> None:
        """It holds nothing any more."""
        hold = self._open.pop(request_id, None)
        if hold is None:
            return
        self._shrink(hold, NOTHING)
        if self._noted is not None and _after(hold.ticket, self._noted.worst):
            self._closed_since = _plus(self._closed_since, hold.amount)

    def audit(self, taken: Pair, now_ns: int) -> None:
        """Do what is due. Call it every now and then."""
        if self._noted is None:
            self._noted, self._noted_ns, self._closed_since = taken, now_ns, NOTHING
        elif now_ns - self._noted_ns >= self._wait_ns:
            self._adopt(self._noted)
            self._inherited = False
            self._noted, self._noted_ns, self._closed_since = taken, now_ns, NOTHING
            self._wait_ns = AUDIT_NS

    def _adopt(self, position: Pair) -> None:
        old, gone = NOTHING, self._closed_since
        for hold in self._open.values():
            if _after(hold.ticket, position.worst):
                gone = _plus(gone, _minus(hold.amount, hold.rest))
            else:
                old = _plus(old, hold.rest)
        self._position, self._old, self._gone = position, old, gone
        self._publish()

    def _is_late(self, ticket: int) -> bool:
        return _after(ticket, self._position.worst)

    def _shrink(self, hold: _Hold, rest: Pair) -> None:
        freed = _minus(hold.rest, rest)
        if freed == NOTHING:
            return
        hold.rest = rest
        if self._is_late(hold.ticket):
            self._gone = _plus(self._gone, freed)
        elif not self._inherited:
            self._old = _minus(self._old, freed)
        else:
            return
        self._publish()

    def _publish(self) -> None:
        self.released = _plus(_minus(self._position, self._old), self._gone)


def _after(ticket: int, position: int) -> bool:
    """Tell whether `ticket` was given after `position` was noted: by less than half of the circle."""
    return 0 < (ticket - position) & COUNT_MASK <= COUNT_MASK >> 1


def _plus(one: Pair, other: Pair) -> Pair:
    return Pair((one.expected + other.expected) & COUNT_MASK, (one.worst + other.worst) & COUNT_MASK)


def _minus(one: Pair, other: Pair) -> Pair:
    return Pair((one.expected - other.expected) & COUNT_MASK, (one.worst - other.worst) & COUNT_MASK)
