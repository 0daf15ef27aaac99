"""alike: an event that is read by what differs leaves the same behind as one that is read in full.

The oracle is the long way itself: every stream is read twice, once with a dialect that finds no two events alike.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferwatch_collectors.dialects.alike import MAX_EVENT_BYTES, PROBE_TOKENS, Alike, around
from inferwatch_collectors.dialects.base import ANSWER, Choice, Observation, RequestFacts
from inferwatch_collectors.dialects.body import MAX_TRIES, EventStream
from inferwatch_collectors.dialects.openai_chat import OPENAI_CHAT
from inferwatch_collectors.dialects.openai_common import OpenAIStreams
from inferwatch_collectors.dialects.openai_completions import OPENAI_COMPLETIONS

FIXTURES = Path(__file__).parents[2] / "fixtures" / "vllm"
CHAT = b'data: {"id":"c","model":"m","choices":[{"index":%d,"delta":{%b},"finish_reason":%b}],"usage":{%b}}\n\n'
TEXT = b'data: {"id":"t","model":"m","choices":[{"index":0,"text":"%b","finish_reason":null}],"usage":{%b}}\n\n'


def chat(text: bytes, tokens: int, *, key: bytes = b"content", index: int = 0, finish: bytes = b"null") -> bytes:
    return CHAT % (index, b'"%b":"%b"' % (key, text), finish, b'"prompt_tokens":3,"completion_tokens":%d' % tokens)


def recorded(path: Path) -> list[bytes]:
    """Return a reply of a real vLLM, chunk by chunk."""
    response = json.loads(path.read_text())["response"]
    return [chunk.encode(response["encoding"]) for chunk in response["chunks"]]


def state(seen: Observation) -> dict[str, Any]:
    """Return all that is known of an answer."""
    known = {name: getattr(seen, name) for name in Observation.__slots__}
    known["choices"] = {
        index: {name: getattr(choice, name) for name in Choice.__slots__} for index, choice in seen.choices.items()
    }
    return known


def read(reads: Sequence[bytes | None], dialect: OpenAIStreams, facts: RequestFacts, *, alike: bool) -> Observation:
    """Read a stream, None where copies are missing; without `alike` all of it the long way."""
    seen = Observation(facts)
    with mock.patch.object(OpenAIStreams, "alike", OpenAIStreams.alike if alike else lambda *_: None):
        body = EventStream(dialect, seen)
        for number, data in enumerate(reads):
            if data is None:
                seen.bytes_missing()
                body.gap()
            else:
                body.feed(1000 * number, data)
        body.finish(10**9)
    return seen


def same(
    reads: Sequence[bytes | None], dialect: OpenAIStreams = OPENAI_CHAT, facts: RequestFacts | None = None
) -> None:
    facts = facts or RequestFacts()
    short, long = (read(reads, dialect, facts, alike=alike) for alike in (True, False))
    assert state(short) == state(long)


TEXTS = [
    b" a",
    b"b",
    b"",
    b"\\n",
    b'\\"',
    b"\\",
    b'","x":"',
    b'",{"',
    b"\xc3\xa9",
    b"\xff",
    b"\n",
    b"\t",
    b"\\ud800",
    b"]",
    b'x",{"completion_tokens":5},"y',
    b't",{"a":"b\\',
    b"abc\\",
    b't",{"a":["b',
]
USAGES = [
    b'"prompt_tokens":3,"completion_tokens":1',
    b'"prompt_tokens":3,"completion_tokens":2',
    b'"prompt_tokens":3,"completion_tokens":7,"completion_tokens_details":{"reasoning_tokens":4}',
    b'"completion_tokens":0,"prompt_tokens":3',
    b'"prompt_tokens":0,"completion_tokens":0',
    b'"completion_tokens":2,\n"prompt_tokens":3',
    b'"completion_tokens":2,\r"prompt_tokens":3',
    b'"completion_tokens":"2"',
    b'"completion_tokens":-1',
    b'"completion_tokens":1},"usage":{"completion_tokens":5',
    b'"completion_tokens":1}],"more":[{"a":1',
    b'"completion_tokens":null',
    b"",
    b"oops",
    b'","completion_tokens":3',
    b'",{"completion_tokens":3',
    b'"z":1}],"completion_tokens":3',
]
OTHERS = [
    b"data: [DONE]\n\n",
    b": ping\n\n",
    b'data: {"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9}}\n\n',
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"no usage"}}]}\n\n',
    b'data: {"error":{"message":"x"},"choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"completion_tokens":1}}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"x"}}],"x_groq":{"id":1,"usage":{"completion_tokens":4}}}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"x"}},{"index":1,"delta":{}}],"usage":{"completion_tokens":1}}\n\n',
    b'data: {"choices":[{"delta":{"content":"x"}}],"usage":{"completion_tokens":1}}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"a","content":"b"}}],"usage":{"completion_tokens":1}}\n\n',
    b'data: {"choices":[{"index":0,"delta":{}}],"usage":{"completion_tokens":1},"more":{"text":"x"}}\n\n',
    b'data: {"usage":{"completion_tokens":3},"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n',
    b'event: error\ndata: {"choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"completion_tokens":1}}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"x"}}],\ndata: "usage":{"completion_tokens":1}}\n\n',
]

events = st.one_of(
    st.builds(chat, st.sampled_from(TEXTS[:2]), st.integers(0, 4)),
    st.builds(
        chat,
        st.sampled_from(TEXTS),
        st.integers(0, 4),
        key=st.sampled_from([b"content", b"content", b"reasoning", b"reasoning_content", b"refusal", b"role"]),
        index=st.sampled_from([0, 0, 0, 1]),
        finish=st.sampled_from([b"null", b"null", b"null", b'"stop"']),
    ),
    st.builds(
        lambda text, usage: CHAT % (0, b'"content":"%b"' % text, b"null", usage), *map(st.sampled_from, (TEXTS, USAGES))
    ),
    st.sampled_from(OTHERS),
)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes | None]:
    """Mostly one event a read, as engines send them."""
    reads: list[bytes | None] = [chat(b" first", 1), chat(b" second", 2)]
    for event in draw(st.lists(events, max_size=16)):
        match draw(st.integers(0, 11)):
            case 0:
                cut = draw(st.integers(1, len(event) - 1))
                reads += [event[:cut], event[cut:]]
            case 1:
                reads.append(None)
            case 2:
                reads.append(event + chat(b" two", 3))
            case 3:
                reads.append(event.replace(b"\n", b"\r\n"))
            case _:
                reads.append(event)
    return reads


@example(
    [chat(b"a", 1), chat(b"b", 2), chat(b"c", 2), chat(b"d", 5), None, chat(b"e", 6), chat(b"f", 7)], RequestFacts()
)
@given(streams(), st.sampled_from([RequestFacts(), RequestFacts(choices=2), RequestFacts(echo_only=True)]))
def test_both_ways_are_the_same(reads: list[bytes | None], facts: RequestFacts) -> None:
    """Tokens, gaps, classes, names, finishes, faults: whatever comes."""
    same(reads, facts=facts)


@pytest.mark.parametrize("usage", USAGES, ids=repr)
@pytest.mark.parametrize("text", TEXTS, ids=repr)
def test_all_that_may_stand_between(text: bytes, usage: bytes) -> None:
    """In the place of a text and of a usage: what is good, what is not, and what would end them."""
    for frame, dialect in (
        (CHAT % (0, b'"content":"%b"', b"null", b"%b"), OPENAI_CHAT),
        (TEXT, OPENAI_COMPLETIONS),
    ):
        ordinary = frame % (b" a", b'"prompt_tokens":3,"completion_tokens":1')
        same([ordinary, ordinary, frame % (text, usage), ordinary], dialect)


# What an event may be like: by turns what is so, and what only looks so.
FIRSTS = [
    *OTHERS,
    chat(b"x", 1, finish=b'"stop"'),
    chat(b"x", 1, key=b"role"),
    chat(b"x", 1, key=b'x":{"text'),
    b'data: {"choices":[{"index":0,"delta":{"content":"x"}}],"timings":{"predicted_n":2},"usage":{"completion_tokens":1}}\n\n',
    b'data: {"choices":[{"index":0,"delta":{}}],"more":{"text":"x"},"usage":{"completion_tokens":1}}\n\n',
    b'data: {"usage":{"completion_tokens":4},"choices":[{"index":0,"delta":{"content":"x"}}],"a":{"b":1,"usage":{"completion_tokens":1}}}\n\n',
    b'data: {"error":{"type":"overloaded"},"choices":[{"index":0,"delta":{"role":"x"}}],"usage":{"completion_tokens":1}}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"x"},"usage":{"completion_tokens":1}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"x"}}],"a":{"b":1,"usage":{"completion_tokens":1}}}\n\n',
]


@pytest.mark.parametrize("facts", [RequestFacts(), RequestFacts(choices=2)], ids=["one choice", "two"])
@pytest.mark.parametrize("first", FIRSTS, ids=repr)
def test_all_that_an_event_may_be_like(first: bytes, facts: RequestFacts) -> None:
    """Errors, finishes, counts that stand elsewhere, several choices: only the plainest is gone by."""
    later = [
        first.replace(b'"x"', b'"y"').replace(b'completion_tokens":1', b'completion_tokens":%d' % n)
        for n in range(2, 5)
    ]
    for before in ([b": ping\n\n"], [b": ping\n\n", chat(b" a", 1)]):
        same([*before, first, *later, chat(b" z", 9)], facts=facts)


@given(st.binary(max_size=40), st.integers(0, 200), st.integers(0, 40))
def test_a_broken_event_is_read_as_before(junk: bytes, at: int, gone: int) -> None:
    """Bytes exchanged for any others."""
    event = chat(b" c", 3)
    same([chat(b" a", 1), chat(b" b", 2), event[:at] + junk + event[at + gone :], chat(b" d", 4)])


def long_way(reads: Iterable[bytes], dialect: OpenAIStreams) -> int:
    """Return how many events were read in full."""
    body = EventStream(dialect, Observation(RequestFacts()))
    with mock.patch.object(
        type(dialect), "read_event", autospec=True, side_effect=type(dialect).read_event
    ) as read_event:
        for number, data in enumerate(reads):
            body.feed(number, data)
    return read_event.call_count


def test_most_events_take_the_short_way() -> None:
    """All but the first two, and the first two of another class."""
    reads = [chat(b"t", n, key=b"reasoning") for n in range(1, 9)] + [chat(b"a", n) for n in range(9, 20)]
    assert long_way(reads, OPENAI_CHAT) == 4


def test_real_events_of_one_choice_do() -> None:
    """As vLLM wrote them."""
    chunks = recorded(FIXTURES / "chat.continuous.json")
    assert len(chunks) > 10
    assert long_way(chunks, OPENAI_CHAT) < len(chunks) / 2


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.continuous.json")), ids=lambda path: path.name.split(".")[0])
def test_real_streams_are_the_same(path: Path) -> None:
    """One chunk a read."""
    for dialect in (OPENAI_CHAT, OPENAI_COMPLETIONS):
        same(recorded(path), dialect)


def test_a_finish_that_changes_is_noted_each_time() -> None:
    """The last one holds."""
    ends = [chat(b"a", n, finish=b'"%b"' % end) for n, end in enumerate([b"stop", b"stop", b"length", b"stop"], 1)]
    same([chat(b"a", 1), *ends])


def test_an_id_that_changes_is_noted_as_long_as_no_model_is_known() -> None:
    event = chat(b"a", 1).replace(b'"model":"m",', b"")
    same([event.replace(b'"id":"c"', b'"id":"%d"' % number) for number in (1, 1, 2, 1)])


def test_an_event_above_the_limit_is_cut_off() -> None:
    same([chat(b"a", 1), chat(b"a", 2), chat(b"a" * (9 << 20), 3), chat(b"a", 4)])


def test_same_text_and_usage_in_an_event_that_ends_otherwise() -> None:
    """Broken at its end, and nowhere else."""
    event = chat(b"a", 1)
    same([event, event, event.replace(b"}}\n\n", b"}]\n\n"), event])


def test_what_is_unlike_now_and_then_costs_no_try() -> None:
    """A token without text, which a tokenizer holds back."""
    reads = [chat(b"" if number % 2 else b"a", number) for number in range(2 * MAX_TRIES + 4)]
    with mock.patch.object(OpenAIStreams, "alike", autospec=True, side_effect=OpenAIStreams.alike) as alike:
        long_way(reads, OPENAI_CHAT)
    assert alike.call_count < 4


def test_where_no_two_are_alike_it_is_not_looked_for_for_ever() -> None:
    """Choices that take turns."""
    reads = [chat(b"a", number, index=number % 7) for number in range(1, 200)]
    with mock.patch.object(OpenAIStreams, "alike", autospec=True, return_value=None) as alike:
        assert long_way(reads, OPENAI_CHAT) == 199
    assert alike.call_count == MAX_TRIES


def test_around_an_event() -> None:
    assert around(b'{"choices":[{"text":"a"}],"usage":{"x":1}}') == (b'{"choices":[{"text":"', b'"}],"usage":{', b"}}")


@pytest.mark.parametrize(
    "event",
    [
        b'{"choices":[{"text":""}],"usage":{"x":1}}',
        b'{"choices":[{"text":"a"}]}',
        b'{"choices":[{"text":"a\\n"}],"usage":{"x":1}}',
        b'{"choices":[{"text":"a"}],"usage":{"x":1',
        b'{"choices":[{"text":"' + b"a" * MAX_EVENT_BYTES + b'"}],"usage":{"x":1}}',
    ],
    ids=["no text", "no usage", "an escape", "no end", "long"],
)
def test_nothing_to_go_by(event: bytes) -> None:
    assert around(event) is None


def test_whoever_listens_hears_everything() -> None:
    """For them the texts are read, so nothing is read by its difference."""
    seen = Observation(RequestFacts())
    seen.listener = mock.Mock()
    OPENAI_CHAT.read_event(seen, 1, b"", chat(b"a", 1)[6:-2])
    assert OPENAI_CHAT.alike(seen, chat(b"a", 1)[6:-2]) is None


def test_event_that_is_not_like_it_changes_nothing() -> None:
    seen = Observation(RequestFacts())
    parts = around(chat(b"a", 1)[6:-2])
    choice = seen.choice(0)
    assert parts is not None
    assert choice is not None
    alike = Alike(parts, seen, choice, ANSWER)
    before = state(seen)
    assert not alike.take(5, chat(b"a", 1, finish=b'"stop"'))
    assert not alike.take(5, chat(b"", 1))
    assert not alike.take(5, chat(b"a", 0))
    assert state(seen) == before
    assert alike.take(5, chat(b"a", PROBE_TOKENS))
    assert (seen.events, choice.tokens) == (1, PROBE_TOKENS)


def test_content_in_parts() -> None:
    """What is thought and what is answered keep their classes."""

    def parts(part: bytes, tokens: int) -> bytes:
        return CHAT % (0, b'"content":[%b]' % part, b"null", b'"prompt_tokens":3,"completion_tokens":%d' % tokens)

    thought = b'{"type":"thinking","thinking":[{"type":"text","text":"%b"}]}'
    answer = b'{"type":"text","text":"%b"}'
    reads = [parts(thought % text, number) for number, text in enumerate((b"a", b"b", b"c", b"", b"d"), 1)]
    reads += [parts(answer % text, number) for number, text in enumerate((b"a", b"b", b"", b"c"), 6)]
    same(reads)
    assert read(reads, OPENAI_CHAT, RequestFacts(), alike=True).answer_ns == 5000
