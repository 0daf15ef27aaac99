"""llama.cpp server: `/completion` with counts in every event, OpenAI's with `timings`. After the server itself."""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from typing import Any

from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.metrics import EngineTotals
from inferwatch_simulator.personas.base import (
    Format,
    Page,
    Persona,
    Refusal,
    Turn,
    encode,
    event,
    exposition,
    generation_of,
    said,
)
from inferwatch_simulator.personas.fields import ApiError
from inferwatch_simulator.personas.openai_style import DONE, OpenAIFormat, Style
from inferwatch_simulator.personas.vllm_requests import Generation
from inferwatch_simulator.scheduler import Sequence
from inferwatch_simulator.text import Prompt

_STYLE = Style(fingerprint="b1-0c1e570", reasoning="reasoning_content", check_model=False)
_STOP_TYPES = {"stop": "eos", "length": "limit"}
_KINDS = {400: "invalid_request_error", 404: "not_found_error", 503: "unavailable_error"}


class Completion(Format):
    """`/completion`, and `/completions` without a version."""

    def read(self, body: dict[str, Any], config: SimulatorConfig) -> Generation:
        """Check a body."""
        if "prompt" not in body:
            raise ApiError(400, "", '"prompt" is missing')
        limit = body.get("n_predict", -1)
        request = {"prompt": body["prompt"], "stop": body.get("stop") or None, "seed": body.get("seed")}
        return generation_of(request | {"max_tokens": limit if limit > 0 else config.default_max_tokens}, config)

    def tokens(self, turn: Turn, index: int, start: int, end: int, *, last: bool) -> bytes | None:
        """Return what is new, with the counts so far; the last event is one of its own."""
        answer = turn.answers[index]
        text = said(answer, start, end).content
        part = {
            "index": index,
            "content": text,
            "tokens": [piece.token_id for piece in answer.pieces[start:end]],
            "stop": False,
            "id_slot": 0,
            "tokens_predicted": end,
            "tokens_evaluated": _prompt_of(turn, index).tokens,
        }
        out = event(part) if text or not last else b""
        return out + event(_final(turn, index, 0)) if last else out

    def reply(self, turn: Turn, sequences: Items[Sequence]) -> tuple[Mapping[str, str], Any]:
        """Return an object, or an array for a list of prompts."""
        finals = []
        for index, answer in enumerate(turn.answers):
            text = said(answer, 0, len(answer.pieces)).content
            finals.append(_final(turn, index, sequences[index].cached_tokens) | {"content": text})
        return {}, finals if isinstance(turn.body["prompt"], list) else finals[0]

    def refusal(self, error: ApiError, *, streamed: bool) -> Refusal:
        """Return its error object."""
        return _refusal(error)


class OpenAI(OpenAIFormat):
    """OpenAI's routes as llama.cpp has them: each choice is a task of its own, and counted when it ends.

    Completions tell unasked, chat only has `timings` then; of a plain reply with several choices the counts are those
    of the first. A stream of several prompts begins with `null`.
    """

    def opening(self, turn: Turn) -> list[bytes]:
        """Return what comes with the first token of each choice."""
        if not self._chat:
            return [event(None)] if len(turn.generation.prompts) > 1 else []
        delta = {"role": "assistant", "content": None}
        return [event(self._chunk(turn, index, delta, None, 0)) for index in range(len(turn.answers))]

    def tokens(self, turn: Turn, index: int, start: int, end: int, *, last: bool) -> bytes | None:
        """Return the chunk of some tokens; behind the finish of a choice of chat the usage that was asked for."""
        out = super().tokens(turn, index, start, end, last=last)
        if not (last and self._chat and turn.generation.include_usage):
            return out
        counts = {"usage": self._counts(turn, index, 0), "timings": _timings(turn, index, 0)}
        return (out or b"") + event({"choices": [], **self._common(turn), **counts})

    def closing(self, turn: Turn, sequences: Items[Sequence]) -> list[bytes]:
        """Return the end mark."""
        return [DONE]

    def reply(self, turn: Turn, sequences: Items[Sequence]) -> tuple[Mapping[str, str], Any]:
        """Return the whole of it, with the counts of the first choice."""
        _, content = super().reply(turn, sequences)
        cached = sequences[0].cached_tokens
        counts = {"usage": self._counts(turn, 0, cached), "timings": _timings(turn, 0, cached)}
        return {}, {"choices": content["choices"], **content, **counts}

    def _chunk(self, turn: Turn, index: int, delta: Any, finish: str | None, generated: int) -> dict[str, Any]:
        chunk = super()._chunk(turn, index, delta, finish, generated)
        return {"choices": chunk["choices"], **chunk}

    def _add_to_finish(self, chunk: dict[str, Any], turn: Turn, index: int) -> None:
        if not self._chat:
            chunk["usage"] = self._counts(turn, index, 0)
        elif turn.generation.include_usage:
            return
        chunk["timings"] = _timings(turn, index, 0)

    def _counts(self, turn: Turn, index: int, cached: int) -> dict[str, Any]:
        prompt, completion = _prompt_of(turn, index).tokens, len(turn.answers[index].pieces)
        return {
            "completion_tokens": completion,
            "prompt_tokens": prompt,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def refusal(self, error: ApiError, *, streamed: bool) -> Refusal:
        """Return its error object."""
        return _refusal(error)


def _refusal(error: ApiError) -> Refusal:
    status = 400 if error.status == 422 else error.status
    content = {"code": status, "message": error.message, "type": _KINDS.get(status, "server_error")}
    return Refusal(status, encode({"error": content}))


def _final(turn: Turn, index: int, cached: int) -> dict[str, Any]:
    answer, prompt = turn.answers[index], _prompt_of(turn, index)
    predicted = len(answer.pieces)
    return {
        "index": index,
        "content": "",
        "tokens": [],
        "id_slot": 0,
        "stop": True,
        "model": turn.config.model,
        "tokens_predicted": predicted,
        "tokens_evaluated": prompt.tokens,
        "generation_settings": {"n_predict": turn.body.get("n_predict", -1)},
        "prompt": prompt.text,
        "has_new_line": False,
        "truncated": False,
        "stop_type": _STOP_TYPES[answer.finish_reason],
        "stopping_word": "",
        "tokens_cached": prompt.tokens + predicted - 1,
        "timings": _timings(turn, index, cached),
    }


def _prompt_of(turn: Turn, index: int) -> Prompt:
    return turn.generation.prompts[index // turn.generation.n]


def _timings(turn: Turn, index: int, cached: int) -> dict[str, Any]:
    computed, predicted = _prompt_of(turn, index).tokens - cached, len(turn.answers[index].pieces)
    return {
        "cache_n": cached,
        "prompt_n": computed,
        "prompt_ms": 20.0,
        "prompt_per_token_ms": 20.0 / max(1, computed),
        "prompt_per_second": computed / 0.02,
        "predicted_n": predicted,
        "predicted_ms": 10.0 * predicted,
        "predicted_per_token_ms": 10.0,
        "predicted_per_second": 100.0,
    }


_FORMATS: Mapping[str, Format] = {
    "/completion": Completion(),
    "/completions": Completion(),
    "/v1/chat/completions": OpenAI(_STYLE, chat=True),
    "/chat/completions": OpenAI(_STYLE, chat=True),
    "/v1/completions": OpenAI(_STYLE, chat=False),
}


class LlamaCpp(Persona):
    """The server."""

    name = "llamacpp"
    server = "llama.cpp"

    def formats(self) -> Mapping[str, Format]:
        """Return path -> format."""
        return _FORMATS

    def page(self, path: str, config: SimulatorConfig, totals: EngineTotals) -> Page | None:
        """Return its models, its health and its metrics."""
        match path:
            case "/v1/models" | "/models":
                card = {"id": config.model, "object": "model", "created": 1, "owned_by": "llamacpp"}
                return Page(encode({"object": "list", "data": [card]}))
            case "/health":
                return Page(b'{"status":"ok"}')
            case "/metrics":
                return Page(_metrics(totals), "text/plain; version=0.0.4")
            case _:
                return None

    def not_found(self) -> Page:
        """Return its 404."""
        return Page(b'{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}', status=404)


def _metrics(totals: EngineTotals) -> bytes:
    """`prompt_tokens_total` leaves out what came from the cache."""
    return exposition(
        [
            ("llamacpp:prompt_tokens_total", "counter", {}, totals.prompt_tokens - totals.cached_tokens),
            ("llamacpp:prompt_tokens_cached_total", "counter", {}, totals.cached_tokens),
            ("llamacpp:tokens_predicted_total", "counter", {}, totals.completion_tokens),
            ("llamacpp:requests_processing", "gauge", {}, totals.running),
            ("llamacpp:requests_deferred", "gauge", {}, totals.waiting),
        ]
    )
