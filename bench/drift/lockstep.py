"""Many streams judged at once: what `drift.stream.Watched` does, with numpy, a step for all of them.

Bins, scores, profiles and prices are the product's own (`learning.fit`, `Pinned.prices`); only the loop over votes is
written a second time here. `check` compares both, vote by vote, and the benchmark does not begin without it.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any, Final, NamedTuple

import numpy as np
from bench.drift.streams import Stream

from inferwatch.settings.drift import Drift
from inferwatch_collectors.drift.betting import CEILING_WEEKS, FLAG_STAKES, QUANTITY_BETS, QUANTITY_STAKES, RATIOS
from inferwatch_collectors.drift.bins import cut
from inferwatch_collectors.drift.features import Feature, Kind
from inferwatch_collectors.drift.learning import EDGE_VOTES, fit
from inferwatch_collectors.drift.profile import HOURS_OF_WEEK
from inferwatch_collectors.drift.reference import Pinned, Terms, is_steady
from inferwatch_collectors.drift.stream import Watched

DEFAULTS: Final = Drift()
BAR_WEEKS: Final = DEFAULTS.weeks_per_false_alarm
BETS: Final = max(QUANTITY_BETS, len(RATIOS))


def terms_of(features: Sequence[Feature]) -> Terms:
    """Return the product's terms for these features."""
    bets = sum(len(RATIOS) if each.kind is Kind.FLAG else QUANTITY_BETS for each in features)
    return Terms.of(bets, risk=DEFAULTS.reference_risk, tolerance=DEFAULTS.tolerance)


def learn(values: Any, hour: Any, features: Sequence[Feature]) -> list[Pinned | None]:
    """Return the reference that these votes make, [votes, features]."""
    return [_learn_one(values[:, place], hour, each.kind) for place, each in enumerate(features)]


def _learn_one(values: Any, hour: Any, kind: Kind) -> Pinned | None:
    edges: tuple[float, ...]
    scores: tuple[float, ...]
    if kind is Kind.FLAG:
        edges, scores, rest, hour_of = (0.5,), (0.0, 1.0), values, hour
    else:
        if len(values) <= EDGE_VOTES:
            return None
        edges, scores = cut([float(each) for each in values[:EDGE_VOTES]])
        rest, hour_of = values[EDGE_VOTES:], hour[EDGE_VOTES:]
    places = np.searchsorted(np.array(edges), rest.astype(float), side="left")
    return fit(
        kind,
        edges,
        scores,
        np.bincount(places, minlength=len(scores)).tolist(),
        np.bincount(hour_of, weights=np.array(scores)[places], minlength=HOURS_OF_WEEK).tolist(),
        np.bincount(hour_of, minlength=HOURS_OF_WEEK).tolist(),
    )


class Row(NamedTuple):
    """One detector and the votes that it will see."""

    pinned: list[Pinned | None]
    places: Any  # uint8 [votes, features]
    hour: Any
    weeks: Any  # when


class Outcome(NamedTuple):
    """What became of a row."""

    alarm: int | None  # after so many votes
    peak_weeks: float
    last_weeks: float
    trace: Any = None  # float32: the evidence after each vote, where it was asked for


def row_of(stream: Stream, tenant: int, features: Sequence[Feature]) -> Row | None:
    """Return the detector of one tenant of a stream; None if it has too little to learn from."""
    chosen = (stream.tenant == tenant) & stream.votes
    learnt, judged = chosen & (stream.week == 0), chosen & (stream.week == 1)
    if learnt.sum() < DEFAULTS.reference_requests_min:
        return None
    pinned = learn(stream.values[learnt], stream.hour[learnt], features)
    position = np.nonzero(judged)[0] / (len(stream.week) / 2) - 1.0
    return Row(pinned, places_of(pinned, stream.values[judged]), stream.hour[judged], position)


def places_of(pinned: Sequence[Pinned | None], values: Any) -> Any:
    """Return the bin of each value."""
    found = np.zeros(values.shape, np.uint8)
    for place, each in enumerate(pinned):
        if each is not None:
            found[:, place] = np.searchsorted(np.array(each.edges), values[:, place].astype(float), side="left")
    return found


def judge(
    rows: Sequence[Row],
    bars: Sequence[float],
    features: Sequence[Feature],
    *,
    stop: bool = False,
    traced: bool = False,
) -> list[Outcome]:
    """Let all rows vote; `bars` in weeks. With `stop` it ends when all have alarmed."""
    terms = terms_of(features)
    weight = np.array([[feature.weight for feature in features]] * len(rows))
    weight *= [[each is not None for each in row.pinned] for row in rows]
    weight /= weight.sum(axis=1, keepdims=True)
    bins = max(len(each.scores) for row in rows for each in row.pinned if each is not None)
    count, size = len(rows), len(features)
    table = np.ones((count, size, bins, BETS), np.float32)
    prices: dict[tuple[int, int, int], Any] = {}
    counted = np.zeros((count, size, BETS), np.float32)
    for place in range(size):
        stakes = FLAG_STAKES if features[place].kind is Kind.FLAG else QUANTITY_STAKES
        counted[:, place, : len(stakes)] = weight[:, place, None] * np.array(stakes)
    held = np.zeros((count, size, BETS), np.float32)
    now_hour = [-1] * count
    last = np.zeros(count)
    alarm = np.full(count, -1)
    peak = np.zeros(count)
    index_row = np.arange(count)[:, None]
    index_feature = np.arange(size)[None, :]
    longest = max(len(row.hour) for row in rows)
    places = np.zeros((longest, count, size), np.uint8)
    hours = np.full((longest, count), -1)
    weeks = np.zeros((longest, count))
    for index, row in enumerate(rows):
        places[: len(row.hour), index] = row.places
        hours[: len(row.hour), index] = row.hour
        weeks[: len(row.hour), index] = row.weeks
    bar = np.array(bars)
    trace = np.zeros((longest, count) if traced else (0, count), np.float32)
    for step in range(longest):
        voting = hours[step] >= 0
        for index in map(int, np.nonzero(voting & (hours[step] != np.array(now_hour)))[0]):
            _turn(table, prices, index, rows[index], int(hours[step, index]), terms, first=now_hour[index] < 0)
            now_hour[index] = int(hours[step, index])
        get = table[index_row, index_feature, places[step]]
        passed = np.where(voting, weeks[step] - last, 0.0).astype(np.float32)
        get[~voting] = 1.0
        last = np.where(voting, weeks[step], last)
        held += passed[:, None, None]
        held *= get
        np.clip(held, 1e-30, CEILING_WEEKS, out=held)
        now = np.einsum("rfb,rfb->r", held, counted)
        if traced:
            trace[step] = now
        peak = np.maximum(peak, now)
        fresh = (alarm < 0) & (now >= bar)
        alarm[fresh] = step + 1
        if stop and (alarm >= 0).all():
            break
    last_weeks = np.einsum("rfb,rfb->r", held, counted)
    return [
        Outcome(
            None if each < 0 else int(each),
            float(most),
            float(now),
            trace[: len(row.hour), index] if traced else None,
        )
        for index, (row, each, most, now) in enumerate(zip(rows, alarm, peak, last_weeks, strict=True))
    ]


def together(rows: Sequence[Row], outcomes: Sequence[Outcome]) -> float:
    """Return the most that the mean evidence of these, which were traced, ever was: all at the same time."""
    when = np.concatenate([row.weeks for row in rows])
    steps = np.concatenate([np.diff(each.trace.astype(float), prepend=0.0) for each in outcomes])
    return float(np.cumsum(steps[np.argsort(when, kind="stable")]).max(initial=0.0)) / len(rows)


def _turn(table: Any, prices: Any, index: int, row: Row, hour: int, terms: Terms, *, first: bool) -> None:
    steady = is_steady([each for each in row.pinned if each is not None])
    for place, each in enumerate(row.pinned):
        if each is None or not (first or each.has_profile):
            continue
        key = (index, place, hour if each.has_profile else 0)
        found = prices.get(key)
        if found is None:
            found = prices[key] = np.array(each.rows) / np.array(each.prices(hour, terms, steady=steady))
        table[index, place, : found.shape[0], : found.shape[1]] = found


def check(stream: Stream, features: Sequence[Feature], votes: int = 3_000) -> float:
    """Return the largest relative difference between this and the product, over the evidence after some votes."""
    row = row_of(stream, 0, features)
    assert row is not None
    pinned = {feature: each for feature, each in zip(features, row.pinned, strict=True) if each is not None}
    watched = Watched(pinned, features, terms_of(features), 0.0)
    chosen = np.nonzero((stream.tenant == 0) & stream.votes & (stream.week == 1))[0][:votes]
    worst = 0.0
    for number, request in enumerate(chosen):
        values = {each.name: float(stream.values[request, place]) for place, each in enumerate(features)}
        watched.vote(values, float(row.weeks[number]), int(stream.hour[request]))
        if number + 1 in (10, 100, ceil(votes / 2), votes):
            short = Row(row.pinned, row.places[: number + 1], row.hour[: number + 1], row.weeks[: number + 1])
            worst = max(worst, abs(watched.weeks / judge([short], [np.inf], features)[0].last_weeks - 1.0))
    return worst
