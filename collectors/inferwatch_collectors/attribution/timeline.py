"""Seconds that are not divided yet: what each cost, who worked how much in it, and the division itself.

A second (an `Interval` of INTERVAL_NS, by CLOCK_MONOTONIC) collects two amounts, money and energy, and weighted work by
the number of an account. It is divided once, in the order of time, when its caller says that all work in it is known:

1. The idle part. `busy`: the part of it in which no request was with the engine. `capacity`: what its work fell short
   of the peak. A second in which nobody worked is all idle.
2. The rest in proportion to weight. A request whose work is not known weighs its time with the engine, at the mean
   weight per time of those whose work is known; if nothing is known of anybody, time alone counts.

Whole numbers throughout; the parts and the idle part sum to the amounts.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from inferwatch.settings.cost import Attribution
from inferwatch_collectors.attribution.accounts import Account, Work
from inferwatch_collectors.attribution.arithmetic import covered_ns, divide, spread
from inferwatch_collectors.attribution.times import INTERVAL_NS, NS_PER_S
from inferwatch_collectors.attribution.weights import UNIT

# What can be written down as a whole number of 64 bits. Only an engine that counts nonsense comes near.
MAX_WEIGHT: Final = 2**60


class Interval(msgspec.Struct, array_like=True):
    """One second that is not divided yet."""

    index: int
    nanodollars: int = 0
    energy_uj: int = 0
    prompt_tokens: float = 0.0
    decode_tokens: float = 0.0
    work: dict[int, int] = {}

    @property
    def start_ns(self) -> int:
        return self.index * INTERVAL_NS

    @property
    def end_ns(self) -> int:
        return self.start_ns + INTERVAL_NS


class Charge(NamedTuple):
    """What one account owes for one interval."""

    account: Account
    nanodollars: int
    energy_uj: int


class Divided(NamedTuple):
    """One interval, divided: the charges and the idle parts sum to what it had."""

    interval: Interval
    charges: list[Charge]
    idle_nanodollars: int
    idle_energy_uj: int
    busy_ns: int


class Timeline:
    """The intervals that are not divided yet."""

    def __init__(self, attribution: Attribution, divided_until: int) -> None:
        """Every interval with an index below `divided_until` is divided."""
        peak = attribution.peak_tokens_per_second
        self._peak_weight = 0  # per interval
        if attribution.idle == "capacity" and peak is not None:
            self._peak_weight = max(1, int(peak * UNIT * INTERVAL_NS / NS_PER_S))
        self.divided_until = divided_until
        self.intervals: dict[int, Interval] = {}
        self.changed: set[int] = set()  # indices of intervals that are not written down as they are
        self.entries = 0  # of work, in all intervals

    @property
    def divided_ns(self) -> int:
        """The start of the oldest interval that is not divided."""
        return self.divided_until * INTERVAL_NS

    def put(self, interval: Interval) -> None:
        """Take up an interval of an earlier life."""
        self.intervals[interval.index] = interval
        self.entries += len(interval.work)

    def add_cost(self, start_ns: int, end_ns: int, nanodollars: int, energy_uj: int) -> None:
        """Spread two amounts evenly over [start_ns, end_ns); what of it is divided already falls to the oldest left."""
        start_ns = max(start_ns, self.divided_ns)
        end_ns = max(start_ns, end_ns)
        money = spread(nanodollars, start_ns, end_ns, INTERVAL_NS)
        energy = spread(energy_uj, start_ns, end_ns, INTERVAL_NS)
        for (index, dollars_part), (_, energy_part) in zip(money, energy, strict=True):
            interval = self._at(index)
            interval.nanodollars += dollars_part
            interval.energy_uj += energy_part
            self.changed.add(index)

    def add_work(self, account: Account, work: Work) -> None:
        """Spread `work` over its time.

        What falls into seconds that are divided already counts in the oldest one left if the work was `live`, for it
        was not charged there. Otherwise its request was charged there by its time, so it is dropped.
        """
        start_ns, end_ns, weight = work.start_ns, max(work.start_ns, work.end_ns), work.weight
        divided_ns = self.divided_ns
        if start_ns < divided_ns:
            if work.live:
                end_ns = max(end_ns, divided_ns)
            elif end_ns <= divided_ns:
                return
            else:
                weight -= weight * (divided_ns - start_ns) // (end_ns - start_ns)
            start_ns = divided_ns
        for index, part in spread(weight, start_ns, end_ns, INTERVAL_NS):
            if part:
                self._add_part(account, index, part, work)

    def take_changed(self) -> list[Interval]:
        """Return the intervals that changed since the last call."""
        changed = [self.intervals[index] for index in sorted(self.changed)]
        self.changed.clear()
        return changed

    def divide_oldest(self, accounts: dict[int, Account], upto_ns: int) -> Divided | None:
        """Divide the oldest interval that ends by `upto_ns`; None if there is none."""
        until = upto_ns // INTERVAL_NS
        oldest = min(self.intervals, default=until)
        if oldest >= until:
            self.divided_until = max(self.divided_until, until)
            return None
        self.divided_until = oldest + 1
        interval = self.intervals.pop(oldest)
        self.changed.discard(oldest)
        self.entries -= len(interval.work)
        return self._divide(interval, accounts)

    def _add_part(self, account: Account, index: int, part: int, work: Work) -> None:
        interval = self._at(index)
        before = interval.work.get(account.number)
        if before is None:
            self.entries += 1
        interval.work[account.number] = min(part + (before or 0), MAX_WEIGHT)
        interval.prompt_tokens += work.prompt_tokens * part / work.weight
        interval.decode_tokens += work.decode_tokens * part / work.weight
        self.changed.add(index)
        account.last_index = index if account.last_index is None else max(account.last_index, index)

    def _at(self, index: int) -> Interval:
        interval = self.intervals.get(index)
        if interval is None:
            interval = self.intervals[index] = Interval(index)
        return interval

    def _divide(self, interval: Interval, accounts: dict[int, Account]) -> Divided:
        start_ns, end_ns = interval.start_ns, interval.end_ns
        everybody = accounts.values()
        busy_ns = covered_ns(_with_engine(everybody, end_ns), start_ns, end_ns)
        weights, scale = _weigh(interval, accounts)
        if not weights:
            return Divided(interval, [], interval.nanodollars, interval.energy_uj, busy_ns)
        if self._peak_weight and interval.work:
            peak = self._peak_weight * scale
            used, whole = min(sum(weights.values()), peak), peak
        else:
            used, whole = busy_ns, INTERVAL_NS
        nanodollars = interval.nanodollars * used // whole
        energy_uj = interval.energy_uj * used // whole
        numbers, each = list(weights), list(weights.values())
        charges = [
            Charge(accounts[number], money, energy)
            for number, money, energy in zip(numbers, divide(nanodollars, each), divide(energy_uj, each), strict=True)
        ]
        return Divided(interval, charges, interval.nanodollars - nanodollars, interval.energy_uj - energy_uj, busy_ns)


def _with_engine(accounts: Iterable[Account], now_ns: int) -> Iterator[tuple[int, int]]:
    return ((each.sent_ns, now_ns if each.end_ns is None else each.end_ns) for each in accounts)


def _weigh(interval: Interval, accounts: dict[int, Account]) -> tuple[dict[int, int], int]:
    """Return the weight of each account above 0, and by how much these weights are larger than those of the work."""
    start_ns, end_ns = interval.start_ns, interval.end_ns
    known = {number: weight for number, weight in interval.work.items() if number in accounts}
    waiting = {
        number: time_ns for number, each in accounts.items() if (time_ns := each.waiting_ns(start_ns, end_ns)) > 0
    }
    if not waiting:
        return known, 1
    if not known:
        return waiting, 1
    total = sum(known.values())
    time_ns = max(1, sum(accounts[number].present_ns(start_ns, end_ns) for number in known))
    weights = {number: weight * time_ns for number, weight in known.items()}
    for number, own_ns in waiting.items():
        weights[number] = weights.get(number, 0) + own_ns * total
    return weights, time_ns
