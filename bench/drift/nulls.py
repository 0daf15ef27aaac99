"""False alarms: of streams in which nothing changes, how many alarm within 50,000 requests."""

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final

import numpy as np
from bench.drift.lockstep import BAR_WEEKS, Row, judge, row_of, together
from bench.drift.peers import peers
from bench.drift.streams import FEATURES, KINDS, Stream, of_kind

# Judged side by side: their bins are 3 MB each.
BLOCK: Final = 50
LENGTH: Final = next(place for place, each in enumerate(FEATURES) if each.name == "completion_tokens")

OURS: Final = "inferwatch"


def false_alarms(streams: int, *, text: bool, kinds: Sequence[str] = KINDS, say: Callable[[str], None] = print) -> None:
    """Print the share of streams with any alarm, by kind and detector; with `text` ours alone, of all its features."""
    columns = [place for place, each in enumerate(FEATURES) if text or not each.text]
    names = [OURS, *(() if text else peers())]
    say(
        f"\nStreams with any alarm, of {streams} of each kind, {len(columns)} features; 50,000 requests to learn "
        "from and 50,000 to judge.\n"
    )
    say(f"| kind | {' | '.join(names)} |")
    say(f"|---|{'---|' * len(names)}")
    for kind in kinds:
        counts = dict.fromkeys(names, 0)
        for start in range(0, streams, BLOCK):
            made = _Block(columns)
            for seed in range(start, min(streams, start + BLOCK)):
                stream = of_kind(kind, seed, columns)
                made.add(stream)
                for name, alarm in ({} if text else _theirs(stream, columns.index(LENGTH))).items():
                    counts[name] += alarm is not None
            counts[OURS] += made.alarms()
        say(f"| {kind} | {' | '.join(f'{100 * counts[name] / streams:.1f} %' for name in names)} |")


class _Block:
    """Streams judged side by side, each tenant by itself; what must reach the bar is the mean of a stream's tenants."""

    def __init__(self, columns: Sequence[int]) -> None:
        self._features = [FEATURES[column] for column in columns]
        self._streams: list[list[Row]] = []

    def add(self, stream: Stream) -> None:
        tenants = [int(each) for each in np.unique(stream.tenant)]
        found = [row_of(stream, each, self._features) for each in tenants]
        self._streams.append([row for row in found if row is not None])

    def alarms(self) -> int:
        """Return how many streams had any."""
        rows = [row for of_one in self._streams for row in of_one]
        outcomes = iter(judge(rows, [inf] * len(rows), self._features, traced=True))
        return sum(
            together(of_one, [next(outcomes) for _ in of_one]) >= BAR_WEEKS for of_one in self._streams if of_one
        )


def _theirs(stream: Stream, place: int) -> dict[str, int | None]:
    values: Any = stream.values[:, place].astype(float)
    learnt, watched = values[stream.week == 0], values[stream.week == 1]
    return {name: peer(learnt, watched) for name, peer in peers().items()}
