"""A vote on an answer as it is kept, and whose request that was."""

import enum
from typing import NamedTuple

import msgspec


class Thumb(enum.StrEnum):
    """Values of the label `thumb`."""

    UP = "up"
    DOWN = "down"
    NONE = "none"  # a score alone


class Vote(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept: one for each request, the last that came."""

    request_id: str
    wall_ns: int  # Unix time of the vote
    tenant: str
    model: str
    variant: str | None  # the model as the engine calls it; None: the request was still open
    thumb: Thumb
    score: float | None
    label: str
    comment: str  # as privacy allows


class Asked(NamedTuple):
    """Whose request it was."""

    tenant: str
    model: str
    operation: str
    variant: str | None  # the model as the engine calls it; None: not known yet
