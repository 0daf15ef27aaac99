"""Parts that vLLM's streamed and plain replies share: usage, log-probabilities, tool calls, per-request timings.

Everything is plain data whose key order is vLLM's; whoever sends it encodes it.
"""

import hashlib
from collections.abc import Sequence as Items
from typing import Any, NamedTuple

from inferwatch_simulator.answers import Answer, Kind
from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.kv_cache import BLOCK_TOKENS
from inferwatch_simulator.personas.vllm_requests import Generation
from inferwatch_simulator.scheduler import Sequence
from inferwatch_simulator.text import Piece, piece_of, token_ids


class Identity(NamedTuple):
    """What every chunk of one reply repeats."""

    reply_id: str
    created: int  # Unix seconds
    model: str
    fingerprint: str


def fingerprint_of(config: SimulatorConfig) -> str:
    """Constant for one engine process, different for another model."""
    return f"vllm-{config.version}-{hashlib.blake2b(config.model.encode(), digest_size=4).hexdigest()}"


def finish_reason(answer: Answer, generation: Generation) -> str:
    """`tool_calls` when the answer called of its own accord (or was required to call something), else as it ended."""
    if answer.calls and answer.finish_reason == "stop" and not generation.named_tool:
        return "tool_calls"
    return answer.finish_reason


def call_id(identity: Identity, index: int, position: int) -> str:
    digest = hashlib.blake2b(f"{identity.reply_id} {index} {position}".encode(), digest_size=8).hexdigest()
    return f"chatcmpl-tool-{digest}"


def reasoning_details(generation: Generation, reasoning_tokens: int) -> dict[str, int] | None:
    return {"reasoning_tokens": reasoning_tokens} if generation.reasoning else None


class Count(NamedTuple):
    """Tokens of a whole reply: of every prompt once, of every answer, and what the first prompt found in the cache."""

    prompt: int
    completion: int
    cached: int
    reasoning: int


def count(generation: Generation, answers: Items[Answer], first: Sequence) -> Count:
    return Count(
        sum(prompt.tokens for prompt in generation.prompts),
        sum(len(answer.pieces) for answer in answers),
        first.cached_tokens,
        sum(answer.reasoning_tokens for answer in answers),
    )


def prompt_details(generation: Generation, counted: Count, config: SimulatorConfig) -> dict[str, Any] | None:
    """`prompt_tokens_details`, null unless the server has --enable-prompt-tokens-details."""
    if not config.enable_prompt_tokens_details:
        return None
    full_blocks = generation.prompts[0].tokens // BLOCK_TOKENS * BLOCK_TOKENS
    created = max(0, full_blocks - counted.cached) if generation.chat else None
    return {"cached_tokens": counted.cached, "created_cache_tokens": created, "multimodal_tokens": None}


def timings(sequence: Sequence) -> dict[str, float | None]:
    """Timings of --enable-per-request-metrics, in ms. The first token counts from admission, not arrival."""
    admitted_s, first_s, last_s = sequence.admitted_s, sequence.first_token_s, sequence.last_token_s
    if admitted_s is None or first_s is None or last_s is None:
        raise ValueError(f"sequence {sequence.key} has no token yet")
    generated = sequence.generated
    return {
        "time_to_first_token_ms": (first_s - admitted_s) * 1000,
        "generation_time_ms": (last_s - first_s) * 1000,
        "queue_time_ms": (admitted_s - sequence.arrival_s) * 1000,
        "mean_itl_ms": (last_s - first_s) / (generated - 1) * 1000 if generated > 1 else None,
        "tokens_per_second": generated / (last_s - admitted_s) if last_s > admitted_s else None,
        "speculative_decoding": None,
    }


def _logprob(piece: Piece, rank: int = 0) -> float:
    """Made up, but the same for the same token, and falling with the rank."""
    return -(piece.token_id % 997) / 400 - 0.75 * rank


def chat_logprobs(pieces: Items[Piece], alternatives: int) -> dict[str, Any]:
    """The chat route's shape: one entry per token."""
    return {"content": [_chat_logprob(piece, alternatives) for piece in pieces]}


def _chat_logprob(piece: Piece, alternatives: int) -> dict[str, Any]:
    return {
        "token": piece.text,
        "logprob": _logprob(piece),
        "bytes": list(piece.text.encode()),
        "top_logprobs": [
            {"token": text, "logprob": value, "bytes": content}
            for text, value, content in _alternatives(piece, alternatives)
        ],
    }


def completion_logprobs(
    pieces: Items[Piece], alternatives: int, offset: int, echoed: Items[Piece] = ()
) -> dict[str, Any]:
    """The completions route's shape: columns, those of an echoed prompt first.

    `offset` is where the first piece begins in the text. The very first token of a prompt follows nothing and has
    no log-probability.
    """
    shown = [*echoed, *pieces]
    offsets = []
    for piece in shown:
        offsets.append(offset)
        offset += len(piece.text)
    values: list[float | None] = [_logprob(piece) for piece in shown]
    tops: list[dict[str, float] | None] = [
        {text: value for text, value, _ in _alternatives(piece, alternatives or 1)} for piece in shown
    ]
    if echoed:
        values[0] = tops[0] = None
    return {
        "text_offset": offsets,
        "token_logprobs": values,
        "tokens": [piece.text for piece in shown],
        "top_logprobs": tops,
    }


def prompt_logprobs(pieces: Items[Piece], alternatives: int) -> list[dict[str, Any] | None]:
    """Log-probabilities of a prompt by token id, as plain replies have them."""
    known = [
        {
            str(piece.token_id + rank): {"logprob": value, "rank": rank + 1, "decoded_token": text}
            for rank, (text, value, _) in enumerate(_alternatives(piece, alternatives or 1))
        }
        for piece in pieces[1:]
    ]
    return [None, *known]


def _alternatives(piece: Piece, count: int) -> list[tuple[str, float, list[int]]]:
    """Text, log-probability and bytes of the most likely tokens, the one generated first."""
    texts = [piece.text if rank == 0 else f"{piece.text}{rank}" for rank in range(count)]
    return [(text, _logprob(piece, rank), list(text.encode())) for rank, text in enumerate(texts)]


def echoed(generation: Generation, index: int) -> list[Piece]:
    """The prompt's tokens where they are to be shown with the answer's, else none."""
    return [piece_of(text) for text in generation.prompts[index // generation.n].pieces] if generation.echo else []


def prompt_ids(generation: Generation, index: int) -> list[int]:
    """Token ids of the prompt that the choice of this index answers."""
    return token_ids(generation.prompts[index // generation.n].pieces)


def tool_calls(answer: Answer, identity: Identity, index: int) -> list[dict[str, Any]]:
    """The complete calls of a plain reply."""
    arguments: list[str] = []
    for piece, kind in zip(answer.pieces, answer.kinds, strict=True):
        if kind == Kind.TOOL_NAME:
            arguments.append("")
        elif kind == Kind.TOOL_ARGUMENTS:
            arguments[-1] += piece.text
    return [
        {
            "id": call_id(identity, index, position),
            "type": "function",
            "function": {"name": tool.name, "arguments": arguments[position]},
        }
        for position, tool in enumerate(answer.calls)
    ]
