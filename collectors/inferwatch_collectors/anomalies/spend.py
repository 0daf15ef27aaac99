"""Does a tenant spend more than it used to at this hour of the week? Watched in buckets of an hour and of five minutes.

The bet of each bucket (see `evidence`): what was spent, divided by the most that was to be expected, which is

    tolerance x what the rhythm expects of this hour x what followed before when the tenant was as busy as just now

The last factor is what keeps bursts from being alarms. Spending comes in bursts: after a bucket of five times the usual
the next is likely high too, and a test that takes buckets for independent calls each burst unusual. So the mean ratio
that followed is learnt for each of a few degrees of having been busy. A degree never seen before is taken as the one
below it: who has never been that busy has no history of staying so, and there evidence grows fast.

What followed is learnt when it is over, after CALM_BUCKETS in a row within the tolerance, and not if it became a
signal; else an excess would teach that there is an excess. The rhythm learns everything, two days late, so what comes
each week is known after some weeks.

A signal ends with CALM_BUCKETS within the tolerance. What has lasted for a week is the new pattern: the past is
forgotten, and evidence begins anew when there is enough history again.

Pure: no clock. Amounts are whole numbers of whatever unit the caller uses, never negative.
"""

from bisect import bisect_right
from typing import Final, NamedTuple

import msgspec

from inferwatch_collectors.anomalies.evidence import WEEK_S, Evidence, Signal
from inferwatch_collectors.anomalies.rhythm import Rhythm, RhythmState
from inferwatch_collectors.anomalies.written import Count, Weeks, Weight
from inferwatch_collectors.wall_time import HOUR_S, HOURS_OF_WEEK

BUCKET_S: Final = 300
BUCKETS_PER_HOUR: Final = HOUR_S // BUCKET_S

# One bucket tells no more than this many times the expectation: a single bill for a thousand hours is no pattern, and
# the mean of what follows could not be learnt from few buckets if one of them may outweigh all others.
MAX_RATIO: Final = 100.0

# Degrees of having been busy: a decaying mean of the ratios so far, in powers of two.
DEGREES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
# What a bucket leaves of the mean before it.
BUSY_MEMORY: Final = 0.5

# What followed in a degree is drawn towards the degree below as if that had been seen this often: an hour's worth.
DEGREE_PRIOR: Final = 4.0
# And is forgotten over half a year: a job that runs late does so a few times a year.
DEGREE_MEMORY_WEEKS: Final = 26

CALM_BUCKETS: Final = 3

# What is not learnt yet is bounded: a day of five minutes. Who is not calm for that long has this for a habit.
MAX_RECENT: Final = 288


class PaceState(msgspec.Struct, array_like=True):
    """What is written down of a `Pace`."""

    evidence: tuple[Weeks, Weeks, Weeks]
    followed: list[Weight]
    weights: list[Weight]
    busy: Weight
    signalling: bool


class Pace:
    """The buckets of one length of one tenant: what follows what, and the evidence."""

    __slots__ = ("_busy", "_calm", "_followed", "_memory", "_recent", "_weeks", "_weights", "evidence", "signalling")

    def __init__(self, bucket_s: int) -> None:
        self._weeks = bucket_s / WEEK_S
        self._memory = 1 - self._weeks / DEGREE_MEMORY_WEEKS
        self._followed = [0.0] * (len(DEGREES) + 1)
        self._weights = [0.0] * (len(DEGREES) + 1)
        self._recent: list[tuple[int, float]] = []  # (degree, ratio that followed), not yet learnt
        self._busy = 1.0
        self._calm = 0
        self.evidence = Evidence()
        self.signalling = False

    def take(self, ratio: float, tolerance: float, bar_weeks: float | None) -> bool:
        """Take a bucket; return True if with it a signal begins: at `bar_weeks` of evidence, None: not judged."""
        degree = bisect_right(DEGREES, self._busy)
        self._busy += (1 - BUSY_MEMORY) * (ratio - self._busy)
        self._calm = self._calm + 1 if ratio <= tolerance else 0
        begins = False
        if bar_weeks is not None:
            self.evidence.bet(ratio / (tolerance * self._most(degree)), self._weeks)
            begins = not self.signalling and self.evidence.weeks >= bar_weeks
        if begins:
            self.signalling = True
            self._recent.clear()
        elif self.signalling:
            self._end_if_calm()
        else:
            self._recent.append((degree, ratio))
            if self._calm >= CALM_BUCKETS or len(self._recent) >= MAX_RECENT:
                self._learn()
        return begins

    def _most(self, degree: int) -> float:
        """Return the mean ratio to be expected after this degree, at least 1."""
        most = 1.0
        for place in range(degree + 1):
            most = max(most, (self._followed[place] + DEGREE_PRIOR * most) / (self._weights[place] + DEGREE_PRIOR))
        return most

    def _end_if_calm(self) -> None:
        if self._calm >= CALM_BUCKETS:
            self.signalling = False
            self.evidence.clear()

    def _learn(self) -> None:
        for degree, ratio in self._recent:
            self._followed[degree] = self._followed[degree] * self._memory + ratio
            self._weights[degree] = self._weights[degree] * self._memory + 1.0
        self._recent.clear()

    def missed(self) -> None:
        """Buckets were not seen: on what the next one follows is not known."""
        self._recent.clear()
        self._busy = 1.0
        self._calm = 0

    def state(self) -> PaceState:
        """Return it to be written down."""
        evidence = (self.evidence.low, self.evidence.middle, self.evidence.high)
        return PaceState(evidence, self._followed, self._weights, self._busy, self.signalling)

    def resume(self, state: PaceState) -> None:
        """Take up what was written down.

        Raises:
            ValueError: it was written by another version.
        """
        if len(state.followed) != len(self._followed) or len(state.weights) != len(self._weights):
            raise ValueError(f"{len(state.followed)} degrees")
        self.evidence = Evidence(*state.evidence)
        self._followed, self._weights = state.followed, state.weights
        self._busy, self.signalling = state.busy, state.signalling


class Terms(NamedTuple):
    """What makes a signal."""

    tolerance: float
    min_history_hours: int
    bar_weeks: float  # so much evidence
    least: float = 0.0  # expect at least this much of each hour: what does not matter is no surprise


class Surprise(NamedTuple):
    """A signal that begins. Amounts are of the buckets since evidence began to grow."""

    kind: str
    weeks: float
    spent: int
    expected: float
    buckets: int

    def signal(self, unit: str) -> Signal:
        """Return it with its facts, in `unit`: nano-dollars are shown as `dollars`."""
        scale = 1e9 if unit == "dollars" else 1.0
        times = self.spent / self.expected if self.expected > 0 else 0.0
        facts = (
            f"{unit}={self.spent / scale:.6g} expected={self.expected / scale:.6g} "
            f"times={times:.1f} buckets={self.buckets}"
        )
        return Signal(self.kind, self.weeks, facts)


HOUR: Final = "hour"
FIVE_MINUTES: Final = "five_minutes"


class SpendState(msgspec.Struct, array_like=True):
    """What is written down of a `Spend`."""

    rhythm: RhythmState
    hourly: PaceState
    fast: PaceState
    signal_hours: Count


class Spend:
    """One tenant's spending."""

    __slots__ = ("_rises", "expected_hour", "fast", "hourly", "last_hour", "rhythm", "signal_hours")

    def __init__(self) -> None:
        self._forget()
        self.last_hour: int | None = None  # spent in the last whole hour
        self.expected_hour: float | None = None  # of that hour

    def _forget(self) -> None:
        self.rhythm = Rhythm()
        self.hourly = Pace(HOUR_S)
        self.fast = Pace(BUCKET_S)
        self.signal_hours = 0
        self._rises = {HOUR: _Rise(), FIVE_MINUTES: _Rise()}

    def bucket(self, hour: int, spent: int, terms: Terms) -> Surprise | None:
        """Take five whole minutes of `hour` (since 1970)."""
        expected = max(self.rhythm.expected(hour), terms.least) / BUCKETS_PER_HOUR
        return self._take(FIVE_MINUTES, self.fast, spent, expected, terms)

    def hour(self, hour: int, spent: int, terms: Terms) -> Surprise | None:
        """Take a whole hour. Its twelve buckets have been taken before."""
        expected = max(self.rhythm.expected(hour), terms.least)
        self.last_hour = spent
        self.expected_hour = self.rhythm.expected(hour) if self.judged(terms) else None
        found = self._take(HOUR, self.hourly, spent, expected, terms)
        # Cut only what can be compared: of a tenant that never spent anything, the first amount is learnt as it is.
        comparable = expected > 0 and self.judged(terms)
        self.rhythm.learn(hour, min(spent, MAX_RATIO * expected) if comparable else spent)
        self.signal_hours = self.signal_hours + 1 if self.signalling else 0
        if self.signal_hours >= HOURS_OF_WEEK:
            self._forget()
        return found

    def judged(self, terms: Terms) -> bool:
        """Tell whether there is enough history."""
        return self.rhythm.hours >= terms.min_history_hours

    @property
    def signalling(self) -> bool:
        """Whether a signal stands."""
        return self.hourly.signalling or self.fast.signalling

    def missed(self) -> None:
        """Buckets were not seen: what they followed on, and what follows on them, is not known."""
        self.hourly.missed()
        self.fast.missed()
        for rise in self._rises.values():
            rise.clear()

    def _take(self, kind: str, pace: Pace, spent: int, expected: float, terms: Terms) -> Surprise | None:
        ratio = min(MAX_RATIO, spent / expected) if expected > 0 else (MAX_RATIO if spent else 0.0)
        begins = False
        rise = self._rises[kind]
        if 2 * self.rhythm.hours >= terms.min_history_hours:
            judged = self.judged(terms)
            begins = pace.take(ratio, terms.tolerance, terms.bar_weeks if judged else None)
            if judged:
                rise.add(spent, expected, above=ratio > terms.tolerance)
        return Surprise(kind, pace.evidence.weeks, rise.spent, rise.expected, rise.buckets) if begins else None

    def state(self) -> SpendState:
        """Return it to be written down."""
        return SpendState(self.rhythm.state(), self.hourly.state(), self.fast.state(), self.signal_hours)

    @classmethod
    def of(cls, state: SpendState) -> "Spend":
        """Return what was written down.

        Raises:
            ValueError: it was written by another version.
        """
        found = cls()
        found.rhythm = Rhythm.of(state.rhythm)
        found.hourly.resume(state.hourly)
        found.fast.resume(state.fast)
        found.signal_hours = state.signal_hours
        return found


class _Rise:
    """What was spent since the tenant was last within the tolerance for a while: for people to read."""

    __slots__ = ("_calm", "buckets", "expected", "spent")

    def __init__(self) -> None:
        self._calm = 0
        self.clear()

    def add(self, spent: int, expected: float, *, above: bool) -> None:
        self._calm = 0 if above else self._calm + 1
        if self._calm >= CALM_BUCKETS:
            self.clear()
        elif above or self.buckets:
            self.spent += spent
            self.expected += expected
            self.buckets += 1

    def clear(self) -> None:
        self.spent = 0
        self.expected = 0.0
        self.buckets = 0
        self._calm = 0
