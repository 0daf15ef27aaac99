"""Prices: requests without one, and what the traffic would have cost elsewhere."""

from typing import Final

from inferwatch_collectors.metrics.base import Group, Kind, Metric
from inferwatch_collectors.metrics.cost import NANO

UNPRICED_REQUESTS: Final = Metric(
    name="inferwatch_unpriced_requests_total",
    kind=Kind.COUNTER,
    group=Group.COST,
    labels=("model", "reason"),
    help="Finished requests that have no price, by reason.",
    measured="no_price: no rule is for their model, tenant and day; no_tokens: their token counts are not known. "
    "They are missing in cost_dollars_total of basis price. "
    "Left out are routes that generate nothing, requests refused or failed before an answer, "
    "and everything while neither a price nor a comparison is configured.",
)
COMPARISON_DOLLARS: Final = Metric(
    name="inferwatch_comparison_dollars_total",
    kind=Kind.COUNTER,
    group=Group.COST,
    labels=("catalogue_entry",),
    unit="dollars",
    scale=NANO,
    help="What all traffic would have cost at the prices of a catalogue entry, in dollars.",
    measured="Our tokens at their list price, counted when a request finishes; requests whose tokens are not known "
    "are missing. Divided by what the machine cost in the same time (cost_dollars_total of basis gpu and "
    "idle_cost_dollars_total) it says how often the hardware has paid for itself.",
)
COMPARISON_PRICE_TIMESTAMP: Final = Metric(
    name="inferwatch_comparison_price_timestamp_seconds",
    kind=Kind.GAUGE,
    group=Group.COST,
    labels=("catalogue_entry",),
    unit="seconds",
    help="Unix time of the day on which a catalogue entry was the price.",
    measured="Subtract it from time() for the age of the price.",
)
