"""What is understood of a request, and what is refused."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.personas.fields import ApiError, read_object
from inferwatch_simulator.personas.vllm_requests import Generation, chat_request, completion_request, render_chat

CONFIG = SimulatorConfig(model="tiny", max_model_len=1000)
MESSAGES = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def chat(**body: Any) -> Generation:
    return chat_request({"messages": MESSAGES} | body, CONFIG)


def complete(prompt: Any = "hi", **body: Any) -> Generation:
    return completion_request({"prompt": prompt} | body, CONFIG)


@pytest.mark.parametrize("word", [True, 1, 1.0, "1", "true", "yes", "ON", "t", "y"], ids=repr)
def test_truth_values_are_read_leniently(word: Any) -> None:
    """Whatever pydantic takes for true starts a stream."""
    assert chat(stream=word).stream


def test_usage_flags_follow_the_options() -> None:
    """Continuous usage needs usage; null, empty and unknown options ask for nothing."""

    def flags(**body: Any) -> tuple[bool, bool]:
        generation = chat(**body)
        return generation.include_usage, generation.continuous_usage

    assert flags() == (False, False)
    assert flags(stream_options=None) == (False, False)
    assert flags(stream=True, stream_options={"include_obfuscation": False}) == (False, False)
    assert flags(stream=True, stream_options={"continuous_usage_stats": True}) == (False, False)
    assert flags(stream=True, stream_options={"include_usage": "yes"}) == (True, False)
    both = {"include_usage": True, "continuous_usage_stats": True}
    assert flags(stream=True, stream_options=both) == (True, True)


def test_server_can_force_usage() -> None:
    """--enable-force-include-usage turns on both kinds for everybody."""
    forced = chat_request({"messages": MESSAGES, "stream": True}, SimulatorConfig(force_include_usage=True))
    assert (forced.include_usage, forced.continuous_usage) == (True, True)


def test_limits_come_from_route_request_and_context() -> None:
    """Completions default to 16 tokens, chats to the configured limit, and the context bounds both."""
    room = 1000 - chat().prompts[0].tokens
    assert complete().wishes[0].max_tokens == 16
    assert chat().wishes[0].max_tokens == room
    assert chat(max_tokens=9).wishes[0].max_tokens == 9
    assert chat(max_tokens=9, max_completion_tokens=7).wishes[0].max_tokens == 7
    assert chat(max_tokens=10**6).wishes[0].max_tokens == room


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [("one two", [2]), (["one two", "three"], [2, 1]), ([5, 6, 7], [3]), ([[5, 6], [7]], [2, 1])],
)
def test_prompts_come_in_four_forms(prompt: Any, tokens: list[int]) -> None:
    """A text, several texts, token ids, several lists of ids."""
    assert [one.tokens for one in complete(prompt).prompts] == tokens


def test_answers_are_ordered_by_prompt_then_choice() -> None:
    """Index i + prompt_idx * n; equal prompts with equal seeds have equal answers, choices differ."""
    answers = complete(["a", "b", "a"], n=2, max_tokens=30).answers(CONFIG)
    texts = [[piece.text for piece in answer.pieces] for answer in answers]
    assert len(texts) == 6
    assert texts[0:2] == texts[4:6]
    assert texts[0] != texts[1]
    assert texts[0] != texts[2]


@pytest.mark.parametrize(
    ("body", "thinks", "shown"),
    [
        ({}, False, True),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True, True),
        ({"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "high"}, False, True),
        ({"reasoning_effort": "low"}, True, True),
        ({"reasoning_effort": "none"}, False, True),
        ({"include_reasoning": False}, True, False),
    ],
)
def test_reasoning_is_asked_for_in_several_ways(body: dict[str, Any], thinks: bool, shown: bool) -> None:
    """By template argument, by effort, or by saying whether to show it."""
    generation = chat(**body)
    assert (generation.reasoning, generation.include_reasoning) == (thinks, shown)


def test_named_tool_is_the_only_one_left() -> None:
    """A demanded call may use just the tool that was named."""
    other = {"type": "function", "function": {"name": "g"}}
    generation = chat(tools=[TOOL, other], tool_choice={"type": "function", "function": {"name": "g"}})
    assert [tool.name for tool in generation.wishes[0].tools] == ["g"]
    assert (generation.named_tool, generation.wishes[0].must_call) == (True, True)


def test_tools_are_optional_by_default_and_can_be_turned_off() -> None:
    """Without a choice it is auto; with none the answer goes through no parser."""
    assert chat(tools=[TOOL]).tools
    assert not chat(tools=[TOOL], tool_choice="none").tools


def test_chat_continued_has_the_earlier_chat_as_prefix() -> None:
    """Turn by turn the prompt only grows at its end, so its blocks can be shared."""
    more = [*MESSAGES, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "and?"}]
    head = render_chat(MESSAGES, []).removesuffix("<|im_start|>assistant\n")
    assert render_chat(more, []).startswith(head)


def test_content_parts_are_text() -> None:
    """Parts are joined by line; tool calls of earlier turns are part of the prompt."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    text = render_chat(
        [
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
        ],
        [],
    )
    assert "a\nb" in text
    assert '"name":"f"' in text


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"model": "other"}, 404, "The model `other` does not exist. Valid aliases: tiny."),
        ({"n": 0}, 400, "n must be at least 1, got 0."),
        ({"n": 2, "temperature": 0}, 400, "n must be 1 when using greedy sampling, got 2."),
        ({"temperature": -1}, 400, "temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)"),
        ({"temperature": 3}, 400, "temperature must be in [0, 2], got 3.0. (parameter=temperature, value=3.0)"),
        ({"top_p": 0}, 400, "top_p must be in (0, 1], got 0.0. (parameter=top_p, value=0.0)"),
        ({"presence_penalty": 3}, 400, "presence_penalty must be in [-2, 2], got 3.0."),
        ({"max_tokens": 0}, 400, "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)"),
        ({"min_tokens": -1}, 400, "min_tokens must be greater than or equal to 0, got -1."),
        ({"min_tokens": 9, "max_tokens": 5}, 400, "min_tokens must be less than or equal to max_tokens=5, got 9."),
        ({"stop": ""}, 400, "stop cannot contain an empty string."),
        ({"stream_interval": 0}, 400, "stream_interval must be at least 1"),
        ({"top_logprobs": 3}, 400, "when using `top_logprobs`, `logprobs` must be set to true."),
        ({"logprobs": True, "top_logprobs": 21}, 400, "greater than max allowed: 20"),
        ({"tools": []}, 400, "`tools` must not be an empty array."),
        ({"tool_choice": "auto"}, 400, "When using `tool_choice`, `tools` must be set."),
        ({"tools": [TOOL], "tool_choice": "often"}, 400, "Invalid value for `tool_choice`: often!"),
        ({"tools": [{}]}, 400, "'loc': 'body.tools.0.function'"),
        ({"messages": "hi"}, 400, "'type': 'list_type', 'loc': 'body.messages'"),
        ({"messages": [{"content": "hi"}]}, 400, "'loc': 'body.messages.0.role'"),
        ({"n": "two"}, 400, "'type': 'int_parsing', 'loc': 'body.n'"),
        ({"stream": [1]}, 400, "'type': 'bool_type', 'loc': 'body.stream'"),
        ({"chat_template_kwargs": 5}, 400, "'type': 'dict_type'"),
        ({"messages": [{"role": "user", "content": "x" * 9000}]}, 400, "maximum context length is 1000 tokens"),
    ],
)
def test_refusals(body: dict[str, Any], status: int, message: str) -> None:
    """What makes no sense is refused, in vLLM's words."""
    with pytest.raises(ApiError) as refused:
        chat(**body)
    assert (refused.value.status, message in refused.value.message) == (status, True), refused.value.message


@pytest.mark.parametrize("prompt", [None, "", []])
def test_empty_prompt_is_refused(prompt: Any) -> None:
    """There must be something to complete."""
    with pytest.raises(ApiError, match="Either prompt or prompt_embeds must be provided"):
        complete(prompt)


def test_too_many_prompts_are_refused() -> None:
    """The list of prompts has a limit of its own."""
    with pytest.raises(ApiError, match="exceeds the maximum allowed count of 1024"):
        complete(["x"] * 1025)


@pytest.mark.parametrize("data", [b'{"a": NaN}', b'{"a": "\\ud800"}'])
def test_json_that_only_python_reads_is_read(data: bytes) -> None:
    """vLLM's framework decodes with Python's own reader, which takes these."""
    assert list(read_object(data)) == ["a"]


def test_undecodable_body_is_refused() -> None:
    """Bytes that are no text in any encoding JSON has are a client's error."""
    with pytest.raises(ApiError):
        read_object(b'{"a": "\xff\xfe"}')


_NAMES = st.sampled_from(
    [
        *("model", "messages", "prompt", "n", "stream", "stream_options", "max_tokens", "min_tokens", "stop", "tools"),
        *("tool_choice", "logprobs", "top_logprobs", "temperature", "top_p", "seed", "echo", "ignore_eos", "role"),
        *("content", "tool_calls", "function", "name", "parameters", "type", "properties", "items", "enum", "text"),
        *("chat_template_kwargs", "include_reasoning", "reasoning_effort", "cache_salt", "include_usage", "request_id"),
    ]
)
_SCALARS = st.none() | st.booleans() | st.integers(-2, 30) | st.floats() | st.text(max_size=4)
_WORDS = st.sampled_from(["tiny", "user", "auto", "required", "none", "text", "object", "array", "string"])
_JSON = st.recursive(
    _SCALARS | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=15,
)
_PLAUSIBLE = st.fixed_dictionaries(
    {
        "messages": st.lists(st.fixed_dictionaries({"role": _WORDS, "content": _JSON}, optional={"tool_calls": _JSON})),
        "prompt": st.just("hi") | _JSON,
    },
    optional={
        "tools": st.lists(
            st.fixed_dictionaries({"function": st.fixed_dictionaries({"name": _WORDS, "parameters": _JSON})})
        ),
        "tool_choice": _JSON,
        "stop": _JSON,
        "stream_options": _JSON,
        "stream": _JSON,
    },
)


@settings(deadline=None, max_examples=300)
@given(_PLAUSIBLE | st.dictionaries(_NAMES, _JSON, max_size=8))
def test_any_body_is_answered_or_refused(body: dict[str, Any]) -> None:
    """Whatever JSON comes, the request is understood or refused as vLLM would; nothing else is raised."""
    for parse in (chat_request, completion_request):
        try:
            generation = parse(body, CONFIG)
        except ApiError:
            continue
        assert all(answer.pieces for answer in generation.answers(CONFIG))
