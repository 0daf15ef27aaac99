"""watch: from records and ticks to gauges, counts and log lines; bounds, restarts and clocks that jump."""

import logging
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.record import Outcome, RequestRecord
from inferwatch.settings.anomalies import Anomalies
from inferwatch_collectors import metrics as m
from inferwatch_collectors.anomalies.memory import NAME
from inferwatch_collectors.anomalies.spend import BUCKET_S
from inferwatch_collectors.anomalies.tenant import DOLLARS, TOKENS, UNPRICED_BUCKETS
from inferwatch_collectors.anomalies.watch import KINDS, AnomalyWatch
from inferwatch_collectors.cardinality import OTHER, CardinalityGuard, Limits
from inferwatch_collectors.metric_store import MetricStore

Maker = Callable[..., RequestRecord]
WALL_S = 1_760_000_250.0  # as in conftest
QUICK = Anomalies(min_history_hours=72)


class Service:
    """A watch, its store, and the time."""

    def __init__(self, request_at: Maker, settings: Anomalies = QUICK, tenants: int = 500) -> None:
        self.request_at = request_at
        self.store = MetricStore()
        self.guard = CardinalityGuard(Limits(tenants=tenants))
        self.watch = AnomalyWatch(self.store, self.guard, settings)
        self.at_s = 0.0
        self.tick(0.0)

    def tick(self, seconds: float, wall_s: float | None = None) -> None:
        self.at_s += seconds
        self.watch.tick(1000.0 + self.at_s, WALL_S + self.at_s if wall_s is None else wall_s)

    def ask(self, **fields: object) -> None:
        self.watch.record(self.request_at(self.at_s - 1.0, **fields))

    def hours(self, count: float, **fields: object) -> None:
        """One request each five minutes."""
        for _ in range(int(count * 12)):
            self.ask(**fields)
            self.tick(BUCKET_S)
            self.tick(0.5)
            self.at_s -= 0.5

    def shown(self, metric: m.Metric) -> dict[tuple[str, ...], float]:
        self.watch.refresh()
        values = {labels: self.store.gauge(metric, labels).value for labels in self.store.series(metric)}
        return {labels: value for labels, value in values.items() if value is not None}

    def signals(self, kind: str, tenant: str = "acme") -> float:
        return self.store.counter(m.SPEND_ANOMALY_SIGNALS, (tenant, kind)).value


@pytest.fixture(name="service")
def _service(request_at: Maker) -> Service:
    return Service(request_at)


def test_ten_times_the_spending_is_told(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """A count, a gauge above the bar, and one line that says how many times; nothing before."""
    service.hours(84, price_nanodollars=2_000_000)
    assert all(service.signals(kind) == 0 for kind in KINDS)
    with caplog.at_level(logging.WARNING):
        service.hours(3, price_nanodollars=20_000_000)
    assert service.signals("five_minutes") == 1
    line = next(each.getMessage() for each in caplog.records if "kind=five_minutes" in each.getMessage())
    assert line.startswith("unusual_spending tenant=acme ")
    assert "times=10.0" in line
    assert service.shown(m.SPEND_ANOMALY_EVIDENCE)["acme", "five_minutes"] >= QUICK.weeks_per_false_alarm


def test_expected_and_actual_are_shown_in_the_tenants_unit(service: Service) -> None:
    """Dollars where there is a price, tokens where there is none; and only the one."""
    service.hours(30, price_nanodollars=2_000_000)
    assert service.shown(m.SPEND_LAST_HOUR) == {("acme", DOLLARS): pytest.approx(0.024)}
    assert service.shown(m.SPEND_EXPECTED_HOUR) == {}
    service.hours(72, price_nanodollars=2_000_000)
    assert service.shown(m.SPEND_EXPECTED_HOUR) == {("acme", DOLLARS): pytest.approx(0.024)}

    other = Service(service.request_at)
    other.hours(3)
    assert other.shown(m.SPEND_LAST_HOUR) == {("acme", TOKENS): 12 * 600}


def test_a_first_price_and_a_last_one_change_the_unit(service: Service) -> None:
    """From tokens to dollars at once, back after a day without; each time the history begins anew."""
    service.hours(75)
    assert ("acme", "hour") in service.shown(m.SPEND_ANOMALY_EVIDENCE)
    service.hours(2, price_nanodollars=5)
    assert {unit for _, unit in service.shown(m.SPEND_LAST_HOUR)} == {DOLLARS}
    assert ("acme", "hour") not in service.shown(m.SPEND_ANOMALY_EVIDENCE)
    service.hours(UNPRICED_BUCKETS / 12 - 1)
    assert {unit for _, unit in service.shown(m.SPEND_LAST_HOUR)} == {DOLLARS}
    service.hours(3)
    assert {unit for _, unit in service.shown(m.SPEND_LAST_HOUR)} == {TOKENS}


def test_evidence_is_absent_before_there_is_history(service: Service) -> None:
    """No gauge of what cannot be judged; storms need no history."""
    service.hours(1)
    assert set(service.shown(m.SPEND_ANOMALY_EVIDENCE)) == {("acme", "retry_storm")}


def test_a_retry_storm_is_told_with_ids_alone(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """Who the user is and which session it was are not in the line."""
    service.hours(1)
    with caplog.at_level(logging.WARNING):
        for number in range(100):
            service.ask(request_id=f"r{number}", outcome=Outcome.REJECTED, user="u_secret", session="s_secret")
            service.tick(0.2)
    assert service.signals("retry_storm") == 1
    assert "last_request=r" in caplog.text
    assert "secret" not in caplog.text


def test_more_tenants_need_more_evidence(request_at: Maker) -> None:
    """The gauge is divided by tenants and kinds, so one rule holds the rate for all."""
    shown = []
    for tenants in (1, 4):
        service = Service(request_at)
        for number in range(tenants):
            service.ask(tenant=f"t{number}")
        for _ in range(30):
            service.ask(tenant="t0", outcome=Outcome.REJECTED)
            service.tick(0.1)
        shown.append(service.shown(m.SPEND_ANOMALY_EVIDENCE)["t0", "retry_storm"])
    assert shown[0] == pytest.approx(4 * shown[1])


def test_a_restart_forgets_nothing_but_the_open_hour(service: Service) -> None:
    """A second life with the first one's rows finds ten times the spending as soon."""
    service.hours(84, price_nanodollars=2_000_000)
    again = Service(service.request_at)
    again.store.restore(service.store.take_dirty())
    again.watch.resume(1000.0 + service.at_s)
    again.at_s = service.at_s
    again.tick(0.0)
    again.hours(1.5, price_nanodollars=2_000_000)
    assert ("acme", "hour") in again.shown(m.SPEND_ANOMALY_EVIDENCE)
    again.hours(3, price_nanodollars=20_000_000)
    assert again.signals("five_minutes") == 1


@pytest.mark.parametrize("data", [b"\xc1", b"", b"\x93\x01\x02\x03"])
def test_unreadable_memory_is_forgotten(request_at: Maker, data: bytes) -> None:
    """A memo of another version or a torn one: that tenant begins anew."""
    service = Service(request_at)
    memo = service.store.memo(NAME, ("0",))
    memo.set(data)
    service.watch.resume(1000.0)
    service.hours(2)
    assert memo.data not in (data, b"")


def test_tenants_are_bounded(request_at: Maker) -> None:
    """Above `max_tenants` the longest silent is forgotten, and counted; its gauges go, its place is used again."""
    service = Service(request_at, Anomalies(min_history_hours=72, max_tenants=3))
    for number in range(10):
        for _ in range(26):
            service.ask(tenant=f"t{number}")
            service.tick(BUCKET_S)
            service.tick(0.0)
    assert service.watch.tenants_cut == 7
    assert {tenant for tenant, _ in service.shown(m.SPEND_ANOMALY_EVIDENCE)} == {"t7", "t8", "t9"}
    assert len(service.store.memos(NAME)) <= 3


def test_tenants_that_the_guard_folds_are_one(request_at: Maker) -> None:
    """No label gets out that did not go through the guard."""
    service = Service(request_at, tenants=2)
    for number in range(20):
        service.ask(tenant=f"t{number}")
    assert {tenant for tenant, _ in service.shown(m.SPEND_ANOMALY_EVIDENCE)} == {"t0", "t1", OTHER}


def test_silent_tenants_are_not_shown(service: Service) -> None:
    """After a day without a request the gauges go; the history stays."""
    service.hours(75)
    for _ in range(26 * 12):
        service.tick(BUCKET_S)
        service.tick(0.0)
    assert service.shown(m.SPEND_ANOMALY_EVIDENCE) == {}
    service.hours(2)
    assert ("acme", "hour") in service.shown(m.SPEND_ANOMALY_EVIDENCE)


@pytest.mark.parametrize("jump_s", [-7200.0, 7200.0, -90.0 * 24 * 3600])
def test_a_clock_that_jumps_is_no_surprise(service: Service, jump_s: float) -> None:
    """The open hour is forgotten, nothing is told, and judging goes on."""
    service.hours(75, price_nanodollars=1000)
    service.tick(1.0, WALL_S + service.at_s + jump_s)
    service.tick(1.0, WALL_S + service.at_s + jump_s + 1)
    service.hours(3, price_nanodollars=1000)
    assert all(service.signals(kind) == 0 for kind in KINDS)
    assert ("acme", "hour") in service.shown(m.SPEND_ANOMALY_EVIDENCE)


def test_a_backlog_is_left_out_and_counted(service: Service) -> None:
    """What finished an hour ago was not spent now."""
    service.hours(75, price_nanodollars=1000)
    for _ in range(5000):
        service.watch.record(service.request_at(service.at_s - 3600, price_nanodollars=1000))
    service.hours(2, price_nanodollars=1000)
    assert service.watch.late == 5000
    assert service.signals("five_minutes") == 0


def test_a_long_request_counts_when_it_ends(service: Service) -> None:
    """It arrived an hour ago and has just finished: not late."""
    service.watch.record(service.request_at(service.at_s - 3600, duration_s=3600.0))
    assert service.watch.late == 0


def test_disabled_is_nothing(request_at: Maker) -> None:
    """No series, no memos."""
    service = Service(request_at, Anomalies(enabled=False))
    service.watch.resume(0.0)
    service.hours(3)
    assert service.shown(m.SPEND_ANOMALY_EVIDENCE) == {}
    assert service.store.memos(NAME) == []


@given(
    steps=st.lists(
        st.tuples(
            st.floats(-1e6, 1e6),
            st.sampled_from([None, 0, 1, 10**15]),
            st.sampled_from([None, 0, 10**9]),
            st.sampled_from(list(Outcome)),
            st.sampled_from(["", "s"]),
        ),
        max_size=40,
    )
)
def test_any_records_and_clocks_are_survived(steps: list[tuple[float, int | None, int | None, Outcome, str]]) -> None:
    """Whatever comes and whatever the wall clock says: no error, and gauges are numbers."""

    def request_at(at_s: float, **fields: object) -> RequestRecord:
        known: dict[str, object] = {"request_id": "r", "tenant": "acme", "model": "m", "operation": "chat"}
        known |= {"route": "other", "method": "POST", "stream": False, "status": 200, "duration_s": 0.0}
        return RequestRecord(wall_ns=int((WALL_S + at_s) * 1e9), **(known | fields))  # type: ignore[arg-type]

    service = Service(request_at, Anomalies(min_history_hours=72, weeks_per_false_alarm=0.01))
    for number, (jump_s, price, tokens, outcome, session) in enumerate(steps):
        service.tick(1.0, WALL_S + jump_s)
        for _ in range(3):
            service.ask(
                price_nanodollars=price, prompt_tokens=tokens, outcome=outcome, session=session, request_bytes=number
            )
    assert all(0 <= value < 1e9 for value in service.shown(m.SPEND_ANOMALY_EVIDENCE).values())
