"""What is exported of drift: set right before an exposition, and only what has changed since the last one."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from inferwatch_collectors import metrics as m
from inferwatch_collectors.drift.following import Followed
from inferwatch_collectors.drift.memory import Key
from inferwatch_collectors.metric_store import MetricStore

_ALL: Final = (
    m.DRIFT_REFERENCE_VOTES,
    m.DRIFT_JUDGING,
    m.DRIFT_EVIDENCE,
    m.DRIFT_DETECTED,
    m.DRIFT_FEATURES_OFF,
    m.DRIFT_PSI,
    m.DRIFT_WASSERSTEIN,
)


class _Shown(NamedTuple):
    """As what one was shown."""

    of: tuple[object, ...]  # by which references it is judged, if it is
    votes: int
    parts: int


class Gauges:
    """Of all streams."""

    def __init__(self, store: MetricStore) -> None:
        self._store = store
        self._shown: dict[Key, _Shown] = {}  # as what each was last shown

    def show(self, streams: Mapping[Key, Followed], parts: int, *, off: AbstractSet[Key]) -> None:
        """Show these, and nobody else any more. `parts`: what evidence is divided by; `off`: those not judged at
        present."""
        now = {key: _as_it_is(each, parts, off=key in off) for key, each in streams.items()}
        # Effects against another reference, or one that is not judged by any more, would be overwritten by nothing.
        self.hide({key for key, was in self._shown.items() if key not in now or was.of != now[key].of})
        for key, each in streams.items():
            if self._shown.get(key) != now[key]:  # fifty effects for nothing, if nobody has voted since
                self._show(key, each, parts, judging=each.watched is not None and key not in off)
        self._shown = now

    def hide(self, keys: AbstractSet[Key]) -> None:
        """Take away all of these; what is shown of them next is shown anew."""
        if not keys:
            return
        for key in keys:
            self._shown.pop(key, None)
        for metric in _ALL:
            for labels in self._store.series(metric):
                if labels[:2] in keys:
                    self._store.gauge(metric, labels).set(None)

    def _show(self, key: Key, each: Followed, parts: int, *, judging: bool) -> None:
        gauge = self._store.gauge
        gauge(m.DRIFT_REFERENCE_VOTES, key).set(each.votes)
        gauge(m.DRIFT_JUDGING, key).set(int(judging))
        if not judging:
            return
        for direction, weeks in each.weeks_by_direction().items():
            gauge(m.DRIFT_EVIDENCE, (*key, direction.value)).set(weeks / parts)
        gauge(m.DRIFT_DETECTED, key).set(int(each.signalling))
        gauge(m.DRIFT_FEATURES_OFF, key).set(len(each.off))
        for effect in each.effects():
            gauge(m.DRIFT_PSI, (*key, effect.feature.name)).set(effect.psi)
            gauge(m.DRIFT_WASSERSTEIN, (*key, effect.feature.name)).set(effect.wasserstein)


def _as_it_is(each: Followed, parts: int, *, off: bool) -> _Shown:
    """Return what is another thing whenever something else is to be shown: evidence and effects wait for votes."""
    votes = each.votes if each.watched is None else each.watched.votes
    meaning = None if each.meaning is None else (each.meaning.watched is None, each.meaning.number)
    return _Shown((each.watched is None, each.number, off, meaning), votes, parts)
