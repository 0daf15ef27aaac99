"""24 hours of ordinary traffic with bursts, through the rules as they are shipped: nobody is woken.

The day is made by a seeded generator, a value a minute, and played to the rules by promtool (so every `for` and window
is the real one). Ordinary means: ten times more by day than by night, a burst of three to eight minutes and four times
the traffic in most hours, in which some first tokens are late and a queue forms; a failed request in 5,000; one in
twenty hung up; a card at its power limit when busy; a collector restarted once, a scrape missed now and then.
"""

import math
import random
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from alerts.src.promises import PROMISES
from alerts.src.slo import le
from monitoring import ROOT, program

MINUTES = 24 * 60
HOST = 'job="inferwatch", instance="host1:9480"'
MODEL = f'{HOST}, model="m", tenant="acme", operation="chat"'
CARD = f'{HOST}, gpu="0", uuid="GPU-1", gpu_model="H100"'
ENGINE = f'{HOST}, upstream="e:8000"'
DAY_DOLLARS = 20.0  # of a budget of 720 a month: what the tenant plans for, spent by day


class Day:
    """Grows counters and sets gauges, minute by minute."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.values: dict[str, list[str]] = defaultdict(list)
        self._counters: dict[str, float] = defaultdict(float)
        self._left = 0

    def add(self, series: str, amount: float) -> None:
        self._counters[series] += amount
        self.values[series].append(f"{self._counters[series]:.6g}")

    def set(self, series: str, value: float | str) -> None:
        self.values[series].append(value if isinstance(value, str) else f"{value:.6g}")

    def minute(self, number: int) -> None:
        """One minute: how much is asked for, and what becomes of it."""
        daylight = 1.1 - math.cos(2 * math.pi * number / MINUTES)  # 0.1 at midnight, 2.1 at noon
        if self._left == 0 and self.rng.random() < 1 / 80:
            self._left = self.rng.randint(3, 8)
        burst = self._left > 0
        self._left = max(0, self._left - 1)
        asked = self._poisson(60 * daylight * (4 if burst else 1))
        self._requests(asked, burst)
        self._engine(asked, daylight, burst)
        self._itself(number)
        self._money(daylight)

    def _poisson(self, mean: float) -> int:
        return max(0, round(self.rng.gauss(mean, math.sqrt(mean))))

    def _share(self, of: int, share: float) -> int:
        return sum(self.rng.random() < share for _ in range(of))

    def _requests(self, asked: int, burst: bool) -> None:
        failed, left = self._share(asked, 1 / 5000), self._share(asked, 0.05)
        self.add(f'inferwatch_requests_total{{{MODEL}, outcome="ok"}}', asked - failed - left)
        self.add(f'inferwatch_requests_total{{{MODEL}, outcome="client_abort"}}', left)
        self.add(f'inferwatch_requests_total{{{MODEL}, outcome="upstream_error"}}', failed)
        self.add('inferwatch_request_errors_total{job="inferwatch", model="m", error_type="engine_5xx"}', failed)
        late = self._share(asked, 0.08 if burst else 0.005)
        unseen = self._share(asked, 0.02)
        ttft, itl = "inferwatch_time_to_first_token_seconds", "inferwatch_inter_token_latency_seconds"
        self.add(f"{ttft}_count{{{MODEL}}}", asked - unseen)
        self.add(f'{ttft}_bucket{{{MODEL}, le="{_bound("ttft")}"}}', max(0, asked - unseen - late))
        self.add(f'inferwatch_first_token_missing_total{{{MODEL}, reason="client_abort"}}', unseen)
        tokens = asked * 150
        self.add(f"{itl}_count{{{MODEL}}}", tokens)
        self.add(f'{itl}_bucket{{{MODEL}, le="{_bound("itl")}"}}', round(tokens * (0.985 if burst else 0.998)))
        self.set(f"inferwatch_requests_in_flight{{{MODEL}}}", asked // 12)

    def _engine(self, asked: int, daylight: float, burst: bool) -> None:
        self.set(f"inferwatch_engine_requests_running{{{ENGINE}}}", min(64, asked // 12 + 1))
        self.set(f"inferwatch_engine_requests_waiting{{{ENGINE}}}", self.rng.randint(0, 60) if burst else 0)
        self.set(f"inferwatch_engine_kv_cache_usage_ratio{{{ENGINE}}}", min(0.99, 0.5 + 0.2 * daylight + 0.2 * burst))
        self.add(f"inferwatch_engine_preemptions_total{{{ENGINE}}}", self.rng.randint(0, 5) if burst else 0)
        self.add(f'inferwatch_engine_tokens_total{{{ENGINE}, type="completion"}}', asked * 150)
        self.set(f"inferwatch_upstream_up{{{ENGINE}}}", 1)
        self.set(f"inferwatch_gpu_up{{{CARD}}}", 1)
        self.add(f'inferwatch_gpu_clock_event_seconds_total{{{CARD}, reason="sw_power_cap"}}', 25 * daylight)
        self.set(f'inferwatch_capture_ratio{{{ENGINE}, type="completion"}}', 1)

    def _itself(self, number: int) -> None:
        missed = self.rng.random() < 1 / 300 or number == 700
        self.set(f"up{{{HOST}}}", 0 if missed else 1)
        self.set(f'inferwatch_build_info{{{HOST}, version="1"}}', "_" if missed else 1)
        self.set(f"inferwatch_start_time_seconds{{{HOST}}}", 1 if number < 700 else 2)
        self.set(f'inferwatch_relay_event_loop_lag_seconds{{{HOST}, worker="0"}}', self.rng.expovariate(100))
        self.set(f"inferwatch_ledger_durable{{{HOST}}}", 1)

    def _money(self, daylight: float) -> None:
        account = f'{HOST}, budget="month", tenant="acme", feature="", model=""'
        self.add(f"inferwatch_budget_spent_dollars{{{account}}}", DAY_DOLLARS / MINUTES * daylight / 1.1)
        self.set(f"inferwatch_budget_limit_dollars{{{account}}}", 720)
        self.set(f'inferwatch_budget_period_seconds{{{HOST}, budget="month"}}', 2_592_000)
        self.set(f'inferwatch_budget_forecast_ratio{{{account}, bound="low"}}', 0.7)


def _bound(name: Any) -> str:
    return le(PROMISES.slos[name].threshold_s or 0)


def play(day: dict[str, list[str]], folder: Path) -> subprocess.CompletedProcess[str]:
    """Let promtool evaluate all rules over the day; it fails if a page was firing at any time of it."""
    at = f"{MINUTES - 1}m"
    pages = "count by (alertname) (count_over_time(ALERTS{severity='page', alertstate='firing'}[1d]))"
    watchdog = "count(count_over_time(ALERTS{alertname='InferwatchWatchdog', alertstate='firing'}[1d]))"
    test = {
        "interval": "1m",
        "input_series": [{"series": key, "values": " ".join(values)} for key, values in day.items()],
        "promql_expr_test": [
            {"expr": pages, "eval_time": at, "exp_samples": []},
            {"expr": watchdog, "eval_time": at, "exp_samples": [{"labels": "{}", "value": 1}]},
        ],
    }
    rules = [str(path) for path in sorted((ROOT / "alerts" / "rules").glob("*.yml"))]
    file = folder / "day.yml"
    file.write_text(yaml.safe_dump({"rule_files": rules, "evaluation_interval": "1m", "tests": [test]}), "utf-8")
    return subprocess.run(
        [program("promtool"), "test", "rules", str(file)], capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_an_ordinary_day_wakes_nobody(seed: int, tmp_path: Path) -> None:
    """No page at any minute, while the Watchdog shows that the rules were evaluated."""
    day = Day(seed)
    for number in range(MINUTES):
        day.minute(number)
    done = play(day.values, tmp_path)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


@pytest.mark.timeout(300)
def test_a_bad_hour_of_that_day_is_heard_of(tmp_path: Path) -> None:
    """The same day with two percent of errors for an hour pages: the silence above is not deafness."""
    day = Day(1)
    for number in range(MINUTES):
        day.minute(number)
        if 600 <= number < 660:
            day._counters['inferwatch_request_errors_total{job="inferwatch", model="m", error_type="engine_5xx"}'] += 5
    done = play(day.values, tmp_path)
    assert done.returncode != 0
    assert "InferwatchAvailabilityBurn" in done.stdout + done.stderr
