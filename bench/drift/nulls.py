"""False alarms: of streams in which nothing changes, how many alarm within 50,000 requests."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from bench.drift.lockstep import BAR_WEEKS, Row, judge, row_of
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
                made.add(stream, seed)
                for name, alarm in ({} if text else _theirs(stream, columns.index(LENGTH))).items():
                    counts[name] += alarm is not None
            counts[OURS] += made.alarms()
        say(f"| {kind} | {' | '.join(f'{100 * counts[name] / streams:.1f} %' for name in names)} |")


class _Block:
    """Streams judged side by side, each tenant by itself."""

    def __init__(self, columns: Sequence[int]) -> None:
        self._features = [FEATURES[column] for column in columns]
        self._rows: list[Row] = []
        self._owners: list[int] = []
        self._bars: list[float] = []

    def add(self, stream: Stream, seed: int) -> None:
        tenants = [int(each) for each in np.unique(stream.tenant)]
        found = [row for row in (row_of(stream, each, self._features) for each in tenants) if row is not None]
        self._rows += found
        self._owners += [seed] * len(found)
        self._bars += [BAR_WEEKS * len(found)] * len(found)

    def alarms(self) -> int:
        """Return how many streams had any."""
        outcomes = judge(self._rows, self._bars, self._features)
        return len({owner for owner, each in zip(self._owners, outcomes, strict=True) if each.alarm is not None})


def _theirs(stream: Stream, place: int) -> dict[str, int | None]:
    values: Any = stream.values[:, place].astype(float)
    learnt, watched = values[stream.week == 0], values[stream.week == 1]
    return {name: peer(learnt, watched) for name, peer in peers().items()}
