"""OpenAI chat completions: `choices[].delta`."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from inferwatch.record import TokenClass, TokenSource
from inferwatch_collectors.dialects.base import ANSWER, REASONING, TOOL_CALL, Observation, RequestFacts
from inferwatch_collectors.dialects.content import BAD_JSON, SETTINGS, Piece, load, messages, settings, strings, texts
from inferwatch_collectors.dialects.openai_common import OpenAIStreams, WireChoice, WireReply
from inferwatch_collectors.dialects.usage import Totals


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


_THINKING: Final = "thinking"


def generated_classes(choice: ChatChoice) -> int:
    """Return the classes (bits) of generated output in a chunk's choice; 0 for a role, an empty text, a bare finish."""
    delta = choice.delta
    if delta is None:
        return 0
    content = delta.content
    classes = ANSWER if content or delta.refusal or delta.audio else 0
    if type(content) is list:
        classes = _classes_of_parts(content) | (ANSWER if delta.refusal or delta.audio else 0)
    if delta.reasoning or delta.reasoning_content:
        classes |= REASONING
    if delta.tool_calls or delta.function_call:
        classes |= _tool_class(delta)
    return classes


def _classes_of_parts(parts: list[Any]) -> int:
    """Return the classes of a content in parts: Mistral's parts of type `thinking` are reasoning."""
    classes = 0
    for part in parts:
        if not isinstance(part, dict):
            classes |= ANSWER
        elif part.get("type") == _THINKING:
            classes |= REASONING if part.get("thinking") else 0
        elif part.get("text") != "":
            classes |= ANSWER
    return classes


def _thoughts(content: str | list[Any] | None) -> Iterator[str]:
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and part.get("type") == _THINKING:
            yield from texts(part.get("thinking"))


def _tool_class(delta: Delta) -> int:
    """Return TOOL_CALL if a name or a piece of the arguments is there: an index with nothing more is no output."""
    calls = [call.function for call in delta.tool_calls or () if call.function is not None]
    if delta.function_call is not None:
        calls.append(delta.function_call)
    named = any(call.name or call.arguments for call in calls)
    return TOOL_CALL if named or any(call.custom for call in delta.tool_calls or ()) else 0


def generated_texts(choice: ChatChoice) -> Iterable[tuple[int, str]]:
    """Return what a chunk's choice says, with the class of each text: names of tools are not text, arguments are."""
    delta = choice.delta
    if delta is None:
        return ()
    content = delta.content
    others = delta.reasoning or delta.reasoning_content or delta.refusal or delta.tool_calls or delta.function_call
    if others or not isinstance(content, str):
        return _all_texts(delta)
    return ((ANSWER, content),) if content else ()  # an ordinary token: a generator costs more than the rest


def _all_texts(delta: Delta) -> Iterator[tuple[int, str]]:
    for text in (*texts(delta.reasoning or delta.reasoning_content), *_thoughts(delta.content)):
        yield REASONING, text
    for text in (*texts(delta.content), *texts(delta.refusal)):
        yield ANSWER, text
    calls: list[Any] = [call.function.arguments for call in delta.tool_calls or () if call.function is not None]
    calls += [call.custom for call in delta.tool_calls or ()]
    if delta.function_call is not None:
        calls.append(delta.function_call.arguments)
    for text in strings(calls):
        yield TOOL_CALL, text


class _Body(msgspec.Struct, gc=False):
    tools: list[Any] | None = None
    tool_choice: Any = None


_decode_body: Final = msgspec.json.Decoder(_Body).decode

# Inside a string the quotes would be escaped.
_CALLS: Final = re.compile(rb'"tool_calls"\s*:\s*\[')

_NO_TOOLS: Final = RequestFacts()
_TOOLS: Final = RequestFacts(offers_tools=True)


class OpenAIChat(OpenAIStreams):
    """`/v1/chat/completions`. One prompt, whatever the number of choices.

    TGI, offered tools, first generates a call, be it of `no_tool`; then it answers in text by a second generation, and
    its usage and head are those of the second alone. What the first took nobody tells, so such a count is marked.
    """

    operation = "chat"

    def __init__(self) -> None:
        super().__init__(ChatChunk, generated_classes, generated_texts)

    def facts(self, body: bytes, choices: int) -> RequestFacts:
        """Read whether tools are offered; few requests do, so most bodies are not decoded."""
        if b'"tools"' not in body:
            return _NO_TOOLS
        try:
            asked = _decode_body(body)
        except BAD_JSON:
            return _NO_TOOLS
        return _TOOLS if asked.tools and asked.tool_choice != "none" else _NO_TOOLS

    def read_reply(self, observation: Observation, body: bytes) -> None:
        """Take a plain reply."""
        super().read_reply(observation, body)
        if observation.facts.offers_tools and _CALLS.search(body) is None:
            observation.own = _IN_TEXT

    def totals(self, observation: Observation, choices: int) -> Totals:
        """Return the counts; of TGI's second generation as a part."""
        totals = super().totals(observation, choices)
        if observation.facts.offers_tools and totals.source is TokenSource.FINAL_USAGE and _is_second(observation):
            return totals._replace(source=TokenSource.PARTIAL_USAGE)
        return totals

    def prompt(self, body: bytes) -> Iterator[Piece]:
        """Yield the messages, then the settings."""
        loaded = load(body)
        yield from messages(loaded.get("messages"))
        yield from settings(loaded, SETTINGS)


# What a plain reply leaves in `Observation.own`: it was offered tools, and answered in text.
_IN_TEXT: Final = "text"


def _is_second(observation: Observation) -> bool:
    """Return whether an answer to a request with tools is TGI's, known by an id that is always empty, and in text."""
    in_text = observation.first_class is TokenClass.ANSWER or observation.own is _IN_TEXT
    return in_text and not observation.engine_id and bool(observation.engine_model) and not observation.lossy


OPENAI_CHAT: Final = OpenAIChat()
