"""OpenAI chat completions: `choices[].delta`."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from inferwatch_collectors.dialects.base import ANSWER, REASONING, TOOL_CALL
from inferwatch_collectors.dialects.content import SETTINGS, Piece, load, messages, settings, strings, texts
from inferwatch_collectors.dialects.openai_common import OpenAIStreams, WireChoice, WireReply


class Function(msgspec.Struct, gc=False):
    """A piece of a function call."""

    name: str | None = None
    arguments: Any = None


class ToolCall(msgspec.Struct, gc=False):
    """A piece of a tool call; a kind that is no function is `other`."""

    function: Function | None = None
    custom: Any = None


class Delta(msgspec.Struct, gc=False):
    """What one event adds to a choice. For the counts, only whether a field is empty is of interest."""

    content: str | list[Any] | None = None
    reasoning: str | None = None  # vLLM, Groq, OpenRouter
    reasoning_content: str | None = None  # SGLang, TensorRT-LLM, DeepSeek, older vLLM
    tool_calls: list[ToolCall] | None = None
    refusal: str | None = None
    audio: Any = None
    function_call: Function | None = None  # the predecessor of tool_calls


class ChatChoice(WireChoice, gc=False):
    """A choice in a chunk."""

    delta: Delta | None = None


class ChatChunk(WireReply, gc=False):
    """One event."""

    choices: list[ChatChoice] | None = None


def generated_classes(choice: ChatChoice) -> int:
    """Return the classes (bits) of generated output in a chunk's choice; 0 for a role, an empty text, a bare finish."""
    delta = choice.delta
    if delta is None:
        return 0
    classes = ANSWER if delta.content or delta.refusal or delta.audio else 0
    if delta.reasoning or delta.reasoning_content:
        classes |= REASONING
    if delta.tool_calls or delta.function_call:
        classes |= _tool_class(delta)
    return classes


def _tool_class(delta: Delta) -> int:
    """Return TOOL_CALL if a name or a piece of the arguments is there: an index with nothing more is no output."""
    calls = [call.function for call in delta.tool_calls or () if call.function is not None]
    if delta.function_call is not None:
        calls.append(delta.function_call)
    named = any(call.name or call.arguments for call in calls)
    return TOOL_CALL if named or any(call.custom for call in delta.tool_calls or ()) else 0


def generated_texts(choice: ChatChoice) -> Iterator[tuple[int, str]]:
    """Yield what a chunk's choice says, with the class of each text: names of tools are not text, arguments are."""
    delta = choice.delta
    if delta is None:
        return
    for text in texts(delta.reasoning or delta.reasoning_content):
        yield REASONING, text
    for text in (*texts(delta.content), *texts(delta.refusal)):
        yield ANSWER, text
    calls: list[Any] = [call.function.arguments for call in delta.tool_calls or () if call.function is not None]
    calls += [call.custom for call in delta.tool_calls or ()]
    if delta.function_call is not None:
        calls.append(delta.function_call.arguments)
    for text in strings(calls):
        yield TOOL_CALL, text


class OpenAIChat(OpenAIStreams):
    """`/v1/chat/completions`. One prompt, whatever the number of choices."""

    operation = "chat"

    def __init__(self) -> None:
        super().__init__(ChatChunk, generated_classes, generated_texts)

    def prompt(self, body: bytes) -> Iterator[Piece]:
        """Yield the messages, then the settings."""
        loaded = load(body)
        yield from messages(loaded.get("messages"))
        yield from settings(loaded, SETTINGS)


OPENAI_CHAT: Final = OpenAIChat()
