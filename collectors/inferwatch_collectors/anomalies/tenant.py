"""All that is followed of one tenant: what it spends, how large its prompts are, how its runs go on.

Spending is in nano-dollars for a tenant with a price, in tokens (prompt and completion) for one without. The two cannot
be compared: when the unit changes, the history begins anew. Once one request of a five-minute bucket has a price, the
unit is dollars (requests without one are then not in it); after UNPRICED_BUCKETS with requests and no price it is
tokens again.
"""

from typing import Final

import msgspec

from inferwatch.record import RequestRecord
from inferwatch_collectors.anomalies.evidence import Signal
from inferwatch_collectors.anomalies.loops import Lengths, LengthsState
from inferwatch_collectors.anomalies.requests import Sizes, SizesState
from inferwatch_collectors.anomalies.runs import Habit, HabitState
from inferwatch_collectors.anomalies.spend import BUCKETS_PER_HOUR, Spend, SpendState, Terms
from inferwatch_collectors.anomalies.storms import new_habit
from inferwatch_collectors.anomalies.written import Count
from inferwatch_collectors.memo_places import AnotherError

DOLLARS: Final = "dollars"
TOKENS: Final = "tokens"

# A day of five minutes: prices that a reload has left out for an hour are no new unit.
UNPRICED_BUCKETS: Final = 288

VERSION: Final = 1


class TenantState(msgspec.Struct, array_like=True):
    """What is written down."""

    version: int
    label: str
    unit: str
    unpriced: Count
    spend: SpendState
    sizes: SizesState
    lengths: LengthsState
    storms: HabitState


class Tenant:
    """One tenant, or all those that are counted together as `other`."""

    __slots__ = (
        "_hour_buckets",
        "_hour_spent",
        "_unpriced",
        "label",
        "last_request_s",
        "lengths",
        "nanodollars",
        "priced",
        "requests",
        "seen_s",
        "sizes",
        "spend",
        "storms",
        "tokens",
        "unit",
    )

    def __init__(self, label: str, now_s: float) -> None:
        self.label = label
        self.unit = ""  # not known before the first request
        self.spend = Spend()
        self.sizes = Sizes()
        self.lengths = Lengths(now_s)
        self.storms: Habit = new_habit(now_s)
        self.seen_s = now_s
        self.last_request_s = now_s  # with a known prompt
        # Of the open bucket.
        self.nanodollars = 0
        self.tokens = 0
        self.priced = 0
        self.requests = 0
        # Of the open hour.
        self._hour_spent = 0
        self._hour_buckets = 0
        self._unpriced = 0

    def add(self, record: RequestRecord, now_s: float) -> None:
        """Add a request to the open bucket."""
        self.seen_s = now_s
        self.requests += 1
        if record.price_nanodollars is not None:
            self.nanodollars += record.price_nanodollars
            self.priced += 1
        self.tokens += (record.prompt_tokens or 0) + (record.completion_tokens or 0)

    def turn(self) -> "Closed":
        """Close the bucket and open the next one."""
        closed = Closed(self.nanodollars, self.tokens, self.priced, self.requests)
        self.nanodollars = self.tokens = self.priced = self.requests = 0
        return closed

    def missed(self) -> None:
        """The open bucket was not seen whole: forget it, and its hour."""
        self.turn()
        self._hour_spent = self._hour_buckets = 0
        self.spend.missed()

    def bucket(self, closed: "Closed", hour: int, *, last: bool, terms: dict[str, Terms]) -> list[Signal]:
        """Take a bucket of `hour` (since 1970) that was seen whole, the last of it or another one."""
        self._choose_unit(closed)
        if not self.unit:
            return []
        spent = closed.nanodollars if self.unit == DOLLARS else closed.tokens
        self._hour_spent += spent
        self._hour_buckets += 1
        found = [self.spend.bucket(hour, spent, terms[self.unit])]
        if last:
            if self._hour_buckets == BUCKETS_PER_HOUR:
                found.append(self.spend.hour(hour, self._hour_spent, terms[self.unit]))
            self._hour_spent = self._hour_buckets = 0
        return [each.signal(self.unit) for each in found if each is not None]

    def _choose_unit(self, closed: "Closed") -> None:
        if closed.priced:
            self._unpriced = 0
        elif closed.requests:
            self._unpriced += 1
        if closed.priced and self.unit != DOLLARS:
            self._change_unit(DOLLARS)
        elif closed.requests and not closed.priced and (not self.unit or self._unpriced >= UNPRICED_BUCKETS):
            self._change_unit(TOKENS)

    def _change_unit(self, unit: str) -> None:
        if unit == self.unit:
            return
        if self.unit:
            self.spend = Spend()
            self._hour_spent = self._hour_buckets = 0
        self.unit = unit

    def state(self) -> TenantState:
        """Return it to be written down."""
        return TenantState(
            VERSION,
            self.label,
            self.unit,
            self._unpriced,
            self.spend.state(),
            self.sizes.state(),
            self.lengths.state(),
            self.storms.state(),
        )

    @classmethod
    def of(cls, state: TenantState, now_s: float) -> "Tenant":
        """Return the tenant that was written down; what came since is not known.

        Raises:
            AnotherError: it was written by another version.
            ValueError: it is damaged.
        """
        if state.version != VERSION:
            raise AnotherError(f"version {state.version}")
        if state.unit not in ("", DOLLARS, TOKENS):
            raise ValueError("a unit that is none")
        found = cls(state.label, now_s)
        found.unit, found._unpriced = state.unit, state.unpriced
        found.spend = Spend.of(state.spend)
        found.spend.missed()
        found.sizes = Sizes.of(state.sizes)
        found.lengths.resume(state.lengths)
        found.storms.resume(state.storms)
        return found


class Closed(msgspec.Struct, frozen=True):
    """What was spent in a bucket, in either unit."""

    nanodollars: int
    tokens: int
    priced: int
    requests: int
