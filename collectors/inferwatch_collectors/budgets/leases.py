"""What one host may spend of an account that several hosts share, and how much more it should ask for. Pure; integers.

Everything that hosts and Redis tell each other is a total, never a difference: what a host has spent in the period, and
the *ceiling* that it may come to by itself. So a message that is lost, repeated or late does no harm. In Redis the
ceilings of all hosts, and what those have spent that are gone, never sum to more than the limit (`bank.lua`).

A host asks early and for as much as it should need for a while: a relay never waits for an answer. Near the limit it
asks for less and gives back what it does not need, so that the others get it.
"""

from typing import Final

from inferwatch_collectors.budgets.holds import NOTHING, Pair

# A lease should last for so many times `lease_s` at the present rate: an outage that long is not felt.
LASTS_LEASES: Final = 2.0

# Where little is left, for so long: a few reports.
LASTS_TIGHT_S: Final = 2.0

# Below this part of the limit unspent and unlent, little is left. So it is for a while after a host got too little.
TIGHT_SHARE: Final = 0.05
TIGHT_NS: Final = 10_000_000_000

# More is asked for before three quarters of the ceiling would be needed: an answer takes some milliseconds, and the
# collector hears of requests within a tenth of a second.
STRAINED_SHARE: Final = 0.75

# As many again of the largest request of late can come at once.
REQUESTS_AHEAD: Final = 2

# A request so large has not come for a while: none will.
WANTED_NS: Final = 10_000_000_000

# Rates are taken over at least a second and fall by half in so much time: bursts count for a while.
RATE_NS: Final = 1_000_000_000
RATE_HALF_NS: Final = 5_000_000_000

# Where there is nothing to be had, asking again and again helps nobody.
PATIENCE_NS: Final = 250_000_000

# What is lent beyond this many times of what is wished for is given back, also where much is left.
SPARE_FACTOR: Final = 2


class Lease:
    """Of one account in one period. Amounts are in its rule's smallest steps."""

    __slots__ = (
        "_rate",
        "_rate_ns",
        "_rate_spent",
        "_short_ns",
        "_wanted",
        "_wanted_ns",
        "asked_ns",
        "ceiling",
        "elsewhere",
        "free",
        "is_forgotten",
        "others",
        "told",
    )

    def __init__(self) -> None:
        self.ceiling: int | None = None  # None: nothing is known, the initial share counts
        self.others: dict[str, int] = {}  # what each other host has spent, as last told
        self.elsewhere = 0  # their sum
        self.is_forgotten = False  # Redis may not know the others' spending any more
        self.free = 0  # neither spent nor lent when Redis was last asked
        self.told: int | None = None  # what Redis knows that we have spent
        self.asked_ns: int | None = None
        self._short_ns: int | None = None  # when somebody last got too little
        self._wanted = NOTHING
        self._wanted_ns = 0
        self._rate = 0.0  # spent in a second
        self._rate_ns = 0
        self._rate_spent = 0

    def saw(self, spent: int, wanted: Pair, now_ns: int) -> None:
        """Learn from a look at the board; `wanted` is the largest need of a request since the last one."""
        if wanted.worst or wanted.expected:
            old = self._wanted if now_ns - self._wanted_ns < WANTED_NS else NOTHING
            self._wanted = Pair(max(old.expected, wanted.expected), max(old.worst, wanted.worst))
            self._wanted_ns = now_ns
        elapsed_ns = now_ns - self._rate_ns
        if elapsed_ns >= RATE_NS:
            if self._rate_ns:
                fresh = max(0, spent - self._rate_spent) * RATE_NS / elapsed_ns
                self._rate = max(fresh, self._rate * 0.5 ** (elapsed_ns / RATE_HALF_NS))
            self._rate_ns, self._rate_spent = now_ns, spent

    def short(self, now_ns: int) -> None:
        """Some host got too little of this account."""
        self._short_ns = now_ns

    def is_tight(self, limit: int, now_ns: int) -> bool:
        """Tell whether little is left of the account."""
        if self._short_ns is not None and now_ns - self._short_ns < TIGHT_NS:
            return True
        return self.told is not None and self.free < limit * TIGHT_SHARE

    def wish(self, standing: "Standing", now_ns: int, *, initial: int, lease_s: float) -> int:
        """Return the ceiling to ask for. `initial` is the host's initial share of the limit."""
        tight = self.is_tight(standing.limit, now_ns)
        lasts_s = LASTS_TIGHT_S if tight else LASTS_LEASES * lease_s
        ahead = int(self._rate * lasts_s)
        wanted = self._wanted if now_ns - self._wanted_ns < WANTED_NS else NOTHING
        held = standing.held
        # Tight, what is held is not doubled: it is what runs, and most of it will come back.
        more = 0 if tight else 1
        least = standing.ceiling_for(
            Pair(
                ahead + more * held.expected + REQUESTS_AHEAD * wanted.expected,
                ahead + more * held.worst + REQUESTS_AHEAD * wanted.worst,
            )
        )
        return min(standing.limit, least if tight else max(least, initial))

    def is_due(self, standing: "Standing", now_ns: int, *, initial: int) -> bool:
        """Tell whether to ask now: requests may soon need more than there is."""
        if self.asked_ns is not None and self.free <= 0 and now_ns - self.asked_ns < PATIENCE_NS:
            return False
        if self.ceiling is None and self.asked_ns is None:
            return True
        ceiling = initial if self.ceiling is None else self.ceiling
        if ceiling >= standing.limit:
            return False
        wanted = self._wanted if now_ns - self._wanted_ns < WANTED_NS else NOTHING
        return standing.ceiling_for(wanted) > ceiling * STRAINED_SHARE

    def is_worth_telling(self, standing: "Standing", now_ns: int, *, initial: int, lease_s: float) -> bool:
        """Tell whether Redis should hear of it with the next report: it has spent, or can give something back."""
        if self.told != standing.spent or self.ceiling is None:
            return True
        wish = self.wish(standing, now_ns, initial=initial, lease_s=lease_s)
        spare = self.ceiling - max(wish, standing.claim)
        return spare > 0 and (self.is_tight(standing.limit, now_ns) or self.ceiling > SPARE_FACTOR * wish)


class Standing:
    """How an account stands at this host. `by_expected`: its rule reserves what is expected."""

    __slots__ = ("by_expected", "held", "limit", "spent")

    def __init__(self, spent: int, held: Pair, limit: int, *, by_expected: bool) -> None:
        self.spent = spent
        self.held = held
        self.limit = limit
        self.by_expected = by_expected

    @property
    def claim(self) -> int:
        """What it will have come to when all that runs has ended."""
        return self.spent + (self.held.expected if self.by_expected else self.held.worst)

    def ceiling_for(self, ahead: Pair) -> int:
        """Return the ceiling under which requests that need `ahead` would be let in: `relay.reckoning.fits`."""
        worst = self.spent + self.held.worst + ahead.worst
        if not self.by_expected:
            return worst
        return min(worst, 2 * (self.spent + self.held.expected + ahead.expected))
