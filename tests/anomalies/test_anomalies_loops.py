"""loops: an agent that goes on far longer than the tenant's agents do is a signal; people and tasks that end are not."""

import random
from collections.abc import Callable

import msgspec
import pytest

from inferwatch.record import RequestRecord
from inferwatch_collectors.anomalies.evidence import Signal
from inferwatch_collectors.anomalies.loops import AGENT_LOOP, GAP_S, Lengths, LengthsState, Loops

Maker = Callable[..., RequestRecord]
BAR = 2000.0
WEEK_S = 7 * 24 * 3600.0


class Traffic:
    """One tenant's sessions."""

    def __init__(self, request_at: Maker) -> None:
        self._request_at = request_at
        self.loops = Loops()
        self.lengths = Lengths(0.0)
        self.at_s = WEEK_S
        self.told: list[Signal] = []

    def ask(self, who: str, size: int, pause_s: float, field: str = "session") -> None:
        """Send the next request so long after the end of the last answer, which takes a second."""
        self.at_s += pause_s + 1.0
        record = self._request_at(self.at_s - WEEK_S - 1.0, request_bytes=size, **{field: who})
        signal = self.loops.take(record, "acme", self.lengths, self.at_s, BAR)
        if signal is not None:
            self.told.append(signal)

    def session(self, who: str, steps: int, pause_s: float = 4.0, grow: int = 900, field: str = "session") -> None:
        for step in range(steps):
            self.ask(who, 4000 + grow * step, pause_s, field)

    def habit(self, tasks: int = 600, steps: int = 15) -> None:
        rng = random.Random(1)
        for number in range(tasks):
            self.session(f"s{number}", 1 + int(rng.expovariate(1 / steps)))
            self.at_s += 1000
            self.loops.sweep(self.at_s)


@pytest.mark.parametrize("field", ["session", "user"])
def test_a_loop_is_one_signal(request_at: Maker, field: str) -> None:
    """Of a tenant whose tasks take some fifteen steps, one that takes a thousand; by session, or else by user."""
    traffic = Traffic(request_at)
    traffic.habit()
    assert traffic.told == []
    traffic.session("endless", 1000, field=field)
    assert [each.kind for each in traffic.told] == [AGENT_LOOP]
    assert int(traffic.told[0].facts.split()[0].partition("=")[2]) < 400
    assert "endless" not in traffic.told[0].facts


def test_people_are_no_loop(request_at: Maker) -> None:
    """A conversation of a thousand turns, with time to read."""
    traffic = Traffic(request_at)
    traffic.habit()
    traffic.session("patient", 1000, pause_s=GAP_S + 5)
    assert traffic.told == []


def test_polling_is_no_loop(request_at: Maker) -> None:
    """The same request again and again does not grow."""
    traffic = Traffic(request_at)
    traffic.habit()
    traffic.session("poll", 1000, grow=0)
    assert traffic.told == []


def test_side_errands_do_not_hide_a_loop(request_at: Maker) -> None:
    """A small request after each step, such as for a title, is passed over."""
    traffic = Traffic(request_at)
    traffic.habit()
    for step in range(1000):
        traffic.ask("endless", 4000 + 900 * step, 3.0)
        traffic.ask("endless", 300, 0.5)
    assert len(traffic.told) == 1


def test_long_tasks_become_usual(request_at: Maker) -> None:
    """A tenant whose tasks take up to hundreds of steps is not told of each."""
    traffic = Traffic(request_at)
    traffic.habit(tasks=600, steps=120)
    traffic.told.clear()
    traffic.session("long", 400)
    assert traffic.told == []


def test_nothing_is_judged_without_history(request_at: Maker) -> None:
    """The first task of a tenant may be as long as it likes."""
    traffic = Traffic(request_at)
    traffic.session("first", 1000)
    assert traffic.told == []
    assert not traffic.lengths.judged


@pytest.mark.parametrize("fields", [{}, {"session": "s", "request_bytes": 0}])
def test_what_names_nobody_or_has_no_body_is_passed_over(request_at: Maker, fields: dict[str, object]) -> None:
    """Nothing is kept of it."""
    loops = Loops()
    assert loops.take(request_at(0.0, **fields), "acme", Lengths(0.0), WEEK_S, BAR) is None
    assert len(loops.runs) == 0


def test_a_clock_that_goes_back_ends_a_run(request_at: Maker) -> None:
    """A request that began before the last one ended, or long before it, is no step."""
    loops, lengths = Loops(), Lengths(0.0)
    for number, at_s in enumerate([100.0, 50.0, 10_000.0]):
        loops.take(request_at(at_s, session="s", request_bytes=1000 + number), "acme", lengths, WEEK_S + number, BAR)
    run = loops.runs.get(("acme", "s"))
    assert run is not None
    assert run.steps == 1


def test_lengths_are_written_down(request_at: Maker) -> None:
    """What was learnt is there after a restart; another version's is refused."""
    traffic = Traffic(request_at)
    traffic.habit()
    again = Lengths(0.0)
    again.resume(msgspec.msgpack.decode(msgspec.msgpack.encode(traffic.lengths.state()), type=LengthsState))
    assert again.judged
    assert again.habit.chance() == traffic.lengths.habit.chance()
    with pytest.raises(ValueError, match="lengths of"):
        again.resume(LengthsState(b"1", again.habit.state()))
