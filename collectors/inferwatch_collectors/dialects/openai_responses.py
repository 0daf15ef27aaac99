"""OpenAI Responses (`/v1/responses`): named events, one usage at the end, no `[DONE]`.

The event's name stands in its data as well, and only there with Transformers serve. `response.completed` ends it also
where the answer is incomplete (vLLM); OpenAI has `response.incomplete` for that. Only the events that end it have a
usage, so a stream that is cut leaves no count behind. Deltas are the generated output: `response.created` and
`in_progress` come before any token, the `…done` events say everything once more.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Final

import msgspec

from inferwatch_collectors.dialects.base import ANSWER, REASONING, TOOL_CALL, Observation
from inferwatch_collectors.dialects.content import (
    BAD_JSON,
    SETTINGS,
    Piece,
    Source,
    load,
    messages,
    settings,
    strings,
    texts,
)
from inferwatch_collectors.dialects.lenient import load_object, salvage
from inferwatch_collectors.dialects.reading import (
    CountingDialect,
    advance,
    decoded,
    note_error,
    note_finish,
    note_names,
    tell,
    whole_reply,
)
from inferwatch_collectors.dialects.usage import CompletionDetails, Count, PromptDetails, Usage


class ResponsesUsage(msgspec.Struct, gc=False):
    """`usage` of a response."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    input_tokens_details: PromptDetails | None = None
    output_tokens_details: CompletionDetails | None = None
    total_tokens: Count | None = None

    def usage(self) -> Usage:
        """Return it in the words of the older API."""
        return Usage(
            self.input_tokens,
            self.output_tokens,
            self.input_tokens_details,
            self.output_tokens_details,
            total_tokens=self.total_tokens,
        )


class Incomplete(msgspec.Struct, gc=False):
    """Why a response is not complete."""

    reason: str | None = None


class Response(msgspec.Struct, gc=False):
    """A response: a plain reply, or what the first and the last event hold."""

    id: str | None = None
    model: str | None = None
    status: str | None = None
    usage: ResponsesUsage | None = None
    error: Any = None
    incomplete_details: Incomplete | None = None


class Event(msgspec.Struct, gc=False):
    """One event."""

    type: str | None = None
    delta: Any = None
    response: Response | None = None
    error: Any = None
    code: Any = None  # of the event `error`, which holds its fields itself


_decode_event: Final = msgspec.json.Decoder(Event).decode
_decode_reply: Final = msgspec.json.Decoder(Response).decode
_decode_usage: Final = msgspec.json.Decoder(ResponsesUsage).decode

_DELTAS: Final = {
    "response.output_text.delta": ANSWER,
    "response.refusal.delta": ANSWER,
    "response.audio.delta": ANSWER,
    "response.audio.transcript.delta": ANSWER,
    "response.reasoning.delta": REASONING,
    "response.reasoning_text.delta": REASONING,
    "response.reasoning_summary.delta": REASONING,
    "response.reasoning_summary_text.delta": REASONING,
    "response.function_call_arguments.delta": TOOL_CALL,
    "response.custom_tool_call_input.delta": TOOL_CALL,
    "response.mcp_call_arguments.delta": TOOL_CALL,
    "response.mcp_call.arguments.delta": TOOL_CALL,
    "response.code_interpreter_call_code.delta": TOOL_CALL,
}

_ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})

# A response that runs in the background is told of before it has generated anything.
_UNDER_WAY: Final = frozenset({"queued", "in_progress"})


class OpenAIResponses(CountingDialect):
    """One prompt, one answer, which may be of several items."""

    operation = "chat"
    generates: ClassVar[bool] = True

    def prompt(self, body: bytes) -> Iterator[Piece]:
        """Yield the instructions, the items of the input, and the settings."""
        loaded = load(body)
        for text in texts(loaded.get("instructions")):
            yield Piece(Source.SYSTEM, text)
        items = loaded.get("input")
        if isinstance(items, str):
            items = [{"content": items}]
        yield from messages(items)
        for item in items if isinstance(items, list) else ():
            if isinstance(item, dict):
                yield from _of_tools(item)
        yield from settings(loaded, SETTINGS)

    def read_event(self, observation: Observation, stamp_ns: int, name: bytes, data: bytes) -> None:
        """Take one event."""
        event = decoded(observation, data, _decode_event, Event)
        if event is None:
            observation.error |= name == b"error"
            return
        observation.events += 1
        kind = event.type or name.decode("latin-1")
        if event.error or kind == "error":
            note_error(observation, event.error or {"type": event.code, "code": event.code})
        if event.delta:
            classes = _DELTAS.get(kind, 0)
            if classes:
                advance(observation, stamp_ns, 0, classes, None)
                tell(observation, stamp_ns, 0, classes, event.delta)
        elif event.response is not None:
            _note(observation, event.response, ends=kind in _ENDS)

    def read_reply(self, observation: Observation, body: bytes) -> None:
        """Take a response."""
        reply = whole_reply(observation, body, _decode_reply, Response)
        if reply is not None:
            _note(observation, reply, ends=reply.status not in _UNDER_WAY)

    def tell_reply(self, observation: Observation, stamp_ns: int, body: bytes) -> None:
        """Tell what the items of the output say."""
        output = load(body).get("output")
        for item in output if isinstance(output, list) else ():
            if not isinstance(item, dict):
                continue
            reasons = item.get("type") == "reasoning"
            for text in (*texts(item.get("content")), *texts(item.get("summary"))):
                tell(observation, stamp_ns, 0, REASONING if reasons else ANSWER, text)
            tell(observation, stamp_ns, 0, TOOL_CALL, item.get("arguments") or item.get("input"))

    def read_usage(self, raw: bytes) -> Usage | None:
        """Return the usage object in `raw` JSON, None if it is none."""
        try:
            return _decode_usage(raw).usage()
        except BAD_JSON:
            loaded = load_object(raw)
            return None if loaded is None else salvage(loaded, ResponsesUsage).usage()

    def unfinished(self, observation: Observation) -> bool:
        """Return whether the event that ends it never came."""
        return not observation.done


def _of_tools(item: dict[str, Any]) -> Iterator[Piece]:
    """Yield what an item says of a call of a tool: its arguments are the model's, its output the tool's."""
    for text in strings([item.get("arguments"), item.get("input")]):
        yield Piece(Source.ASSISTANT, text)
    for text in (*texts(item.get("output")), *strings(item.get("summary"))):
        yield Piece(Source.TOOL if "output" in item else Source.ASSISTANT, text)


def _note(observation: Observation, response: Response, *, ends: bool) -> None:
    note_names(observation, response.id, response.model)
    if response.usage is not None:
        observation.final = response.usage.usage()
    if response.error or response.status == "failed":
        note_error(observation, response.error)
    if ends:
        observation.done = True
        why = response.incomplete_details
        note_finish(observation, 0, why.reason if why is not None and why.reason else response.status)


OPENAI_RESPONSES: Final = OpenAIResponses()
