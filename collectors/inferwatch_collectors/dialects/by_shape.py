"""Routes that several engines have, with formats of their own: the first reply's shape decides who reads it.

`/generate` is TGI's, SGLang's and Triton's; `/completions` without a version is llama.cpp's own, or OpenAI's behind a
base URL without one; `/api/chat` is Ollama's, and with llama.cpp the same as its chat completions; `/invocations`
(SageMaker) and `/vertex` take the bodies of several routes. The fields that decide are in every event of their format,
so a stream of which the beginning is missing is known as well.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec

from inferwatch_collectors.dialects.anthropic import ANTHROPIC_MESSAGES
from inferwatch_collectors.dialects.base import Dialect, Observation, RequestFacts
from inferwatch_collectors.dialects.content import BAD_JSON, SETTINGS, Piece, from_user, load, messages, settings
from inferwatch_collectors.dialects.lenient import load_object
from inferwatch_collectors.dialects.llamacpp import LLAMACPP_NATIVE
from inferwatch_collectors.dialects.ollama import OLLAMA_CHAT
from inferwatch_collectors.dialects.openai_chat import OPENAI_CHAT
from inferwatch_collectors.dialects.openai_completions import OPENAI_COMPLETIONS
from inferwatch_collectors.dialects.openai_responses import OPENAI_RESPONSES
from inferwatch_collectors.dialects.pooling import POOLING
from inferwatch_collectors.dialects.sglang import SGLANG_NATIVE
from inferwatch_collectors.dialects.tgi import TGI_NATIVE
from inferwatch_collectors.dialects.triton import TRITON_GENERATE
from inferwatch_collectors.dialects.usage import Totals, Usage

_Shapes = tuple[tuple[frozenset[str], Dialect], ...]

# (fields of which one must be there, who reads it), in the order in which they are tried.
_NATIVE: Final[_Shapes] = (
    (frozenset({"meta_info"}), SGLANG_NATIVE),
    (frozenset({"text_output"}), TRITON_GENERATE),
    (frozenset({"token", "generated_text", "error_type"}), TGI_NATIVE),
    (frozenset({"tokens_predicted", "tokens_evaluated", "prompt_progress"}), LLAMACPP_NATIVE),
)

# Ollama's records all say whether they are the last, so what does not is none of its. Its last one has times.
_OLLAMA: Final[_Shapes] = ((frozenset({"done"}), OLLAMA_CHAT),)
_OLLAMA_END: Final[_Shapes] = ((frozenset({"total_duration"}), OLLAMA_CHAT),)

# What the objects of OpenAI's APIs call themselves, by their beginning.
_OBJECTS: Final[tuple[tuple[str, Dialect], ...]] = (
    ("chat.completion", OPENAI_CHAT),
    ("text_completion", OPENAI_COMPLETIONS),
    ("response", OPENAI_RESPONSES),
    ("list", POOLING),
)

_decode_object: Final = msgspec.json.Decoder(dict[str, Any]).decode
_decode_list: Final = msgspec.json.Decoder(list[dict[str, Any]]).decode


class ByShape(Dialect):
    """Hands everything to the dialect of the first shape that is known; until then to `default`."""

    generates: ClassVar[bool] = True
    reads: ClassVar[bool] = True
    reads_head: ClassVar[bool] = True

    def __init__(
        self,
        operation: str,
        default: Dialect,
        *,
        request: Dialect,
        shapes: _Shapes = _NATIVE,
        ends: _Shapes = _NATIVE,
        end: Dialect | None = None,
    ) -> None:
        """`request`: who reads it; its facts must be right for, or of no interest to, all of them.

        `shapes`: of the engines that have it as a route of their own; `ends`: by which the end of a plain reply is
        known, whatever else is in it. `end`: who reads ends of no known shape, and usages, if not `default`.
        """
        self._shapes = shapes
        self._ends = ends
        self.operation = operation
        self._default = default
        self._end = end or default
        self._request = request

    def facts(self, body: bytes, choices: int) -> RequestFacts:
        """Return what the request tells."""
        return self._request.facts(body, choices)

    def prompt(self, body: bytes) -> Iterator[Piece]:
        """Yield the texts of a request of any of its formats."""
        loaded = load(body)
        yield from from_user(loaded, ("inputs", "text", "text_input", "prompt", "input", "suffix"))
        yield from messages(loaded.get("messages"))
        yield from settings(loaded, SETTINGS)
        for key in ("parameters", "sampling_params", "options"):
            if isinstance(inner := loaded.get(key), dict):
                yield from settings(inner, ("stop",))

    def read_head(self, observation: Observation, headers: Mapping[str, str]) -> None:
        """TGI's head says who it is."""
        if "x-compute-type" in headers or "x-prompt-tokens" in headers:
            TGI_NATIVE.read_head(observation, headers)

    def read_event(self, observation: Observation, stamp_ns: int, name: bytes, data: bytes) -> None:
        """Take one event."""
        self._reader(observation, data).read_event(observation, stamp_ns, name, data)

    def read_reply(self, observation: Observation, body: bytes) -> None:
        """Take a whole plain reply."""
        self._reader(observation, body).read_reply(observation, body)

    def tell_reply(self, observation: Observation, stamp_ns: int, body: bytes) -> None:
        """Tell the observation's listener what a whole plain reply says."""
        self._known(observation).tell_reply(observation, stamp_ns, body)

    def read_reply_tail(self, observation: Observation, tail: bytes) -> None:
        """Take the end of a plain reply that was not read."""
        if observation.reader is None:
            observation.reader = next((dialect for fields, dialect in self._ends if _any_named(fields, tail)), None)
        if observation.reader is None and self._end is not self._default:
            observation.reader = self._end
        self._known(observation).read_reply_tail(observation, tail)

    def read_usage(self, raw: bytes) -> Usage | None:
        """Return the usage object in `raw` JSON, None if it is none."""
        return self._end.read_usage(raw)

    def totals(self, observation: Observation, choices: int) -> Totals:
        """Return the counts."""
        return self._known(observation).totals(observation, choices)

    def unfinished(self, observation: Observation) -> bool:
        """Return whether a stream that was seen whole ended before its choices did."""
        return self._known(observation).unfinished(observation)

    def _known(self, observation: Observation) -> Dialect:
        return observation.reader or self._default

    def _reader(self, observation: Observation, data: bytes) -> Dialect:
        if observation.reader is None:
            observation.reader = _reader_of(data, self._shapes)
        return self._known(observation)


def _any_named(fields: frozenset[str], tail: bytes) -> bool:
    return any(b'"%b":' % field.encode() in tail for field in fields)


def _reader_of(data: bytes, shapes: _Shapes) -> Dialect | None:
    """Return who reads an event or a plain reply, None if its shape is none that is known."""
    try:
        shape: dict[str, Any] | None = (
            _decode_list(data)[0] if data.lstrip(b" \t\r\n").startswith(b"[") else _decode_object(data)
        )
    except (*BAD_JSON, IndexError):
        shape = load_object(data)
    if shape is None:
        return None
    for fields, dialect in shapes:
        if not fields.isdisjoint(shape):
            return dialect
    return _openai_or_anthropic(shape)


def _openai_or_anthropic(shape: Mapping[str, Any]) -> Dialect | None:
    named, kind = shape.get("object"), shape.get("type")
    if isinstance(named, str):
        return next((dialect for start, dialect in _OBJECTS if named.startswith(start)), None)
    if isinstance(kind, str):
        if kind.startswith("response."):
            return OPENAI_RESPONSES
        return ANTHROPIC_MESSAGES if kind.startswith(("message", "content_block")) else None
    choices = shape.get("choices")
    if isinstance(choices, Sequence) and choices and isinstance(choices[0], dict):
        return OPENAI_COMPLETIONS if "text" in choices[0] and "delta" not in choices[0] else OPENAI_CHAT
    return None


GENERATE: Final = ByShape("text_completion", TGI_NATIVE, request=SGLANG_NATIVE)
API_CHAT: Final = ByShape("chat", OLLAMA_CHAT, request=OLLAMA_CHAT, shapes=_OLLAMA, ends=_OLLAMA_END, end=OPENAI_CHAT)
BARE_COMPLETIONS: Final = ByShape("text_completion", OPENAI_COMPLETIONS, request=OPENAI_COMPLETIONS)
INVOCATIONS: Final = ByShape("generate_content", OPENAI_CHAT, request=OPENAI_COMPLETIONS)
