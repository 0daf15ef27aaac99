"""Anthropic's Messages API, after its documentation and recorded replies."""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from typing import Any

import msgspec

from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.metrics import EngineTotals
from inferwatch_simulator.personas.base import (
    Format,
    Page,
    Persona,
    Refusal,
    Turn,
    encode,
    generation_of,
    said,
    whole_calls,
)
from inferwatch_simulator.personas.fields import ApiError
from inferwatch_simulator.personas.vllm_requests import Generation
from inferwatch_simulator.scheduler import Sequence

PING_AFTER = 1  # blocks: the service sends a ping behind the first block's start
_STOPS = {"stop": "end_turn", "length": "max_tokens"}
_KINDS = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class Messages(Format):
    """`/v1/messages`."""

    opens_early = True

    def read(self, body: dict[str, Any], config: SimulatorConfig) -> Generation:
        """Check a body."""
        if not isinstance(body.get("max_tokens"), int):
            raise ApiError(400, "", "max_tokens: Field required")
        if not body.get("messages"):
            raise ApiError(400, "", "messages: at least one message is required")
        tools = [
            {"type": "function", "function": {"name": tool["name"], "parameters": tool.get("input_schema", {})}}
            for tool in body.get("tools") or ()
        ]
        system = [{"role": "system", "content": _plain(body["system"])}] if body.get("system") else []
        thinking = (body.get("thinking") or {}).get("type") == "enabled"
        return generation_of(
            {
                "model": body.get("model"),
                "messages": system + [{"role": m["role"], "content": _plain(m["content"])} for m in body["messages"]],
                "max_tokens": body["max_tokens"],
                "stop": body.get("stop_sequences") or None,
                "tools": tools or None,
                "chat_template_kwargs": {"enable_thinking": thinking},
            },
            config,
        )

    def opening(self, turn: Turn) -> list[bytes]:
        """Return the start, with the input's count and a placeholder for the output's."""
        message = _message(turn, [], None, _usage(turn, 1))
        return [_event("message_start", {"message": message})]

    def tokens(self, turn: Turn, index: int, start: int, end: int, *, last: bool) -> bytes | None:
        """Return deltas, with the beginnings and ends of blocks."""
        answer = turn.answers[index]
        out = []
        for position in range(start, end):
            here, block = _block_of(turn, position)
            if here is None:
                continue
            before = _block_of(turn, position - 1)[1] if position else -1
            if block != before:
                out += _turn_of_blocks(turn, position, block, before)
            out.append(_event("content_block_delta", {"index": block, "delta": here}))
        if last:
            _, block = _block_of(turn, len(answer.pieces) - 1)
            if block >= 0:
                out.append(_event("content_block_stop", {"index": block}))
        return b"".join(out) or None

    def closing(self, turn: Turn, sequences: Items[Sequence]) -> list[bytes]:
        """Return how it stopped, with the output's count."""
        delta = {"stop_reason": _stop(turn), "stop_sequence": turn.answers[0].stop_reason}
        usage = {"output_tokens": turn.completion_tokens}
        return [_event("message_delta", {"delta": delta, "usage": usage}), _event("message_stop", {})]

    def reply(self, turn: Turn, sequences: Items[Sequence]) -> tuple[Mapping[str, str], Any]:
        """Return the message."""
        answer = turn.answers[0]
        words = said(answer, 0, len(answer.pieces))
        content: list[dict[str, Any]] = []
        if words.reasoning:
            content.append({"type": "thinking", "thinking": words.reasoning, "signature": "c2ln"})
        if words.content:
            content.append({"type": "text", "text": words.content})
        for position, (name, arguments) in enumerate(whole_calls(answer)):
            content.append({"type": "tool_use", "id": f"toolu_{position}", "name": name, "input": _input(arguments)})
        return {}, _message(turn, content, _stop(turn), _usage(turn, turn.completion_tokens))

    def refusal(self, error: ApiError, *, streamed: bool) -> Refusal:
        """Return its envelope; overload is 529."""
        status = 529 if error.status == 503 else error.status
        kind = "overloaded_error" if status == 529 else _KINDS.get(status, "api_error")
        content = {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": "req_1"}
        return Refusal(status, encode(content), {"request-id": "req_1"})


def _plain(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = [part.get("text") or str(part.get("content") or "") for part in content if isinstance(part, dict)]
    return "\n".join(parts)


def _input(arguments: str) -> Any:
    try:
        return msgspec.json.decode(arguments)
    except msgspec.DecodeError:  # the limit cut it off
        return {}


def _stop(turn: Turn) -> str:
    answer = turn.answers[0]
    if answer.stop_reason is not None:
        return "stop_sequence"
    return "tool_use" if answer.calls and answer.finish_reason == "stop" else _STOPS[answer.finish_reason]


def _usage(turn: Turn, output_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": turn.prompt_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output_tokens,
        "service_tier": "standard",
    }


def _message(turn: Turn, content: list[Any], stop: str | None, usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": turn.config.model,
        "id": f"msg_{turn.identity.reply_id}",
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": stop,
        "stop_sequence": turn.answers[0].stop_reason if stop else None,
        "usage": usage,
    }


def _block_of(turn: Turn, position: int) -> tuple[dict[str, Any] | None, int]:
    """Return a token's delta (None if it shows nothing), and the number of the block that is open behind it."""
    answer = turn.answers[0]
    words = said(answer, position, position + 1) if position >= 0 else said(answer, 0, 0)
    so_far = said(answer, 0, position + 1)
    block = bool(so_far.reasoning) + bool(so_far.content) + len([call for call in so_far.calls if call.name]) - 1
    if words.reasoning:
        return {"type": "thinking_delta", "thinking": words.reasoning}, block
    if words.content:
        return {"type": "text_delta", "text": words.content}, block
    if words.calls:
        return {"type": "input_json_delta", "partial_json": "".join(call.arguments for call in words.calls)}, block
    return None, block


def _turn_of_blocks(turn: Turn, position: int, block: int, before: int) -> list[bytes]:
    """Return the end of the block before and the beginning of this one."""
    words = said(turn.answers[0], position, position + 1)
    start: dict[str, Any] = {"type": "text", "text": ""}
    if words.reasoning:
        start = {"type": "thinking", "thinking": "", "signature": ""}
    elif words.calls:
        start = {"type": "tool_use", "id": f"toolu_{block}", "name": words.calls[0].name, "input": {}}
    out = [_event("content_block_stop", {"index": before})] if before >= 0 else []
    out.append(_event("content_block_start", {"index": block, "content_block": start}))
    return [*out, _event("ping", {})] if block < PING_AFTER else out


def _event(kind: str, content: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode({"type": kind} | content))


_FORMATS: Mapping[str, Format] = {"/v1/messages": Messages()}


class Anthropic(Persona):
    """The service."""

    name = "anthropic"
    server = "cloudflare"

    def formats(self) -> Mapping[str, Format]:
        """Return path -> format."""
        return _FORMATS

    def check(self, headers: Mapping[str, str]) -> None:
        """Want a key, whichever, also as the service's own client sends it (`Authorization`), and the API's version."""
        if not (headers.get("x-api-key") or headers.get("authorization")):
            raise ApiError(401, "", "x-api-key header is required")
        if not headers.get("anthropic-version"):
            raise ApiError(400, "", "anthropic-version: header is required")

    def page(self, path: str, config: SimulatorConfig, totals: EngineTotals) -> Page | None:
        """Return its models."""
        if path != "/v1/models":
            return None
        card = {"type": "model", "id": config.model, "display_name": config.model}
        return Page(encode({"data": [card], "has_more": False}))

    def not_found(self) -> Page:
        """Return its 404."""
        return Page(encode({"type": "error", "error": {"type": "not_found_error", "message": "Not Found"}}), status=404)
