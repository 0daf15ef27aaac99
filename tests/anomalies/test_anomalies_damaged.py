"""What is remembered of spending and was damaged: it reads as something that makes sense, or is refused."""

import math
import random

from damage import mutated
from hypothesis import given, settings
from hypothesis import strategies as st

from inferwatch.record import Outcome, RequestRecord
from inferwatch.settings.anomalies import Anomalies
from inferwatch_collectors import metrics as m
from inferwatch_collectors.anomalies.memory import NAME
from inferwatch_collectors.anomalies.spend import BUCKET_S
from inferwatch_collectors.anomalies.watch import AnomalyWatch
from inferwatch_collectors.cardinality import CardinalityGuard, Limits
from inferwatch_collectors.metric_store import MetricStore

WALL_S = 1_760_000_100.0  # five minutes begin
BUCKETS_AN_HOUR = 12


class Site:
    """A watch, and a tenant whose sessions ask every few seconds."""

    def __init__(self, *memos: bytes) -> None:
        self.store = MetricStore()
        for number, data in enumerate(memos):
            self.store.memo(NAME, (str(number),)).set(data)
        self.watch = AnomalyWatch(self.store, CardinalityGuard(Limits()), Anomalies(min_history_hours=24))
        self.rng, self.now_s = random.Random(3), 0.0
        self.watch.resume(0.0)
        self.watch.tick(0.0, WALL_S)

    def hours(self, count: int, requests: int = 2) -> None:
        """Let so many hours pass, and see that what is shown makes sense."""
        for number in range(count * BUCKETS_AN_HOUR):
            for each in range(requests):
                tokens = int(self.rng.lognormvariate(6, 1))
                self.watch.record(self._request(tokens, f"s{number % 7}", self.now_s + 5.0 * each))
            self.now_s += BUCKET_S
            for part in (0.0, 0.5, 1.0):  # what a bucket tells is worked off tick by tick
                self.watch.tick(self.now_s + part, WALL_S + self.now_s + part)
        self.watch.refresh()
        metric = m.SPEND_ANOMALY_EVIDENCE
        values = [self.store.gauge(metric, labels).value for labels in self.store.series(metric)]
        assert all(each is None or 0 <= each < math.inf for each in values)

    def _request(self, tokens: int, session: str, at_s: float) -> RequestRecord:
        return RequestRecord(
            request_id=f"r{at_s}",
            wall_ns=int((WALL_S + at_s) * 1e9),
            tenant="acme",
            model="m",
            operation="chat",
            route="/v1/chat/completions",
            method="POST",
            stream=True,
            outcome=Outcome.OK,
            status=200,
            duration_s=1.0,
            prompt_tokens=tokens,
            completion_tokens=100,
            session=session,
            price_nanodollars=tokens * 1_000,
        )

    def memos(self) -> tuple[bytes, ...]:
        """Return what is written down."""
        return tuple(memo.data for memo in self.store.memos(NAME) if memo.data)


def memos() -> tuple[bytes, ...]:
    """Return what is written down in the first hours, and when there is history enough."""
    site = Site()
    found = []
    for count in (2, 60):
        site.hours(count)
        found += site.memos()
    return tuple(found)


MEMOS = memos()


def test_what_is_whole_is_read() -> None:
    """In either stage."""
    assert len(MEMOS) == 2
    for data in MEMOS:
        site = Site(data)
        assert site.watch.memos_damaged == 0
        site.hours(1)


@settings(max_examples=200)
@given(st.sampled_from(MEMOS), st.randoms(use_true_random=False))
def test_whatever_is_damaged_makes_sense_or_is_refused(data: bytes, rng: random.Random) -> None:
    """Any byte, any number, any length: what is read can be judged, told and written down again."""
    site = Site(mutated(rng, data))
    site.hours(2)
    again = Site(*site.memos())
    assert again.watch.memos_damaged == 0
    again.hours(1)
