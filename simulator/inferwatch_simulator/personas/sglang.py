"""SGLang: `/generate` with cumulative text and `meta_info`, and OpenAI's routes in its style. After 0.5.23's source."""

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

DEFAULT_MAX_NEW_TOKENS = 128
_STYLE = Style(usage="asked", continuous=True, reasoning="reasoning_content", errors="flat")


class Generate(Format):
    """`/generate`."""

    def read(self, body: dict[str, Any], config: SimulatorConfig) -> Generation:
        """Check a body."""
        text = body.get("text")
        if not text:
            raise ApiError(400, "", "Either text, input_ids or input_embeds should be provided.")
        sampling = body.get("sampling_params") or {}
        request = {
            "prompt": text,
            "n": sampling.get("n"),
            "max_tokens": sampling.get("max_new_tokens", DEFAULT_MAX_NEW_TOKENS),
            "stop": sampling.get("stop"),
        }
        return generation_of(request, config)

    def tokens(self, turn: Turn, index: int, start: int, end: int, *, last: bool) -> bytes | None:
        """Return the text so far, and the counts so far."""
        return event(self._state(turn, index, end, 0, last=last))

    def closing(self, turn: Turn, sequences: Items[Sequence]) -> list[bytes]:
        """Return the end mark."""
        return [DONE]

    def reply(self, turn: Turn, sequences: Items[Sequence]) -> tuple[Mapping[str, str], Any]:
        """Return an object, or an array of them."""
        states = [
            self._state(turn, index, len(answer.pieces), sequences[index].cached_tokens, last=True)
            for index, answer in enumerate(turn.answers)
        ]
        return {}, states if isinstance(turn.body["text"], list) or len(states) > 1 else states[0]

    def refusal(self, error: ApiError, *, streamed: bool) -> Refusal:
        """Return an error without a type."""
        return Refusal(error.status, encode({"error": {"message": error.message}}))

    def _state(self, turn: Turn, index: int, end: int, cached: int, *, last: bool) -> dict[str, Any]:
        answer = turn.answers[index]
        meta: dict[str, Any] = {
            "id": f"{turn.identity.reply_id}-{index}",
            "finish_reason": {"type": answer.finish_reason, "length": end} if last else None,
            "prompt_tokens": turn.generation.prompts[index // turn.generation.n].tokens,
            "weight_version": "default",
            "num_retractions": 0,
            "completion_tokens": end,
            "cached_tokens": cached,
        }
        if last:
            meta["e2e_latency"] = 0.5
        content: dict[str, Any] = {
            "text": said(answer, 0, end).content,
            "output_ids": [piece.token_id for piece in answer.pieces[:end]],
            "meta_info": meta,
        }
        return content | ({"index": index} if len(turn.answers) > 1 else {})


_FORMATS: Mapping[str, Format] = {
    "/generate": Generate(),
    "/v1/chat/completions": OpenAIFormat(_STYLE, chat=True),
    "/v1/completions": OpenAIFormat(_STYLE, chat=False),
}


class SGLang(Persona):
    """The server."""

    name = "sglang"

    def formats(self) -> Mapping[str, Format]:
        """Return path -> format."""
        return _FORMATS

    def page(self, path: str, config: SimulatorConfig, totals: EngineTotals) -> Page | None:
        """Return its models, its health and its metrics."""
        match path:
            case "/v1/models":
                card = {"id": config.model, "object": "model", "created": 1, "owned_by": "sglang", "root": config.model}
                return Page(encode({"object": "list", "data": [card]}))
            case "/health":
                return Page(b"", "text/plain")
            case "/metrics":
                return Page(_metrics(config, totals), "text/plain; charset=utf-8")
            case _:
                return None


def _metrics(config: SimulatorConfig, totals: EngineTotals) -> bytes:
    """Token counters move when a request finishes."""
    labels = {"model_name": config.model}
    ranks = labels | {"engine_type": "unified", "tp_rank": "0", "pp_rank": "0"}
    return exposition(
        [
            ("sglang:num_running_reqs", "gauge", ranks, totals.running),
            ("sglang:num_queue_reqs", "gauge", ranks, totals.waiting),
            ("sglang:token_usage", "gauge", ranks, totals.kv_usage_ratio),
            ("sglang:prompt_tokens_total", "counter", labels, totals.finished_prompt_tokens),
            ("sglang:generation_tokens_total", "counter", labels, totals.finished_completion_tokens),
            ("sglang:num_requests_total", "counter", labels, totals.succeeded),
        ]
    )
