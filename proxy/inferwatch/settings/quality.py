"""Quality without labels: what is looked for in answers."""

from typing import Annotated

import msgspec
from msgspec import Meta


class Quality(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Signs that an answer was of no use."""

    enabled: Annotated[bool, Meta(description="Count the signs that records show.")] = True
    listen: Annotated[
        bool,
        Meta(
            description="Look at the texts of all requests, too, for loops while they stream, refusals, and prompts "
            "that are sent again. In memory only; it costs the collector one or two microseconds for each piece of "
            "an answer."
        ),
    ] = False
    cut_loops: Annotated[
        bool,
        Meta(
            description="End a stream whose answer has said the same words again and again, twelve times and for some "
            "500 tokens: in good form, as if `max_tokens` had been reached. Needs `quality.enabled` and "
            "`quality.listen`; about as much again for each piece of an answer."
        ),
    ] = False
    stall_s: Annotated[
        float, Meta(gt=0, le=3600, description="A pause between two tokens of so many seconds is a stall.")
    ] = 10.0


def fault(quality: Quality) -> str:
    """Return what is wrong, "" if nothing is."""
    if quality.cut_loops and not (quality.enabled and quality.listen):
        return "quality.cut_loops: needs `quality.enabled` and `quality.listen`, for loops are looked for in texts"
    return ""
