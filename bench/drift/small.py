"""Small references: how many streams alarm in which nothing changes, learnt from few requests of a week.

Twice: where as many requests come in a week as there were to learn from, as they do if it is the same traffic; and
where fifty thousand come, as if it had grown at once.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from bench.drift.lockstep import BAR_WEEKS, Row, judge, learn, places_of
from bench.drift.streams import FEATURES, REQUESTS, Stream, of_kind

SIZES: Final = (1_000, 2_500, 5_000, 10_000)
KINDS: Final = ("iid", "cycle")
WEEKS: Final = 5


def small(streams: int, say: Callable[[str], None] = print) -> None:
    """Print it, of the features that are on by default."""
    columns = [place for place, each in enumerate(FEATURES) if not each.text]
    say(f"\nStreams with an alarm, of {streams}; the default allows {1 / BAR_WEEKS:.0%} in a week.\n")
    say(f"| kind | learnt from | in a week of as many | in {WEEKS} such weeks | in a week of {REQUESTS:,} |")
    say("|---|---|---|---|---|")
    for kind in KINDS:
        for size in SIZES:
            made = [of_kind(kind, seed, columns) for seed in range(streams)]
            found = (_alarms(made, columns, size, weeks) for weeks in (1, WEEKS, 0))
            say(f"| {kind} | {size:,} | {' | '.join(map(str, found))} |")


def _alarms(made: Sequence[Stream], columns: Sequence[int], size: int, weeks: int) -> int:
    """Return how many alarm. `weeks`: of as many requests as were learnt from; 0: all that there are, in one week."""
    features = [FEATURES[column] for column in columns]
    rows = []
    for stream in made:
        learnt, watched = (np.nonzero(stream.week == week)[0] for week in (0, 1))
        step = len(learnt) // size
        learnt = learnt[::step]
        pinned = learn(stream.values[learnt], stream.hour[learnt], features)
        parts: list[Any] = [watched[part::step] for part in range(min(weeks, step))] or [watched]
        chosen = np.concatenate(parts)
        when = np.concatenate([week + np.arange(1, len(part) + 1) / len(part) for week, part in enumerate(parts)])
        rows.append(Row(pinned, places_of(pinned, stream.values[chosen]), stream.hour[chosen], when))
    return sum(each.alarm is not None for each in judge(rows, [BAR_WEEKS] * len(rows), features))
