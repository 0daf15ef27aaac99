"""Booked against counted: exact at rest, never unjust under load."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferwatch.record import Outcome, RequestRecord, TokenSource
from inferwatch_collectors.engine.capture import BASELINE_SCRAPES, WINDOW_S, Capture, Verdict
from inferwatch_collectors.engine.names import BY_ENGINE

HUNG_UP = {
    "outcome": Outcome.CLIENT_ABORT, "token_source": TokenSource.NONE, "prompt_tokens": None, "completion_tokens": None,
}  # fmt: skip

Make = Callable[..., RequestRecord]


class World:
    """An engine, its clients, and our comparison of the two."""

    def __init__(self, *, settle: bool = True) -> None:
        self.capture = Capture(BY_ENGINE["vllm"])
        self.prompt, self.completion = 1_000, 500  # counted before we came
        self.open: set[str] = set()
        self.running = False
        self.wall_s = 1e9
        self.unbooked: dict[tuple[str, str], int] = {}
        if settle:
            assert self.scrape() is None
            assert self.scrape() is None

    def counts(self, prompt: int, completion: int) -> None:
        """The engine works."""
        self.prompt += prompt
        self.completion += completion

    def scrape(self, during: Callable[[], None] = lambda: None) -> Verdict | None:
        self.wall_s += 5
        mark = self.capture.mark(len(self.open))
        totals = (self.prompt, self.completion)
        idle = not self.running
        during()
        verdict = self.capture.scraped(mark, totals, frozenset(self.open), idle=idle, wall_s=self.wall_s)
        for index, reason, tokens in verdict.unbooked if verdict else ():
            key = (("prompt", "completion")[index], reason)
            self.unbooked[key] = self.unbooked.get(key, 0) + tokens
        return verdict

    def ratios(self) -> tuple[float | None, float | None]:
        verdict = self.scrape()
        assert verdict is not None
        return verdict.ratios

    def close(self, record: RequestRecord) -> None:
        self.open.discard(record.request_id)
        self.capture.record(record)

    def restart(self) -> None:
        """Our process dies; what was committed goes on."""
        books, state = self.capture.books(), self.capture.state()
        self.capture = Capture(BY_ENGINE["vllm"])
        self.capture.load(books, state)


def test_closed_traffic_is_one(record: Make) -> None:
    """If all that the engine counted was booked the ratio is 1, exactly, and nothing is unbooked."""
    world = World()
    for n in (1, 2, 3):
        world.counts(10 * n, 5)
        world.capture.record(record(n=n))
        assert world.ratios() == (1.0, 1.0)
    assert world.unbooked == {}


def test_nothing_counted_nothing_said() -> None:
    """Without traffic there is no ratio: 0 of 0 is not 1."""
    assert World().ratios() == (None, None)


def test_bypass_shows_at_the_next_scrape(record: Make) -> None:
    """100 tokens fetched around the proxy: the ratio drops at the next scrape and the tokens are counted, once."""
    world = World()
    world.counts(10, 5)
    world.capture.record(record())
    assert world.ratios() == (1.0, 1.0)
    world.counts(20, 100)
    assert world.ratios() == (1 - 20 / 30, 1 - 100 / 105)
    assert world.unbooked == {("prompt", "bypass"): 20, ("completion", "bypass"): 100}
    world.scrape()
    world.scrape()
    assert world.unbooked == {("prompt", "bypass"): 20, ("completion", "bypass"): 100}


def test_bypass_that_never_pauses(record: Make) -> None:
    """An engine that somebody else keeps busy is never idle; what we did not book is found all the same."""
    world = World()
    world.running = True
    for scrape in range(1, 5):
        world.counts(0, 50)
        assert world.ratios()[1] == 0.0
        assert world.unbooked == {("completion", "bypass"): 50 * scrape}


def test_open_requests_are_waited_for(record: Make) -> None:
    """Tokens that may be an open request's are not called missing; when it is booked the scrape is judged."""
    world = World()
    world.open.add("slow")
    world.running = True
    world.counts(10, 300)
    assert world.scrape() is None
    world.counts(0, 700)
    assert world.scrape() is None
    world.close(record("slow", completion_tokens=1_000))
    world.running = False
    assert world.ratios() == (1.0, 1.0)
    assert world.unbooked == {}


def test_bypass_under_load_is_certain_or_not_counted(record: Make) -> None:
    """Beside a request of 1,000 tokens, 300 of them before the scrape: of 900 others only what exceeds it is certain."""
    world = World()
    world.open.add("slow")
    world.running = True
    world.counts(10, 300 + 900)
    assert world.scrape() is None
    world.open.add("next")  # the engine is never at rest
    world.close(record("slow", completion_tokens=1_000))
    world.counts(10, 700)
    verdict = world.scrape()
    assert verdict is not None
    assert world.unbooked == {("completion", "bypass"): 200}
    world.close(record("next"))
    world.counts(0, 5)
    world.running = False
    world.scrape()
    assert world.unbooked == {("completion", "bypass"): 900}, "at rest all of it shows"


def test_a_request_that_ends_without_a_record_is_not_waited_for(record: Make) -> None:
    """What was booked in an earlier life, or is gone with its relay, leaves the open ones without being booked."""
    world = World()
    world.open.add("twice told")
    world.counts(10, 5)
    assert world.scrape() is None
    world.open.clear()
    world.capture.record(record("other"))
    assert world.ratios() == (1.0, 1.0)


def test_a_request_during_the_scrape(record: Make) -> None:
    """A request that comes and goes while a scrape is under way makes nothing missing, now or at the next."""
    world = World()
    world.counts(10, 5)
    world.capture.record(record("before"))

    def meanwhile() -> None:
        world.counts(10, 5)
        world.capture.record(record("during"))

    verdict = world.scrape(meanwhile)
    assert verdict is not None
    assert verdict.ratios == (1.0, 1.0)
    assert world.ratios() == (1.0, 1.0)
    assert world.unbooked == {}


def test_booking_too_much_shows(record: Make) -> None:
    """More booked than counted is a fault of ours: at rest the ratio is above 1."""
    world = World()
    world.counts(20, 10)
    for name in ("a", "b", "again"):
        world.capture.record(record(name))
    assert world.ratios() == (1.5, 1.5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (HUNG_UP, "cut"),
        ({"token_source": TokenSource.NONE, "prompt_tokens": None, "completion_tokens": None}, "unreported"),
    ],
)
def test_what_left_no_count_is_named(record: Make, changes: dict[str, Any], reason: str) -> None:
    """Tokens of a plain answer that was hung up on, or that reported nothing, are unbooked under their own reason."""
    world = World()
    world.counts(10, 60)
    world.capture.record(record(stream=False, **changes))
    assert world.ratios() == (0.0, 0.0)
    assert world.unbooked == {("prompt", reason): 10, ("completion", reason): 60}


def test_an_engine_that_notices_an_abort_late(record: Make) -> None:
    """What it makes after the scrape that followed the abort is still the abort's; later tokens are not."""
    world = World()
    world.capture.record(record(**HUNG_UP))
    world.scrape()
    world.counts(0, 40)
    world.scrape()
    assert world.unbooked == {("completion", "cut"): 40}
    world.counts(0, 1)
    world.scrape()
    assert world.unbooked == {("completion", "cut"): 40, ("completion", "bypass"): 1}


def test_an_abort_cannot_hide_everything(record: Make) -> None:
    """An aborted request explains no more than it can have cost; the rest is bypass."""
    world = World()
    world.counts(0, 1_000_000)
    world.capture.record(record(**HUNG_UP, duration_s=1.0))
    world.scrape()
    assert world.unbooked == {("completion", "cut"): 4_000, ("completion", "bypass"): 996_000}


def test_the_slack_of_load_is_forgotten_at_rest(record: Make) -> None:
    """After two equal scrapes at rest the sums begin anew, so that the next bypass shows to the token."""
    world = World()
    world.counts(10, 5)
    world.capture.record(record("cut", n=2, outcome=Outcome.CLIENT_ABORT))  # its prompt: 10 or 20
    world.scrape()
    world.scrape()
    world.counts(7, 0)
    world.scrape()
    assert world.unbooked == {("prompt", "bypass"): 7}


def test_a_baseline_under_load(record: Make) -> None:
    """A service that is never at rest is compared from some scrape on, without calling its own tokens missing."""
    world = World(settle=False)
    world.running = True
    for scrape in range(BASELINE_SCRAPES + 20):
        world.open = {f"{scrape}"}
        world.counts(10, 3)
        world.scrape()
        world.counts(0, 2)
        world.close(record(f"{scrape}"))
        world.open = {f"{scrape + 1}"}
    assert world.unbooked == {}
    world.counts(0, 1_000)
    world.scrape()
    world.close(record(f"{BASELINE_SCRAPES + 20}"))
    world.scrape()
    assert 980 <= world.unbooked["completion", "bypass"] <= 1_000


def test_no_baseline_from_one_scrape_at_rest(record: Make) -> None:
    """An engine that counts a moment after it sent is not caught in that moment: two scrapes must agree."""
    world = World(settle=False)
    world.capture.record(record())
    assert world.scrape() is None
    world.counts(10, 5)  # of the request before, late
    assert world.scrape() is None
    assert world.scrape() is None
    assert world.ratios() == (None, None)
    assert world.unbooked == {}


def test_an_engine_that_restarts(record: Make) -> None:
    """What it counted in its last moments was never read: that is not booking too much, and hides no later bypass."""
    world = World()
    world.capture.record(record())  # its 10 and 5 were counted, and lost
    world.counts(3, 2)
    world.capture.record(record("after", prompt_tokens=3, completion_tokens=2))
    world.capture.engine_restarted()
    assert world.ratios() == (1.0, 1.0)
    world.scrape()
    world.scrape()
    world.counts(0, 4)
    world.scrape()
    assert world.unbooked == {("completion", "bypass"): 4}


def test_our_restart(record: Make) -> None:
    """Books and anchor go on after a restart: neither is what was booked before missing, nor bypass forgotten."""
    world = World()
    world.counts(10, 5)
    world.capture.record(record())
    world.restart()
    assert world.ratios() == (1.0, 1.0)
    world.counts(0, 50)
    world.restart()
    world.scrape()
    assert world.unbooked == {("completion", "bypass"): 50}
    world.restart()
    world.scrape()
    assert world.unbooked == {("completion", "bypass"): 50}


@pytest.mark.parametrize("damaged", [b"", b"\xc1", b"\x01", b"[]"])
def test_state_that_cannot_be_read(damaged: bytes) -> None:
    """Garbage is refused with the one error that the caller expects."""
    capture = Capture(BY_ENGINE["vllm"])
    with pytest.raises(msgspec.DecodeError):
        capture.load(damaged, capture.state())


def test_the_ratio_recovers(record: Make) -> None:
    """An hour after a leak was stopped the ratio is 1 again; the counter keeps what leaked."""
    world = World()
    world.counts(0, 100)
    assert world.ratios()[1] == 0.0
    for _ in range(int(WINDOW_S / 5) + 30):
        world.counts(10, 5)
        world.capture.record(record())
        last = world.ratios()
    assert last == (1.0, 1.0)
    assert world.unbooked == {("completion", "bypass"): 100}


def test_a_clock_that_is_set_back(record: Make) -> None:
    """Nothing is remembered from a time that has not come yet."""
    world = World()
    world.scrape()
    world.wall_s -= 100_000
    world.counts(10, 5)
    world.capture.record(record())
    assert world.scrape() is not None
    world.counts(10, 5)
    world.capture.record(record("b"))
    assert world.ratios() == (1.0, 1.0)


def test_an_engine_that_counts_one_type_only(record: Make) -> None:
    """Where the prompt cannot be compared there is nothing said of it."""
    capture = Capture(BY_ENGINE["tgi"])
    for total in (100, 100, 105):
        capture.record(record(f"{total}")) if total == 105 else None
        verdict = capture.scraped(capture.mark(0), (None, total), frozenset(), idle=True, wall_s=1.0)
    assert verdict is not None
    assert verdict.ratios == (None, 1.0)


def test_memory_is_bounded(record: Make) -> None:
    """A day of scrapes leaves about an hour of points."""
    world = World()
    for _ in range(3 * int(WINDOW_S / 5)):
        world.counts(10, 5)
        world.capture.record(record())
        world.scrape()
    assert len(world.capture.state()) < 4_000
    assert len(world.capture.books()) < 200


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.integers(0, 5), st.integers(1, 40)),
        st.tuples(st.just("step"), st.integers(0, 5), st.integers(1, 40)),
        st.tuples(st.just("close"), st.integers(0, 5), st.integers(0, 0)),
        st.tuples(st.just("bypass"), st.integers(0, 0), st.integers(1, 30)),
        st.tuples(st.just("scrape"), st.integers(0, 0), st.integers(0, 0)),
        st.tuples(st.just("restart"), st.integers(0, 0), st.integers(0, 0)),
    ),
    max_size=60,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the fixture is a pure function
@given(events=EVENTS)
def test_never_unjust_and_exact_in_the_end(record: Make, events: Iterable[tuple[str, int, int]]) -> None:
    """Whatever the order of openings, steps, ends, scrapes and restarts: no more is called bypass than was, and when
    all has come to rest it is exactly what was."""
    world = World()
    made: dict[str, int] = {}
    serial, bypassed = 0, 0
    names: dict[int, str] = {}
    for kind, slot, tokens in events:
        if kind == "open" and slot not in names:
            serial += 1
            names[slot] = f"r{serial}"
            world.open.add(names[slot])
            made[names[slot]] = 0
            world.counts(10, 0)
        elif kind == "step" and slot in names:
            made[names[slot]] += tokens
            world.counts(0, tokens)
        elif kind == "close" and slot in names:
            name = names.pop(slot)
            world.close(record(name, completion_tokens=made[name]))
        elif kind == "bypass":
            bypassed += tokens
            world.counts(0, tokens)
        elif kind == "restart":
            world.restart()
        elif kind == "scrape":
            world.running = bool(names)
            world.scrape()
        assert world.unbooked.get(("completion", "bypass"), 0) <= bypassed
        assert ("prompt", "bypass") not in world.unbooked
    for name in names.values():
        world.close(record(name, completion_tokens=made[name]))
    world.running = False
    world.scrape()
    assert world.unbooked.get(("completion", "bypass"), 0) == bypassed
    assert ("prompt", "bypass") not in world.unbooked
