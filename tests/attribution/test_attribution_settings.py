"""The sections `cost`, `attribution` and `energy`: what is refused, by name."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from inferwatch.config import ConfigError, load
from inferwatch.settings import cost, energy
from inferwatch.settings.cost import Attribution, Cost
from inferwatch.settings.energy import Energy


def test_defaults_are_right_and_price_nothing() -> None:
    """Nobody is told a price that nobody gave."""
    assert cost.fault(Cost(), Attribution()) == ""
    assert energy.fault(Energy()) == ""
    assert Cost().hourly_dollars is None


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"hourly_dollars": "-1"}, "cost.hourly_dollars"),
        ({"hourly_dollars": "NaN"}, "cost.hourly_dollars"),
        ({"hourly_dollars": "0.0000001"}, "cost.hourly_dollars"),
        ({"hourly_dollars": "3", "purchase_dollars": "30000"}, "cost.purchase_dollars"),
        ({"amortisation_years": "0"}, "cost.amortisation_years"),
        ({"assumed_watts": "700"}, "cost.assumed_watts"),
        ({"dollars_per_kwh": "1000"}, "cost.dollars_per_kwh"),
        ({"buffer_percent": "-5"}, "cost.buffer_percent"),
    ],
)
def test_what_is_wrong_with_a_bill_is_named(changes: dict[str, str], key: str) -> None:
    """One line that begins with the key."""
    given = Cost(**{name: Decimal(text) for name, text in changes.items()})
    assert cost.fault(given, Attribution()).startswith(f"{key}: ")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"idle": "capacity"}, "attribution.peak_tokens_per_second"),
        ({"idle": "capacity", "peak_tokens_per_second": Decimal(0)}, "attribution.peak_tokens_per_second"),
        ({"prefill_weight": Decimal(0)}, "attribution.prefill_weight"),
        ({"decode_weight": Decimal(0)}, "attribution.decode_weight"),
        ({"cached_weight": Decimal(-1)}, "attribution.cached_weight"),
        ({"decode_weight": Decimal(1_001)}, "attribution.decode_weight"),
    ],
)
def test_what_is_wrong_with_a_division_is_named(changes: dict[str, Any], key: str) -> None:
    """Work that weighs nothing would be paid by nobody; a capacity must be known to fall short of."""
    assert cost.fault(Cost(), Attribution(**changes)).startswith(f"{key}: ")


@pytest.mark.parametrize(
    "grid", ["100, 200", "much", "-3", (1.0,) * 23, 9_000.0, "nan"], ids=lambda given: str(given)[:12]
)
def test_a_grid_is_one_number_or_24(grid: Any) -> None:
    """Anything else is refused."""
    assert energy.fault(Energy(grid_gco2e_per_kwh=grid)).startswith("energy.grid_gco2e_per_kwh: ")


@pytest.mark.parametrize("pue", ["0.9", "11", "NaN"])
def test_pue_is_at_least_1(pue: str) -> None:
    """A site draws at least what its machines draw."""
    assert energy.fault(Energy(pue=Decimal(pue))).startswith("energy.pue: ")


def test_amounts_arrive_in_the_collector_as_written() -> None:
    """From the environment through the supervisor's message to the collector, 3.50 stays 3.50."""
    config = load(environ={"INFERWATCH__COST__HOURLY_DOLLARS": "3.50", "INFERWATCH__ENERGY__GRID_GCO2E_PER_KWH": "380"})
    tree = msgspec.json.decode(msgspec.json.encode(msgspec.to_builtins(config)))
    arrived = msgspec.convert(tree["cost"], Cost, strict=False)
    assert arrived.hourly_dollars == Decimal("3.50")
    assert energy.grid_hours(msgspec.convert(tree["energy"], Energy, strict=False)) == (Decimal(380),) * 24


def test_a_wrong_bill_keeps_the_service_from_starting() -> None:
    """The loader asks."""
    with pytest.raises(ConfigError, match=r"cost\.assumed_watts: "):
        load(environ={"INFERWATCH__COST__ASSUMED_WATTS": "700"})
