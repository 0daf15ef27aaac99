"""runs: what goes on far longer than a tenant's runs do is a signal; habits are learnt, and memory is bounded."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.anomalies.runs import MAX_CHANCE, Habit, Run, Runs

WEEK_S = 7 * 24 * 3600.0


def habit_of(steps: int, count: int = 200) -> Habit:
    """A tenant whose runs stopped after `steps` more."""
    habit = Habit(0.0, 0.5, 10.0)
    for _ in range(count):
        habit.ended(steps)
    return habit


def steps_until_signal(habit: Habit, bar_weeks: float, most: int = 5000) -> int | None:
    run = Run(habit, 5, WEEK_S)
    return next((run.steps for _ in range(most) if run.step(WEEK_S, bar_weeks)), None)


@pytest.mark.parametrize(("steps", "within"), [(0, 30), (1, 60), (9, 300), (1000, 1000)])
def test_longer_habits_need_longer_runs(steps: int, within: int) -> None:
    """Who always stopped at once is unusual soon; whose runs go on for long, later, but not never."""
    found = steps_until_signal(habit_of(steps), 1000)
    assert found is not None
    assert found <= within


def test_a_run_is_told_once() -> None:
    """However long it goes on."""
    run = Run(habit_of(0), 5, WEEK_S)
    assert sum(run.step(WEEK_S, 10) for _ in range(500)) == 1


def test_ordinary_runs_are_false_signals_no_oftener_than_stated() -> None:
    """20 weeks, a hundred runs a week that go on with 0.8: at a bar of 2 weeks at most 10 signals."""
    rng, habit, told = random.Random(1), Habit(0.0, 0.8, 20.0), 0
    for number in range(2000):
        now_s = number * WEEK_S / 100
        run = Run(habit, 2, now_s)
        while rng.random() < 0.8:
            told += run.step(now_s, 2.0)
        run.end()
    assert told <= 10


@given(st.lists(st.integers(0, 10**6), max_size=50))
def test_chances_are_chances(ends: list[int]) -> None:
    """Whatever was seen, runs go on with a chance above 0 and at most MAX_CHANCE."""
    habit = Habit(0.0, 0.5, 10.0)
    for steps in ends:
        habit.ended(steps)
    assert 0 < habit.chance() <= MAX_CHANCE


def test_the_largest_evidence_is_shown_until_its_run_ends() -> None:
    """The gauge follows the run with most of it."""
    habit = habit_of(1)
    run = Run(habit, 2, WEEK_S)
    for _ in range(20):
        run.step(WEEK_S, 1e9)
    assert habit.weeks == run.weeks > 0
    run.end()
    assert habit.weeks == 0


def test_clocks_that_go_back_give_nothing() -> None:
    """The weeks since the last entry are never negative."""
    habit = Habit(100.0, 0.5, 10.0)
    assert habit.enter(50.0) == 0
    assert habit.enter(100.0 + WEEK_S) == pytest.approx(1.0)


def test_above_the_limit_the_oldest_is_ended_and_counted() -> None:
    """Memory is bounded; what was cut is told."""
    runs: Runs[str, Run] = Runs(limit=2)
    habit = habit_of(0)
    for key in ("a", "b"):
        runs.begin(key, Run(habit, 5, 0.0))
    assert runs.get("a") is not None  # touched: `b` is the oldest now
    runs.begin("c", Run(habit, 5, 0.0))
    assert (len(runs), runs.cut) == (2, 1)
    assert runs.get("b") is None


def test_silent_runs_are_ended_some_at_a_time() -> None:
    """The longest silent first, at most so many a sweep."""
    runs: Runs[int, Run] = Runs()
    for number in range(10):
        runs.begin(number, Run(habit_of(0), 5, float(number)))
    runs.expire(before_s=5.0, most=3)
    assert len(runs) == 7
    runs.expire(before_s=5.0, most=100)
    assert len(runs) == 5
