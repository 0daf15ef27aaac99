"""Personas made of OpenAI's formats in a style: OpenAI itself, TensorRT-LLM, Transformers serve; and Triton."""

import re
from collections.abc import Mapping
from collections.abc import Sequence as Items
from typing import Any, Final

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
    event,
    exposition,
    generation_of,
    said,
)
from inferwatch_simulator.personas.fields import ApiError
from inferwatch_simulator.personas.openai_style import OpenAIFormat, Style
from inferwatch_simulator.personas.responses import Responses
from inferwatch_simulator.personas.vllm_requests import Generation
from inferwatch_simulator.scheduler import Sequence

_OPENAI: Final = Style(
    fingerprint="fp_0123456789", usage_null="asked", reasoning="", cached=True, obfuscation=True, early_role=False
)
_TRTLLM: Final = Style(continuous=True, cached=True, usage_per_prompt=True, role_end=b" \n\n", separate_finish=False)

# What vLLM and others take, and Transformers serve refuses.
_VLLM_ONLY: Final = ("continuous_usage_stats", "min_tokens", "ignore_eos", "top_k", "foo", "return_token_ids")
_TRANSFORMERS: Final = Style(
    usage="finish",
    early_role=True,
    reasoning="",
    done=False,
    errors="detail",
    model_suffix="@main",
    refuses_unknown=_VLLM_ONLY,
)


def _card(config: SimulatorConfig, owner: str) -> Page:
    card = {"id": config.model, "object": "model", "created": 1, "owned_by": owner}
    return Page(encode({"object": "list", "data": [card]}))


class OpenAI(Persona):
    """The service, and what is compatible with it."""

    name = "openai"
    server = "cloudflare"
    _formats: Mapping[str, Format] = {
        "/v1/chat/completions": OpenAIFormat(_OPENAI, chat=True),
        "/v1/completions": OpenAIFormat(_OPENAI, chat=False),
        "/v1/responses": Responses(),
    }

    def formats(self) -> Mapping[str, Format]:
        """Return path -> format."""
        return self._formats

    def format_of(self, path: str) -> Format | None:
        """Return the format of a path, Azure's deployments included."""
        end = re.fullmatch(r"/openai/deployments/[^/]+(/(?:chat/)?completions)", path)
        return self._formats.get(f"/v1{end[1]}" if end else path)

    def page(self, path: str, config: SimulatorConfig, totals: EngineTotals) -> Page | None:
        """Return its models."""
        return _card(config, "openai") if path == "/v1/models" else None

    def not_found(self) -> Page:
        """Return its 404."""
        error = {"message": "Invalid URL", "type": "invalid_request_error", "param": None, "code": None}
        return Page(encode({"error": error}), status=404)


class TensorRTLLM(Persona):
    """trtllm-serve. Its `/metrics` is JSON that every reader takes away from the next."""

    name = "trtllm"
    _formats: Mapping[str, Format] = {
        "/v1/chat/completions": OpenAIFormat(_TRTLLM, chat=True),
        "/v1/completions": OpenAIFormat(msgspec.structs.replace(_TRTLLM, usage_null="always"), chat=False),
    }

    def formats(self) -> Mapping[str, Format]:
        """Return path -> format."""
        return self._formats

    def page(self, path: str, config: SimulatorConfig, totals: EngineTotals) -> Page | None:
        """Return its version, its models, its health and its metrics."""
        match path:
            case "/version":
                return Page(b'{"version":"1.2.0"}')
            case "/v1/models":
                return _card(config, "tensorrt_llm")
            case "/health":
                return Page(b"", "text/plain")
            case "/metrics":
                return Page(encode([{"numActiveRequests": totals.running}]))
            case "/prometheus/metrics":
                return Page(_trtllm_metrics(config, totals), "text/plain; version=0.0.4; charset=utf-8")
            case _:
                return None


def _trtllm_metrics(config: SimulatorConfig, totals: EngineTotals) -> bytes:
    labels = {"model_name": config.model, "engine_type": "tensorrt"}
    return exposition(
        [
            ("trtllm_num_requests_running", "gauge", labels, totals.running),
            ("trtllm_num_requests_waiting", "gauge", labels, totals.waiting),
            ("trtllm_kv_cache_utilization", "gauge", labels, totals.kv_usage_ratio),
            ("trtllm_prompt_tokens_total", "counter", labels, totals.finished_prompt_tokens),
            ("trtllm_generation_tokens_total", "counter", labels, totals.finished_completion_tokens),
            ("trtllm_request_success_total", "counter", labels | {"finished_reason": "stop"}, totals.succeeded),
        ]
    )


class Transformers(Persona):
    """Transformers serve. It has no metrics."""

    name = "transformers"
    _formats: Mapping[str, Format] = {
        "/v1/chat/completions": OpenAIFormat(_TRANSFORMERS, chat=True),
        "/v1/completions": OpenAIFormat(_TRANSFORMERS, chat=False),
        "/v1/responses": Responses(named=False, streams_unasked=True, incomplete=False),
    }

    def formats(self) -> Mapping[str, Format]:
        """Return path -> format."""
        return self._formats

    def page(self, path: str, config: SimulatorConfig, totals: EngineTotals) -> Page | None:
        """Return its models and its health."""
        match path:
            case "/v1/models":
                return _card(config, config.model.partition("/")[0])
            case "/health":
                return Page(b'{"status":"ok"}', headers={"x-request-id": "0"})
            case _:
                return None


class Generate(Format):
    """Triton's generate extension: text, and no counts unless they are asked for as tensors."""

    def __init__(self, *, streams: bool) -> None:
        self._streams = streams

    def streams(self, body: dict[str, Any], path: str) -> bool:
        """Return what the route says."""
        return self._streams

    def read(self, body: dict[str, Any], config: SimulatorConfig) -> Generation:
        """Check a body."""
        if not isinstance(body.get("text_input"), str):
            raise ApiError(400, "", "failed to parse the request: missing text_input")
        parameters = body.get("parameters") or {}
        limit = body.get("max_tokens") or parameters.get("max_tokens")
        return generation_of({"prompt": body["text_input"] or " ", "max_tokens": limit}, config)

    def tokens(self, turn: Turn, index: int, start: int, end: int, *, last: bool) -> bytes | None:
        """Return what is new, each token an event."""
        return event(self._content(turn, index, start, end))

    def reply(self, turn: Turn, sequences: Items[Sequence]) -> tuple[Mapping[str, str], Any]:
        """Return the text."""
        return {}, self._content(turn, 0, 0, len(turn.answers[0].pieces))

    def refusal(self, error: ApiError, *, streamed: bool) -> Refusal:
        """Return a message alone."""
        return Refusal(error.status, encode({"error": error.message}))

    def _content(self, turn: Turn, index: int, start: int, end: int) -> dict[str, Any]:
        content: dict[str, Any] = {
            "model_name": turn.config.model,
            "model_version": "1",
            "text_output": said(turn.answers[index], start, end).content,
        }
        if turn.body.get("return_num_output_tokens"):
            content["num_output_tokens"] = end - start
        if turn.body.get("return_num_input_tokens"):
            content["num_input_tokens"] = turn.prompt_tokens
        return content


class Triton(Persona):
    """Triton inference server with one model."""

    name = "triton"
    server = ""
    _plain = Generate(streams=False)
    _stream = Generate(streams=True)

    def format_of(self, path: str) -> Format | None:
        """Return the format of a model's route."""
        found = re.fullmatch(r"/v2/models/[^/]+(?:/versions/[^/]+)?/generate(_stream)?", path)
        return None if found is None else self._stream if found[1] else self._plain

    def page(self, path: str, config: SimulatorConfig, totals: EngineTotals) -> Page | None:
        """Return what it is, its health and its metrics."""
        match path:
            case "/v2":
                return Page(encode({"name": "triton", "version": "2.60.0", "extensions": ["generate"]}))
            case "/v2/health/ready" | "/v2/health/live":
                return Page(b"", "text/plain")
            case "/metrics":
                return Page(_triton_metrics(config, totals), "text/plain; charset=utf-8")
            case _:
                return None

    def not_found(self) -> Page:
        """Return evhtp's empty 404."""
        return Page(b"", "text/plain", 404)


def _triton_metrics(config: SimulatorConfig, totals: EngineTotals) -> bytes:
    labels = {"model": config.model, "version": "1"}
    requests = "nv_trt_llm_request_metrics"
    return exposition(
        [
            ("nv_inference_request_success", "counter", labels, totals.succeeded),
            (requests, "gauge", labels | {"request_type": "active"}, totals.running + totals.waiting),
            (requests, "gauge", labels | {"request_type": "scheduled"}, totals.running),
            (requests, "gauge", labels | {"request_type": "waiting"}, totals.waiting),
            (
                "nv_trt_llm_kv_cache_block_metrics",
                "gauge",
                labels | {"kv_cache_block_type": "fraction"},
                totals.kv_usage_ratio,
            ),
        ]
    )
