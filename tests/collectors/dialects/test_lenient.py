"""The second chance for JSON that the typed decoders refuse."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.dialects.lenient import load_object, salvage
from inferwatch_collectors.dialects.openai_chat import ChatChunk
from inferwatch_collectors.dialects.usage import Usage

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["choices", "usage", "index", "delta", "content", "tool_calls", "function", "name", "finish_reason",
         "prompt_tokens", "completion_tokens", "prompt_tokens_details", "cached_tokens", "error", "id", "model"]
    ), inner, max_size=6),
    max_leaves=20,
)  # fmt: skip


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a": NaN}', True),
        (b'{"a": -Infinity}', True),
        (b'{"a": "\\ud83d"}', True),
        (b'{"a": "\xff\xfe"}', True),
        (b"[1]", False),
        (b'"text"', False),
        (b"", False),
        (b'{"a": 1', False),
        (b'{"a": ' + b"[" * 100_000, False),
        (b'{"a": ' + b"9" * 10_000 + b"}", False),
        (b"\x00\x01", False),
    ],
)
def test_only_an_object_is_taken(data: bytes, expected: bool) -> None:
    """Sloppy JSON passes, anything that is no object does not, and nothing raises."""
    assert (load_object(data) is not None) is expected


@pytest.mark.parametrize(
    ("value", "prompt", "completion", "cached"),
    [
        ({"prompt_tokens": "11", "completion_tokens": 4}, None, 4, None),
        ({"prompt_tokens": -1, "completion_tokens": 4}, None, 4, None),
        ({"prompt_tokens": 10**30, "completion_tokens": 4}, None, 4, None),
        ({"prompt_tokens": 11.0, "completion_tokens": 4.5}, 11, None, None),
        ({"prompt_tokens": float("nan"), "completion_tokens": float("inf")}, None, None, None),
        ({"prompt_tokens": 1e300, "completion_tokens": 4}, None, 4, None),
        ({"prompt_tokens": True, "completion_tokens": [4]}, None, None, None),
        ({"prompt_tokens": 11, "prompt_tokens_details": "none"}, 11, None, None),
        ({"prompt_tokens": 11, "prompt_tokens_details": {"cached_tokens": 5}}, 11, None, 5),
        ({"prompt_tokens": 11, "prompt_tokens_details": {"cached_tokens": -5}}, 11, None, None),
        ({}, None, None, None),
    ],
)
def test_right_fields_survive_wrong_ones(
    value: dict[str, Any], prompt: int | None, completion: int | None, cached: int | None
) -> None:
    """A field of the wrong type, or a count that cannot be one, is unknown; its neighbours are kept."""
    usage = salvage(value, Usage)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached) == (prompt, completion, cached)


def test_lists_keep_their_good_entries() -> None:
    """A broken choice does not take the others with it."""
    chunk = salvage({"choices": [7, {"index": "x", "delta": {"content": 5, "reasoning": "r"}}, None]}, ChatChunk)
    assert chunk.choices is not None
    (choice,) = chunk.choices
    assert choice.index is None
    assert choice.delta is not None
    assert (choice.delta.content, choice.delta.reasoning) == (None, "r")


@given(value=JSON_VALUES)
def test_any_json_is_salvaged(value: Any) -> None:
    """Whatever the nesting, the result fits the struct and nothing raises."""
    loaded = load_object(json.dumps({"choices": value, "usage": value}).encode())
    assert loaded is not None
    chunk = salvage(loaded, ChatChunk)
    assert chunk.choices is None or all(choice.index is None or choice.index >= 0 for choice in chunk.choices)
    assert chunk.usage is None or (chunk.usage.prompt_tokens or 0) >= 0
