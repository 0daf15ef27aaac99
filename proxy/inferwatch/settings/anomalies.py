"""Unusual spending: how often a signal may be false, and what counts as usual."""

from typing import Annotated

import msgspec
from msgspec import Meta


class Anomalies(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Signals when a tenant does what it never did."""

    enabled: Annotated[bool, Meta(description="Compare each tenant's spending and requests with its own past.")] = True
    weeks_per_false_alarm: Annotated[
        float,
        Meta(
            gt=0,
            le=520,
            description="At most one false signal in so many weeks, of all tenants and kinds together. A signal "
            "comes little sooner for half of it.",
        ),
    ] = 4.0
    min_history_hours: Annotated[
        int,
        Meta(
            ge=72,
            le=2016,
            description="Spending and the sizes of prompts of a tenant are judged when so many whole hours of it were "
            "seen. The rate of false signals was measured with two weeks; less makes more of them.",
        ),
    ] = 336
    tolerance: Annotated[
        float,
        Meta(
            ge=1.25,
            le=100,
            description="So many times what is expected may be spent without a word. The rate of false "
            "signals was measured with 1.75; less makes more of them.",
        ),
    ] = 1.75
    max_tenants: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="Tenants followed, some 10 kB each. Above that the one that was silent for the longest is "
            "forgotten.",
        ),
    ] = 500
