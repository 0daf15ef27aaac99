"""The bill as rates: what an hour costs whether or not anybody comes, and what a kilowatt-hour costs.

hour  = rent, or price / years; and assumed watts x tariff x PUE where electricity is not measured
energy = tariff x PUE, on the measured energy
Both times (1 + overhead + buffer). Fractions throughout: a decimal of the configuration stays what was written.
"""

from fractions import Fraction
from typing import Final, NamedTuple

from inferwatch.settings.cost import Cost
from inferwatch.settings.energy import Energy, grid_hours

NANODOLLARS: Final = 10**9
NS_PER_HOUR: Final = 3600 * 10**9
HOURS_PER_YEAR: Final = Fraction(36525, 100) * 24
MICROJOULES_PER_KWH: Final = 3600 * 10**9
MICROGRAMS_PER_GRAM: Final = 10**6


class Bill(NamedTuple):
    """What the machine costs."""

    nanodollars_per_ns: Fraction
    nanodollars_per_uj: Fraction  # of measured energy

    @classmethod
    def nothing(cls) -> "Bill":
        """Return the bill of a machine whose price is not known."""
        return cls(Fraction(0), Fraction(0))

    @classmethod
    def of(cls, cost: Cost, energy: Energy) -> "Bill | None":
        """Return the rates, None where no price of anything is configured."""
        given = (cost.hourly_dollars, cost.purchase_dollars, cost.dollars_per_kwh)
        if all(amount is None for amount in given):
            return None
        hourly = Fraction(cost.hourly_dollars or 0)
        hourly += Fraction(cost.purchase_dollars or 0) / (Fraction(cost.amortisation_years) * HOURS_PER_YEAR)
        per_kwh = Fraction(cost.dollars_per_kwh or 0) * Fraction(energy.pue)
        if cost.assumed_watts is not None:
            hourly += Fraction(cost.assumed_watts) / 1000 * per_kwh
            per_kwh = Fraction(0)
        on_top = 1 + (Fraction(cost.overhead_percent) + Fraction(cost.buffer_percent)) / 100
        return cls(
            hourly * cost.gpus * on_top * NANODOLLARS / NS_PER_HOUR,
            per_kwh * on_top * NANODOLLARS / MICROJOULES_PER_KWH,
        )


class Grid:
    """Carbon intensity by the hour of the day in UTC."""

    def __init__(self, energy: Energy) -> None:
        factor = Fraction(energy.pue) * MICROGRAMS_PER_GRAM / MICROJOULES_PER_KWH
        self._hours = tuple(Fraction(hour) * factor for hour in grid_hours(energy))

    def __bool__(self) -> bool:
        return bool(self._hours)

    def micrograms_per_uj(self, wall_ns: int) -> Fraction:
        """Return the intensity at Unix time `wall_ns`; only where one is configured."""
        return self._hours[wall_ns // NS_PER_HOUR % len(self._hours)]
