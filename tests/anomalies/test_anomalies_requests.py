"""requests: some huge prompts in a row are a signal, one is not, and who sends batches is known for it."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.anomalies.evidence import Signal
from inferwatch_collectors.anomalies.requests import (
    CALM_PROMPTS,
    HUGE_PROMPTS,
    LEAST_TOKENS,
    MIN_PROMPTS,
    STEPS,
    Sizes,
    SizesState,
    smallest_of,
    step_of,
)

MINUTE_WEEKS = 60 / (7 * 24 * 3600)
BAR = 2000.0  # that of one tenant in a hundred


def usual(sizes: Sizes, count: int, seed: int = 1, typical: float = 6.0) -> list[Signal]:
    """Prompts of a lognormal size (median e**typical tokens), one a minute."""
    rng = random.Random(seed)
    found = [sizes.take(int(rng.lognormvariate(typical, 0.6)), MINUTE_WEEKS, BAR) for _ in range(count)]
    return [each for each in found if each is not None]


def huge(sizes: Sizes, count: int, tokens: int = 60_000) -> list[int]:
    """Huge prompts, one right after another; return at which a signal came."""
    return [number for number in range(1, count + 1) if sizes.take(tokens, 1e-6, BAR) is not None]


@given(st.integers(0, (1 << 24) - 1))
def test_steps_are_quarter_octaves(tokens: int) -> None:
    """A size lies in its step, which begins at most a quarter below it."""
    step = step_of(tokens)
    assert 0 <= step < STEPS
    assert smallest_of(step) <= tokens <= max(smallest_of(step) * 5 // 4, 7)
    assert step_of(smallest_of(step)) == step


def test_usual_prompts_are_no_signal() -> None:
    """Ten thousand of them."""
    assert usual(Sizes(), 10_000) == []


def test_some_huge_prompts_in_a_row_are_one_signal() -> None:
    """About five, and the twenty that follow belong to it; the facts are counts."""
    sizes = Sizes()
    usual(sizes, 2000)
    assert huge(sizes, 4) == []
    signal = next(each for _ in range(4) if (each := sizes.take(60_000, 1e-6, BAR)))
    assert signal.kind == HUGE_PROMPTS
    assert signal.weeks >= BAR
    assert "prompt_tokens=" in signal.facts
    assert huge(sizes, 20) == []
    assert sizes.signalling


def test_before_a_tenant_is_known_its_batches_are_learnt_and_not_told() -> None:
    """Thousands of prompts are a day; in what rows huge ones come is seen in weeks."""
    sizes = Sizes()
    usual(sizes, 2000)
    for _ in range(20):
        assert all(sizes.take(60_000, 1e-6, BAR, known=False) is None for _ in range(8))
        usual(sizes, 1000)
    assert huge(sizes, 12) == []
    assert len(huge(sizes, 500)) == 1


def test_a_signal_ends_and_comes_again() -> None:
    """After enough usual prompts it is over; the like of it is told again, but it takes more."""
    sizes = Sizes()
    usual(sizes, 2000)
    first = huge(sizes, 30)
    usual(sizes, CALM_PROMPTS + 1)
    assert not sizes.signalling
    assert sizes.evidence.weeks < 0.01
    second = huge(sizes, 200)
    assert len(first) == len(second) == 1
    assert second[0] > first[0]


def test_one_huge_prompt_now_and_then_is_no_signal() -> None:
    """One in a hundred, never two in a row."""
    sizes = Sizes()
    usual(sizes, 2000)
    for number in range(50):
        assert huge(sizes, 1) == []
        assert usual(sizes, 99, seed=number) == []


def test_batches_become_usual() -> None:
    """Thirty documents a day: told at first, no longer after some days."""
    sizes = Sizes()
    usual(sizes, 2000)
    told = []
    for day in range(12):
        told.append(len(huge(sizes, 30)))
        usual(sizes, 2000, seed=day)
    assert told[0] == 1
    assert sum(told[4:]) == 0


def test_huge_among_others_is_found_too() -> None:
    """Every third prompt huge: the usual ones between do not hide it."""
    sizes = Sizes()
    usual(sizes, 2000)
    found = []
    for number in range(40):
        usual(sizes, 2, seed=number)
        found += huge(sizes, 1)
    assert found


@pytest.mark.parametrize(("typical", "tokens"), [(2.0, LEAST_TOKENS - 1), (10.5, 60_000)])
def test_what_is_small_or_usual_is_not_huge(typical: float, tokens: int) -> None:
    """Below LEAST_TOKENS nothing is huge, nor is what the tenant always sends."""
    sizes = Sizes()
    usual(sizes, 2000, typical=typical)
    assert huge(sizes, 50, tokens) == []


def test_nothing_is_judged_before_enough_prompts() -> None:
    """A tenant that begins with huge prompts has no pattern to be out of."""
    sizes = Sizes()
    usual(sizes, MIN_PROMPTS - 60)
    assert huge(sizes, 50) == []
    assert not sizes.judged


@given(
    st.lists(st.tuples(st.integers(0, 1 << 40), st.floats(0, 5)), max_size=60), st.integers(0, 3), st.floats(0.01, 1e5)
)
def test_any_prompts_are_survived(prompts: list[tuple[int, float]], rounds: int, bar: float) -> None:
    """Any sizes and pauses: evidence is finite, and what was written down reads back."""
    sizes = Sizes()
    usual(sizes, 600 * rounds)
    for tokens, weeks in prompts:
        sizes.take(tokens, weeks, bar)
        assert 0 <= sizes.evidence.weeks < 1e7
    again = Sizes.of(msgspec.msgpack.decode(msgspec.msgpack.encode(sizes.state()), type=SizesState))
    assert again.evidence.weeks == sizes.evidence.weeks
    assert again.signalling == sizes.signalling
    assert again.judged == sizes.judged or not sizes.judged


def test_counts_are_halved_and_stay_right() -> None:
    """A hundred thousand prompts: the counts stay bounded, and what is huge stays what it was."""
    sizes = Sizes()
    usual(sizes, 100_000)
    assert sum(memoryview(sizes.state().counts).cast("H")) < 40_000
    assert len(huge(sizes, 8)) == 1


def test_another_version_is_refused() -> None:
    """Counts of another size are not taken for ours."""
    with pytest.raises(ValueError, match="sizes of 3 bytes"):
        Sizes.of(msgspec.structs.replace(Sizes().state(), counts=b"123"))
