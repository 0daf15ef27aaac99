"""From counters to energy: baselines, resets, and readings that cannot be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.attribution.joules import MAX_GPUS, Joules, Used
from inferwatch_collectors.attribution.times import MAX_GAP_NS, NS_PER_S
from inferwatch_collectors.gpu.base import EnergyReading


def read(at_s: float, energy_mj: int | None, power_mw: int | None = None, uuid: str = "GPU-1") -> EnergyReading:
    return EnergyReading(uuid, int(at_s * NS_PER_S), energy_mj, power_mw)


def used(*readings: EnergyReading, from_power: bool = False) -> list[Used]:
    return Joules(from_power=from_power).take(readings)


def test_the_first_reading_is_a_baseline() -> None:
    """What a counter shows at first was used before anybody looked."""
    assert used(read(1, 10**12)) == []


def test_growth_is_energy_over_the_time_between() -> None:
    """700,000 mJ in a second are 700 J, from the one stamp to the other."""
    assert used(read(1, 5_000), read(2, 705_000)) == [Used(NS_PER_S, 2 * NS_PER_S, 700_000_000)]


def test_gpus_are_apart() -> None:
    """Each has its own baseline."""
    both = used(read(1, 100), read(1, 900, uuid="GPU-2"), read(2, 150), read(2, 1000, uuid="GPU-2"))
    assert [each.energy_uj for each in both] == [50_000, 100_000]


def test_after_a_reset_the_counter_counts_from_0() -> None:
    """It was begun anew after the last reading, so all that it shows was used since."""
    assert [each.energy_uj for each in used(read(1, 10**9), read(2, 40), read(3, 60))] == [40_000, 20_000]


def test_a_reading_that_fails_once_costs_nothing() -> None:
    """The next one covers the time of both; no power is added up beside it."""
    found = used(read(1, 100, 500), read(2, None, 500), read(3, 180, 500), from_power=True)
    assert found == [Used(NS_PER_S, 3 * NS_PER_S, 80_000)]


@pytest.mark.parametrize(
    "bad",
    [read(2, 10**12), read(2, -5)],
    ids=["years of energy in a second", "negative"],
)
def test_a_reading_that_cannot_be_is_counted_and_not_used(bad: EnergyReading) -> None:
    """No GPU draws ten kilowatts; what follows is measured against the next good reading."""
    joules = Joules(from_power=False)
    assert joules.take([read(1, 1000), bad]) == []
    assert joules.rejected == 1


def test_a_high_reading_and_the_return_from_it_count_nothing() -> None:
    """The return looks like a reset whose counter holds years: that cannot be either."""
    joules = Joules(from_power=False)
    assert joules.take([read(1, 10**11), read(2, 10**14), read(3, 10**11 + 5)]) == []
    assert joules.rejected == 2
    assert [each.energy_uj for each in joules.take([read(4, 10**11 + 105)])] == [100_000]


def test_a_long_gap_is_nobodys() -> None:
    """Over more than a minute without a reading nobody can say who worked."""
    gap_s = MAX_GAP_NS / NS_PER_S
    assert [each.energy_uj for each in used(read(1, 0), read(1 + gap_s, 500))] == [500_000]
    assert used(read(1, 0), read(2 + gap_s, 500)) == []


@pytest.mark.parametrize("at_s", [0.5, 1])
def test_a_reading_that_is_not_newer_is_ignored(at_s: float) -> None:
    """Samples told twice or out of order change nothing."""
    assert [each.energy_uj for each in used(read(1, 100), read(at_s, 130), read(2, 150))] == [50_000]


def test_power_is_added_up_only_if_asked() -> None:
    """The mean of two readings times their distance: 300 W, then 500 W, 2 s apart, are 800 J."""
    readings = (read(1, None, 300_000), read(3, None, 500_000))
    assert used(*readings) == []
    assert used(*readings, from_power=True) == [Used(NS_PER_S, 3 * NS_PER_S, 800_000_000)]


def test_power_says_nothing_about_a_long_time() -> None:
    """Two samples 11 s apart are two samples."""
    assert used(read(1, None, 300_000), read(12, None, 300_000), from_power=True) == []


@pytest.mark.parametrize(
    ("reading", "from_power", "measures"),
    [
        (read(1, 5), False, True),
        (read(1, None, 5), False, False),
        (read(1, None, 5), True, True),
        (read(1, None), True, False),
    ],
)
def test_whether_anything_measures_energy(reading: EnergyReading, from_power: bool, measures: bool) -> None:
    """Without a counter, or power that is wanted, energy is not known: absent, not 0."""
    joules = Joules(from_power=from_power)
    joules.take([reading])
    assert joules.measures is measures
    assert (joules.told_until_ns is not None) is measures


def test_gpus_are_bounded() -> None:
    """Names beyond the bound are not followed."""
    joules = Joules(from_power=False)
    joules.take([read(1, 0, uuid=f"GPU-{number}") for number in range(MAX_GPUS + 5)])
    assert len(joules.baselines) == MAX_GPUS


@given(st.lists(st.tuples(st.integers(1, 60_000), st.integers(0, 10_000), st.booleans()), max_size=50))
def test_all_that_the_counter_grew_by_is_found(steps: list[tuple[int, int, bool]]) -> None:
    """Over any readings and resets: the energy found is the counter's difference, and the times do not overlap."""
    joules = Joules(from_power=False)
    now_ms, counter, expected = 0, 12_345, 0
    joules.take([read(0, counter)])
    found: list[Used] = []
    for passed_ms, watts, reset in steps:
        now_ms += passed_ms
        grown = watts * passed_ms
        # A reset that cannot be seen, because the counter is past its old value again, is no reset to anybody.
        if reset and grown < counter:
            counter = grown
        else:
            counter += grown
        expected += grown
        found += joules.take([read(now_ms / 1000, counter)])
    assert sum(each.energy_uj for each in found) == expected * 1000
    assert joules.rejected == 0
    for before, after in zip(found, found[1:], strict=False):
        assert before.end_ns <= after.start_ns
