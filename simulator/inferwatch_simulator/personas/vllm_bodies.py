"""vLLM's plain (not streamed) replies. Every field is there, in vLLM's order, null or not."""

import secrets
from collections.abc import Sequence as Items
from typing import Any

import msgspec

from inferwatch_simulator.answers import Answer, Kind
from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.personas import vllm_shapes as shapes
from inferwatch_simulator.personas.vllm_requests import Generation
from inferwatch_simulator.scheduler import Sequence
from inferwatch_simulator.text import Prompt, token_ids


def reply(
    identity: shapes.Identity,
    generation: Generation,
    answers: Items[Answer],
    sequences: Items[Sequence],
    config: SimulatorConfig,
) -> bytes:
    """The body of a finished request."""
    return msgspec.json.encode(
        (_chat if generation.chat else _completion)(identity, generation, answers, sequences, config)
    )


def _chat(
    identity: shapes.Identity,
    generation: Generation,
    answers: Items[Answer],
    sequences: Items[Sequence],
    config: SimulatorConfig,
) -> dict[str, Any]:
    echoed = shapes.echoed(generation, 0)
    return {
        "id": identity.reply_id,
        "object": "chat.completion",
        "created": identity.created,
        "model": identity.model,
        "choices": [_chat_choice(index, answer, identity, generation) for index, answer in enumerate(answers)],
        "service_tier": None,
        "system_fingerprint": identity.fingerprint,
        "usage": _usage(generation, answers, sequences, config),
        "prompt_logprobs": shapes.prompt_logprobs(echoed, generation.logprobs or 0) if echoed else None,
        "prompt_token_ids": shapes.prompt_ids(generation, 0) if generation.return_token_ids else None,
        "prompt_text": None,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": _metrics(sequences, config),
    }


def _chat_choice(index: int, answer: Answer, identity: shapes.Identity, generation: Generation) -> dict[str, Any]:
    hidden = generation.hides_metadata
    shown = generation.logprobs is not None and not hidden
    return {
        "index": index,
        "message": _message(index, answer, identity, generation),
        "logprobs": shapes.chat_logprobs(answer.pieces, generation.logprobs or 0) if shown else None,
        "finish_reason": shapes.finish_reason(answer, generation),
        "stop_reason": answer.stop_reason,
        "token_ids": _ids(answer) if generation.return_token_ids and not hidden else None,
        "routed_experts": None,
    }


def _message(index: int, answer: Answer, identity: shapes.Identity, generation: Generation) -> dict[str, Any]:
    content = answer.text(Kind.CONTENT)
    reasoning = answer.text(Kind.REASONING) if generation.reasoning and generation.include_reasoning else None
    message: dict[str, Any] = {
        "role": "assistant",
        "content": content if content or not answer.calls or generation.wishes[0].must_call else None,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
    }
    if answer.calls:
        message["tool_calls"] = shapes.tool_calls(answer, identity, index)
    message["reasoning"] = reasoning
    return message


def _completion(
    identity: shapes.Identity,
    generation: Generation,
    answers: Items[Answer],
    sequences: Items[Sequence],
    config: SimulatorConfig,
) -> dict[str, Any]:
    return {
        "id": identity.reply_id,
        "object": "text_completion",
        "created": identity.created,
        "model": identity.model,
        "choices": [_completion_choice(index, answer, generation) for index, answer in enumerate(answers)],
        "service_tier": None,
        "system_fingerprint": identity.fingerprint,
        "usage": _usage(generation, answers, sequences, config),
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": _metrics(sequences, config),
    }


def _completion_choice(index: int, answer: Answer, generation: Generation) -> dict[str, Any]:
    prompt: Prompt = generation.prompts[index // generation.n]
    said = "" if generation.prompt_only else answer.text(Kind.CONTENT)
    ids = generation.return_token_ids
    logprobs = of_prompt = None
    if generation.logprobs is not None:
        echoed = shapes.echoed(generation, index)
        pieces = [] if generation.prompt_only else answer.pieces
        logprobs = shapes.completion_logprobs(pieces, generation.logprobs, 0, echoed)
        of_prompt = shapes.prompt_logprobs(echoed, generation.logprobs) if echoed else None
    return {
        "index": index,
        "text": prompt.text + said if generation.echo else said,
        "logprobs": logprobs,
        "finish_reason": answer.finish_reason,
        "stop_reason": answer.stop_reason,
        "token_ids": _ids(answer) if ids else None,
        "prompt_logprobs": of_prompt,
        "prompt_token_ids": shapes.prompt_ids(generation, index) if ids else None,
        "routed_experts": None,
    }


def _ids(answer: Answer) -> list[int]:
    return [piece.token_id for piece in answer.pieces]


def _usage(
    generation: Generation, answers: Items[Answer], sequences: Items[Sequence], config: SimulatorConfig
) -> dict[str, Any]:
    counted = shapes.count(generation, answers, sequences[0])
    return {
        "prompt_tokens": counted.prompt,
        "total_tokens": counted.prompt + counted.completion,
        "completion_tokens": counted.completion,
        "prompt_tokens_details": shapes.prompt_details(generation, counted, config),
        "completion_tokens_details": shapes.reasoning_details(generation, counted.reasoning),
    }


def _metrics(sequences: Items[Sequence], config: SimulatorConfig) -> dict[str, Any] | None:
    """Timings of a single sequence; of several none could be told."""
    if not config.enable_per_request_metrics or len(sequences) != 1:
        return None
    return shapes.timings(sequences[0])


def models(config: SimulatorConfig, created: int) -> bytes:
    """The body of `/v1/models`."""
    permission = {
        "id": f"modelperm-{secrets.token_hex(8)}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    card = {
        "id": config.model,
        "object": "model",
        "created": created,
        "owned_by": "vllm",
        "root": config.model,
        "parent": None,
        "max_model_len": config.max_model_len,
        "permission": [permission],
    }
    return msgspec.json.encode({"object": "list", "data": [card]})


def tokenized(prompt: Prompt, config: SimulatorConfig, *, strings: bool) -> bytes:
    """The body of `/tokenize`: looks like usage, costs nothing."""
    return msgspec.json.encode(
        {
            "count": prompt.tokens,
            "max_model_len": config.max_model_len,
            "tokens": token_ids(prompt.pieces),
            "token_strs": prompt.pieces if strings else None,
        }
    )
