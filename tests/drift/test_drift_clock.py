"""A wall clock that is wrong, and is set: nothing is pinned too soon, nothing is judged by the wrong hours."""

import random
from collections.abc import Callable

import msgspec
import pytest
from drift_requests import answered

from inferwatch.record import RequestRecord
from inferwatch.settings.drift import Drift
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import CardinalityGuard, Limits
from inferwatch_collectors.clock_steps import STEP_S, ClockSteps
from inferwatch_collectors.drift.memory import NAME
from inferwatch_collectors.drift.watch import DriftWatch
from inferwatch_collectors.metric_store import MetricStore

Make = Callable[..., RequestRecord]
MONDAY_S = 1_760_313_600.0
KEY = ("m", "acme")
HOUR_S = 3_600.0
DAY_S = 24 * HOUR_S
SETTINGS = Drift(votes_per_hour=36_000, reference_requests_min=2_000, reference_hours=48)


class Host:
    """A watch, and clocks that go on: by day answers are three times as long as by night."""

    def __init__(self, make: Make, store: MetricStore | None = None, *, now_s: float = 0.0, wrong_s: float = 0.0):
        self.store = store or MetricStore()
        self.watch = DriftWatch(self.store, CardinalityGuard(Limits()), SETTINGS, secret=b"")
        self.make = make
        self.now_s = now_s
        self.slept_s = 0.0
        self.wrong_s = wrong_s  # by how much the wall clock is
        self.rng = random.Random(4)
        self.watch.resume(now_s)
        self.tick()

    @property
    def right_s(self) -> float:
        return MONDAY_S + self.now_s + self.slept_s

    def tick(self) -> None:
        self.watch.tick(self.now_s, self.right_s + self.wrong_s, self.slept_s)

    def hours(self, count: float, a_hour: int = 60) -> None:
        """Let requests come for so long."""
        for _ in range(round(count * a_hour)):
            self.now_s += HOUR_S / a_hour
            self.tick()
            busy = self.right_s % DAY_S >= DAY_S / 2
            answered(self.watch, self.make(completion_tokens=int(self.rng.lognormvariate(6 if busy else 5, 0.5))))

    @property
    def judges(self) -> bool:
        return self.gauge(m.DRIFT_JUDGING) == 1

    @property
    def signals(self) -> float:
        return self.store.counter(m.DRIFT_SIGNALS, KEY).value

    def gauge(self, metric: m.Metric, *labels: str) -> float | None:
        self.watch.refresh()
        return self.store.gauge(metric, (*KEY, *labels)).value

    def evidence(self) -> float:
        return self.gauge(m.DRIFT_EVIDENCE, "answer") or 0.0


def test_a_boot_in_1970_pins_nothing_before_it_is_time(request_of: Make, caplog: pytest.LogCaptureFixture) -> None:
    """The time comes after ten minutes: half a century has not passed, and those minutes were in no hour of the week."""
    host = Host(request_of, wrong_s=-MONDAY_S)
    host.hours(1 / 6)
    assert host.gauge(m.DRIFT_REFERENCE_VOTES) == 10
    host.wrong_s = 0.0
    host.hours(1 / 60)
    assert host.gauge(m.DRIFT_REFERENCE_VOTES) == 1
    assert "drift_clock_stepped seconds=1760313600 begun_anew=1" in caplog.text
    host.hours(47)
    assert not host.judges
    host.hours(2)
    assert host.judges
    host.hours(48)
    assert host.signals == 0


@pytest.mark.parametrize("wrong_s", [8 * DAY_S, -DAY_S])
def test_a_clock_that_is_set_while_it_learns(request_of: Make, wrong_s: float) -> None:
    """Eight days ahead, or back by a day, and right again: each time it learns anew, for the whole time."""
    host = Host(request_of)
    host.hours(40)
    host.wrong_s = wrong_s
    host.hours(47)
    assert not host.judges
    host.wrong_s = 0.0
    host.hours(47)
    assert not host.judges
    host.hours(2)
    assert host.judges
    host.hours(48)
    assert host.signals == 0


def test_a_clock_that_is_set_while_it_judges(request_of: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Twelve hours ahead, the nights are taken for days: that is unlike the reference. When the clock is right again,
    that evidence is forgotten with the wrong clock's."""
    host = Host(request_of)
    host.hours(50)
    assert host.judges
    host.wrong_s = DAY_S / 2
    host.hours(12)
    assert host.gauge(m.DRIFT_DETECTED) == 1
    host.wrong_s = 0.0
    host.tick()
    assert host.evidence() == 0
    assert host.gauge(m.DRIFT_DETECTED) == 0
    assert "drift_clock_stepped seconds=-43200 begun_anew=1" in caplog.text
    host.hours(48)
    assert host.signals == 1


def test_without_a_rhythm_the_hour_does_not_matter(request_of: Make) -> None:
    """Evidence stays as it was, and the time since when is said by the clock that is right now."""
    host = Host(request_of)
    host.make = lambda **_: request_of(completion_tokens=int(host.rng.lognormvariate(5, 1)))
    host.hours(50)
    assert host.judges
    host.make = lambda **_: request_of(completion_tokens=int(host.rng.lognormvariate(6, 1)))
    host.hours(10)
    before, since_s = host.evidence(), host.watch.streams.get(KEY).since_s  # type: ignore[union-attr]
    assert host.gauge(m.DRIFT_DETECTED) == 1
    host.wrong_s = -DAY_S
    host.tick()
    assert host.evidence() == before
    assert host.gauge(m.DRIFT_DETECTED) == 1
    assert host.watch.streams.get(KEY).since_s == since_s - DAY_S  # type: ignore[union-attr]


def test_a_night_that_the_host_slept_is_no_step(request_of: Make, caplog: pytest.LogCaptureFixture) -> None:
    """The wall clock was right before, and is. That time was not learnt in."""
    host = Host(request_of)
    host.hours(20)
    host.slept_s += 8 * HOUR_S
    host.hours(27)
    assert host.gauge(m.DRIFT_REFERENCE_VOTES) == 47 * 60
    assert not host.judges
    host.hours(2)
    assert host.judges
    assert "stepped" not in caplog.text
    host.slept_s += 8 * HOUR_S
    host.hours(24)
    assert host.signals == 0
    assert "stepped" not in caplog.text


def test_what_was_learnt_is_added_up_over_restarts(request_of: Make) -> None:
    """Also where an older version wrote it down, which did not count: no less time passed than hours were seen."""
    for old in (False, True):
        host = Host(request_of)
        host.hours(30)
        host.watch.finish()
        host.watch.write_one()
        if old:
            memo = host.store.memo(NAME, ("0",))
            state = msgspec.msgpack.decode(memo.data)
            lesson = next(each for each in state if isinstance(each, list) and len(each) == 4 and each[0] == 1_800)
            lesson.pop()
            memo.set(msgspec.msgpack.encode(state))
        store = MetricStore()
        store.restore(host.store.take_dirty())
        again = Host(request_of, store, now_s=host.now_s)
        again.hours(16)
        assert not again.judges
        again.hours(4)
        assert again.judges


def test_small_steps_and_slow_ones_are_none() -> None:
    """Seconds are no matter; many of them together are in the end. A clock that never steps never does."""
    steps = ClockSteps()
    assert steps.step(0.0, 50.0, 0.0) == 0.0
    assert steps.step(10.0, 60.0 + STEP_S / 2, 0.0) == 0.0
    assert steps.step(20.0, 70.0 + STEP_S, 0.0) == STEP_S
    assert steps.step(30.0, 80.0 + STEP_S, 0.0) == 0.0
    assert steps.step(30.0, 80.0 + STEP_S + 9_000.0, 9_000.0) == 0.0
