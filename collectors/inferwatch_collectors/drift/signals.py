"""From one finished request to the values of its features: what the record tells, and the text if it was heard.

`Pace` makes waiting times comparable: the time to the first token grows with the prompt and with how much else is
open, and a busy afternoon is no drift. A line is fitted to the first votes, in logarithms; what is above or below it
is the feature.

Pure.
"""

from array import array
from collections.abc import Sequence
from math import inf, log
from typing import Final

import msgspec

from inferwatch.record import Outcome, RequestRecord
from inferwatch_collectors.drift.written import Count, Sum
from inferwatch_collectors.recorder import LENGTH_REASONS
from inferwatch_collectors.verdict import is_empty

# Outcomes that say something about the traffic or the model. A refused or broken request is another alert's.
JUDGED: Final = frozenset({Outcome.OK, Outcome.CLIENT_ABORT})

TOOL_REASONS: Final = frozenset({"tool_calls", "function_call", "tool_use"})
PLAIN_REASONS: Final = frozenset({"stop", "eos_token", "end_turn", "stop_sequence", "eos", "completed", "STOP"})

# A line of three figures through so many points is off by a ninth of what the points scatter, and what it is off by is
# in the reference as in what is judged. More would be missing there: see `following.MIN_VALUES`.
PACE_VOTES: Final = 256
_RIDGE: Final = 1e-3
# Sums of products of three by three, and of three with what is learnt.
_MOMENTS: Final = 12


class PaceState(msgspec.Struct, array_like=True):
    """What is written down of a `Pace`."""

    votes: Count
    moments: tuple[Sum, ...]
    line: tuple[Sum, ...]


class Pace:
    """The usual logarithm of a time, by two quantities; learnt from the first PACE_VOTES."""

    __slots__ = ("_line", "_moments", "_votes")

    def __init__(self) -> None:
        self._votes = 0
        self._moments = array("d", bytes(8 * _MOMENTS))
        self._line: tuple[float, ...] = ()

    def excess(self, time_s: float, first: float, second: float) -> float | None:
        """Return by how much the logarithm is above the usual; None while that is being learnt, and of what is no
        time."""
        if not 0 < time_s < inf:
            return None
        point = (1.0, log(1 + max(0.0, first)), log(1 + max(0.0, second)))
        value = log(time_s)
        if self._line:
            return value - sum(weight * each for weight, each in zip(self._line, point, strict=True))
        for row in range(3):
            for column in range(3):
                self._moments[3 * row + column] += point[row] * point[column]
            self._moments[9 + row] += point[row] * value
        self._votes += 1
        if self._votes >= PACE_VOTES:
            self._line = _solved(self._moments)
        return None

    def state(self) -> PaceState:
        """Return it to be written down."""
        return PaceState(self._votes, tuple(self._moments), tuple(self._line))

    @classmethod
    def of(cls, state: PaceState) -> "Pace":
        """Return what was written down.

        Raises:
            ValueError: it does not fit together.
        """
        if len(state.line) not in (0, 3) or not (state.line or _is_of_points(state.moments, state.votes)):
            raise ValueError("a pace that does not fit together")
        found = cls()
        found._votes, found._line = state.votes, state.line
        if len(state.moments) == _MOMENTS:  # no more than its past, when there is a line
            found._moments = array("d", state.moments)
        return found


def _is_of_points(moments: Sequence[float], votes: int) -> bool:
    """Tell whether these are sums over so many points, and no line yet."""
    if len(moments) != _MOMENTS or moments[0] != votes:
        return False
    if any(moments[3 * row + column] != moments[3 * column + row] for row in range(3) for column in range(row)):
        return False
    return bool(_solved(moments)) if votes else not any(moments)


def _solved(moments: Sequence[float]) -> tuple[float, ...]:
    """Return the line of least squares, drawn a little towards 0 where the points do not tell.

    Raises:
        ValueError: there are no such points.
    """
    rows = [[*moments[3 * row : 3 * row + 3], moments[9 + row]] for row in range(3)]
    for place in range(3):
        rows[place][place] += _RIDGE * moments[0]
    for place in range(3):
        pivot = rows[place][place]
        if pivot <= 0:
            raise ValueError("sums of squares that are below 0")
        rows[place] = [each / pivot for each in rows[place]]
        for other in range(3):
            if other != place:
                part = rows[other][place]
                rows[other] = [each - part * own for each, own in zip(rows[other], rows[place], strict=True)]
    return tuple(row[3] for row in rows)


def of_record(record: RequestRecord) -> dict[str, float | None]:
    """Return what the record alone tells; the pace is not in it."""
    values: dict[str, float | None] = {
        "prompt_tokens": _number(record.prompt_tokens),
        "abandoned": float(record.outcome is Outcome.CLIENT_ABORT),
    }
    if record.outcome is not Outcome.OK:
        return values
    values["completion_tokens"] = _number(record.completion_tokens)
    if record.completion_tokens is not None:
        values["empty"] = float(is_empty(record))
    if reasons := record.finish_reasons:
        length, tool = LENGTH_REASONS.intersection(reasons), TOOL_REASONS.intersection(reasons)
        values["finish_length"] = float(bool(length))
        values["finish_tool_calls"] = float(bool(tool))
        values["finish_other"] = float(not PLAIN_REASONS.union(length, tool).issuperset(reasons))
    return values


def of_pace(record: RequestRecord, load: int, ttft: Pace, gap: Pace) -> dict[str, float | None]:
    """Return how fast it was for what it was. `load`: requests that were open."""
    values: dict[str, float | None] = {}
    if record.ttft_s is not None and record.prompt_tokens is not None:
        values["ttft"] = ttft.excess(record.ttft_s, record.prompt_tokens - (record.cached_tokens or 0), load)
    if record.gap_count >= 1:
        mean_s = record.gap_sum_s / record.gap_count
        values["gap"] = gap.excess(mean_s, load, record.gap_count)
        if mean_s > 0 and record.gap_max_s > 0:
            # The longest of n pauses by chance grows as log n does.
            values["gap_max"] = log(record.gap_max_s / (mean_s * (1 + log(record.gap_count))))
    return values


def _number(count: int | None) -> float | None:
    return None if count is None else float(count)
