"""What is asked for: a span of time, who, and in which tables. Pure; the time of asking is an argument."""

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, Self

import msgspec

from inferwatch_collectors.ledger.usage import DAY, HOUR, MINUTE, Level

DIMENSIONS: Final = ("tenant", "user", "feature", "model", "day")

# Without `from`: so many days, today included.
DEFAULT_DAYS: Final = 30

# Lines per table; what is below goes into one line, so that each table adds up.
DEFAULT_TOP: Final = 20
MAX_TOP: Final = 1_000_000

PARAMETERS: Final = ("from", "to", "by", "tenant", "top")

# Nothing of ours is older, and the calendar ends at 9999.
_EARLIEST: Final = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


class QueryError(ValueError):
    """What was asked for makes no sense; the message names the parameter."""


class Segment(NamedTuple):
    """A part of the span that is made of whole spans of one level: start_s <= t < end_s."""

    level: Level
    start_s: int
    end_s: int


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """From `start_s` until before `end_s`, Unix time, on whole minutes."""

    start_s: int
    end_s: int
    by: tuple[str, ...] = DIMENSIONS
    tenant: str | None = None  # None: all
    top: int = DEFAULT_TOP

    @classmethod
    def of(cls, parameters: Mapping[str, str], now_s: float) -> Self:
        """Read `from`, `to`, `by`, `tenant` and `top`.

        `from` and `to` are UTC, days or minutes: 2026-03-01, 2026-03-01T10:30. A day given as `to` is included.

        Raises:
            QueryError: naming the parameter.
        """
        for name in parameters:
            if name not in PARAMETERS:
                raise QueryError(f"{name}: there is no such parameter; there are {', '.join(PARAMETERS)}")
        today = dt.datetime.fromtimestamp(now_s, dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        start = _moment("from", parameters["from"], upper=False) if "from" in parameters else None
        end = _moment("to", parameters["to"], upper=True) if "to" in parameters else today + dt.timedelta(days=1)
        start = start or end - dt.timedelta(days=DEFAULT_DAYS)
        if start >= end:
            raise QueryError(f"from: {start:%Y-%m-%dT%H:%M} is not before `to`, {end:%Y-%m-%dT%H:%M}")
        query = cls(
            start_s=int(start.timestamp()),
            end_s=int(end.timestamp()),
            by=_dimensions(parameters.get("by", "")),
            tenant=parameters.get("tenant"),
            top=_top(parameters.get("top", str(DEFAULT_TOP))),
        )
        if "user" in query.by and not query.knows_users:
            if "by" in parameters:
                raise QueryError("by: users are added up by the day; give `from` and `to` as days, or leave `user` out")
            query = msgspec.structs.replace(query, by=tuple(name for name in query.by if name != "user"))
        return query

    @property
    def knows_users(self) -> bool:
        """True for whole days, in which users are kept apart."""
        return self.start_s % DAY.seconds == 0 and self.end_s % DAY.seconds == 0

    def segments(self) -> list[Segment]:
        """Cut the span into whole days as far as possible, whole hours, and minutes for the rest."""
        return list(_cut(self.start_s, self.end_s, [DAY, HOUR, MINUTE]))


def _cut(start_s: int, end_s: int, levels: list[Level]) -> Iterator[Segment]:
    """Yield segments of the coarsest of `levels` in the middle, and of finer ones around it."""
    level, *finer = levels
    first = -(-start_s // level.seconds) * level.seconds
    last = end_s // level.seconds * level.seconds
    if not finer:
        first, last = start_s, end_s
    if first >= last:
        if finer and start_s < end_s:
            yield from _cut(start_s, end_s, finer)
        return
    if start_s < first:
        yield from _cut(start_s, first, finer)
    yield Segment(level, first, last)
    if last < end_s:
        yield from _cut(last, end_s, finer)


def _moment(name: str, text: str, *, upper: bool) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
        moment += dt.timedelta(days=1 if upper and _is_day(text) else 0)
    except (ValueError, OverflowError):
        raise QueryError(f"{name}: expected a day or a minute such as 2026-03-01 or 2026-03-01T10:30") from None
    if moment < _EARLIEST:
        raise QueryError(f"{name}: expected {_EARLIEST:%Y-%m-%d} or later")
    if moment.timestamp() % MINUTE.seconds:
        raise QueryError(f"{name}: expected a whole minute")
    return moment


def _is_day(text: str) -> bool:
    """Tell whether it has no time in it; 20260301 and 2026-W09-7 are days, too."""
    try:
        _ = dt.date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _dimensions(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in DIMENSIONS:
            raise QueryError(f"by: expected some of {', '.join(DIMENSIONS)}")
    return tuple(dict.fromkeys(names)) or DIMENSIONS


def _top(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:9]) <= MAX_TOP and len(text) <= 7):
        raise QueryError(f"top: expected a number from 0 (all) to {MAX_TOP}")
    return int(text) or MAX_TOP
