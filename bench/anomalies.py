"""How often is a signal of unusual spending false, and how soon does a true one come? `python -m bench.anomalies`

Made-up tenants that do nothing unusual, for half a year each, and the same with something going wrong; seeded, so that
a second run says the same. Spending is that of `bench.spending`, requests those of `bench.asking`. A minute or two.

    python -m bench.anomalies --tenants 12 --weeks 26
"""

import argparse
import contextlib
import heapq
import logging
import random
import statistics
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from bench import asking
from bench.spending import BUCKETS_PER_WEEK, MONDAY, TENANTS, Spender

from inferwatch.record import RequestRecord
from inferwatch.settings.anomalies import Anomalies
from inferwatch_collectors import metrics as m
from inferwatch_collectors.anomalies.spend import (
    BUCKET_S,
    BUCKETS_PER_HOUR,
    FIVE_MINUTES,
    HOUR,
    Pace,
    Spend,
    Surprise,
    Terms,
)
from inferwatch_collectors.anomalies.watch import KINDS, AnomalyWatch
from inferwatch_collectors.cardinality import CardinalityGuard
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.wall_time import HOURS_OF_WEEK

DEFAULTS: Final = Anomalies()

# Of one tenant and kind. The first so that there is something to count; the last is the default for 100 tenants.
BARS: Final = (20.0, 100.0, DEFAULTS.weeks_per_false_alarm * len(KINDS) * 100)

HISTORY_WEEKS: Final = 4
PATIENCE_HOURS: Final = HOURS_OF_WEEK
TIMES: Final = (3, 10)

REQUEST_WEEKS: Final = 6


class Peak:
    """The largest evidence of each episode."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._peak = 0.0
        self.peaks: list[float] = []

    def look(self) -> None:
        """After each bucket."""
        if self._pace.signalling:
            self._peak = max(self._peak, self._pace.evidence.weeks)
        elif self._peak:
            self.peaks.append(self._peak)
            self._peak = 0.0


def terms(bar_weeks: float) -> Terms:
    """Return the defaults, at a bar of one's own."""
    return Terms(DEFAULTS.tolerance, DEFAULTS.min_history_hours, bar_weeks)


def ordinary(spender: Spender, weeks: int) -> list[float]:
    """Return the peaks of false signals of a tenant that does nothing unusual."""
    spend, judged = Spend(), terms(BARS[0])
    peaks = [Peak(spend.fast), Peak(spend.hourly)]
    for hour in range(MONDAY, MONDAY + weeks * HOURS_OF_WEEK):
        total = 0
        for bucket in range(BUCKETS_PER_HOUR):
            spent = spender(hour, bucket)
            total += spent
            spend.bucket(hour, spent, judged)
            peaks[0].look()
        spend.hour(hour, total, judged)
        peaks[1].look()
    return peaks[0].peaks + peaks[1].peaks


class Found(NamedTuple):
    """How soon: hours, and by which kind."""

    hours: float
    kind: str


def attacked(spender: Spender, times: int, begin: int) -> Found | None:
    """Spend `times` the mean from `begin` (an hour after the history) on; return how soon it is found."""
    spend, judged, total = Spend(), terms(BARS[-1]), 0
    first = MONDAY + HISTORY_WEEKS * HOURS_OF_WEEK
    for hour in range(MONDAY, first + begin + PATIENCE_HOURS):
        extra = 0 if hour < first + begin else (times - 1) * total // (HISTORY_WEEKS * BUCKETS_PER_WEEK)
        in_hour = 0
        for bucket in range(BUCKETS_PER_HOUR):
            spent = spender(hour, bucket)
            total += spent if hour < first else 0
            in_hour += spent + extra
            if (found := spend.bucket(hour, spent + extra, judged)) and extra:
                return _found(found, hour - first - begin + (bucket + 1) / BUCKETS_PER_HOUR)
        if (found := spend.hour(hour, in_hour, judged)) and extra:
            return _found(found, hour - first - begin + 1.0)
    return None


def _found(surprise: Surprise, hours: float) -> Found:
    return Found(hours, surprise.kind)


def false_signals(tenants: int, weeks: int) -> None:
    """Print how many there were."""
    judged_weeks = tenants * (weeks - DEFAULTS.min_history_hours / HOURS_OF_WEEK)
    print(f"False signals of spending: {tenants} tenants of each sort, {weeks} weeks, {judged_weeks:,.0f} judged.")
    print("| tenant | " + " | ".join(f"bar {bar:,.0f} weeks" for bar in BARS) + " |")
    print("|---|" + "---|" * len(BARS))
    print("| at most, if the bar holds | " + " | ".join(f"{2 * judged_weeks / bar:.1f}" for bar in BARS) + " |")
    for name, make in TENANTS.items():
        peaks = [peak for seed in range(tenants) for peak in ordinary(make(random.Random(f"{name}{seed}")), weeks)]
        print(f"| {name} | " + " | ".join(str(sum(peak >= bar for peak in peaks)) for bar in BARS) + " |")


def delays(tenants: int) -> None:
    """Print how soon extra spending is found."""
    print(f"\nHours until extra spending is found, bar {BARS[-1]:,.0f} weeks; median (slowest), found of {tenants}.")
    print("| tenant | " + " | ".join(f"× {times}" for times in TIMES) + " |")
    print("|---|" + "---|" * len(TIMES))
    for name, make in TENANTS.items():
        cells = []
        for times in TIMES:
            all_found = [
                attacked(make(random.Random(f"{name}{seed}")), times, seed * 29 % HOURS_OF_WEEK)
                for seed in range(tenants)
            ]
            hours = [each.hours for each in all_found if each is not None]
            fast = sum(each is not None and each.kind == FIVE_MINUTES for each in all_found)
            how = f"{statistics.median(hours):.1f} ({max(hours):.1f})" if hours else "none"
            cells.append(f"{how}, {len(hours)}; by {FIVE_MINUTES} {fast}, by {HOUR} {len(hours) - fast}")
        print(f"| {name} | " + " | ".join(cells) + " |")


class Asked:
    """One tenant's requests through the whole of it, with the bar of one among 100 tenants."""

    def __init__(self, tenants: int = 100) -> None:
        weeks = DEFAULTS.weeks_per_false_alarm * tenants
        self._store = MetricStore()
        settings = Anomalies(weeks_per_false_alarm=weeks)
        self._watch = AnomalyWatch(self._store, CardinalityGuard(), settings)
        self._ticked = -1

    def take(self, record: RequestRecord) -> None:
        """Let it end, and the time until then pass."""
        end_s = record.wall_ns / asking.NS_PER_S + record.duration_s
        while 0 <= self._ticked < end_s - BUCKET_S:  # a collector sees every bucket, whether anybody asks or not
            self._ticked += BUCKET_S
            self._watch.tick(self._ticked, self._ticked)
        if int(end_s) != self._ticked:
            self._ticked = int(end_s)
            self._watch.tick(end_s, end_s)
        self._watch.record(record)

    def signals(self) -> dict[str, int]:
        """Return how many there were of each kind."""
        found = ((kind, self._store.counter(m.SPEND_ANOMALY_SIGNALS, ("one", kind)).value) for kind in KINDS)
        return {kind: int(value) for kind, value in found if value}


def requests(tenants: int) -> None:
    """Print false signals of ordinary requests, and how soon something wrong is found."""
    weeks = REQUEST_WEEKS
    print(
        f"\nRequests: {tenants} tenants of each sort, {weeks} weeks; false signals at the bar of 1 tenant and of 100,"
    )
    print("and what it took until a signal in the midst of that traffic: median (slowest) of those found.")
    print("| tenant | requests | false, 1 | false, 100 | " + " | ".join(asking.WRONG) + " |")
    print("|---|---|---|---|" + "---|" * len(asking.WRONG))
    for name, make in asking.ORDINARY.items():
        cells = []
        count = 0
        for bar_tenants in (1, 100):
            false: dict[str, int] = {}
            for seed in range(tenants):
                asked = Asked(bar_tenants)
                for record in make(random.Random(f"{name}{seed}"), weeks * 7 * asking.DAY_S):
                    asked.take(record)
                    count += 1
                for kind, signals in asked.signals().items():
                    false[kind] = false.get(kind, 0) + signals
            cells.append(", ".join(f"{kind} {signals}" for kind, signals in false.items()) or "0")
        for kind in asking.WRONG:
            cells.append(_wrong(name, kind, tenants))
        print(f"| {name} | {count // 2:,} | " + " | ".join(cells) + " |")


def _wrong(name: str, kind: str, tenants: int) -> str:
    """Return how many requests, and seconds, it takes until `kind` is told."""
    took: list[tuple[int, float]] = []
    for seed in range(tenants):
        begin_s = 18 * asking.DAY_S + seed * 7919 % 86_400
        usual = asking.ORDINARY[name](random.Random(f"{name}{seed}"), begin_s + 7200)
        asked, wrong, before = Asked(), 0, 0
        for record, is_wrong in _both(usual, asking.WRONG[kind](begin_s)):
            if is_wrong and not wrong:
                before = asked.signals().get(kind, 0)
            wrong += is_wrong
            asked.take(record)
            if is_wrong and asked.signals().get(kind, 0) > before:
                end_s = record.wall_ns / asking.NS_PER_S + record.duration_s - asking.BEGIN_S
                took.append((wrong, end_s - begin_s))
                break
    if not took:
        return "none"
    after, seconds = ([each[place] for each in took] for place in (0, 1))
    return (
        f"{statistics.median(after):.0f} ({max(after)}) requests, {statistics.median(seconds):.0f} "
        f"({max(seconds):.0f}) s, {len(took)} of {tenants}"
    )


def _both(usual: asking.Requests, wrong: asking.Requests) -> Iterator[tuple[RequestRecord, bool]]:
    def ends(records: asking.Requests, *, is_wrong: bool) -> Iterator[tuple[float, bool, RequestRecord]]:
        return ((each.wall_ns / asking.NS_PER_S + each.duration_s, is_wrong, each) for each in records)

    for _, is_wrong, record in heapq.merge(
        ends(usual, is_wrong=False), ends(wrong, is_wrong=True), key=lambda each: each[0]
    ):
        yield record, is_wrong


def cost() -> None:
    """Print what a request costs."""
    made = list(asking.chat(random.Random(1), 40 * asking.DAY_S))[:50_000]
    asked = Asked()
    asked.take(made[0])
    watch = asked._watch  # noqa: SLF001 - without the clock of this bench
    best = []
    for _ in range(3):
        begin_s = time.perf_counter()
        for record in made:
            watch.record(record)
        best.append((time.perf_counter() - begin_s) / len(made))
    print(f"\nOne request: {min(best) * 1e6:.1f} µs.")


def main() -> int:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tenants", type=int, default=8, help="of each sort")
    parser.add_argument("--weeks", type=int, default=26)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    begin_s = time.perf_counter()
    with contextlib.suppress(KeyboardInterrupt):
        false_signals(options.tenants, options.weeks)
        delays(options.tenants)
        requests(max(1, options.tenants // 4))
        cost()
    print(f"Took {time.perf_counter() - begin_s:.0f} s.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
