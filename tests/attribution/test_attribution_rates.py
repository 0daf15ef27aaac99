"""The bill as rates, against sums that people have worked out."""

from decimal import Decimal
from fractions import Fraction

import pytest

from inferwatch.settings.cost import Cost
from inferwatch.settings.energy import Energy
from inferwatch_collectors.attribution.rates import NS_PER_HOUR, Bill, Grid

NANO = 10**9
MONTH_HOURS = 30 * 24
NOTHING = Energy()


def hourly(cost: Cost, energy: Energy = NOTHING) -> Fraction:
    """Dollars an hour."""
    bill = Bill.of(cost, energy)
    assert bill is not None
    return bill.nanodollars_per_ns * NS_PER_HOUR / NANO


def per_kwh(cost: Cost, energy: Energy = NOTHING) -> Fraction:
    """Dollars for a measured kilowatt-hour."""
    bill = Bill.of(cost, energy)
    assert bill is not None
    return bill.nanodollars_per_uj * 3600 * 10**9 / NANO


def test_without_a_price_there_is_no_bill() -> None:
    """Unknown is absent: GPUs, overhead and a buffer alone say nothing."""
    assert Bill.of(Cost(gpus=8, overhead_percent=Decimal(20), buffer_percent=Decimal(20)), Energy()) is None


def test_rent_is_what_was_written() -> None:
    """3.50 dollars an hour are exactly 3.50, for each GPU."""
    assert hourly(Cost(hourly_dollars=Decimal("3.50"))) == Fraction("3.5")
    assert hourly(Cost(hourly_dollars=Decimal("3.50"), gpus=8)) == 28


def test_eight_gpus_draw_816_dollars_a_month() -> None:
    """Eight GPUs at 700 W, 0.135 dollars per kWh, PUE 1.5, thirty days: 816 dollars; 544 without the PUE."""
    cost = Cost(gpus=8, assumed_watts=Decimal(700), dollars_per_kwh=Decimal("0.135"))
    assert round(hourly(cost, Energy(pue=Decimal("1.5"))) * MONTH_HOURS) == 816
    assert round(hourly(cost) * MONTH_HOURS) == 544


def test_the_same_month_by_measured_energy() -> None:
    """4,032 measured kWh (5.6 kW for thirty days) at the same tariff and PUE are the same 816 dollars."""
    energy = Energy(pue=Decimal("1.5"))
    cost = Cost(gpus=8, dollars_per_kwh=Decimal("0.135"))
    assert round(per_kwh(cost, energy) * Fraction("5.6") * MONTH_HOURS) == 816
    assert hourly(cost, energy) == 0


def test_assumed_watts_replace_the_measurement() -> None:
    """With both, electricity would be paid twice."""
    cost = Cost(dollars_per_kwh=Decimal("0.2"), assumed_watts=Decimal(500))
    assert hourly(cost) == Fraction("0.1")
    assert per_kwh(cost) == 0


def test_a_purchase_is_spread_over_its_years() -> None:
    """35,064 dollars over four years of 365.25 days are one dollar an hour."""
    assert hourly(Cost(purchase_dollars=Decimal(35_064), amortisation_years=Decimal(4))) == 1
    assert hourly(Cost(purchase_dollars=Decimal(35_064), amortisation_years=Decimal(2), gpus=3)) == 6


def test_overhead_and_buffer_come_on_top_of_both() -> None:
    """20 % and 30 % make half as much again, of the hardware and of each kWh."""
    on_top = {"overhead_percent": Decimal(20), "buffer_percent": Decimal(30)}
    cost = Cost(hourly_dollars=Decimal(2), dollars_per_kwh=Decimal("0.1"), **on_top)
    assert hourly(cost) == 3
    assert per_kwh(cost) == Fraction("0.15")


@pytest.mark.parametrize(
    ("given", "hour", "grams_per_kwh"),
    [
        (400.0, 3, 400),
        ("381.5", 23, Fraction("381.5")),
        (", ".join(str(100 + hour) for hour in range(24)), 0, 100),
        (tuple(float(100 + hour) for hour in range(24)), 23, 123),
    ],
)
def test_grid_by_the_hour(given: float | str | tuple[float, ...], hour: int, grams_per_kwh: Fraction) -> None:
    """One number holds all day; a schedule is by the hour in UTC. A kWh is 3.6e12 microjoules."""
    grid = Grid(Energy(grid_gco2e_per_kwh=given, pue=Decimal(2)))
    assert grid
    wall_ns = (20_000 * 24 + hour) * NS_PER_HOUR + NS_PER_HOUR // 2
    assert grid.micrograms_per_uj(wall_ns) * 3_600_000_000_000 == grams_per_kwh * 2 * 10**6


def test_no_grid() -> None:
    """Without an intensity there are no grams."""
    assert not Grid(Energy())
