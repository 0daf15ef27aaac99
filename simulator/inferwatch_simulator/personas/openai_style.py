"""OpenAI's chat and completions as engines differ in them: one format, and a style for each engine.

The order of fields is the engine's where it is one of those recorded; a style says what else differs.
"""

import secrets
from collections.abc import Mapping
from collections.abc import Sequence as Items
from typing import Any

import msgspec

from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.personas.base import Format, Refusal, Turn, encode, event, generation_of, said, whole_calls
from inferwatch_simulator.personas.fields import ApiError
from inferwatch_simulator.personas.vllm_requests import Generation
from inferwatch_simulator.scheduler import Sequence

DONE = b"data: [DONE]\n\n"


class Style(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine speaks OpenAI's API.

    Args:
        usage: `asked` on an event of its own; `finish` always on the finish chunk; `prompt` on each prompt's last.
        usage_null: every chunk has `"usage":null` when usage was asked for (`asked`), or in any case (`always`).
        separate_finish: the finish reason comes on a chunk without text.
        role: the first chunk of its own says it (`first`), or every chunk (`every`).
        early_role: that chunk comes before the first token.
        reasoning: the field's name; "" has none.
        errors: OpenAI's envelope (`openai`), SGLang's (`flat`), TGI's (`tgi`), Transformers' (`detail`).
    """

    fingerprint: str = ""
    empty_id: bool = False
    model_suffix: str = ""
    usage: str = "asked"
    usage_null: str = ""
    usage_per_prompt: bool = False
    continuous: bool = False
    separate_finish: bool = True
    role: str = "first"
    early_role: bool = False
    role_end: bytes = b"\n\n"
    reasoning: str = "reasoning_content"
    done: bool = True
    cached: bool = False
    obfuscation: bool = False
    groq: bool = False
    errors: str = "openai"
    check_model: bool = True
    refuses_unknown: tuple[str, ...] = ()


class OpenAIFormat(Format):
    """`/v1/chat/completions` or `/v1/completions`, in one style."""

    def __init__(self, style: Style, *, chat: bool) -> None:
        self._style = style
        self._chat = chat
        self.opens_early = style.early_role and chat

    def read(self, body: dict[str, Any], config: SimulatorConfig) -> Generation:
        """Check a body."""
        unknown = [name for name in self._style.refuses_unknown if name in body]
        if unknown:
            raise ApiError(422, "", f"Unexpected fields in the request: {set(unknown)}")
        if ("messages" if self._chat else "prompt") not in body:
            raise ApiError(422, "", f"missing field `{'messages' if self._chat else 'prompt'}`")
        checked = body if self._style.check_model else {**body, "model": None}
        return generation_of(checked, config)

    # a stream

    def opening(self, turn: Turn) -> list[bytes]:
        """Return the role chunks of all choices."""
        if not self._chat or self._style.role != "first":
            return []
        delta = {"role": "assistant"} if self._style.early_role else {"role": "assistant", "content": ""}
        return [
            event(self._chunk(turn, index, delta, None, 0), end=self._style.role_end)
            for index in range(len(turn.answers))
        ]

    def tokens(self, turn: Turn, index: int, start: int, end: int, *, last: bool) -> bytes | None:
        """Return the chunk of some tokens, and the one of the finish."""
        style = self._style
        delta = self._delta(turn, index, start, end)
        finish = self._finish(turn, index) if last else None
        out = []
        if delta is not None and (not last or style.separate_finish):
            out.append(event(self._chunk(turn, index, delta, None, end)))
            delta = None
        if last:
            chunk = self._chunk(turn, index, delta if delta is not None else self._nothing(), finish, end)
            self._add_to_finish(chunk, turn, index)
            out.append(event(chunk))
        return b"".join(out) or None

    def closing(self, turn: Turn, sequences: Items[Sequence]) -> list[bytes]:
        """Return the usage that was asked for, and the end mark."""
        style, generation = self._style, turn.generation
        out = []
        if style.usage == "asked" and generation.include_usage:
            counts = [self._usage(turn, sequences)]
            if style.usage_per_prompt and not self._chat:
                counts = [self._usage_of(turn, prompt) for prompt in range(len(generation.prompts))]
            out = [event({**self._common(turn), "choices": [], "usage": usage}) for usage in counts]
        return [*out, DONE] if style.done else out

    def _chunk(self, turn: Turn, index: int, delta: Any, finish: str | None, generated: int) -> dict[str, Any]:
        style, generation = self._style, turn.generation
        if self._chat:
            if style.role == "every":
                delta = {"role": "assistant", "content": None, **delta}
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        else:
            choice = {"index": index, "text": delta, "logprobs": None}
            choice["finish_reason"] = finish if finish is not None or style.usage != "prompt" else ""
        chunk: dict[str, Any] = {**self._common(turn), "choices": [choice]}
        if style.continuous and generation.continuous_usage:
            prompt = generation.prompts[index // generation.n].tokens
            chunk["usage"] = _counts(prompt, generated)
        elif style.usage_null == "always" or (style.usage_null == "asked" and generation.include_usage):
            chunk["usage"] = None
        if style.obfuscation:
            chunk["obfuscation"] = secrets.token_urlsafe(6)
        return chunk

    def _common(self, turn: Turn) -> dict[str, Any]:
        style, identity = self._style, turn.identity
        common: dict[str, Any] = {
            "id": "" if style.empty_id else identity.reply_id,
            "object": "chat.completion.chunk" if self._chat else "text_completion",
            "created": identity.created,
            "model": identity.model + style.model_suffix,
        }
        if style.fingerprint:
            common["system_fingerprint"] = style.fingerprint
        return common

    def _nothing(self) -> Any:
        if not self._chat:
            return ""
        return {"content": ""} if self._style.role == "every" else {}

    def _delta(self, turn: Turn, index: int, start: int, end: int) -> Any:
        words = said(turn.answers[index], start, end)
        if not self._chat:
            return words.content
        delta: dict[str, Any] = {}
        if words.reasoning and self._style.reasoning:
            delta[self._style.reasoning] = words.reasoning
        if words.content or not (words.reasoning or words.calls or turn.answers[index].calls):
            delta["content"] = words.content
        if words.calls:
            delta["tool_calls"] = [
                {
                    "index": call.position,
                    "id": f"call_{call.position}" if call.name else None,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in words.calls
            ]
        return delta or None

    def _finish(self, turn: Turn, index: int) -> str:
        answer = turn.answers[index]
        return "tool_calls" if answer.calls and answer.finish_reason == "stop" else answer.finish_reason

    def _add_to_finish(self, chunk: dict[str, Any], turn: Turn, index: int) -> None:
        style, generation = self._style, turn.generation
        if style.usage == "finish":
            chunk["usage"] = _counts(turn.prompt_tokens, turn.completion_tokens)
        elif style.usage == "prompt":
            chunk["usage"] = _counts(generation.prompts[index // generation.n].tokens, len(turn.answers[index].pieces))
        if style.groq:
            chunk["x_groq"] = {
                "id": f"req_{turn.identity.reply_id}",
                "usage": _counts(turn.prompt_tokens, turn.completion_tokens),
            }

    # a plain reply, and what both have

    def reply(self, turn: Turn, sequences: Items[Sequence]) -> tuple[Mapping[str, str], Any]:
        """Return the whole of it."""
        common = self._common(turn)
        common["object"] = "chat.completion" if self._chat else "text_completion"
        choices = [self._whole(turn, index) for index in range(len(turn.answers))]
        content = {**common, "choices": choices, "usage": self._usage(turn, sequences)}
        return {}, content

    def _whole(self, turn: Turn, index: int) -> dict[str, Any]:
        answer = turn.answers[index]
        words = said(answer, 0, len(answer.pieces))
        finish = self._finish(turn, index)
        if not self._chat:
            return {"index": index, "text": words.content, "logprobs": None, "finish_reason": finish}
        message: dict[str, Any] = {"role": "assistant", "content": words.content or (None if answer.calls else "")}
        if words.reasoning and self._style.reasoning:
            message[self._style.reasoning] = words.reasoning
        if answer.calls:
            message["tool_calls"] = [
                {"id": f"call_{position}", "type": "function", "function": {"name": name, "arguments": arguments}}
                for position, (name, arguments) in enumerate(whole_calls(answer))
            ]
        return {"index": index, "message": message, "logprobs": None, "finish_reason": finish}

    def _usage(self, turn: Turn, sequences: Items[Sequence]) -> dict[str, Any]:
        usage = _counts(turn.prompt_tokens, turn.completion_tokens)
        if self._style.cached and sequences:
            usage["prompt_tokens_details"] = {"cached_tokens": sequences[0].cached_tokens}
        if turn.generation.reasoning and self._style.reasoning:
            usage["completion_tokens_details"] = {"reasoning_tokens": turn.reasoning_tokens}
        return usage

    def _usage_of(self, turn: Turn, prompt: int) -> dict[str, Any]:
        n = turn.generation.n
        answers = turn.answers[prompt * n : (prompt + 1) * n]
        return _counts(turn.generation.prompts[prompt].tokens, sum(len(answer.pieces) for answer in answers))

    def refusal(self, error: ApiError, *, streamed: bool) -> Refusal:
        """Return how the engine says it."""
        match self._style.errors:
            case "flat":
                flat = {
                    "object": "error",
                    "message": error.message,
                    "type": error.kind,
                    "param": None,
                    "code": error.status,
                }
                return Refusal(error.status, encode(flat))
            case "tgi":
                kind = "overloaded" if error.status in (429, 503) else "validation"
                inside = {"error": {"message": error.message, "http_status_code": 422}}
                flat = {"error": error.message, "error_type": kind}
                status = 429 if kind == "overloaded" else 422
                return Refusal(status, encode(flat), event=event(inside) if streamed else None)
            case "detail":
                status = 400 if error.status == 404 else error.status
                return Refusal(status, encode({"detail": error.message}))
            case _:
                return Refusal(error.status, error.body())


def _counts(prompt: int, completion: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
