"""What was said: texts of requests and of answers, as dialects find them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.dialects.base import ANSWER, REASONING, TOOL_CALL, Dialect, Observation
from inferwatch_collectors.dialects.body import body_reader
from inferwatch_collectors.dialects.content import MAX_DEPTH, Piece, Source, strings
from inferwatch_collectors.dialects.openai_chat import OPENAI_CHAT
from inferwatch_collectors.dialects.openai_completions import OPENAI_COMPLETIONS
from inferwatch_collectors.dialects.pooling import EMBEDDINGS
from inferwatch_collectors.dialects.unknown import UNKNOWN

SYSTEM, USER, ASSISTANT, TOOL, SETTING = Source


class Ears:
    """Remembers what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, int, str]] = []
        self.holes = 0

    def text(self, stamp_ns: int, choice: int, classes: int, text: str) -> None:
        self.heard.append((choice, classes, text))

    def missing(self) -> None:
        self.holes += 1

    def ended(self) -> None:
        raise AssertionError("dialects do not end answers")

    def closed(self, record: Any) -> None:
        raise AssertionError("dialects do not end requests")


def hear(dialect: Dialect, framing: str, *reads: bytes) -> Ears:
    """Return what a listener hears of an answer that came in these reads; b"" is a hole."""
    seen, ears = Observation(dialect.facts(b"", 1)), Ears()
    seen.listener = ears
    body = body_reader(dialect, seen, framing, "")
    assert body is not None
    for data in reads:
        if data:
            body.feed(5, data)
        else:
            seen.bytes_missing()
            body.gap()
    body.finish(6)
    return ears


def prompt(dialect: Dialect, body: Any) -> list[Piece]:
    return list(dialect.prompt(body if isinstance(body, bytes) else json.dumps(body).encode()))


def sse(*events: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def chunk(index: int = 0, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta}]}


def test_a_chat() -> None:
    """Messages in their order, each with whose it is; settings after them."""
    body = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "name": "Ann", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": '{"a":1}'}}]},
            {"role": "tool", "content": "42"},
        ],
        "stop": ["END"],
        "user": "ann@example.org",
        "metadata": {"case": "7"},
    }
    assert prompt(OPENAI_CHAT, body) == [
        (SYSTEM, "Be brief."),
        (USER, "Hi"),
        (SETTING, "Ann"),
        (ASSISTANT, "f"),
        (ASSISTANT, '{"a":1}'),
        (TOOL, "42"),
        (SETTING, "END"),
        (SETTING, "ann@example.org"),
        (SETTING, "7"),
    ]


@pytest.mark.parametrize(
    ("dialect", "body", "texts"),
    [
        pytest.param(OPENAI_COMPLETIONS, {"prompt": "Once", "suffix": "end"}, ["Once", "end"], id="completion"),
        pytest.param(OPENAI_COMPLETIONS, {"prompt": ["a", "b"]}, ["a", "b"], id="several prompts"),
        pytest.param(OPENAI_COMPLETIONS, {"prompt": [1, 2]}, [], id="token ids"),
        pytest.param(EMBEDDINGS, {"input": ["x", "y"]}, ["x", "y"], id="embeddings"),
        pytest.param(OPENAI_CHAT, {"messages": "x"}, [], id="no messages"),
        pytest.param(OPENAI_CHAT, {"messages": [1, {"role": 3, "content": "a"}]}, ["a"], id="half a message"),
        pytest.param(OPENAI_CHAT, b'{"messages": [{"content": "a"}], "x": NaN}', ["a"], id="lax JSON"),
        pytest.param(OPENAI_CHAT, b'{"messages": [{"content": "a"}', [], id="cut"),
        pytest.param(OPENAI_CHAT, b"[1]", [], id="no object"),
        pytest.param(UNKNOWN, {"prompt": "a"}, [], id="nobody knows the format"),
    ],
)
def test_texts_of_requests(dialect: Dialect, body: Any, texts: list[str]) -> None:
    """What is text is found, the rest is left out."""
    assert [piece.text for piece in prompt(dialect, body)] == texts


def test_a_streamed_answer() -> None:
    """Each text with its choice and class, in the order in which it came; a hole is told where it is."""
    ears = hear(
        OPENAI_CHAT,
        "sse",
        sse(chunk(role="assistant", content=""), chunk(reasoning_content="hm"), chunk(content="Hel")),
        sse(chunk(1, content="lo")),
        b"",
        sse(chunk(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": "{}"}}])),
    )
    assert ears.heard == [(0, REASONING, "hm"), (0, ANSWER, "Hel"), (1, ANSWER, "lo"), (0, TOOL_CALL, "{}")]
    assert ears.holes == 1


@pytest.mark.parametrize("framing", ["sse", "json"])
def test_thinking_in_parts(framing: str) -> None:
    """Mistral's content in parts says what was thought, as a string or in parts of its own, and what was answered."""
    thought = [{"type": "thinking", "thinking": [{"type": "text", "text": "h"}]}, {"type": "thinking", "thinking": "m"}]
    content = [*thought, {"type": "text", "text": "Hello"}, 7]
    reply = {"choices": [{"index": 0, "message": {"content": content}}]}
    body = sse(chunk(content=content)) if framing == "sse" else json.dumps(reply).encode()
    assert hear(OPENAI_CHAT, framing, body).heard == [(0, REASONING, "h"), (0, REASONING, "m"), (0, ANSWER, "Hello")]


def test_a_plain_answer() -> None:
    """A plain reply says the same as its stream would."""
    message = {"reasoning": "hm", "content": "Hello", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    ears = hear(OPENAI_CHAT, "json", json.dumps({"choices": [{"index": 0, "message": message}]}).encode())
    assert ears.heard == [(0, REASONING, "hm"), (0, ANSWER, "Hello"), (0, TOOL_CALL, "{}")]


@pytest.mark.parametrize("framing", ["sse", "json"])
def test_a_completion(framing: str) -> None:
    """Text completions have one class."""
    reply = {"choices": [{"index": 0, "text": "a"}, {"index": 1, "text": "b"}]}
    ears = hear(OPENAI_COMPLETIONS, framing, sse(reply) if framing == "sse" else json.dumps(reply).encode())
    assert ears.heard == [(0, ANSWER, "a"), (1, ANSWER, "b")]


@given(text=st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])), cut=st.integers(1, 200))
def test_any_split_of_the_bytes_is_the_same(text: str, cut: int) -> None:
    """Escapes and characters that a read cuts in two are whole for the listener."""
    data = sse(chunk(content=text), chunk(content=text))
    assert hear(OPENAI_CHAT, "sse", data[:cut], data[cut:]).heard == [(0, ANSWER, text)] * 2


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_body(body: Any) -> None:
    """Whatever a client sends, reading it raises nothing and yields texts that stand in it."""
    for dialect in (OPENAI_CHAT, OPENAI_COMPLETIONS, EMBEDDINGS):
        for key in ("messages", "prompt", "input", "stop"):
            assert all(piece.text for piece in prompt(dialect, {key: body}))


def test_nesting_is_bounded() -> None:
    """What lies deeper than anybody nests is not looked for."""
    value: Any = "deep"
    for _ in range(MAX_DEPTH):
        value = [value]
    assert list(strings(value)) == ["deep"]
    assert list(strings([value])) == []
