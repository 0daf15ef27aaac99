"""What a report says, as data. Money is whole nano-dollars, energy whole microjoules; None is unknown, never 0."""

from collections.abc import Iterable, Sequence
from typing import Final, Self

import msgspec

from inferwatch_collectors.ledger.usage import SUMS


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What one tenant, user, feature, model or day used."""

    name: str
    tenant: str = ""  # of a user
    requests: int
    prompt_tokens: int  # includes cached
    cached_tokens: int
    completion_tokens: int  # includes reasoning
    reasoning_tokens: int
    price_nanodollars: int | None  # by the price book; None: none of these requests has a price
    gpu_nanodollars: int | None  # of the hardware, without idle time; None: no cost of the hardware is known
    energy_uj: int | None
    unpriced_requests: int  # not in `price_nanodollars`
    uncounted_requests: int  # of which no token count is known

    @classmethod
    def of(cls, name: str, sums: Sequence[int], tenant: str = "") -> Self:
        """Make a line of SUMS."""
        by_name = dict(zip(SUMS, sums, strict=True))
        requests, shares, price = by_name["requests"], by_name["shares"], by_name["price_nanodollars"]
        return cls(
            name=name,
            tenant=tenant,
            requests=requests,
            prompt_tokens=by_name["prompt_tokens"],
            cached_tokens=by_name["cached_tokens"],
            completion_tokens=by_name["completion_tokens"],
            reasoning_tokens=by_name["reasoning_tokens"],
            # A late count whose request has no row has a price and is no request here.
            price_nanodollars=price if price or by_name["unpriced"] != requests else None,
            gpu_nanodollars=None if by_name["uncosted"] == shares else by_name["gpu_nanodollars"],
            energy_uj=None if by_name["unmetered"] == shares else by_name["energy_uj"],
            unpriced_requests=by_name["unpriced"],
            uncounted_requests=by_name["uncounted"],
        )


class Idle(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine cost while it had nothing to do."""

    gpu_nanodollars: int | None
    energy_uj: int | None


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """What cached prompt tokens saved whoever pays by the price book."""

    prompt_tokens: int
    cached_tokens: int
    saved_nanodollars: int | None  # cached tokens times (input price - cached price); None: none of them has a price
    unpriced_cached_tokens: int  # not in `saved_nanodollars`


class Effective(msgspec.Struct, frozen=True, kw_only=True):
    """What a million tokens (prompt and completion) really cost: the hardware, idle time included, over the traffic."""

    tokens: int
    hardware_nanodollars: int
    nanodollars_per_million_tokens: int
    nanodollars_per_million_completion_tokens: int | None  # all of the cost on the output; None: there was none
    nanodollars_per_million_tokens_without_idle: int
    idle_ratio: float | None  # part of the cost that was idle


class BreakEven(msgspec.Struct, frozen=True, kw_only=True):
    """The same traffic at a public price list."""

    name: str
    as_of: str
    there_nanodollars: int
    here_nanodollars: int
    tokens: int
    break_even_tokens: int | None  # in the same time and mix, from which own hardware is cheaper; None: never


class Opinion(msgspec.Struct, frozen=True, kw_only=True):
    """What users said of a model's answers: the last vote on each request."""

    model: str
    variant: str  # the model as the engine calls it
    votes: int
    up: int
    down: int
    score: float | None  # the mean of those votes that have one, 0 to 1


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. A part that cannot be told is None or empty, and `notes` say why."""

    start: str  # UTC, included
    end: str  # UTC, not included
    tenant: str | None  # None: all
    total: Line
    idle: Idle | None
    tables: dict[str, tuple[Line, ...]]  # by dimension; the most expensive first, days in order
    waste: tuple[Line, ...]  # by reason; `ledger.usage.Waste`
    cache: Cache
    effective: Effective | None
    break_even: tuple[BreakEven, ...]
    feedback: tuple[Opinion, ...] = ()  # most votes first
    notes: tuple[str, ...]


NO_SUMS: Final = (0,) * len(SUMS)


def added(rows: Iterable[Sequence[int]]) -> Sequence[int]:
    """Add up rows of SUMS."""
    total: Sequence[int] = NO_SUMS
    for row in rows:
        total = [old + new for old, new in zip(total, row, strict=True)]
    return total
