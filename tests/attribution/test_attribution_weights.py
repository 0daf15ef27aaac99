"""What a token weighs: as configured, as learned."""

import random
from decimal import Decimal
from itertools import cycle, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.settings.cost import Attribution
from inferwatch_collectors.attribution.weights import MAX_RATIO, MIN_INTERVALS, MIN_RATIO, UNIT, Learner, Weights

DEFAULT = Weights.of(Attribution())


def test_weights_are_what_was_written() -> None:
    """In millionths, exactly."""
    given = Attribution(prefill_weight=Decimal("0.3"), cached_weight=Decimal("0.000001"), decode_weight=Decimal("1.25"))
    assert Weights.of(given) == Weights(300_000, 1, 1_250_000)


@pytest.mark.parametrize(
    ("prompt", "cached", "weight"),
    [(100, 0, 25), (100, 40, 16), (100, 100, 2.5), (10, 50, 0.25), (0, 0, 0)],
)
def test_cached_tokens_are_lighter(prompt: int, cached: int, weight: float) -> None:
    """A prompt has no more cached tokens than tokens, whatever an engine says."""
    assert DEFAULT.prompt(prompt, cached) == weight * UNIT


def learner(per_prompt_s: float, per_decode_s: float, *, mixed: bool, intervals: int = 2_000) -> Learner:
    """Return one that saw traffic in which tokens take these times, with some noise."""
    noise = random.Random(7)
    found = Learner(DEFAULT)
    for _ in range(intervals):
        prompt = noise.uniform(0, 4_000) if mixed else 1_000.0
        decode = noise.uniform(0, 800) if mixed else 300.0
        busy_s = (prompt * per_prompt_s + decode * per_decode_s) * noise.uniform(0.9, 1.1)
        found.observe(prompt, decode, busy_s)
    return found


@pytest.mark.parametrize(("per_prompt_s", "per_decode_s"), [(0.0001, 0.001), (0.0002, 0.0002), (0.0001, 0.0004)])
def test_mixed_traffic_tells_the_ratio(per_prompt_s: float, per_decode_s: float) -> None:
    """Within a tenth, through a tenth of noise."""
    ratio = learner(per_prompt_s, per_decode_s, mixed=True).ratio()
    assert ratio == pytest.approx(per_prompt_s / per_decode_s, rel=0.1)


def test_one_mix_alone_tells_nothing() -> None:
    """When every second has the same mix, what was configured stands."""
    assert learner(0.0001, 0.001, mixed=False).ratio() == pytest.approx(0.25, rel=0.05)


def test_few_seconds_tell_nothing() -> None:
    """Before five busy minutes there is no ratio, and the configured weights are used."""
    few = learner(0.0001, 0.001, mixed=True, intervals=MIN_INTERVALS - 1)
    assert few.ratio() is None
    assert few.weights(learned=True) == DEFAULT


def test_learned_weights_are_used_only_if_asked() -> None:
    """A completion token keeps its weight; a prompt token gets the ratio, a cached one its part of that."""
    found = learner(0.0001, 0.001, mixed=True)
    assert found.weights(learned=False) == DEFAULT
    weights = found.weights(learned=True)
    assert weights.decode == DEFAULT.decode
    assert weights.prefill / UNIT == pytest.approx(0.1, rel=0.1)
    assert weights.cached == pytest.approx(weights.prefill / 10, rel=0.01)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1)), min_size=1, max_size=20))
def test_whatever_was_seen_the_ratio_is_sane(seen: list[tuple[float, float, float]]) -> None:
    """No traffic makes a weight of 0, or one that swallows the bill."""
    found = Learner(DEFAULT)
    for prompt, decode, busy_s in islice(cycle(seen), MIN_INTERVALS):
        found.observe(prompt, decode, busy_s)
    ratio = found.ratio()
    assert ratio is None or MIN_RATIO <= ratio <= MAX_RATIO
    assert found.weights(learned=True).prefill >= 1
