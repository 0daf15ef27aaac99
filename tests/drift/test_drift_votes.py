"""votes and whose: one vote of a session in half an hour, by headers, by names in the body, or by the conversation."""

import json
import math
import random
from collections.abc import Callable
from typing import Any, Final

import pytest
from drift_requests import answered, open_of
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.record import RequestRecord
from inferwatch.settings.drift import Drift
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import CardinalityGuard, Limits
from inferwatch_collectors.dialects.base import Dialect
from inferwatch_collectors.dialects.openai_chat import OPENAI_CHAT
from inferwatch_collectors.dialects.openai_responses import OPENAI_RESPONSES
from inferwatch_collectors.dialects.pooling import EMBEDDINGS
from inferwatch_collectors.drift.votes import SESSION_S, Sessions
from inferwatch_collectors.drift.watch import DriftWatch
from inferwatch_collectors.drift.whose import MAX_TURNS, Whose
from inferwatch_collectors.metric_store import MetricStore

Make = Callable[..., RequestRecord]
ALIKE: Final = 0.6
MONDAY_S: Final = 1_760_313_600.0
KEY: Final = ("m", "acme")
QUICK: Final = Drift(votes_per_hour=36_000, reference_requests_min=2_000, reference_hours=1)
TEXTS: Final = Drift(text=True, votes_per_hour=36_000, reference_requests_min=1_000, reference_hours=1)


def said(*texts: Any, system: str = "", **more: Any) -> bytes:
    """Return a chat's body: the user speaks first, then both in turn."""
    messages = [{"role": "assistant" if place % 2 else "user", "content": text} for place, text in enumerate(texts)]
    first = [{"role": "system", "content": system}] if system else []
    return json.dumps({"model": "m", "messages": first + messages} | more).encode()


def votes(*bodies: bytes, responses: bool = False) -> list[bool]:
    """Return who of these votes, in a second, with a vote due at each."""
    sessions = Sessions()
    return [sessions.takes(open_of(body), 1.0, due=True, responses=responses) for body in bodies]


NAMED: Final[dict[str, dict[str, Any]]] = {
    "safety-identifier": {"safety_identifier": "u1"},
    "prompt-cache-key": {"prompt_cache_key": "k1"},
    "user": {"user": "alice"},
    "conversation": {"conversation": "conv_1"},
    "conversation-object": {"conversation": {"id": "conv_1"}},
    "answer-before": {"previous_response_id": "resp_1"},
    "anthropic-user": {"metadata": {"user_id": "alice"}},
}


@pytest.mark.parametrize("name", NAMED)
def test_a_name_in_the_body_is_a_session(name: str) -> None:
    """Whatever is asked under it; who has another one, or none, has a vote of their own."""
    named = NAMED[name]
    other = json.loads(json.dumps(named).replace("1", "2").replace("alice", "bob"))
    bodies = (said("a", **named), said("b", **named), said("c", **other), said("d"))
    assert votes(*bodies) == [True, False, True, True]


@pytest.mark.parametrize(
    "odd",
    [
        {"user": ""},
        {"user": 7},
        {"user": None},
        {"conversation": {"id": None}},
        {"metadata": "alice"},
        {"metadata": {}},
    ],
    ids=repr,
)
def test_what_is_no_name_names_nobody(odd: dict[str, Any]) -> None:
    """The conversation itself counts then."""
    assert votes(said("a", **odd), said("b", **odd), said("a", **odd)) == [True, True, False]


def test_the_first_name_counts() -> None:
    """Who a person is, before which prompt is cached."""
    assert votes(
        said("a", safety_identifier="u1", user="x"),
        said("b", safety_identifier="u1", user="y"),
        said("c", safety_identifier="u2", user="x"),
        said("d", user="x"),
    ) == [True, False, True, True]


def test_a_conversation_without_any_name_is_one_session() -> None:
    """Whichever of its turns voted: what was said before comes along with each. Another conversation votes, too."""
    turns = ["q1", "a1", "q2", "a2", "q3", "a3", "q4"]
    so_far = [said(*turns[:count]) for count in (1, 3, 5, 7)]
    assert votes(*so_far, said("p1")) == [True, False, False, False, True]
    assert votes(*so_far[1:], so_far[3], said("p1", "a1", "q2")) == [True, False, False, False, True]


def test_what_clients_change_on_the_way_is_no_other_conversation() -> None:
    """The time of day in the instructions, thoughts cut out of an answer, parts in place of a string, where a cache
    ends, results of tools."""
    marked = [{"type": "text", "text": "q2", "cache_control": {"type": "ephemeral"}}]
    result = [{"type": "tool_result", "tool_use_id": "t1", "content": "42"}]
    assert votes(
        said("q1", "a1", marked, system="It is 12:00."),
        said("q1", "shorter", "q2", "a2", result, system="It is 12:01."),
        said([{"type": "text", "text": "q1"}], "a1", [{"type": "text", "text": "q2"}], "a2", "q3"),
    ) == [True, False, False]


def test_who_begins_each_run_alike_is_one_session() -> None:
    """An agent with a fixed task; and the same question word for word is no other observation, whoever asks it."""
    runs = [body for run in "xyz" for body in (said("task"), said("task", f"call {run}", f"found {run}"))]
    assert votes(*runs) == [True, False, False, False, False, False]


def test_examples_before_the_question_are_no_conversation() -> None:
    """The same dialogue in front of each question: nobody has asked its beginning alone."""
    assert votes(*(said("example", "answer", f"question {number}") for number in range(5))) == [True] * 5


def test_pictures_are_part_of_what_is_said() -> None:
    """One question of many pictures is many questions."""

    def ask(picture: str) -> bytes:
        return said([{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": picture}}])

    assert votes(ask("data:1"), ask("data:2"), ask("data:1")) == [True, True, False]


def test_without_messages_the_same_request_is_the_same_session() -> None:
    """Completions, and texts to be embedded; how they are to be answered is no part of it."""
    texts = [{"prompt": "a"}, {"prompt": "a", "temperature": 1}, {"prompt": "b"}, {"input": ["a"]}, {"input": ["a"]}]
    assert votes(*(json.dumps(each).encode() for each in texts)) == [True, False, True, True, False]


def test_a_body_that_was_cut_is_known_by_its_beginning() -> None:
    """And one that is not there at all is its own."""
    long = said("x" * 10_000, "a", "q2")
    assert votes(long[:8_000], long[:9_000], b"", b"", b"no json", b"\xff") == [True, False, True, True, True, True]


def test_sessions_of_others_are_others() -> None:
    """Of another tenant, or another model: each stream has a vote of its own."""
    sessions = Sessions()
    opens = [{}, {"tenant": "b"}, {"model": "n"}, {"session": "s"}, {"session": "s", "model": "n"}, {"user": "s2"}]
    for _ in range(2):
        taken = [sessions.takes(open_of(said("a"), **each), 1.0, due=True) for each in opens]
        assert taken in ([True] * 6, [False] * 6)


def test_answers_that_follow_one_another_are_one_session(request_of: Make) -> None:
    """The Responses API tells but the answer before: the chain is known from the vote on, and no text comes along."""
    sessions = Sessions()

    def ask(number: int, before: str, *, due: bool = True) -> bool:
        body = json.dumps({"input": f"q{number}"} | ({"previous_response_id": before} if before else {})).encode()
        opened = open_of(body, request_id=f"r{number}")
        taken = sessions.takes(opened, 1.0, due=due, responses=True)
        sessions.answered(request_of(request_id=f"r{number}", engine_id=f"resp_{number}"))
        return taken

    assert ask(1, "")
    assert not ask(2, "resp_1")
    assert not ask(3, "resp_2", due=False)
    assert not ask(4, "resp_3")
    assert ask(5, "resp_of_somebody")
    assert not sessions._open_s


def test_who_stays_votes_once_in_half_an_hour() -> None:
    """Ten hours of a request every five minutes are twenty votes, by header or by the conversation."""
    for fields in ({"session": "s"}, {"user": "u"}, {}):
        sessions = Sessions()
        texts = ["q0"]
        taken = 0
        for number in range(120):
            taken += sessions.takes(open_of(said(*texts), **fields), 300.0 * number, due=True)
            texts += ["a", f"q{number + 1}"]
        assert taken == 20


def test_a_body_is_read_only_when_a_vote_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """All others cost nothing; nor those whom a header names."""
    monkeypatch.setattr(Whose, "keys", lambda *_: pytest.fail("read"))
    sessions = Sessions()
    assert not sessions.takes(open_of(said("a")), 1.0, due=False)
    assert not sessions.takes(open_of(b'{"input":"a"}'), 1.0, due=False, responses=True)
    assert sessions.takes(open_of(said("a"), session="s"), 1.0, due=True)
    assert not sessions.takes(open_of(said("a"), session="t"), 1.0, due=False)
    assert not sessions.takes(open_of(said("a"), session="t"), 2.0, due=True)  # its first request was no vote


def test_sessions_are_bounded_and_what_is_forgotten_counted() -> None:
    """Who was forgotten within half an hour may vote twice; later that is nobody's loss."""
    sessions = Sessions(most=2)
    for number in range(3):
        assert sessions.takes(open_of(said(f"q{number}")), 1.0, due=True)
    assert sessions.cut == 1
    assert sessions.takes(open_of(said("q0")), 1.0, due=True)
    assert sessions.takes(open_of(said("later")), 2 * SESSION_S, due=True)
    assert sessions.cut == 2
    for number in range(4):  # requests whose end is never told
        opened = open_of(said(f"r{number}"), request_id=f"{number}")
        assert sessions.takes(opened, 2 * SESSION_S, due=True, responses=True)
    assert len(sessions._open_s) == 2


def test_nothing_of_a_body_can_be_read_from_its_keys() -> None:
    """They are hashes under a secret that ends with the process; of a long conversation some beginnings are tried."""
    opened = open_of(said(*("word" for _ in range(999))))
    keys = Whose().keys(opened)
    assert {len(key) for key in keys} == {16}
    assert len(keys) == MAX_TURNS + 1
    assert keys != Whose().keys(opened)


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["messages", "input", "role", "content", "user", "metadata", "type", "text", "conversation"]),
        inner, max_size=4,
    ),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_whatever_comes_has_keys(body: bytes) -> None:
    """Broken, or of another shape: the same ones each time."""
    whose = Whose()
    keys = whose.keys(open_of(body))
    assert bool(keys) == bool(body)
    assert whose.keys(open_of(body)) == keys


class Site:
    """A watch, and a clock that goes on by `step_s` for each request."""

    def __init__(self, make: Make, settings: Drift = QUICK) -> None:
        self.store = MetricStore()
        self.watch = DriftWatch(self.store, CardinalityGuard(Limits()), settings, secret=b"sixteen bytes or more")
        self.make = make
        self.now_s = 0.0
        self.number = 0
        self.watch.resume(0.0)
        self.watch.tick(0.0, MONDAY_S)

    def ask(self, body: bytes, step_s: float = 0.1, dialect: Dialect = OPENAI_CHAT, **fields: object) -> None:
        """Let a request begin and end."""
        self.now_s += step_s
        self.number += 1
        self.watch.tick(self.now_s, MONDAY_S + self.now_s)
        record = self.make(request_id=str(self.number), **fields)
        hearing = answered(self.watch, record, body, dialect)
        if hearing is not None:
            hearing.closed(record)

    def gauge(self, metric: m.Metric, *labels: str) -> float | None:
        """Return what is exported."""
        self.watch.refresh()
        return self.store.gauge(metric, labels).value


def talk(site: Site, rng: random.Random, talks: int, *, chat: bool = True) -> None:
    """Let so many sessions of ten turns pass without a header, each alike in all it does (correlation ALIKE).

    Without `chat` their bodies tell nothing: each turn is a question by itself.
    """
    for _ in range(talks):
        alike = [rng.gauss(0, ALIKE**0.5) for _ in range(4)]
        texts = [f"begin {rng.random()}"]
        for turn in range(10):
            one = [each + rng.gauss(0, (1 - ALIKE) ** 0.5) for each in alike]
            site.ask(
                said(*texts) if chat else said(f"{rng.random()}"),
                12.1,
                completion_tokens=int(math.exp(5 + one[0])),
                prompt_tokens=int(math.exp(6 + one[1])),
                ttft_s=math.exp(one[2] - 2),
                gap_sum_s=math.exp(one[3]),
            )
            texts += ["answer", f"and {turn}"]


def test_plain_clients_conversations_have_a_vote_each(request_of: Make) -> None:
    """Ten turns without a header are one; with texts, too."""
    for settings, votes_of in ((QUICK, 30), (TEXTS, 0)):  # the first 512 with texts teach what words are like
        site = Site(request_of, settings)
        talk(site, random.Random(1), 30)
        assert site.gauge(m.DRIFT_REFERENCE_VOTES, *KEY) == votes_of
    (followed,) = site.watch.streams
    assert {words.texts for words in followed._words.values()} == {30}


def test_sessions_known_by_their_bodies_alone_are_no_alarm(request_of: Make) -> None:
    """Nothing changes in two weeks: no evidence. Taken for ten observations each, they have more than chance makes."""

    def peak_weeks(talks: int, *, chat: bool) -> float:
        site, rng, peak = Site(request_of), random.Random(5), 0.0
        talk(site, rng, talks, chat=chat)
        assert site.watch.pin(*KEY)[0]
        (followed,) = site.watch.streams
        for _ in range(talks // 10):
            talk(site, rng, 10, chat=chat)
            peak = max(peak, followed.weeks)
        return peak

    assert peak_weeks(2_100, chat=True) < QUICK.weeks_per_false_alarm < peak_weeks(500, chat=False)


def test_what_generates_nothing_is_followed_by_its_record_with_texts_too(request_of: Make) -> None:
    """Embeddings: a reference is pinned, and ten times as long prompts are found."""
    site, rng = Site(request_of, TEXTS), random.Random(2)

    def embed(count: int, longer: float) -> None:
        for _ in range(count):
            tokens = int(rng.lognormvariate(4 + longer, 1))
            fields: dict[str, object] = {"operation": "embeddings", "prompt_tokens": tokens, "completion_tokens": None}
            body = json.dumps({"input": f"text {rng.random()}"}).encode()
            site.ask(body, dialect=EMBEDDINGS, finish_reasons=(), ttft_s=None, gap_count=0, **fields)

    embed(2_000, 0.0)
    assert site.watch.pin(*KEY)[0]
    embed(500, 0.0)
    assert site.gauge(m.DRIFT_DETECTED, *KEY) == 0
    embed(300, 2.3)
    assert site.gauge(m.DRIFT_DETECTED, *KEY) == 1
    assert site.watch.report().streams[0].votes > 1_000


def test_requests_that_vote_and_never_end_are_bounded(request_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that was killed tells of no end."""
    monkeypatch.setattr("inferwatch_collectors.drift.choosing.MAX_CHOSEN", 4)
    site = Site(request_of)
    for number in range(6):
        site.watch.opened(open_of(said(f"{number}"), request_id=f"{number}"), OPENAI_CHAT)
    assert site.watch.choices_cut == 2
    assert len(site.watch._choosing._chosen) == 4
    site.watch.opened(open_of(said("responses"), request_id="last"), OPENAI_RESPONSES)
    site.watch.record(request_of(request_id="last"))
    assert "last" not in site.watch._choosing._chosen


def test_where_all_have_voted_few_bodies_are_read(request_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """One conversation that asks a hundred times a second: ten looks for each vote that could be."""
    looks = []
    keys = Whose.keys
    monkeypatch.setattr(Whose, "keys", lambda self, opened: looks.append(1) or keys(self, opened))
    site = Site(request_of, Drift(votes_per_hour=3_600))
    for _ in range(6_000):
        site.ask(said("the same"), 0.01)
    assert 550 <= len(looks) <= 650
    assert site.gauge(m.DRIFT_REFERENCE_VOTES, *KEY) == 1
