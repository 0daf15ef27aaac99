"""together: what no stream has alone, all have; at one bar for everything."""

import random
from collections.abc import Callable

import pytest
from drift_requests import answered

from inferwatch.record import RequestRecord
from inferwatch.settings.drift import Drift
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import CardinalityGuard, Limits
from inferwatch_collectors.drift.features import features
from inferwatch_collectors.drift.following import Followed
from inferwatch_collectors.drift.memory import NAME, TOGETHER, Memory
from inferwatch_collectors.drift.together import Together
from inferwatch_collectors.drift.watch import DriftWatch
from inferwatch_collectors.drift.words import as_text
from inferwatch_collectors.drift_report import as_text as drift_as_text
from inferwatch_collectors.drift_report import joined, of_tenant
from inferwatch_collectors.metric_store import MetricStore

Make = Callable[..., RequestRecord]
TENANTS = tuple(f"t{number}" for number in range(8))
SETTINGS = Drift(votes_per_hour=360_000, reference_requests_min=2_000, reference_hours=1)
MONDAY_S = 1_760_313_600.0


class Site:
    """Eight tenants that are given the same answers, so that all have the same evidence."""

    def __init__(self, make: Make) -> None:
        self.store = MetricStore()
        self.make, self.now_s, self.rng = make, 0.0, random.Random(5)
        self._begin()

    def _begin(self) -> None:
        self.watch = DriftWatch(self.store, CardinalityGuard(Limits()), SETTINGS, secret=b"")
        self.watch.resume(self.now_s)
        self.watch.tick(self.now_s, MONDAY_S + self.now_s)

    def killed(self) -> None:
        """Let the collector be another one, with the memos of its predecessor."""
        store, self.store = self.store, MetricStore()
        for name in (NAME, TOGETHER):
            for memo in store.memos(name):
                self.store.memo(name, memo.labels).set(memo.data)
        self._begin()

    def wait(self, seconds: int) -> None:
        """Let time pass without requests."""
        for _ in range(2 * seconds):
            self.now_s += 0.5
            self.watch.tick(self.now_s, MONDAY_S + self.now_s)

    def learn(self) -> None:
        """Have a reference of each tenant."""
        self.send(2_600, 0.0)
        self.send(10, 0.0, step_s=360)

    def drift(self) -> None:
        """Let answers of all tenants grow until all together have a signal."""
        for _ in range(200):
            self.send(2, 0.35)
            self.send(1, 0.35, step_s=30)  # it is looked at twice a minute
            if self.together():
                return

    def send(self, rounds: int, longer: float, step_s: float = 0.8) -> None:
        """Let each tenant have so many requests, answers exp(longer) times as long."""
        for _ in range(rounds):
            self.now_s += step_s
            self.watch.tick(self.now_s, MONDAY_S + self.now_s)
            tokens = int(self.rng.lognormvariate(5 + longer, 1))
            for tenant in TENANTS:
                answered(self.watch, self.make(tenant=tenant, completion_tokens=tokens))

    def together(self) -> float | None:
        """Return what is exported of all."""
        self.watch.refresh()
        return self.store.gauge(m.DRIFT_DETECTED_TOGETHER, ()).value

    def alone(self) -> list[str]:
        """Return the tenants with a signal of their own."""
        self.watch.refresh()
        return [each for each in TENANTS if self.store.gauge(m.DRIFT_DETECTED, ("m", each)).value]

    def evidence(self) -> float:
        """Return what the alert rule adds up."""
        self.watch.refresh()
        series = self.store.series(m.DRIFT_EVIDENCE)
        return sum(self.store.gauge(m.DRIFT_EVIDENCE, labels).value or 0.0 for labels in series)


def test_a_little_in_each_of_many_is_a_signal_of_all_and_of_none(
    request_of: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is said while nothing changes. Then answers of all tenants grow: all together are told first, in the
    gauge, the log, the report and as data, with those that have most of it, and what moved."""
    site = Site(request_of)
    site.learn()
    assert site.together() == 0
    site.send(400, 0.0)
    assert (site.together(), site.alone()) == (0, [])
    assert "All 8 that have not drifted alone, together: as in their references, evidence " in as_text(
        site.watch.report()
    )
    site.drift()
    assert (site.together(), site.alone()) == (1, [])
    assert site.evidence() >= SETTINGS.weeks_per_false_alarm
    told = site.watch.report().together
    assert told is not None
    assert (told.state, told.streams) == ("drifted", 8)
    assert told.moved[0].feature == "completion_tokens"
    assert told.since
    assert [each.evidence_weeks for each in told.most] == sorted(
        (each.evidence_weeks for each in told.most), reverse=True
    )
    text = as_text(site.watch.report())
    assert "All 8 that have not drifted alone, together: DRIFTED, evidence " in text
    assert f"  most of it: m for {told.most[0].tenant} " in text
    assert caplog.text.count("drift_together streams=8 ") == 1
    assert "drift model=" not in caplog.text


def test_it_is_told_once_also_through_a_restart(request_of: Make, caplog: pytest.LogCaptureFixture) -> None:
    """The successor of a collector that was killed a minute later knows of it, before it looks for the first time; when
    it is over that is known, too, and the next episode is told."""
    site = Site(request_of)
    site.learn()
    site.drift()
    assert (site.together(), caplog.text.count("drift_together ")) == (1, 1)
    site.wait(120)
    known = site.evidence()
    site.killed()
    assert (site.together(), site.evidence()) == (1, pytest.approx(known))
    site.wait(120)
    site.send(2, 0.35)
    site.wait(120)
    assert (site.together(), caplog.text.count("drift_together ")) == (1, 1)
    site.send(1_000, 0.0)
    assert site.together() == 0
    site.wait(120)
    site.killed()
    site.wait(120)
    assert (site.together(), caplog.text.count("drift_together ")) == (0, 1)
    site.drift()
    assert (site.together(), caplog.text.count("drift_together ")) == (1, 2)


@pytest.mark.parametrize("data", [b"", b"0", b"\xff" * 1_000])
def test_what_is_no_mark_of_a_signal_is_none(data: bytes) -> None:
    """It is told once more, at most."""
    store = MetricStore()
    store.memo(TOGETHER).set(data)
    assert not Memory(store).read_together()


def stream(weeks: float, *, signalling: bool = False) -> Followed:
    """Return one that is judged, as far as is looked at here."""
    found = Followed("m", "acme", features(text=False), 0.0)
    found.watched = object()  # type: ignore[assignment]
    found.judged_weeks, found.signalling = weeks, signalling
    return found


def test_the_sum_of_the_parts_is_what_counts() -> None:
    """Of five streams the bar is reached at twenty weeks of mean, not before; each part is divided by their number."""
    together = Together()
    assert not together.judge([stream(19.9) for _ in range(5)], 5, 20.0)
    assert not together.judge([stream(99.0), *(stream(0.1) for _ in range(4))], 5, 20.0)
    assert together.judge([stream(60.0), stream(41.0), *(stream(0.0) for _ in range(3))], 5, 20.0)
    assert not together.judge([stream(60.0), stream(60.0)], 5, 20.0)  # told once
    assert together.signalling


def test_who_has_a_signal_alone_hides_nobody_and_adds_nothing() -> None:
    """A stream that stays unlike before for weeks is left out, whatever it has."""
    together = Together()
    gone = stream(1e6, signalling=True)
    assert not together.judge([gone, stream(10.0)], 2, 20.0)
    assert together.judge([gone, *(stream(30.0) for _ in range(4))], 5, 20.0)


def test_it_ends_when_hardly_anything_is_left() -> None:
    """And the next episode is told again."""
    together = Together()
    many = [stream(50.0), stream(50.0)]
    assert together.judge(many, 2, 20.0)
    assert not together.judge([stream(3.0), stream(3.0)], 2, 20.0)
    assert together.signalling
    assert not together.judge([stream(0.5), stream(0.5)], 2, 20.0)
    assert not together.signalling
    assert together.judge(many, 2, 20.0)


def test_nobody_is_judged() -> None:
    """There is nothing to say, and no division by nothing."""
    together = Together()
    assert not together.judge([], 0, 20.0)
    assert together.told([], 1) is None


def test_a_report_of_one_tenant_has_no_other_in_it(request_of: Make) -> None:
    """Nor what all of them have together."""
    site = Site(request_of)
    site.send(20, 0.0)
    report = of_tenant(joined(site.watch.report(), None), "t3")
    assert [each.tenant for each in report.streams] == ["t3"]
    assert report.together is None
    text = drift_as_text(report)
    assert "m for t3: " in text
    assert "t4" not in text
