"""Runs that go on and on: one step after another of the same thing, where others have long stopped.

What a run is, its user decides (`storms`, `loops`); here is the evidence (see `evidence` for its unit). From a length
of `begin` steps on, each further step is a bet against "it goes on with a chance of at most c": whoever bets everything
has 1 / c times as much after a step, and nothing after the end. With each run that gets that far a new player comes
in, with as much as the weeks since the tenant's last such run. So a signal at W weeks comes on average no sooner than
after W weeks, as long as the tenant's runs go on no likelier than c.

c is learnt from the tenant's own runs after they have ended: stops among steps, divided by TOLERANCE. Of a run that
became a signal only the steps up to there count: often the same is a habit, but one endless loop is none.

Pure: seconds are of a clock that does not go back.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

import msgspec

from inferwatch_collectors.anomalies.evidence import CEILING_WEEKS, WEEK_S
from inferwatch_collectors.anomalies.written import Weight

# Runs may stop half as often again as they did, without a word.
TOLERANCE: Final = 1.5

# However long a tenant's runs are: a run that cannot be unusual at all would make it deaf.
MAX_CHANCE: Final = 0.98

# Above this both counts are halved.
MAX_STEPS: Final = 10_000.0

# Nobody gains by not having been seen for a long time.
MAX_ENTRY_WEEKS: Final = 1.0

# Per kind, over all tenants, some 300 bytes each.
MAX_RUNS: Final = 8192


class HabitState(msgspec.Struct, array_like=True):
    """What is written down of a `Habit`."""

    steps: Weight
    stops: Weight


class Habit:
    """How one tenant's runs of one kind go on beyond their beginning."""

    __slots__ = ("_entered_s", "_prior_steps", "_prior_stops", "_steps", "_stops", "holder", "weeks")

    def __init__(self, now_s: float, chance: float, prior: float) -> None:
        """Before any was seen, runs go on with `chance`, as if `prior` steps and stops had been."""
        self._prior_stops = prior * (1 - chance)
        self._prior_steps = prior * chance
        self._steps = 0.0
        self._stops = 0.0
        self._entered_s = now_s
        self.weeks = 0.0  # the most evidence of the runs under way
        self.holder: Run | None = None

    def chance(self) -> float:
        """Return the most likely that a run goes on by another step."""
        stops = self._stops + self._prior_stops
        return min(MAX_CHANCE, 1 - stops / (self._steps + self._prior_steps + stops) / TOLERANCE)

    def enter(self, now_s: float) -> float:
        """A run has got so far that it is bet on; return with how much, in weeks."""
        weeks = min(MAX_ENTRY_WEEKS, max(0.0, now_s - self._entered_s) / WEEK_S)
        self._entered_s = max(now_s, self._entered_s)
        return weeks

    def ended(self, steps: int) -> None:
        """A run stopped, or became a signal, after going on for `steps`."""
        self._steps += steps
        self._stops += 1
        if self._steps + self._stops > MAX_STEPS:
            self._steps, self._stops = self._steps / 2, self._stops / 2

    def state(self) -> HabitState:
        """Return it to be written down."""
        return HabitState(self._steps, self._stops)

    def resume(self, state: HabitState) -> None:
        """Take up what was written down."""
        self._steps, self._stops = state.steps, state.stops


class Run:
    """One run under way."""

    __slots__ = ("begin", "habit", "last_s", "signalled", "steps", "weeks")

    def __init__(self, habit: Habit, begin: int, now_s: float) -> None:
        self.habit = habit
        self.begin = begin  # from here on each step is a bet
        self.steps = 1
        self.weeks = 0.0
        self.signalled = False
        self.last_s = now_s

    def step(self, now_s: float, bar_weeks: float) -> bool:
        """Take a step; return True if with it a signal begins."""
        self.steps += 1
        self.last_s = now_s
        if self.steps < self.begin:
            return False
        habit = self.habit
        if self.steps == self.begin:
            self.weeks = habit.enter(now_s)
        else:
            self.weeks = min(CEILING_WEEKS, self.weeks / habit.chance())
        if self.weeks >= habit.weeks:
            habit.weeks, habit.holder = self.weeks, self
        if self.signalled or self.weeks < bar_weeks:
            return False
        self.signalled = True
        habit.ended(self.steps - self.begin)
        return True

    def end(self) -> None:
        """It is over."""
        if self.habit.holder is self:
            self.habit.weeks, self.habit.holder = 0.0, None
        if self.steps >= self.begin and not self.signalled:
            self.habit.ended(self.steps - self.begin)


K = TypeVar("K", bound=Hashable)
R = TypeVar("R", bound=Run)


class Runs(Generic[K, R]):
    """All runs of one kind, the longest untouched first. Above MAX_RUNS that one is ended, and counted."""

    def __init__(self, limit: int = MAX_RUNS) -> None:
        self._runs: OrderedDict[K, R] = OrderedDict()
        self._limit = limit
        self.cut = 0

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, key: K) -> R | None:
        """Return the run of `key`, and take it for touched."""
        run = self._runs.get(key)
        if run is not None:
            self._runs.move_to_end(key)
        return run

    def begin(self, key: K, run: R) -> None:
        """Take up a run; one of the same key has ended."""
        self.end(key)
        self._runs[key] = run
        if len(self._runs) > self._limit:
            self.cut += 1
            self._runs.popitem(last=False)[1].end()

    def end(self, key: K) -> None:
        """The run of `key`, if there is one, is over."""
        run = self._runs.pop(key, None)
        if run is not None:
            run.end()

    def expire(self, before_s: float, most: int) -> None:
        """End at most `most` runs whose last step was before `before_s`."""
        while self._runs and most > 0:
            key, run = next(iter(self._runs.items()))
            if run.last_s >= before_s:
                return
            self.end(key)
            most -= 1
