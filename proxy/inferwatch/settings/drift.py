"""Drift: what is looked at, how sure it must be, and how often it may be wrong."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from inferwatch.settings.base import Count
from inferwatch.settings.embeddings import Embeddings

# With fewer a reference says next to nothing. Which features it can judge follows from this.
REFERENCE_VOTES_MIN: Final = 1_000


class Drift(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Signals when the traffic or the model is not what it was."""

    enabled: Annotated[
        bool, Meta(description="Compare each model's requests, by tenant, with a reference of its own.")
    ] = True
    text: Annotated[
        bool,
        Meta(
            description="Look at the texts of those requests that vote, too: in memory only, and what is kept are "
            "counts. A vote then costs the collector a millisecond."
        ),
    ] = False
    votes_per_hour: Annotated[
        int,
        Meta(
            ge=1,
            le=360_000,  # a hundred a second: with texts a seventh of a core
            description="Requests of a model and tenant that are looked at, evenly over the hour; one of a session.",
        ),
    ] = 3_600
    weeks_per_false_alarm: Annotated[
        float,
        Meta(
            gt=0,
            le=520,
            description="At most one false signal in so many weeks, of all models, tenants and features together.",
        ),
    ] = 20.0
    tolerance: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="A change of a feature by so many standard deviations is of no interest. Even with 0, one of "
            "less than 0.05 is not found.",
        ),
    ] = 0.0
    reference_requests_min: Annotated[
        int,
        Meta(ge=REFERENCE_VOTES_MIN, description="No reference is pinned from fewer votes, not even by command."),
    ] = 5_000
    reference_hours: Annotated[
        Count,
        Meta(
            description="A reference pins itself when it has the votes and was learnt for so long. Less than a week, "
            "and what the rest of the week is like is drift."
        ),
    ] = 168
    reference_risk: Annotated[
        float,
        Meta(
            gt=0,
            lt=0.5,
            description="The reference is a sample: the chance that any of its figures is farther off than is "
            "allowed for.",
        ),
    ] = 0.01
    max_streams: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="Models times tenants followed, each with up to 64 kB of memory. Above that none is added.",
        ),
    ] = 100
    embeddings: Embeddings = Embeddings()
