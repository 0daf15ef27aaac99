"""Requests that were hung up on get what the engine counted for them: all of it, once, and as soon as it is certain."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferwatch.record import ErrorType, LateCount, Outcome, RequestRecord, TokenSource
from inferwatch_collectors.engine.capture import Capture, Verdict
from inferwatch_collectors.engine.claims import ABORT_S, claims
from inferwatch_collectors.engine.hung_up import LONGEST_S, HungUps, left_no_count
from inferwatch_collectors.engine.names import BY_ENGINE

Make = Callable[..., RequestRecord]
NO_COUNT = {"token_source": TokenSource.NONE, "prompt_tokens": None, "completion_tokens": None, "stream": False}
HUNG_UP = {"outcome": Outcome.CLIENT_ABORT, **NO_COUNT}
CUT_STREAM = {**HUNG_UP, "stream": True, "token_source": TokenSource.CHUNK_ESTIMATE, "completion_tokens": 3}


class World:
    """An engine, its clients, the comparison of the two, and what came of it."""

    def __init__(self, engine: str = "vllm", *, settle: bool = True) -> None:
        self.engine = engine
        self.capture = Capture(BY_ENGINE[engine], gives_back=True)
        self.prompt, self.completion = 1_000, 500  # counted before we came
        self.open: set[str] = set()
        self.running = False
        self.wall_s = 1_700_000_000.0
        self.unbooked: dict[tuple[str, str], int] = {}
        self.late: dict[str, LateCount] = {}
        if settle:
            assert self.scrape() is None
            assert self.scrape() is None

    def counts(self, prompt: int, completion: int) -> None:
        self.prompt += prompt
        self.completion += completion

    def scrape(self, later_s: float = 5.0) -> Verdict | None:
        self.wall_s += later_s
        mark = self.capture.mark(len(self.open))
        totals = (self.prompt if self.engine == "vllm" else None, self.completion)
        verdict = self.capture.scraped(mark, totals, frozenset(self.open), idle=not self.running, wall_s=self.wall_s)
        for index, reason, tokens in verdict.unbooked if verdict else ():
            key = (("prompt", "completion")[index], reason)
            self.unbooked[key] = self.unbooked.get(key, 0) + tokens
        for late in verdict.late if verdict else ():
            assert late.request_id not in self.late, "given twice"
            self.late[late.request_id] = late
        return verdict

    def close(self, record: RequestRecord) -> None:
        """It ends now."""
        self.open.discard(record.request_id)
        arrived_ns = int((self.wall_s - record.duration_s) * 1e9)
        self.capture.record(msgspec.structs.replace(record, wall_ns=arrived_ns))

    def restart(self) -> None:
        """Our process dies; what was committed goes on."""
        books, state, hung_up = self.capture.books(), self.capture.state(), self.capture.hung_up()
        self.capture = Capture(BY_ENGINE[self.engine], gives_back=True)
        self.capture.load(books, state, hung_up)

    @property
    def given(self) -> dict[str, tuple[int | None, int | None]]:
        return {name: (late.prompt_tokens, late.completion_tokens) for name, late in self.late.items()}


def test_one_alone_gets_exactly_what_it_had(record: Make) -> None:
    """With whose it was; nothing is unbooked, and nothing is missing."""
    world = World()
    world.counts(10, 60)
    world.close(record("a", **HUNG_UP, tenant="t", model="m"))
    verdict = world.scrape()
    assert verdict is not None
    assert verdict.ratios == (1.0, 1.0)
    late = world.late["a"]
    assert (late.tenant, late.model, late.operation, late.outcome) == ("t", "m", "chat", Outcome.CLIENT_ABORT)
    assert (late.prompt_tokens, late.completion_tokens) == (10, 60)
    assert world.unbooked == {}
    assert world.scrape() is not None
    assert world.unbooked == {}


def test_a_stream_that_told_no_count(record: Make) -> None:
    """It gets its prompt, and what the engine counted beyond the events that were booked: together, all of it."""
    world = World()
    world.counts(10, 60)
    world.close(record("a", **CUT_STREAM))
    verdict = world.scrape()
    assert verdict is not None
    assert verdict.ratios == (1.0, 1.0)
    assert world.given == {"a": (10, 57)}
    assert world.late["a"].estimated_tokens == 3
    world.scrape()
    assert world.unbooked == {}


def test_a_stream_that_was_seen_whole(record: Make) -> None:
    """Nothing is added to what was booked of its answer."""
    world = World()
    world.counts(10, 3)
    world.close(record("a", **CUT_STREAM))
    world.scrape()
    assert world.given == {"a": (10, 0)}
    assert world.unbooked == {}


def test_a_stream_whose_engine_counted_nothing(record: Make) -> None:
    """It had a prompt, since it was answered: what is not counted is unknown, not 0."""
    world = World()
    world.close(record("a", **CUT_STREAM))
    world.scrape()
    world.scrape()
    assert world.given == {}
    assert not world.capture.wants_rest


def test_a_stream_beside_a_plain_request(record: Make) -> None:
    """What was seen of the one is not given to it a second time: what shows is the other's."""
    world = World()
    world.counts(20, 200)
    world.close(record("stream", **CUT_STREAM | {"completion_tokens": 100}))
    world.close(record("plain", **HUNG_UP))
    world.scrape()
    assert world.given == {"stream": (10, 0), "plain": (10, 100)}
    assert world.unbooked == {}


def test_several_share_by_size_and_time(record: Make) -> None:
    """Prompt tokens by the bytes of the bodies, completion tokens by the seconds with the engine; the sum is kept."""
    world = World()
    world.counts(300, 400)
    world.close(record("a", **HUNG_UP, request_bytes=1_000, duration_s=1.5, sent_s=0.5))
    world.close(record("b", **HUNG_UP, request_bytes=2_000, duration_s=3.0))
    world.scrape()
    assert world.given == {"a": (100, 100), "b": (200, 300)}


def test_nobody_gets_more_than_it_asked_for(record: Make) -> None:
    """`max_tokens` bounds a share; what nobody can have had is bypass."""
    world = World()
    world.counts(20, 400)
    world.close(record("a", **HUNG_UP, max_tokens=20))
    world.close(record("b", **HUNG_UP, max_tokens=100))
    world.scrape()
    assert world.given == {"a": (10, 20), "b": (10, 100)}
    assert world.unbooked == {("completion", "bypass"): 280}


def test_a_prompt_with_several_answers(record: Make) -> None:
    """vLLM counts it for each; the record has it once, as `usage` would, and the comparison knows."""
    world = World()
    world.counts(30, 90)
    world.close(record("a", **HUNG_UP, n=3))
    verdict = world.scrape()
    assert verdict is not None
    assert verdict.ratios == (1.0, 1.0)
    assert world.given == {"a": (10, 90)}
    world.scrape()
    assert world.unbooked == {}


def test_what_is_no_multiple_is_unbooked(record: Make) -> None:
    """Of two answers one was not begun: what does not fit is said to be cut, not lost."""
    world = World()
    world.counts(11, 5)
    world.close(record("a", **HUNG_UP, n=2))
    world.scrape()
    assert world.given == {"a": (5, 5)}
    assert world.unbooked == {("prompt", "cut"): 1}


def test_one_that_was_never_begun(record: Make) -> None:
    """At rest it is certain that the engine counted nothing for it: that is a count of 0."""
    world = World()
    world.close(record("a", **HUNG_UP))
    world.scrape()
    world.scrape()
    assert world.given == {"a": (0, 0)}


def test_an_engine_whose_prompts_cannot_be_compared(record: Make) -> None:
    """What is not known stays so."""
    world = World("tgi")
    world.counts(0, 8)
    world.close(record("a", **HUNG_UP))
    world.scrape()
    assert world.given == {"a": (None, 8)}


def test_not_before_the_engine_must_have_noticed(record: Make) -> None:
    """A scrape at rest right after the client left may come too early; two equal ones, or one later, do not."""
    world = World()
    world.close(record("a", **HUNG_UP))
    world.scrape(later_s=1)
    assert world.given == {}
    assert world.capture.wants_rest
    world.counts(10, 3)
    world.scrape(later_s=1)
    assert world.given == {}
    verdict = world.scrape(later_s=1)
    assert verdict is not None
    assert verdict.ratios == (1.0, 1.0)
    assert world.given == {"a": (10, 3)}
    assert not world.capture.wants_rest
    world.close(record("b", **HUNG_UP))
    world.counts(10, 4)
    world.scrape(later_s=ABORT_S)
    assert world.given["b"] == (10, 4)


def test_beside_requests_that_are_open(record: Make) -> None:
    """Under load nothing is divided, nor called missing; at the next rest it is exact."""
    world = World()
    world.running = True
    world.open.add("slow")
    world.counts(20, 300)
    world.close(record("a", **HUNG_UP))
    assert world.scrape() is None
    world.open.add("next")
    world.counts(0, 700)
    world.close(record("slow", completion_tokens=950))
    verdict = world.scrape()
    assert verdict is not None
    assert verdict.ratios == (1.0, 1.0)
    assert world.given == {}
    world.counts(10, 5)
    world.close(record("next"))
    world.running = False
    world.scrape()
    assert world.given == {"a": (10, 50)}
    assert world.unbooked == {}
    world.scrape()
    world.counts(0, 9)
    world.scrape()
    assert world.unbooked == {("completion", "bypass"): 9}


def test_a_service_that_is_never_at_rest(record: Make) -> None:
    """After some minutes it is divided by what has shown; what shows later is shared with whom it may be of."""
    world = World()
    world.running = True
    world.close(record("a", **HUNG_UP, max_tokens=100))
    for number in range(int(LONGEST_S / 5) + 2):
        world.open = {f"{number}"}
        world.counts(10, 5)
        if number == 0:
            world.counts(10, 60)
        world.scrape()
        world.close(record(f"{number}"))
    assert list(world.late) == ["a"]
    before = world.late["a"].completion_tokens
    assert before is not None
    assert 0 < before <= 60
    world.open.clear()
    world.running = False
    world.scrape()
    world.scrape()
    assert before + world.unbooked.get(("completion", "cut"), 0) == 60
    assert ("completion", "bypass") not in world.unbooked


def test_bypass_is_not_billed_to_anybody_for_long(record: Make) -> None:
    """Tokens that somebody fetches around the proxy after the division are bypass."""
    world = World()
    world.counts(10, 50)
    world.close(record("a", **HUNG_UP))
    world.scrape()
    world.counts(7, 70)
    world.scrape()
    assert world.given == {"a": (10, 50)}
    assert world.unbooked == {("prompt", "bypass"): 7, ("completion", "bypass"): 70}


def test_what_reported_nothing_comes_first(record: Make) -> None:
    """Beside answers without counts nobody can tell whose tokens they are: none is billed to who hung up."""
    world = World()
    world.counts(20, 60)
    world.close(record("silent", **NO_COUNT))
    world.close(record("a", **HUNG_UP))
    world.scrape()
    assert world.given == {}
    assert world.unbooked == {("prompt", "unreported"): 20, ("completion", "unreported"): 60}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (HUNG_UP, True),
        ({**HUNG_UP, "outcome": Outcome.INTERRUPTED}, True),
        ({**HUNG_UP, "outcome": Outcome.UPSTREAM_ERROR, "error": ErrorType.TOTAL_TIMEOUT}, True),
        ({**HUNG_UP, "outcome": Outcome.STREAM_ERROR, "error": ErrorType.UPSTREAM_RESET}, True),
        ({**HUNG_UP, "outcome": Outcome.UPSTREAM_ERROR, "error": ErrorType.CONNECT_FAILED}, False),
        ({**HUNG_UP, "outcome": Outcome.UPSTREAM_ERROR, "error": ErrorType.ENGINE_5XX}, False),
        ({**HUNG_UP, "outcome": Outcome.REJECTED}, False),
        ({**HUNG_UP, "operation": "other"}, False),
        ({**HUNG_UP, "operation": "embeddings"}, False),
        ({**HUNG_UP, "completion_tokens": 3}, False),
        (CUT_STREAM, True),
        ({**CUT_STREAM, "prompt_tokens": 10}, False),
        ({**CUT_STREAM, "outcome": Outcome.OK}, False),
        ({**CUT_STREAM, "token_source": TokenSource.CONTINUOUS_USAGE}, False),
        (NO_COUNT, False),
        ({}, False),
    ],
)
def test_who_waits_for_tokens(record: Make, changes: dict[str, Any], expected: bool) -> None:
    """Who was generating, was broken off, and has no count of the engine's at all."""
    assert left_no_count(record(**changes)) is expected


def test_there_is_a_bound(record: Make) -> None:
    """More than so many are not told apart: what falls to the others is cut, and nobody gets it."""
    held = HungUps(max_hung_up=2)
    for name in ("a", "b", "c", "d"):
        each = record(name, **HUNG_UP)
        held.add(each, claims(each, BY_ENGINE["vllm"]), copies=1)
    held.hold(0, 40)
    held.hold(1, 400)
    settled = held.settle([True, True], rest=True, exact=True)
    assert [(late.request_id, late.prompt_tokens, late.completion_tokens) for late in settled.late] == [
        ("a", 10, 100),
        ("b", 10, 100),
    ]
    assert settled.given == (20, 200)
    assert settled.left == (20, 200)
    assert not held
    assert held.room(1) == 0


def test_our_restart(record: Make) -> None:
    """Who waits goes on waiting in the next life, with what is held for it; what was given is not given again."""
    world = World()
    world.counts(10, 60)
    world.close(record("a", **HUNG_UP))
    world.restart()
    world.scrape(later_s=1)
    world.restart()
    world.scrape(later_s=5)
    assert world.given == {"a": (10, 60)}
    world.restart()
    world.scrape()
    world.scrape()
    assert world.unbooked == {}


def test_killed_before_the_commit(record: Make) -> None:
    """A verdict that was not committed is as if it had not been: the next life comes to the same."""
    world = World()
    world.counts(10, 60)
    world.close(record("a", **HUNG_UP))
    committed = (world.capture.books(), world.capture.state(), world.capture.hung_up())
    world.scrape()
    assert world.given == {"a": (10, 60)}
    world.late.clear()
    world.capture = Capture(BY_ENGINE["vllm"], gives_back=True)
    world.capture.load(*committed)
    world.scrape()
    assert world.given == {"a": (10, 60)}


def test_an_engine_that_restarts(record: Make) -> None:
    """What it counted last was never read: somebody may have had more than is known, and 0 is not said of anybody."""
    world = World()
    world.close(record("a", **HUNG_UP))
    world.capture.engine_restarted()
    world.scrape()
    world.scrape()
    assert world.given == {}
    assert not world.capture.wants_rest


@pytest.mark.parametrize("damaged", [b"\xc1", b"\x01", b"[]"])
def test_state_that_cannot_be_read(damaged: bytes) -> None:
    """Garbage is refused with the one error that the caller expects."""
    with pytest.raises(msgspec.DecodeError):
        HungUps().load(damaged)


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.integers(0, 5), st.integers(1, 3)),
        st.tuples(st.just("step"), st.integers(0, 5), st.integers(1, 40)),
        st.tuples(st.just("close"), st.integers(0, 5), st.integers(0, 0)),
        st.tuples(st.just("hang up"), st.integers(0, 5), st.integers(0, 40)),
        st.tuples(st.just("scrape"), st.integers(0, 0), st.sampled_from([1, 5, 400])),
        st.tuples(st.just("restart"), st.integers(0, 0), st.integers(0, 0)),
    ),
    max_size=60,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the fixture is a pure function
@given(events=EVENTS)
def test_booked_and_given_are_what_was_counted(record: Make, events: Iterable[tuple[str, int, int]]) -> None:
    """Whatever the order of openings, steps, ends, scrapes and restarts: at rest, all tokens are in a record, in a late count, or (of who was hung up on under load) in `cut`; none is called bypass, and the ratio is right.
    Of some that hang up a few tokens were seen, and are booked."""
    world = World()
    serial = booked = prompts = 0
    names: dict[int, tuple[str, int]] = {}
    made: dict[str, int] = {}
    copies: dict[str, int] = {}

    def end(slot: int, *, hung_up: bool, seen: int = 0) -> None:
        nonlocal booked, prompts
        name, n = names.pop(slot)
        seen = min(seen, made[name])
        if hung_up:
            booked += seen
            known = CUT_STREAM | {"completion_tokens": seen} if seen else HUNG_UP
            world.close(record(name, **known, n=n, max_tokens=3_000))
        else:
            booked += made[name]
            prompts += 10 * n
            world.close(record(name, n=n, choices=n, completion_tokens=made[name]))

    for kind, slot, amount in events:
        if kind == "open" and slot not in names:
            serial += 1
            names[slot] = (f"r{serial}", amount)
            world.open.add(f"r{serial}")
            made[f"r{serial}"], copies[f"r{serial}"] = 0, amount
            world.counts(10 * amount, 0)
        elif kind == "step" and slot in names:
            made[names[slot][0]] += amount
            world.counts(0, amount)
        elif kind in ("close", "hang up") and slot in names:
            end(slot, hung_up=kind == "hang up", seen=amount)
        elif kind == "restart":
            world.restart()
        elif kind == "scrape":
            world.running = bool(names)
            world.scrape(later_s=amount)
    for slot in list(names):
        end(slot, hung_up=True)
    world.running = False
    world.scrape()
    world.scrape()
    late = sum(each.completion_tokens or 0 for each in world.late.values())
    assert booked + late + world.unbooked.get(("completion", "cut"), 0) == world.completion - 500
    assert ("completion", "bypass") not in world.unbooked
    late = sum((each.prompt_tokens or 0) * copies[name] for name, each in world.late.items())
    assert prompts + late + world.unbooked.get(("prompt", "cut"), 0) == world.prompt - 1_000
    assert ("prompt", "bypass") not in world.unbooked
    assert all((each.completion_tokens or 0) <= 3_000 for each in world.late.values())
    assert not world.capture.wants_rest
