"""Ollama: records of NDJSON, streamed unless told not to; OpenAI's routes beside. After its source and recordings."""

import datetime as dt
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
from inferwatch_simulator.personas.openai_style import OpenAIFormat, Style
from inferwatch_simulator.personas.vllm_requests import Generation
from inferwatch_simulator.scheduler import Sequence

VERSION = "0.11.4"
_STYLE = Style(fingerprint="fp_ollama", reasoning="reasoning", separate_finish=True)


class Native(Format):
    """`/api/chat` or `/api/generate`."""

    content_type = "application/x-ndjson"

    def __init__(self, *, chat: bool) -> None:
        self._chat = chat

    def streams(self, body: dict[str, Any], path: str) -> bool:
        """Return whether it streams, which is the default."""
        return body.get("stream") is not False

    def read(self, body: dict[str, Any], config: SimulatorConfig) -> Generation:
        """Check a body."""
        model = body.get("model")
        if not model:
            raise ApiError(400, "", "model is required")
        if model != config.model:
            raise ApiError(404, "", f"model '{model}' not found")
        options = body.get("options") or {}
        limit = options.get("num_predict", -1)
        request: dict[str, Any] = {
            "max_tokens": limit if limit > 0 else config.default_max_tokens,
            "stop": options.get("stop") or None,
            "seed": options.get("seed"),
        }
        if self._chat:
            request |= {"messages": body.get("messages") or [], "tools": body.get("tools") or None}
            request["chat_template_kwargs"] = {"enable_thinking": bool(body.get("think"))}
        else:
            request["prompt"] = f"{body.get('system') or ''}{body.get('prompt') or ''}" or " "
        return generation_of(request, config)

    def tokens(self, turn: Turn, index: int, start: int, end: int, *, last: bool) -> bytes | None:
        """Return a record of what is new; a call comes whole, when it is complete."""
        answer = turn.answers[index]
        words = said(answer, start, end)
        message: dict[str, Any] = {"role": "assistant", "content": words.content}
        if words.reasoning:
            message["thinking"] = words.reasoning
        if last and answer.calls:
            message["tool_calls"] = _calls(turn, index)
        if not (words.content or words.reasoning or "tool_calls" in message):
            return None
        return self._record(turn, message, {"done": False}) + b"\n"

    def closing(self, turn: Turn, sequences: Items[Sequence]) -> list[bytes]:
        """Return the record with the counts."""
        return [self._record(turn, {"role": "assistant", "content": ""}, _end(turn, sequences)) + b"\n"]

    def reply(self, turn: Turn, sequences: Items[Sequence]) -> tuple[Mapping[str, str], Any]:
        """Return one record with everything."""
        answer = turn.answers[0]
        words = said(answer, 0, len(answer.pieces))
        message: dict[str, Any] = {"role": "assistant", "content": words.content}
        if words.reasoning:
            message["thinking"] = words.reasoning
        if answer.calls:
            message["tool_calls"] = _calls(turn, 0)
        return {}, self._content(turn, message, _end(turn, sequences))

    def refusal(self, error: ApiError, *, streamed: bool) -> Refusal:
        """Return a message alone."""
        return Refusal(error.status, encode({"error": error.message}))

    def _record(self, turn: Turn, message: dict[str, Any], rest: dict[str, Any]) -> bytes:
        return encode(self._content(turn, message, rest))

    def _content(self, turn: Turn, message: dict[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
        now = dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z")
        head: dict[str, Any] = {"model": turn.config.model, "created_at": now}
        if self._chat:
            return {**head, "message": message, **rest}
        thinking = {"thinking": message["thinking"]} if "thinking" in message else {}
        return {**head, "response": message["content"], **thinking, **rest}


def _calls(turn: Turn, index: int) -> list[dict[str, Any]]:
    return [
        {"function": {"name": name, "arguments": _arguments(text)}} for name, text in whole_calls(turn.answers[index])
    ]


def _arguments(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:  # the limit cut it off
        return {}


def _end(turn: Turn, sequences: Items[Sequence]) -> dict[str, Any]:
    """Durations in nanoseconds; what is 0 is left out."""
    first = sequences[0]
    admitted_s, begun_s, last_s = first.admitted_s or 0.0, first.first_token_s or 0.0, first.last_token_s or 0.0
    figures = {
        "total_duration": _ns(last_s - first.arrival_s),
        "load_duration": 1_000_000,
        "prompt_eval_count": turn.prompt_tokens,
        "prompt_eval_duration": _ns(begun_s - admitted_s),
        "eval_count": turn.completion_tokens,
        "eval_duration": _ns(last_s - begun_s),
    }
    return {"done": True, "done_reason": turn.answers[0].finish_reason} | {k: v for k, v in figures.items() if v}


def _ns(seconds: float) -> int:
    return max(0, round(seconds * 1e9))


class OpenAI(OpenAIFormat):
    """OpenAI's routes with Ollama's errors."""

    def refusal(self, error: ApiError, *, streamed: bool) -> Refusal:
        """Return OpenAI's envelope without a code."""
        kinds = {404: "not_found_error"}
        content = {"message": error.message, "type": kinds.get(error.status, "api_error"), "param": None, "code": None}
        return Refusal(error.status, encode({"error": content}))


_FORMATS: Mapping[str, Format] = {
    "/api/chat": Native(chat=True),
    "/api/generate": Native(chat=False),
    "/v1/chat/completions": OpenAI(_STYLE, chat=True),
    "/v1/completions": OpenAI(_STYLE, chat=False),
}


class Ollama(Persona):
    """The server. It has no metrics."""

    name = "ollama"
    server = ""

    def formats(self) -> Mapping[str, Format]:
        """Return path -> format."""
        return _FORMATS

    def page(self, path: str, config: SimulatorConfig, totals: EngineTotals) -> Page | None:
        """Return its version and its models."""
        match path:
            case "/":
                return Page(b"Ollama is running", "text/plain; charset=utf-8")
            case "/api/version":
                return Page(encode({"version": VERSION}))
            case "/api/tags":
                return Page(encode({"models": [{"name": config.model, "model": config.model, "size": 1}]}))
            case "/v1/models":
                card = {"id": config.model, "object": "model", "created": 1, "owned_by": "library"}
                return Page(encode({"object": "list", "data": [card]}))
            case _:
                return None

    def not_found(self) -> Page:
        """Return gin's 404."""
        return Page(b"404 page not found", "text/plain", 404)
