"""Counts where the time of finished requests went. A part of the recorder, with its rules: known values once.

Series are kept at hand, as in `request_series`, and for the same reason.
"""

from inferwatch.record import RequestRecord
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import OTHER, RequestLabels
from inferwatch_collectors.metric_store import Counter, Histogram, MetricStore
from inferwatch_collectors.neighbours import Blocked
from inferwatch_collectors.phases import PHASES, spent

# Values of the label `victims`.
OWN = "own"
OTHERS = "others"

# By the position of the phase in PHASES; None until it has a value.
_Series = list[tuple[Histogram, Counter] | None]


class PhaseRecorder:
    """Phases of requests, and delays among them."""

    def __init__(self, store: MetricStore) -> None:
        self._store = store
        self._series: dict[RequestLabels, _Series] = {}  # as many as the guard lets in

    def finished(
        self, record: RequestRecord, labels: RequestLabels, exemplar: tuple[str, float, str] | None = None
    ) -> None:
        """Count one finished request. `exemplar` is what `Histogram.observe` takes."""
        if record.sent_s is None or labels.operation == OTHER:
            return
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = [None] * len(PHASES)
        for position, spent_ns in spent(record):
            histogram, counter = series[position] or self._begin(series, position, labels)
            histogram.observe(spent_ns / 1e9, 1, exemplar)
            counter.add(spent_ns)
        if record.blocked_s:
            self._store.counter(m.PREFILL_BLOCKED, (labels.model, labels.tenant)).add(record.blocked_s)

    def delayed(self, tenant: str, blocked: Blocked) -> None:
        """Charge those who held up a request of `tenant`, the name in its record."""
        for prompt, share_ns in blocked.shares_ns.items():
            victims = OWN if prompt.tenant == tenant else OTHERS
            self._store.counter(m.NEIGHBOUR_DELAY, (prompt.label, victims)).add(max(0.0, share_ns) / 1e9)

    def retired(self, labels: RequestLabels) -> None:
        """Let go of the series of a combination that the store may have forgotten."""
        self._series.pop(labels, None)

    def _begin(self, series: _Series, position: int, labels: RequestLabels) -> tuple[Histogram, Counter]:
        phase = PHASES[position]
        begun = series[position] = (
            self._store.histogram(m.REQUEST_PHASE, (labels.model, phase)),
            self._store.counter(m.TENANT_PHASE, (labels.tenant, phase)),
        )
        return begun
