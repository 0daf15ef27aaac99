"""Frames: what a page is told each second, and what it costs when nobody looks."""

import json
from typing import Any

import pytest

from inferwatch.record import ErrorType, Outcome, RequestRecord
from inferwatch_collectors import metrics as m
from inferwatch_collectors.live.service import FRAME_S, MAX_UNHAPPY, WINDOW_S, LiveService
from inferwatch_collectors.live.tables import MAX_BUDGETS, MAX_GPUS, MAX_ROWS, MAX_STREAMS

NS = 1_000_000_000
START_S = 1000


class Live:
    """A service over `traffic`, with a clock."""

    def __init__(self, traffic: Any, *exchanges: Any) -> None:
        self.refreshed = 0
        self.now_s = float(START_S)
        self.service = LiveService(traffic.store, self._refresh, lambda: exchanges, lambda: {"faults": []})

    def _refresh(self) -> None:
        self.refreshed += 1

    def frame(self, after_s: float = 0.0) -> dict[str, Any]:
        self.now_s += after_s
        told: dict[str, Any] = json.loads(self.service.frame(int(self.now_s * NS), self.now_s))
        return told


def record(outcome: Outcome, **changes: Any) -> RequestRecord:
    fields: dict[str, Any] = {
        "request_id": "r",
        "wall_ns": 5 * NS,
        "tenant": "acme",
        "model": "qwen",
        "operation": "chat",
        "route": "/v1/chat/completions",
        "method": "POST",
        "stream": True,
        "outcome": outcome,
        "status": 200,
        "duration_s": 1.5,
        "user": "u-123",
    }
    return RequestRecord(**fields | changes)


def test_the_first_frame_has_sums_and_no_rates(traffic: Any) -> None:
    """Nothing is known of the time before; the second frame knows."""
    live = Live(traffic)
    traffic.request()
    first = live.frame()
    assert (first["totals"]["requests"], first["now"]["requests"]) == (1, None)
    traffic.request()
    assert live.frame(2.0)["now"]["requests"] == 0.5


def test_rates_are_of_the_window(traffic: Any) -> None:
    """A burst is forgotten after it."""
    live = Live(traffic)
    live.frame()
    for _ in range(20):
        traffic.request()
    assert live.frame(FRAME_S)["now"]["requests"] == 20
    for _ in range(int(WINDOW_S) + 1):
        frame = live.frame(FRAME_S)
    assert (frame["now"]["requests"], frame["window_s"]) == (0, WINDOW_S + FRAME_S)


def test_all_who_look_share_one_frame(traffic: Any) -> None:
    """The second page costs nothing more."""
    live = Live(traffic)
    one = live.service.frame(int(live.now_s * NS), live.now_s)
    assert live.service.frame(int((live.now_s + 0.5) * NS), live.now_s) is one
    assert live.refreshed == 1


def test_a_visit_long_after_another(traffic: Any) -> None:
    """No rate is told across the time in which nobody looked."""
    live = Live(traffic)
    live.frame()
    traffic.request()
    assert live.frame(3600.0)["now"]["requests"] is None


def test_streams_as_they_stream(traffic: Any, open_exchange: Any) -> None:
    """The oldest first, with what is known of each."""
    young = open_exchange((START_S - 1) * NS)
    old = open_exchange((START_S - 10) * NS, (2.0, 1), (4.0, 81))
    frame = Live(traffic, young, old).frame()
    assert frame["running"] == 2
    first, second = frame["streams"]
    assert (first["age_s"], first["ttft_s"], first["prompt"], first["tokens"]) == (10.0, 2.0, 7, 81)
    assert first["rate"] == pytest.approx(81 / 8)
    assert (second["age_s"], second["ttft_s"], second["tokens"], second["rate"]) == (1.0, None, None, None)


def test_tables_are_bounded(traffic: Any, open_exchange: Any) -> None:
    """What is cut off is counted."""
    for number in range(MAX_ROWS + 5):
        traffic.request(tenant=f"t{number}", model=f"m{number}", completion=number)
        traffic.store.counter(m.SPEND_ANOMALY_SIGNALS, (f"t{number}", "rate")).add()
    for number in range(MAX_BUDGETS + 1):
        traffic.gauge(m.BUDGET_LIMIT_DOLLARS, 10, f"b{number}", "acme", "", "")
    for number in range(MAX_GPUS + 2):
        traffic.gauge(m.GPU_UP, 1, str(number), f"GPU-{number}", "H100")
    exchanges = [open_exchange(n) for n in range(MAX_STREAMS + 3)]
    frame = Live(traffic, *exchanges).frame()
    assert (len(frame["tenants"]), frame["tenant_count"]) == (MAX_ROWS, MAX_ROWS + 5)
    assert (len(frame["models"]), frame["model_count"]) == (MAX_ROWS, MAX_ROWS + 5)
    assert (len(frame["signals"]), frame["signal_count"]) == (MAX_ROWS, MAX_ROWS + 5)
    assert (len(frame["budgets"]), frame["budget_count"]) == (MAX_BUDGETS, MAX_BUDGETS + 1)
    assert (len(frame["gpus"]), frame["gpu_count"]) == (MAX_GPUS, MAX_GPUS + 2)
    assert (len(frame["streams"]), frame["running"]) == (MAX_STREAMS, MAX_STREAMS + 3)
    assert frame["tenants"][0]["tenant"] == f"t{MAX_ROWS + 4}"


def test_a_tenant(traffic: Any) -> None:
    """Its rates, its sums, its money."""
    live = Live(traffic)
    traffic.request()
    live.frame()
    traffic.request(outcome="stream_error", ttft_s=0.2)
    traffic.request(tenant="new")
    rows = {row["tenant"]: row for row in live.frame(2.0)["tenants"]}
    acme = rows["acme"]
    assert (acme["requests"], acme["failed"], acme["tokens"]) == (0.5, 0.5, 7.5)
    assert (acme["requests_total"], acme["tokens_total"], acme["gpu_dollars_total"]) == (2, 30, 6)
    assert 0.1 < acme["ttft_p99"] <= 0.25
    assert acme["price_dollars_total"] is None
    assert rows["new"]["requests"] == 0.5


def test_budgets_and_gpus(traffic: Any) -> None:
    """The fullest budget first; a GPU that is down has no readings; "no GPU" is no GPU."""
    account = ("month", "acme", "", "")
    for metric, value in ((m.BUDGET_LIMIT_DOLLARS, 10), (m.BUDGET_SPENT_DOLLARS, 4)):
        traffic.gauge(metric, value, *account)
    traffic.gauge(m.BUDGET_FORECAST_RATIO, 1.2, *account, "expected")
    for metric, value in ((m.BUDGET_LIMIT, 100), (m.BUDGET_SPENT, 90)):
        traffic.gauge(metric, value, "day", "acme", "", "qwen", "tokens")
    traffic.gauge(m.GPU_UP, 0, "", "", "")
    traffic.gauge(m.GPU_UP, 0, "1", "GPU-b", "H100")
    frame = Live(traffic).frame()
    day, month = frame["budgets"]
    assert (day["budget"], day["account"], day["unit"], day["spent"], day["limit"]) == (
        "day",
        "acme qwen",
        "tokens",
        90,
        100,
    )
    assert (month["spent"], month["forecast"], month["gone_in_s"]) == (4, [None, 1.2, None], None)
    assert [(gpu["gpu"], gpu["up"], gpu["watts"]) for gpu in frame["gpus"]] == [("1", 0, None)]


def test_requests_that_ended_badly(traffic: Any) -> None:
    """The latest first, so many at most; what happened, and not who the user was."""
    live = Live(traffic)
    for status in range(MAX_UNHAPPY + 5):
        live.service.record(record(Outcome.UPSTREAM_ERROR, status=status, error=ErrorType.ENGINE_5XX))
    live.service.record(record(Outcome.OK))
    rows = live.frame()["unhappy"]
    assert (len(rows), rows[0]["status"]) == (MAX_UNHAPPY, MAX_UNHAPPY + 4)
    assert (rows[0]["outcome"], rows[0]["error"], rows[0]["unix_s"]) == ("upstream_error", "engine_5xx", 6.5)
    assert "u-123" not in json.dumps(rows)


async def test_the_history_goes_on_when_nobody_looks(traffic: Any) -> None:
    """One look each few seconds."""
    live = Live(traffic)
    for tick in range(121):
        live.service.tick(tick / 2, 1_700_000_000 + tick / 2)
    assert live.refreshed == 13
    assert len(json.loads(await live.service.history(15))["time"]) == 12
