"""The observing side: who asks, what is kept, and what is said."""

from itertools import pairwise
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from inferwatch.settings.base import Count

# A hundred years: nanoseconds of more do not fit into SQLite's integers for ever.
MAX_DAYS: Final = 36_500


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who pays."""

    key_file: Annotated[
        str,
        Meta(
            description="Secret for the keyed hash of API keys; empty: one is made in `state_dir` at the first start."
        ),
    ] = ""
    trusted_peers: Annotated[
        tuple[str, ...],
        Meta(description="Networks whose `x-inferwatch-tenant` header is believed, as `address/length`."),
    ] = ()


class Trace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Trace context."""

    mint: Annotated[
        bool, Meta(description="Give requests without `traceparent` a new one, so that engine spans can be joined.")
    ] = False


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds of the exposition."""

    max_models: Annotated[Count, Meta(description="Label values of `model`; more become `other`.")] = 100
    max_tenants: Annotated[Count, Meta(description="Label values of `tenant`; more become `other`.")] = 500


class Ledger(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The durable record of requests."""

    retention_days: Annotated[
        int, Meta(ge=1, le=MAX_DAYS, description="Finished requests, and sums by the minute, are kept this long.")
    ] = 35
    hour_retention_days: Annotated[
        int,
        Meta(
            ge=0,
            le=MAX_DAYS,
            description="Sums by the hour, and those of users; 0: for ever. The default is 13 months.",
        ),
    ] = 400
    day_retention_days: Annotated[int, Meta(ge=0, le=MAX_DAYS, description="Sums by the day; 0: for ever.")] = 0
    max_rows: Annotated[Count, Meta(description="And no more than this many of them.")] = 5_000_000


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What goes to stdout and stderr."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="Of the operational log.")] = "info"
    requests: Annotated[bool, Meta(description="One JSON line per finished request on stdout: metadata only.")] = True


def ledger_fault(ledger: Ledger) -> str:
    """Return what is wrong, beginning with the key, or "": what is coarser is kept as long or longer."""
    spans = (
        ("retention_days", ledger.retention_days),
        ("hour_retention_days", ledger.hour_retention_days),
        ("day_retention_days", ledger.day_retention_days),
    )
    for (shorter, least), (name, days) in pairwise(spans):
        if days and (days < least or not least):
            return (
                f"ledger.{name}: expected 0 or at least `ledger.{shorter}`, which is {least or 'for ever'}, got {days}"
            )
    return ""
