"""OpenAI's Responses API: named events, one usage at the end."""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from typing import Any

from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.personas.base import Format, Refusal, Turn, encode, generation_of, said
from inferwatch_simulator.personas.fields import ApiError
from inferwatch_simulator.personas.vllm_requests import Generation
from inferwatch_simulator.scheduler import Sequence


class Responses(Format):
    """`/v1/responses`: one message of text.

    Args:
        named: events have `event:` lines.
        streams_unasked: it streams also where the request does not say so (Transformers serve).
        incomplete: an answer at its limit ends with `response.incomplete`, else with `response.completed`.
    """

    opens_early = True

    def __init__(self, *, named: bool = True, streams_unasked: bool = False, incomplete: bool = True) -> None:
        self._named = named
        self._streams_unasked = streams_unasked
        self._incomplete = incomplete

    def streams(self, body: dict[str, Any], path: str) -> bool:
        """Return whether it streams."""
        return bool(body.get("stream", self._streams_unasked))

    def read(self, body: dict[str, Any], config: SimulatorConfig) -> Generation:
        """Check a body."""
        if not body.get("input"):
            raise ApiError(400, "invalid_request_error", "Missing required parameter: 'input'.", "input")
        said_before = body["input"]
        messages = [{"role": "user", "content": said_before}] if isinstance(said_before, str) else said_before
        if body.get("instructions"):
            messages = [{"role": "system", "content": body["instructions"]}, *messages]
        return generation_of(
            {"model": body.get("model"), "messages": messages, "max_tokens": body.get("max_output_tokens")}, config
        )

    def opening(self, turn: Turn) -> list[bytes]:
        """Return what is told before any token."""
        begun = _response(turn, "in_progress", [], None)
        item = {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        part = {"type": "output_text", "annotations": [], "text": ""}
        return [
            self._event("response.created", {"response": begun}),
            self._event("response.in_progress", {"response": begun}),
            self._event("response.output_item.added", {"output_index": 0, "item": item}),
            self._event("response.content_part.added", {"item_id": "msg_1", "output_index": 0, "part": part}),
        ]

    def tokens(self, turn: Turn, index: int, start: int, end: int, *, last: bool) -> bytes | None:
        """Return a delta."""
        text = said(turn.answers[index], start, end).content
        if not text:
            return None
        delta = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": text}
        return self._event("response.output_text.delta", delta)

    def closing(self, turn: Turn, sequences: Items[Sequence]) -> list[bytes]:
        """Return everything once more, and the usage."""
        whole = _finished(turn, sequences)
        text = whole["output"][0]["content"][0]["text"]
        ends = "incomplete" if whole["status"] == "incomplete" and self._incomplete else "completed"
        return [
            self._event("response.output_text.done", {"item_id": "msg_1", "output_index": 0, "text": text}),
            self._event("response.output_item.done", {"output_index": 0, "item": whole["output"][0]}),
            self._event(f"response.{ends}", {"response": whole}),
        ]

    def reply(self, turn: Turn, sequences: Items[Sequence]) -> tuple[Mapping[str, str], Any]:
        """Return the response."""
        return {}, _finished(turn, sequences)

    def refusal(self, error: ApiError, *, streamed: bool) -> Refusal:
        """Return OpenAI's envelope."""
        return Refusal(error.status, error.body())

    def _event(self, kind: str, content: dict[str, Any]) -> bytes:
        data = b"data: %b\n\n" % encode({"type": kind, "sequence_number": 0} | content)
        return b"event: %b\n%b" % (kind.encode(), data) if self._named else data


def _finished(turn: Turn, sequences: Items[Sequence]) -> dict[str, Any]:
    answer = turn.answers[0]
    text = said(answer, 0, len(answer.pieces)).content
    part = {"type": "output_text", "annotations": [], "text": text}
    item = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    usage = {
        "input_tokens": turn.prompt_tokens,
        "input_tokens_details": {"cached_tokens": sequences[0].cached_tokens},
        "output_tokens": turn.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": turn.reasoning_tokens},
        "total_tokens": turn.prompt_tokens + turn.completion_tokens,
    }
    status = "incomplete" if answer.finish_reason == "length" else "completed"
    return _response(turn, status, [item], usage)


def _response(turn: Turn, status: str, output: list[Any], usage: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "id": f"resp_{turn.identity.reply_id}",
        "object": "response",
        "created_at": turn.identity.created,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": None,
        "model": turn.config.model,
        "output": output,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage,
        "metadata": {},
    }
