"""Delays: after how many requests a change is found, at the default rate of false alarms.

The traffic is that of `streams`, of the kind iid; the change is there from the first judged request on. Ours looks at
all features at once, theirs at the one that changes: nobody tells a detector beforehand where to look, but they
cannot do both.
"""

from collections.abc import Callable, Sequence
from math import log
from typing import Any, Final, NamedTuple

import numpy as np
from bench.drift.lockstep import BAR_WEEKS, Row, judge, learn, places_of
from bench.drift.peers import peers, plain_e_detector
from bench.drift.streams import COLUMNS, FEATURES, FLAGS, latent_of, shaped
from scipy.stats import norm

from inferwatch_collectors.drift.profile import HOURS_OF_WEEK

PATIENCE: Final = 20_000
WEEK: Final = 50_000
REFERENCES: Final = (50_000, 20_000)


class Change(NamedTuple):
    """What becomes of one feature."""

    name: str
    feature: str
    before: float | None  # a flag's share; None: of a length
    after: float  # likewise; a factor for a length, whose logarithm has a standard deviation of 1


CHANGES: Final = (
    *(Change(f"answers × {factor}", "completion_tokens", None, factor) for factor in (1.1, 1.25, 1.5, 2.0)),
    Change("refusals 2 → 4 %", "refusal", 0.02, 0.04),
    Change("refusals 2 → 6 %", "refusal", 0.02, 0.06),
    Change("loops 0 → 1 %", "loop", 0.0, 0.01),
    Change("valid JSON 99 → 95 %", "json", 0.99, 0.95),
)


def delays(
    streams: int, references: Sequence[int] = (50_000, 20_000, 5_000), say: Callable[[str], None] = print
) -> None:
    """Print median and 95th percentile of the delays, by change and detector."""
    say(
        f"\nRequests until a change is found: median (95 %), of {streams} streams; - if most are not within "
        f"{PATIENCE:,}.\n"
    )
    names = [f"inferwatch, {what}, reference {size:,}" for what in ("all features", "alone") for size in references]
    theirs = {**peers(), "plain e-detector": plain_e_detector}
    names += theirs
    say(f"| change | {' | '.join(names)} |")
    say(f"|---|{'---|' * len(names)}")
    for change in CHANGES:
        cells = [_cell(_ours(change, streams, size, COLUMNS)) for size in references]
        place = next(index for index, each in enumerate(FEATURES) if each.name == change.feature)
        cells += [_cell(_ours(change, streams, size, (place,))) for size in references]
        found: dict[str, list[int | None]] = {name: [] for name in theirs}
        for seed in range(streams):
            reference, watched = _values(change, seed, WEEK, (place,))
            for name, peer in theirs.items():
                found[name].append(peer(reference[:, 0].astype(float), watched[:, 0].astype(float)))
        cells += [_cell(each) for each in found.values()]
        say(f"| {change.name} | {' | '.join(cells)} |")


def _values(change: Change, seed: int, size: int, columns: Sequence[int]) -> tuple[Any, Any]:
    rng = np.random.default_rng([99, seed])
    place = [FEATURES[column].name for column in columns].index(change.feature)
    latent = latent_of(rng, size + PATIENCE, columns)
    if change.before is None:
        latent[size:, place] += log(change.after)
    else:
        assert abs(FLAGS[change.feature] - change.before) < 1e-9
    values = shaped(latent, columns)
    if change.before is not None:
        values[size:, place] = latent[size:, place] > norm.isf(change.after)
    return values[:size], values[size:]


def _ours(change: Change, streams: int, size: int, columns: Sequence[int]) -> list[int | None]:
    features = [FEATURES[column] for column in columns]
    found: list[int | None] = []
    for start in range(0, streams, 50):
        rows = []
        for seed in range(start, min(streams, start + 50)):
            reference, watched = _values(change, seed, size, columns)
            hour = np.arange(size) * HOURS_OF_WEEK // size
            pinned = learn(reference, hour, features)
            hours = np.zeros(PATIENCE, int)
            rows.append(Row(pinned, places_of(pinned, watched), hours, np.arange(1, PATIENCE + 1) / WEEK))
        outcomes = judge(rows, [BAR_WEEKS] * len(rows), features, stop=True)
        found += [each.alarm for each in outcomes]
    return found


def _cell(found: list[int | None]) -> str:
    ordered = sorted(each if each is not None else PATIENCE + 1 for each in found)
    middle, late = ordered[len(ordered) // 2], ordered[int(0.95 * (len(ordered) - 1))]
    if middle > PATIENCE:
        return "-"
    return f"{middle:,} ({f'{late:,}' if late <= PATIENCE else 'more'})"
