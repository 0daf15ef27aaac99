"""What one account has spent: in its present period or window, and by the hour for the forecast. Pure; integers.

A request counts where it arrived: one that runs over midnight belongs to the day before, as in the ledger. So a charge
may come late, and then changes the past and not the present.

Spending is kept in *buckets* of time. Of a calendar budget they are hours, for five weeks, and beside them stands the
sum of the present period, whose beginning need not be a whole hour of UTC. Of a rolling budget the sum of the buckets
within the window is what is spent; the oldest counts until all of it is outside, so nothing is forgotten early.
"""

from typing import Final

import msgspec

from inferwatch.budget_rules import Rule
from inferwatch_collectors.budgets.periods import Period, PeriodKind, period_at
from inferwatch_collectors.wall_time import HOUR_S

# The forecast needs each hour of the week a few times.
HISTORY_HOURS: Final = 5 * 7 * 24

# A window is this many buckets: it lets go of spending within 0.1 % of its length.
WINDOW_BUCKETS: Final = 1000
MIN_BUCKET_S: Final = 60


class Spending:
    """Of one account. All times are Unix seconds; amounts are in the rule's smallest steps."""

    __slots__ = ("_first", "_kept", "_rolled", "_rolling", "_rule", "_sum", "bucket_s", "buckets", "newest", "period")

    def __init__(self, rule: Rule, now_s: float) -> None:
        settings = rule.settings
        self._rule = rule
        self._rolling = settings.period == "rolling"
        window_s = settings.window_s
        self.bucket_s = max(MIN_BUCKET_S, -(-window_s // WINDOW_BUCKETS)) if self._rolling else HOUR_S
        self._kept = -(-window_s // self.bucket_s) + 1 if self._rolling else HISTORY_HOURS
        self.buckets: dict[int, int] = {}
        self.newest = 0  # of the buckets; 0: there is none
        self._rolled = int(now_s // self.bucket_s)
        self._first = self._rolled  # since when there is something to know
        self._sum = 0  # of the present period, or of all buckets
        self.period = self._period(now_s)

    @property
    def first_bucket(self) -> int:
        """The bucket from which on everything is known."""
        return self._first

    @property
    def oldest_bucket(self) -> int:
        """The first bucket that is kept at present."""
        return self._rolled - self._kept + 1

    @property
    def spent(self) -> int:
        """What is spent in the period, or window, of the last `roll`."""
        return self._sum

    def roll(self, now_s: float) -> bool:
        """Go on to `now_s`; return whether that begins a new period."""
        bucket = int(now_s // self.bucket_s)
        if bucket > self._rolled:
            self._rolled = bucket
            self._forget_before(bucket - self._kept + 1)
        if self.period is None or now_s < self.period.end_s:
            return False  # a clock that was set back does not bring yesterday's budget back
        self.period = self._period(now_s)
        self._sum = 0
        return True

    def charge(self, arrival_s: float, amount: int, now_s: float) -> None:
        """Add what a request that arrived at `arrival_s` has cost."""
        arrival_s = min(arrival_s, now_s)
        if self.is_present(arrival_s, now_s):
            self._sum += amount
        index = int(arrival_s // self.bucket_s)
        if index > self._rolled - self._kept:
            self.buckets[index] = self.buckets.get(index, 0) + amount
            self._first = min(self._first, index)
            self.newest = max(self.newest, index)

    def is_present(self, arrival_s: float, now_s: float) -> bool:
        """Tell whether a request that arrived at `arrival_s` counts in the present period or window."""
        if self.period is not None:
            return arrival_s >= self.period.start_s
        return int(min(arrival_s, now_s) // self.bucket_s) > self._rolled - self._kept

    def _forget_before(self, oldest: int) -> None:
        for index in [each for each in self.buckets if each < oldest]:
            gone = self.buckets.pop(index)
            if self._rolling:
                self._sum -= gone
        self._first = max(self._first, oldest)

    def room_at(self, limit: int) -> int:
        """Return when less than `limit` is spent again, by what is booked; 0: it is now, or cannot be told."""
        if self.period is not None:
            return self.period.end_s if self._sum >= limit else 0
        left = self._sum
        for index in sorted(self.buckets):
            if left < limit:
                return 0
            left -= self.buckets[index]
            if left < limit:
                return (index + self._kept) * self.bucket_s
        return 0

    def _period(self, now_s: float) -> Period | None:
        settings = self._rule.settings
        return None if settings.period == "rolling" else period_at(PeriodKind(settings.period), now_s, self._rule.zone)

    # --- durability

    def state(self) -> "SpendingState":
        """Return what must be written down with each charge."""
        newest = self.newest
        start_s = self.period.start_s if self.period is not None else 0
        return SpendingState(start_s, self._sum, newest, self.buckets.get(newest, 0), self._first)

    def past(self, newest: int) -> list[tuple[int, int]]:
        """Return the buckets but `newest`, which change seldom."""
        return [(index, amount) for index, amount in self.buckets.items() if index != newest]

    def restore(self, state: "SpendingState", past: list[tuple[int, int]], bucket_s: int, now_s: float) -> None:
        """Take up what an earlier life wrote down."""
        same = bucket_s == self.bucket_s
        if same:
            self.buckets = dict(past)
            if state.newest:
                self.buckets[state.newest] = state.newest_amount
            self._first = min(state.first, self._first)
        if self.period is not None and state.start_s == self.period.start_s:
            self._sum = state.sum
        elif self.period is None and same:
            self._sum = sum(self.buckets.values())
        elif same:  # the period is another one, or its kind was changed: what the hours tell
            start_s = self.period.start_s if self.period is not None else 0
            self._sum = sum(amount for index, amount in self.buckets.items() if index * self.bucket_s >= start_s)
        self.newest = max(self.buckets, default=0)
        self._forget_before(self._rolled - self._kept + 1)


class SpendingState(msgspec.Struct, array_like=True, frozen=True):
    """What `Spending` is restored from, beside its past."""

    start_s: int
    sum: int
    newest: int  # bucket; 0: none
    newest_amount: int
    first: int
