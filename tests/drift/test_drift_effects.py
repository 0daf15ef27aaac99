"""effects and words: what people are told of a feature is true, and says something."""

import random
import re
from collections.abc import Callable

import pytest

from inferwatch_collectors.drift.effects import Effect, by_evidence
from inferwatch_collectors.drift.features import Feature, features
from inferwatch_collectors.drift.reference import Terms
from inferwatch_collectors.drift.stream import Lesson, Watched
from inferwatch_collectors.drift.words import figure, told

TERMS = Terms.of(100, risk=0.01, tolerance=0.0)
BY_NAME = {each.name: each for each in features(text=True)}
Draw = Callable[[random.Random], float]


def effect_of(feature: Feature, before: Draw, now: Draw, votes: int = 1_000) -> Effect:
    """Return how a feature is that was learnt of 8,000 values, and seen in `votes` since."""
    rng = random.Random(3)
    lesson = Lesson([feature])
    for vote in range(8_000):
        lesson.vote({feature.name: before(rng)}, vote % 168)
    watched = Watched(lesson.pin(1_000), [feature], TERMS, 0.0)
    for vote in range(votes):
        watched.vote({feature.name: now(rng)}, vote / 50_000, vote % 168)
    [found] = watched.effects()
    return found


def mostly_0(share: float) -> Draw:
    """Draw a share of words, of which so many requests have any."""
    return lambda rng: rng.uniform(0.05, 0.3) if rng.random() < share else 0.0


def percents(text: str) -> list[float]:
    """Return the figures with a % behind them."""
    return [float(each) for each in re.findall(r"([0-9.]+)%", text)]


@pytest.mark.parametrize(("before", "now"), [(0.03, 0.27), (0.0, 0.25), (0.3, 0.05), (0.4, 0.75)])
def test_of_what_most_have_none_it_is_told_how_many_have_any(before: float, now: float) -> None:
    """In per cent of the requests, right to a few of them; the median is 0, not the width of a bin."""
    effect = effect_of(BY_NAME["prompt_german"], mostly_0(before), mostly_0(now), votes=4_000)
    text = told(effect)
    assert re.fullmatch(
        r"share of frequent German words of prompts: any in [0-9.]+% of prompts before, [0-9.]+% now", text
    )
    assert percents(text) == pytest.approx([100 * before, 100 * now], abs=4)
    assert effect.median_before == 0.0
    assert effect.any is not None
    assert effect.any.now == pytest.approx(now, abs=0.04)


def test_where_the_middle_moves_the_medians_are_told() -> None:
    """With three digits, in the feature's own unit."""
    effect = effect_of(
        BY_NAME["completion_tokens"], lambda rng: rng.lognormvariate(5, 1), lambda rng: rng.lognormvariate(5.7, 1)
    )
    found = re.fullmatch(r"length of answers in tokens: median (\d+) before, (\d+) now", told(effect))
    assert found is not None
    assert float(found[1]) == pytest.approx(148, rel=0.1)
    assert float(found[2]) == pytest.approx(299, rel=0.15)
    assert effect.any is None


@pytest.mark.parametrize(("factor", "where"), [(8.0, "above"), (0.05, "up to")])
def test_where_a_tenth_of_the_traffic_is_of_another_kind_the_tail_is_told(factor: float, where: str) -> None:
    """The median hardly moves, a tail does: how many are in it, before and now."""

    def now(rng: random.Random) -> float:
        return rng.lognormvariate(5, 1) * (factor if rng.random() < 0.1 else 1.0)

    effect = effect_of(BY_NAME["prompt_tokens"], lambda rng: rng.lognormvariate(5, 1), now, votes=4_000)
    text = told(effect)
    assert re.fullmatch(
        rf"length of prompts in tokens: {where} [0-9.,]+ in [0-9.]+% of prompts before, [0-9.]+% now", text
    )
    before_share, now_share = percents(text)
    assert before_share == pytest.approx(5, abs=2)
    assert now_share > before_share + 4


def test_of_a_pace_it_is_told_how_many_times_as_long_it_takes() -> None:
    """It is kept as a logarithm, which nobody reads."""
    effect = effect_of(BY_NAME["ttft"], lambda rng: rng.gauss(0, 0.5), lambda rng: rng.gauss(0.7, 0.5), votes=4_000)
    found = re.fullmatch(r".*: median ([0-9.]+) times as long as before", told(effect))
    assert found is not None
    assert float(found[1]) == pytest.approx(2.0, rel=0.15)


def test_what_was_always_the_same_and_is_not() -> None:
    """Where nearly all is in one bin, the share beyond it is told; where all has gone beyond, the side."""
    effect = effect_of(
        BY_NAME["prompt_tokens"], lambda rng: 100.0, lambda rng: 400.0 if rng.random() < 0.6 else 100.0, votes=4_000
    )
    text = told(effect)
    assert text.startswith("length of prompts in tokens: above 100 in 0.0% of prompts before, ")
    assert percents(text)[1] == pytest.approx(60, abs=4)


def test_the_order_is_that_of_evidence_and_of_the_same_evidence_that_of_size() -> None:
    """Evidence has a ceiling: there, what moved more is told first."""
    one = effect_of(BY_NAME["prompt_german"], mostly_0(0.03), mostly_0(0.3))
    ranked = by_evidence(
        [one._replace(weeks=5.0, psi=9.0), one._replace(weeks=7.0, psi=0.1), one._replace(weeks=7.0001, psi=0.0)]
    )
    assert [each.psi for each in ranked] == [0.1, 0.0, 9.0]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (146.234, "146"),
        (12_345.6, "12,300"),
        (0.030121, "0.0301"),
        (-0.5, "-0.5"),
        (99.96, "100"),
        (7.0, "7"),
        (1.377e-46, "0"),
        (-1.377e-46, "0"),
        (float("inf"), "0"),
    ],
)
def testfigures_have_three_digits_that_count_and_no_exponent(value: float, shown: str) -> None:
    """Whatever comes."""
    assert figure(value) == shown
