"""Energy: what is measured, and what it weighs in carbon."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Final

import msgspec
from msgspec import Meta

HOURS: Final = 24

# Coal alone is about 1,000 g/kWh. More than this was meant per MWh, or in milligrams.
MAX_G_PER_KWH: Final = 5_000

# The worst server rooms are near 3.
MAX_PUE: Final = 10


class Energy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Joules and grams."""

    from_power: Annotated[
        bool,
        Meta(
            description="Add up power readings for GPUs without an energy counter. Sampled power misses what happens "
            "between samples; without this such GPUs have no energy."
        ),
    ] = False
    pue: Annotated[
        Decimal,
        Meta(description="Power usage effectiveness: what the site draws for each kWh of the machine."),
    ] = Decimal(1)
    grid_gco2e_per_kwh: Annotated[
        float | str | tuple[float, ...],
        Meta(
            description="Grams of CO2e per kWh of the grid: one number, or 24 of them (a list, or with commas "
            "between), for each hour of the day in UTC. Empty: no CO2e."
        ),
    ] = ""


def fault(energy: Energy) -> str:
    """Return what is wrong with `energy`, beginning with the key, or ""."""
    return next(_faults(energy), "")


def grid_hours(energy: Energy) -> tuple[Decimal, ...]:
    """Return grams of CO2e per kWh for each of the 24 hours, () where none is configured.

    Raises:
        ValueError: it is neither one number nor 24.
    """
    given = energy.grid_gco2e_per_kwh
    if isinstance(given, str):
        texts = [part.strip() for part in given.split(",")] if given.strip() else []
    else:
        texts = [repr(value) for value in (given if isinstance(given, tuple) else (given,))]
    if len(texts) not in (0, 1, HOURS):
        raise ValueError(f"expected one number or {HOURS}, got {len(texts)}")
    try:
        hours = tuple(Decimal(text) for text in texts)
    except ArithmeticError:
        raise ValueError("expected a number, or 24 with commas between") from None
    if not all(hour.is_finite() and 0 <= hour <= MAX_G_PER_KWH for hour in hours):
        raise ValueError(f"expected 0 to {MAX_G_PER_KWH} grams per kWh")
    return hours * HOURS if len(hours) == 1 else hours


def _faults(energy: Energy) -> Iterator[str]:
    if not energy.pue.is_finite() or not 1 <= energy.pue <= MAX_PUE:
        yield f"energy.pue: expected 1 to {MAX_PUE}, got {energy.pue}"
    try:
        grid_hours(energy)
    except ValueError as error:
        yield f"energy.grid_gco2e_per_kwh: {error}"
