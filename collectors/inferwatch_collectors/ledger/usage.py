"""What the roll-ups add up, and under which key. Pure: no file, no clock.

A *cell* is one key in one span of time; it holds SUMS, integers all of them, so that any order of adding gives the same
result. Time is the arrival of the request, also for its share of the machine, which is known later: so both are in the
same cell. Spans are UTC. Users are kept apart by the day only: by the minute there would be as many cells as requests,
and reports that do not ask for users stay fast.
"""

import enum
from collections.abc import Iterable
from typing import Final, NamedTuple

from inferwatch.record import LateCount, Outcome, RequestRecord, Share
from inferwatch_collectors.recorder import LENGTH_REASONS, wasted

NS_PER_S: Final = 1_000_000_000
MINUTE_NS: Final = 60 * NS_PER_S

# Outcomes of cells that are no requests of ours.
IDLE: Final = "idle"  # the machine had nothing to do
UNKNOWN: Final = "unknown"  # a share, or a late count, whose request has no row any more


class Level(NamedTuple):
    """One granularity of the roll-ups."""

    name: str
    seconds: int
    with_user: bool

    @property
    def table(self) -> str:
        return f"usage_{self.name}"


MINUTE: Final = Level("minute", 60, with_user=False)
HOUR: Final = Level("hour", 3600, with_user=False)
DAY: Final = Level("day", 86_400, with_user=False)
USER_DAY: Final = Level("user_day", 86_400, with_user=True)
LEVELS: Final = (MINUTE, HOUR, DAY, USER_DAY)

# (tenant, model, operation, user, feature, outcome, waste). A plain tuple: one is made for every request.
Key = tuple[str, str, str, str, str, str, str]
KEY_COLUMNS: Final = ("tenant", "model", "operation", "user", "feature", "outcome", "waste")

SUMS: Final = (
    "requests",
    "uncounted",  # requests of which neither prompt nor completion tokens are known
    "unpriced",  # requests without a price; the sum of prices leaves them out
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "price_nanodollars",
    "duration_us",
    "shares",  # shares of the machine that are in the next sums
    "uncosted",  # shares without a cost of the hardware
    "unmetered",  # shares without an energy
    "gpu_nanodollars",
    "energy_uj",
)
_ZERO: Final = [0] * len(SUMS)
(
    _REQUESTS,
    _UNCOUNTED,
    _UNPRICED,
    _PROMPT,
    _CACHED,
    _COMPLETION,
    _REASONING,
    _PRICE,
    _DURATION,
    _SHARES,
    _UNCOSTED,
    _UNMETERED,
    _GPU,
    _ENERGY,
) = range(len(SUMS))

Cell = list[int]
# By (start in seconds, id of the key).
Cells = dict[tuple[int, int], Cell]


class Waste(enum.StrEnum):
    """Why work on a request was of no use, or of less. One reason each, the first that holds in this order."""

    UNDELIVERED = "undelivered"  # the client hung up before it got anything of the answer
    ABORTED = "aborted"  # the client hung up in mid-answer: an upper bound, it has used what it got
    FAILED = "failed"  # the engine failed, or the answer broke off, or a relay of ours died under it
    REJECTED = "rejected"  # refused; normally no tokens were spent
    NO_ANSWER = "no_answer"  # the length limit was reached while the model still reasoned
    TRUNCATED = "truncated"  # the length limit cut an answer: an upper bound, a part may have been of use
    RETRIED = "retried"  # answered at the second try; the engine may have worked on the first too


# At hand for each request: before Python 3.12 each mention of a member, and each `value`, calls a descriptor.
_OK: Final = Outcome.OK
_NO_ANSWER: Final = Waste.NO_ANSWER.value
_TRUNCATED: Final = Waste.TRUNCATED.value


def waste_of(record: RequestRecord) -> str:
    """Return the value of the `Waste` of a request, or ""."""
    outcome = record.outcome
    if outcome is _OK:
        if not LENGTH_REASONS.isdisjoint(record.finish_reasons):
            return _NO_ANSWER if wasted(record) == _NO_ANSWER else _TRUNCATED
        return Waste.RETRIED.value if record.retried else ""
    if outcome is Outcome.CLIENT_ABORT:
        return (Waste.ABORTED if record.stream and record.response_bytes else Waste.UNDELIVERED).value
    return (Waste.REJECTED if outcome is Outcome.REJECTED else Waste.FAILED).value


def key_of(record: RequestRecord) -> Key:
    """Return under what a request is added up."""
    return (
        record.tenant,
        record.model,
        record.operation,
        record.user,
        record.feature,
        record.outcome._value_,
        waste_of(record),
    )


def key_of_share(share: Share) -> Key:
    """Return under what a share is added up that belongs to no row: idle time, or a request that has none."""
    return (share.tenant, share.model, "", share.user, share.feature, UNKNOWN if share.request_id else IDLE, "")


def key_of_late(late: LateCount) -> Key:
    """Return under what a late count is added up whose request has no row."""
    return (late.tenant, late.model, late.operation, late.user, late.feature, UNKNOWN, "")


def without_user(key: Key) -> Key:
    """Return the key of the same without its user."""
    tenant, model, operation, _, feature, outcome, waste = key
    return (tenant, model, operation, "", feature, outcome, waste)


class Tally:
    """The sums of one transaction, by minute and key."""

    def __init__(self) -> None:
        self.minutes: Cells = {}

    def add(self, record: RequestRecord, key_id: int) -> None:
        """Count one request."""
        cell = self._cell(record.wall_ns, key_id)
        prompt, completion = record.prompt_tokens, record.completion_tokens
        cell[_REQUESTS] += 1
        cell[_DURATION] += round(record.duration_s * 1e6)
        if prompt is not None:
            cell[_PROMPT] += prompt
            cell[_CACHED] += record.cached_tokens or 0
        elif completion is None:
            cell[_UNCOUNTED] += 1
        if completion is not None:
            cell[_COMPLETION] += completion
            cell[_REASONING] += record.reasoning_tokens or 0
        if record.price_nanodollars is None:
            cell[_UNPRICED] += 1
        else:
            cell[_PRICE] += record.price_nanodollars

    def add_share(self, share: Share, wall_ns: int, key_id: int) -> None:
        """Count one share in the minute and under the key of its request."""
        cell = self._cell(wall_ns, key_id)
        cell[_SHARES] += 1
        cell[_UNCOSTED] += share.gpu_nanodollars is None
        cell[_UNMETERED] += share.energy_uj is None
        cell[_GPU] += share.gpu_nanodollars or 0
        cell[_ENERGY] += share.energy_uj or 0

    def add_late(self, late: LateCount, wall_ns: int, key_id: int, before: RequestRecord | None = None) -> None:
        """Count what a request had that was counted without; `before`: as what it is in the sums, if it is."""
        cell = self._cell(wall_ns, key_id)
        cell[_PROMPT] += late.prompt_tokens or 0
        cell[_COMPLETION] += late.completion_tokens or 0
        cell[_UNCOUNTED] -= before is not None and before.completion_tokens is None
        if late.price_nanodollars is not None:
            cell[_PRICE] += late.price_nanodollars
            cell[_UNPRICED] -= before is not None and before.price_nanodollars is None

    def _cell(self, wall_ns: int, key_id: int) -> Cell:
        at = (wall_ns // MINUTE_NS, key_id)
        cell = self.minutes.get(at)
        if cell is None:
            cell = self.minutes[at] = _ZERO.copy()
        return cell


def folded(minutes: Cells, level: Level, plain_ids: dict[int, int]) -> Iterable[tuple[int, ...]]:
    """Return (start_s, key id, *SUMS) for every cell of `level`. `plain_ids` gives each key's id without its user."""
    per_span = level.seconds // MINUTE.seconds
    cells: Cells = {}
    for (minute, key_id), cell in minutes.items():
        at = (minute // per_span * level.seconds, key_id if level.with_user else plain_ids[key_id])
        into = cells.get(at)
        cells[at] = cell if into is None else [old + new for old, new in zip(into, cell, strict=True)]
    return ((start_s, key_id, *cell) for (start_s, key_id), cell in cells.items())
