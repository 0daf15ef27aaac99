"""What the machine costs (the cost basis `gpu`), and how that is divided among the requests.

Amounts are decimals: what is written is what is added up.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

# An hour of the dearest rented GPU is some 15 dollars. What is far outside was meant in cents, or per month.
MAX_HOURLY_DOLLARS: Final = Decimal(10_000)
MAX_PURCHASE_DOLLARS: Final = Decimal(100_000_000)
MAX_DOLLARS_PER_KWH: Final = Decimal(100)
MAX_WATTS: Final = Decimal(100_000)
MAX_PERCENT: Final = Decimal(1_000)
MAX_YEARS: Final = Decimal(100)
MAX_WEIGHT: Final = Decimal(1_000)
MAX_TOKENS_PER_SECOND: Final = Decimal(1_000_000_000)

# Weights are kept as millionths.
MAX_DECIMALS: Final = 6


class Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The bill for the hardware: rent, or purchase; electricity; what comes on top. Nothing given: no bill."""

    gpus: Annotated[int, Meta(ge=1, le=10_000, description="GPUs that the amounts below are for each of.")] = 1
    hourly_dollars: Annotated[Decimal | None, Meta(description="Rent of a GPU for an hour.")] = None
    purchase_dollars: Annotated[
        Decimal | None, Meta(description="Purchase price of a GPU with its part of the machine.")
    ] = None
    amortisation_years: Annotated[Decimal, Meta(description="Over which the purchase is spread evenly.")] = Decimal(4)
    dollars_per_kwh: Annotated[
        Decimal | None,
        Meta(
            description="Electricity tariff, for the measured energy of the GPUs times `energy.pue`. "
            "GPUs without an energy counter need `assumed_watts` or `energy.from_power`."
        ),
    ] = None
    assumed_watts: Annotated[
        Decimal | None,
        Meta(description="Draw of a GPU, day and night, for the tariff; then no energy is billed twice."),
    ] = None
    overhead_percent: Annotated[
        Decimal, Meta(description="Operations (people, space, network), as a part of hardware and electricity.")
    ] = Decimal(0)
    buffer_percent: Annotated[
        Decimal, Meta(description="Experiments and failed deployments, as a part of hardware and electricity.")
    ] = Decimal(0)


class Attribution(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How cost and energy of each second are divided among the requests that worked in it."""

    idle: Annotated[
        Literal["busy", "capacity"],
        Meta(
            description="What is idle. `busy`: the part of a second in which no request was with the engine; "
            "`capacity`: what its weighted tokens fell short of `peak_tokens_per_second`."
        ),
    ] = "busy"
    peak_tokens_per_second: Annotated[
        Decimal | None, Meta(description="Weighted tokens a second of the machine at full load, for `capacity`.")
    ] = None
    weights: Annotated[
        Literal["configured", "learned"],
        Meta(description="`learned`: `prefill_weight` is estimated from this host's own traffic."),
    ] = "configured"
    prefill_weight: Annotated[
        Decimal, Meta(description="What a prompt token weighs; prompts are read many tokens at a time.")
    ] = Decimal("0.25")
    cached_weight: Annotated[Decimal, Meta(description="What a prompt token weighs that came from a cache.")] = Decimal(
        "0.025"
    )
    decode_weight: Annotated[Decimal, Meta(description="What a completion token weighs.")] = Decimal(1)


_AMOUNTS: Final = (
    ("hourly_dollars", MAX_HOURLY_DOLLARS),
    ("purchase_dollars", MAX_PURCHASE_DOLLARS),
    ("amortisation_years", MAX_YEARS),
    ("dollars_per_kwh", MAX_DOLLARS_PER_KWH),
    ("assumed_watts", MAX_WATTS),
    ("overhead_percent", MAX_PERCENT),
    ("buffer_percent", MAX_PERCENT),
)

_WEIGHTS: Final = ("prefill_weight", "cached_weight", "decode_weight")


def fault(cost: Cost, attribution: Attribution) -> str:
    """Return what is wrong with the two sections, beginning with the key, or ""."""
    return next(_faults(cost, attribution), "")


def _faults(cost: Cost, attribution: Attribution) -> Iterator[str]:
    for name, limit in _AMOUNTS:
        if problem := _problem(getattr(cost, name), limit):
            yield f"cost.{name}: {problem}"
    for name in _WEIGHTS:
        if problem := _problem(getattr(attribution, name), MAX_WEIGHT):
            yield f"attribution.{name}: {problem}"
    if problem := _problem(attribution.peak_tokens_per_second, MAX_TOKENS_PER_SECOND):
        yield f"attribution.peak_tokens_per_second: {problem}"
    if cost.hourly_dollars is not None and cost.purchase_dollars is not None:
        yield "cost.purchase_dollars: a GPU is rented (`cost.hourly_dollars`) or bought, not both"
    if not cost.amortisation_years:
        yield "cost.amortisation_years: expected more than 0"
    if cost.assumed_watts is not None and cost.dollars_per_kwh is None:
        yield "cost.assumed_watts: needs `cost.dollars_per_kwh`"
    if attribution.idle == "capacity" and not attribution.peak_tokens_per_second:
        yield "attribution.peak_tokens_per_second: `attribution.idle: capacity` needs it"
    for name in ("prefill_weight", "decode_weight"):
        if not getattr(attribution, name):
            yield f"attribution.{name}: expected more than 0, or there is work that nobody pays for"


def _problem(amount: Decimal | None, limit: Decimal) -> str:
    if amount is None:
        return ""
    if not amount.is_finite() or not 0 <= amount <= limit:
        return f"expected 0 to {limit}, got {amount}"
    exponent = amount.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -MAX_DECIMALS:
        return f"expected at most {MAX_DECIMALS} decimals, got {amount}"
    return ""
