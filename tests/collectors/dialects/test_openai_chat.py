"""Chat completions: what in an event is a token, and of which class."""

import json
from typing import Any

import pytest

from inferwatch.record import TokenClass, TokenSource
from inferwatch_collectors.dialects.base import ANSWER, REASONING, TOOL_CALL, UNKNOWN_NS, Observation
from inferwatch_collectors.dialects.openai_chat import OPENAI_CHAT

MS = 1_000_000


def observe(*events: Any, name: bytes = b"") -> Observation:
    """Return what chat events, 10 ms apart, leave behind. A dict is a chunk, bytes are taken as they are."""
    seen = Observation(OPENAI_CHAT.facts(b"", 1))
    for position, event in enumerate(events, 1):
        data = event if isinstance(event, bytes) else json.dumps(event).encode()
        OPENAI_CHAT.read_event(seen, position * 10 * MS, name, data)
    return seen


def chunk(delta: Any, index: int = 0, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a chat chunk with one choice."""
    return {"id": "x", "model": "m", "choices": [{"index": index, "delta": delta, "finish_reason": finish}], **more}


@pytest.mark.parametrize(
    ("delta", "classes"),
    [
        ({"role": "assistant", "content": ""}, 0),
        ({"role": "assistant"}, 0),
        ({}, 0),
        (None, 0),
        ({"content": None}, 0),
        ({"content": ""}, 0),
        ({"content": "a"}, ANSWER),
        ({"content": " "}, ANSWER),
        ({"role": "assistant", "content": "a"}, ANSWER),
        ({"content": [{"type": "text", "text": "a"}]}, ANSWER),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}, REASONING),
        ({"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]}, REASONING | ANSWER),
        ({"content": [{"type": "thinking", "thinking": "hm"}], "refusal": "no"}, REASONING | ANSWER),
        ({"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": ""}]}, 0),
        ({"content": []}, 0),
        ({"content": ["a"]}, ANSWER),
        ({"refusal": "no"}, ANSWER),
        ({"audio": {"data": "UklG"}}, ANSWER),
        ({"reasoning": "hm"}, REASONING),
        ({"reasoning_content": "hm"}, REASONING),
        ({"reasoning_content": None, "content": "a"}, ANSWER),
        ({"reasoning": "hm", "content": "a"}, REASONING | ANSWER),
        ({"content": None, "tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]}, TOOL_CALL),
        ({"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}, TOOL_CALL),
        ({"tool_calls": [{"index": 0, "function": {"arguments": {"a": 1}}}]}, TOOL_CALL),
        ({"tool_calls": [{"index": 0, "function": {"arguments": ""}}]}, 0),
        ({"tool_calls": [{"index": 0}]}, 0),
        ({"tool_calls": []}, 0),
        ({"tool_calls": None}, 0),
        ({"tool_calls": [{"index": 0, "custom": {"input": "x"}}]}, TOOL_CALL),
        ({"function_call": {"name": "f", "arguments": ""}}, TOOL_CALL),
        ({"function_call": {"name": None, "arguments": ""}}, 0),
        ({"tool_calls": "broken", "content": "a"}, ANSWER),
        ({"content": 5, "reasoning": "hm"}, REASONING),
    ],
)
def test_what_is_a_token(delta: Any, classes: int) -> None:
    """Only a non-empty piece of output is one: no role, no empty text, no bare finish."""
    seen = observe(chunk(delta))
    assert seen.choices[0].events == bool(classes)
    assert (seen.first_ns != UNKNOWN_NS) is bool(classes)
    assert (seen.answer_ns != UNKNOWN_NS) is bool(classes & ANSWER)
    assert seen.malformed == 0


def test_reasoning_comes_before_the_answer() -> None:
    """The first token is of the class that came first; the first token of the answer has a time of its own."""
    seen = observe(chunk({"role": "assistant", "content": ""}), chunk({"reasoning": "hm"}), chunk({"content": "a"}))
    assert (seen.first_ns, seen.first_class) == (20 * MS, TokenClass.REASONING)
    assert seen.answer_ns == 30 * MS


def test_thinking_in_parts_comes_before_the_answer() -> None:
    """Mistral's content is a list while it thinks: what the reader waits for is the first token of the answer."""
    seen = observe(
        chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}),
        chunk({"content": "a"}),
    )
    assert (seen.first_ns, seen.first_class, seen.answer_ns) == (10 * MS, TokenClass.REASONING, 20 * MS)


def test_both_classes_in_one_event() -> None:
    """Reasoning and answer in one event share its time, and reasoning was made first."""
    seen = observe(chunk({"reasoning": "hm", "content": "a"}))
    assert (seen.first_ns, seen.answer_ns, seen.first_class) == (10 * MS, 10 * MS, TokenClass.REASONING)


def test_a_tool_call_is_a_first_token_but_no_answer() -> None:
    """A tool call satisfies the first token; the visible answer may never come."""
    seen = observe(chunk({"tool_calls": [{"function": {"name": "f"}}]}), chunk({}, finish="tool_calls"))
    assert (seen.first_class, seen.answer_ns) == (TokenClass.TOOL_CALL, UNKNOWN_NS)
    assert seen.choices[0].finish == "tool_calls"


def test_all_choices_have_one_prompt() -> None:
    """n choices of a chat share their prompt, whatever their number."""
    usage = {"prompt_tokens": 11, "completion_tokens": 2}
    seen = observe(*(chunk({"content": "a"}, index=i, usage=usage) for i in range(3)))
    assert OPENAI_CHAT.totals(seen, 3)[:2] == (11, 6)


def test_echo_of_the_last_message_is_no_token() -> None:
    """A chunk whose usage says that nothing was generated yet brings back the prompt, not an answer."""
    seen = observe(
        chunk({"content": "the prompt"}, usage={"prompt_tokens": 4, "completion_tokens": 0}),
        chunk({"content": "a"}, usage={"prompt_tokens": 4, "completion_tokens": 1}),
    )
    assert (seen.first_ns, seen.choices[0].events) == (20 * MS, 1)


def test_estimate_counts_token_bearing_events() -> None:
    """Without any usage the events with output are a lower bound of the completion; the prompt is unknown."""
    seen = observe(chunk({"role": "assistant"}), chunk({"content": "a"}), chunk({"content": "b"}, finish="stop"))
    assert OPENAI_CHAT.totals(seen, 1) == (None, 2, None, None, TokenSource.CHUNK_ESTIMATE)
