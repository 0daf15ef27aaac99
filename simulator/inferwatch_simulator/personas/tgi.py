"""Text Generation Inference: its own API, its heads, its errors (of streams: at 200), its metrics.

After the router's source at db931fcf and its recorded replies. `data:` has no blank behind it on its own streams. A
plain reply's head tells the counts and times; a stream's does not.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from typing import Any

import msgspec

from inferwatch_simulator.answers import Answer
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
from inferwatch_simulator.personas.openai_style import OpenAIFormat, Style
from inferwatch_simulator.personas.vllm_requests import Generation
from inferwatch_simulator.scheduler import Sequence

VERSION = "3.3.6"
DEFAULT_MAX_NEW_TOKENS = 100
_FINISH = {"stop": "eos_token", "length": "length"}
_STYLE = Style(
    fingerprint=f"{VERSION}-native",
    empty_id=True,
    usage_null="always",
    role="every",
    separate_finish=True,
    errors="tgi",
    check_model=False,
)
_STREAM_HEAD = {"x-compute-type": "gpu+optimized", "x-accel-buffering": "no", "cache-control": "no-cache"}

_FAILED = "Request failed during generation: Server error: simulated failure"


class Generate(Format):
    """`/generate`, `/generate_stream`, and `/`, which is either."""

    stream_headers = _STREAM_HEAD

    def __init__(self, streams: bool | None) -> None:
        self._streams = streams

    def streams(self, body: dict[str, Any], path: str) -> bool:
        """Return whether the route or the body streams."""
        return bool(body.get("stream")) if self._streams is None else self._streams

    def read(self, body: dict[str, Any], config: SimulatorConfig) -> Generation:
        """Check a body."""
        if not isinstance(body.get("inputs"), str):
            raise ApiError(
                422, "validation", "Failed to deserialize the JSON body into the target type: missing field `inputs`"
            )
        parameters = body.get("parameters") or {}
        tokens = parameters.get("max_new_tokens")
        tokens = DEFAULT_MAX_NEW_TOKENS if tokens is None else tokens
        if tokens <= 0:
            raise ApiError(422, "validation", "Input validation error: `max_new_tokens` must be strictly positive")
        best_of = parameters.get("best_of") or 1
        if not body["inputs"]:
            raise ApiError(422, "validation", "Input validation error: `inputs` cannot be empty")
        request = {
            "prompt": body["inputs"],
            "max_tokens": tokens,
            "stop": parameters.get("stop") or None,
            "seed": parameters.get("seed"),
            "n": best_of,
        }
        return generation_of(request, config)

    def tokens(self, turn: Turn, index: int, start: int, end: int, *, last: bool) -> bytes | None:
        """Return an event for each token: TGI has no other."""
        answer = turn.answers[index]
        events = []
        for position in range(start, end):
            ends = last and position == end - 1
            content = {
                "index": position + 1,
                "token": _token(answer, position),
                "generated_text": said(answer, 0, end).content if ends else None,
                "details": self._details(turn, answer) if ends else None,
            }
            events.append(event(content, start=b"data:"))
        return b"".join(events)

    def reply(self, turn: Turn, sequences: Items[Sequence]) -> tuple[Mapping[str, str], Any]:
        """Return the best sequence, and what it took in the head."""
        best = turn.answers[0]
        content: dict[str, Any] = {"generated_text": said(best, 0, len(best.pieces)).content}
        parameters = turn.body.get("parameters") or {}
        if parameters.get("details") or parameters.get("decoder_input_details"):
            shown = parameters.get("decoder_input_details")
            others = [_sequence(turn, other, shown) for other in turn.answers[1:]]
            content["details"] = _sequence(turn, best, shown) | ({"best_of_sequences": others} if others else {})
        return _head(turn, best, sequences), [content] if turn.path == "/" else content

    def refusal(self, error: ApiError, *, streamed: bool) -> Refusal:
        """Return the flat error; in a stream it is an event."""
        kind = "overloaded" if error.status in (429, 503) else "validation"
        message = "Model is overloaded" if kind == "overloaded" else error.message
        flat = {"error": message, "error_type": kind}
        status = 429 if kind == "overloaded" else 422
        return Refusal(status, encode(flat), event=event(flat, start=b"data:") if streamed else None)

    def failure(self) -> Items[bytes]:
        """Return the flat error of its type `generation`; no end mark follows."""
        return [event({"error": _FAILED, "error_type": "generation"}, start=b"data:")]

    def _details(self, turn: Turn, answer: Answer) -> dict[str, Any] | None:
        if not (turn.body.get("parameters") or {}).get("details"):
            return None
        return {
            "finish_reason": _FINISH[answer.finish_reason],
            "generated_tokens": len(answer.pieces),
            "seed": turn.body["parameters"].get("seed"),
            "input_length": turn.prompt_tokens,
        }


def _token(answer: Answer, position: int) -> dict[str, Any]:
    piece = answer.pieces[position]
    special = position == len(answer.pieces) - 1 and answer.finish_reason == "stop" and not piece.text
    text = "</s>" if special else piece.text
    return {"id": piece.token_id, "text": text, "logprob": -(piece.token_id % 997) / 400, "special": special}


def _sequence(turn: Turn, answer: Answer, prefill: Any) -> dict[str, Any]:
    prompt = turn.generation.prompts[0]
    return {
        "finish_reason": _FINISH[answer.finish_reason],
        "generated_tokens": len(answer.pieces),
        "seed": (turn.body.get("parameters") or {}).get("seed"),
        "prefill": [{"id": 1, "text": text, "logprob": None} for text in prompt.pieces] if prefill else [],
        "tokens": [_token(answer, position) for position in range(len(answer.pieces))],
    }


def _head(turn: Turn, best: Answer, sequences: Items[Sequence]) -> dict[str, str]:
    first = sequences[0]
    admitted_s, last_s = first.admitted_s or first.arrival_s, first.last_token_s or first.arrival_s
    inference_s, queue_s = last_s - admitted_s, admitted_s - first.arrival_s
    return {
        "x-compute-type": "gpu+optimized",
        "x-compute-time": f"{queue_s + inference_s:.6f}",
        "x-compute-characters": str(sum(len(prompt.text) for prompt in turn.generation.prompts)),
        "x-total-time": str(round((queue_s + inference_s) * 1000)),
        "x-validation-time": "0",
        "x-queue-time": str(round(queue_s * 1000)),
        "x-inference-time": str(round(inference_s * 1000)),
        "x-time-per-token": str(round(inference_s * 1000 / len(best.pieces))),
        "x-prompt-tokens": str(turn.prompt_tokens),
        "x-generated-tokens": str(len(best.pieces)),
    }


class Chat(OpenAIFormat):
    """OpenAI's routes, with TGI's head on plain replies."""

    stream_headers = _STREAM_HEAD

    def reply(self, turn: Turn, sequences: Items[Sequence]) -> tuple[Mapping[str, str], Any]:
        """Return the whole of it, and what it took."""
        _, content = super().reply(turn, sequences)
        totals = {"x-generated-tokens": str(turn.completion_tokens)}
        return _head(turn, turn.answers[0], sequences) | totals, content

    def failure(self) -> Items[bytes]:
        """Return the error with its one status, 422, whatever it is."""
        return [event({"error": {"message": _FAILED, "http_status_code": 422}})]


class TGI(Persona):
    """The router."""

    name = "tgi"
    server = ""

    def formats(self) -> Mapping[str, Format]:
        """Return path -> format."""
        return _FORMATS

    def page(self, path: str, config: SimulatorConfig, totals: EngineTotals) -> Page | None:
        """Return what it is, its models, its health and its metrics."""
        match path:
            case "/info":
                return Page(encode(_info(config)))
            case "/v1/models":
                card = {"id": config.model, "object": "model", "created": 0, "owned_by": config.model}
                return Page(encode({"object": "list", "data": [card]}))
            case "/health" | "/ping":
                return Page(b"", "text/plain")
            case "/metrics":
                return Page(_metrics(totals), "text/plain; charset=utf-8")
            case _:
                return None

    def not_found(self) -> Page:
        """Return axum's empty 404."""
        return Page(b"", "text/plain", 404)


_FORMATS: Mapping[str, Format] = {
    "/": Generate(None),
    "/generate": Generate(False),
    "/generate_stream": Generate(True),
    "/v1/chat/completions": Chat(_STYLE, chat=True),
    "/v1/completions": Chat(
        msgspec.structs.replace(_STYLE, usage="prompt", usage_null="", separate_finish=False), chat=False
    ),
}


def _info(config: SimulatorConfig) -> dict[str, Any]:
    return {
        "model_id": config.model,
        "model_sha": "0123456789abcdef",
        "model_pipeline_tag": "text-generation",
        "max_concurrent_requests": config.max_num_seqs,
        "max_best_of": 2,
        "max_stop_sequences": 4,
        "max_input_tokens": config.max_model_len - 1,
        "max_total_tokens": config.max_model_len,
        "validation_workers": 2,
        "max_client_batch_size": 4,
        "router": "text-generation-router",
        "version": VERSION,
        "sha": None,
        "docker_label": None,
    }


def _metrics(totals: EngineTotals) -> bytes:
    """TGI's counters have no `_total`, and its token counts are histograms of finished requests."""
    return exposition(
        [
            ("tgi_request_count", "counter", {}, totals.succeeded + totals.rejected),
            ("tgi_request_success", "counter", {}, totals.succeeded),
            ("tgi_request_failure", "counter", {"err": "overloaded"}, totals.rejected),
            ("tgi_batch_current_size", "gauge", {}, totals.running),
            ("tgi_queue_size", "gauge", {}, totals.waiting),
            ("tgi_request_input_length_sum", "histogram", {}, totals.finished_prompt_tokens),
            ("tgi_request_input_length_count", "histogram", {}, totals.succeeded),
            ("tgi_request_generated_tokens_sum", "histogram", {}, totals.finished_completion_tokens),
            ("tgi_request_generated_tokens_count", "histogram", {}, totals.succeeded),
        ]
    )
