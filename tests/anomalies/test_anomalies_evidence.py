"""evidence: nobody gains on average by betting on what is not so, and gains soon by betting on what is."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.anomalies.evidence import CEILING_WEEKS, STAKES, Evidence


@given(st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 10)), max_size=200))
def test_evidence_is_finite_and_never_negative(bets: list[tuple[float, float]]) -> None:
    """Whatever the ratios and times, it stays between 0 and the ceiling."""
    evidence = Evidence()
    for ratio, weeks in bets:
        evidence.bet(ratio, weeks)
        assert 0 <= evidence.weeks <= CEILING_WEEKS


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 10))
def test_more_seen_is_more_evidence(less: float, more: float, weeks: float) -> None:
    """Evidence rises with the ratio: a larger excess never looks smaller."""
    less, more = sorted((less, more))
    low, high = Evidence(1, 1, 1), Evidence(1, 1, 1)
    low.bet(less, weeks)
    high.bet(more, weeks)
    assert low.weeks <= high.weeks


@given(st.floats(0, 1e6), st.floats(0, 1))
def test_losing_is_a_bet_of_ratio_0(start: float, weeks: float) -> None:
    """The cheap form says the same as the general one."""
    one, other = Evidence(start, start, start), Evidence(start, start, start)
    one.bet(0.0, weeks)
    other.lose(weeks)
    assert math.isclose(one.weeks, other.weeks, rel_tol=1e-12, abs_tol=1e-300)


def test_an_exact_expectation_gains_nothing_but_time() -> None:
    """With a ratio of 1 each week, evidence is the number of weeks, which is what it is worth."""
    evidence = Evidence()
    for _ in range(50):
        evidence.bet(1.0, 1.0)
    assert evidence.weeks == pytest.approx(50)


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda rng: rng.expovariate(1), id="exponential"),
        pytest.param(lambda rng: 20.0 * (rng.random() < 0.05), id="one in twenty is twenty times as much"),
        pytest.param(lambda rng: rng.lognormvariate(-2, 2), id="heavy-tailed"),
    ],
)
def test_false_alarms_come_no_oftener_than_stated(draw: object) -> None:
    """At a bar of 50 weeks, 2,000 weeks of a mean ratio of 1 have at most 40 alarms, whatever the distribution."""
    rng, evidence, alarms = random.Random(1), Evidence(), 0
    for _ in range(2000):
        evidence.bet(draw(rng), 1.0)  # type: ignore[operator]
        if evidence.weeks >= 50:
            alarms += 1
            evidence.clear()
    assert alarms <= 40


@pytest.mark.parametrize(("ratio", "steps"), [(2.0, 20), (6.0, 8), (1.3, 70)])
def test_an_excess_is_found_within_some_steps(ratio: float, steps: int) -> None:
    """The larger, the sooner: from an hour's worth of weeks to a thousand."""
    evidence = Evidence()
    for _ in range(steps):
        evidence.bet(ratio, 1 / 168)
    assert evidence.weeks > 1000 if ratio > 1.5 else evidence.weeks > 1


def test_stakes_leave_something() -> None:
    """Nobody stakes everything, or one empty bucket would end the player."""
    assert all(0 < stake < 1 for stake in STAKES)


def test_cleared_evidence_is_none() -> None:
    """After `clear` it is as at the beginning."""
    evidence = Evidence()
    evidence.bet(9.0, 1.0)
    evidence.clear()
    assert evidence.weeks == 0
