"""storms: the same request failing again and again is a signal; polite retries and successes are not."""

from collections.abc import Callable

import pytest

from inferwatch.record import Outcome, RequestRecord
from inferwatch_collectors.anomalies.evidence import Signal
from inferwatch_collectors.anomalies.storms import BEGIN, GAP_S, RETRY_STORM, Storms, new_habit

Maker = Callable[..., RequestRecord]
BAR = 2000.0
WEEK_S = 7 * 24 * 3600.0


def storm(request_at: Maker, count: int, pause_s: float = 0.2, **fields: object) -> tuple[Storms, list[Signal]]:
    storms, habit = Storms(), new_habit(0.0)
    found = []
    for number in range(count):
        at_s = WEEK_S + number * pause_s
        record = request_at(at_s, **({"outcome": Outcome.REJECTED, "prompt_tokens": None} | fields))
        found.append(storms.take(record, "acme", habit, at_s, BAR))
    return storms, [each for each in found if each is not None]


@pytest.mark.parametrize("outcome", [Outcome.REJECTED, Outcome.UPSTREAM_ERROR, Outcome.CLIENT_ABORT])
def test_a_storm_is_one_signal(request_at: Maker, outcome: Outcome) -> None:
    """Five a second, all failing: one signal, with counts and the last request's id."""
    _, found = storm(request_at, 500, outcome=outcome)
    assert [each.kind for each in found] == [RETRY_STORM]
    assert f"outcome={outcome.value}" in found[0].facts
    assert int(found[0].facts.split()[0].partition("=")[2]) < 40


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.INTERRUPTED])
def test_the_same_request_answered_is_no_storm(request_at: Maker, outcome: Outcome) -> None:
    """A probe that is answered a thousand times; nor is what our own relay's end cut off."""
    assert storm(request_at, 1000, outcome=outcome)[1] == []


def test_slow_retries_are_no_storm(request_at: Maker) -> None:
    """A probe every fifteen seconds during an outage."""
    assert storm(request_at, 1000, pause_s=GAP_S * 1.5)[1] == []


def test_two_libraries_on_top_of_each_other_are_no_storm(request_at: Maker) -> None:
    """Nine tries are as many as those make."""
    assert storm(request_at, BEGIN)[1] == []


def test_an_answer_ends_a_run(request_at: Maker) -> None:
    """Fail eight times, succeed, and so on for ever: no signal."""
    storms, habit, found = Storms(), new_habit(0.0), []
    for number in range(900):
        at_s = WEEK_S + number
        outcome = Outcome.OK if number % 9 == 8 else Outcome.UPSTREAM_ERROR
        found.append(storms.take(request_at(at_s, outcome=outcome), "acme", habit, at_s, BAR))
    assert found == [None] * 900


def test_other_lengths_models_and_tenants_are_other_requests(request_at: Maker) -> None:
    """A thousand different requests that fail are an outage, not a storm."""
    storms, habit, found = Storms(), new_habit(0.0), []
    for number in range(1000):
        record = request_at(WEEK_S, outcome=Outcome.UPSTREAM_ERROR, request_bytes=number // 8, model="ab"[number % 2])
        found.append(storms.take(record, f"tenant{number // 4 % 2}", habit, WEEK_S, BAR))
    assert found == [None] * 1000


def test_silence_ends_runs(request_at: Maker) -> None:
    """What is over is forgotten."""
    storms, _ = storm(request_at, 5)
    storms.sweep(WEEK_S + 1)
    assert len(storms.runs) == 1
    storms.sweep(WEEK_S + 1 + 2 * GAP_S)
    assert len(storms.runs) == 0
