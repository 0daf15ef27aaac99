"""Replies that read a prompt and generate nothing: embeddings, rerank, score, classify, pooling.

The `usage` of most has `prompt_tokens`; some rerankers have only `total_tokens`, which is the same then. Cohere's shape
has the count in `meta`, SGLang's in the `meta_info` of each of its answers. vLLM's embeddings as bytes have the JSON
around them in the header `metadata`; Hugging Face's text-embeddings-inference has no usage in its bodies, and
`x-compute-tokens` in its heads.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

import msgspec

from inferwatch.record import TokenSource
from inferwatch_collectors.dialects.base import Observation
from inferwatch_collectors.dialects.content import BAD_JSON, SETTINGS, Piece, from_user, load, messages, settings
from inferwatch_collectors.dialects.lenient import load_object, objects_named, salvage
from inferwatch_collectors.dialects.reading import CountingDialect, note_error, note_names, whole_reply
from inferwatch_collectors.dialects.usage import Count, PromptDetails, Totals, Usage, count_in, summed


class PoolingUsage(msgspec.Struct, gc=False):
    """`usage`, by whatever names."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    total_tokens: Count | None = None
    input_tokens: Count | None = None
    prompt_tokens_details: PromptDetails | None = None

    def usage(self) -> Usage:
        """Return it in the usual words."""
        told = (self.prompt_tokens, self.input_tokens, self.total_tokens)
        prompt = next((count for count in told if count is not None), None)
        return Usage(prompt, self.completion_tokens, self.prompt_tokens_details)


class _Units(msgspec.Struct, gc=False):
    input_tokens: Count | None = None


class _Meta(msgspec.Struct, gc=False):
    tokens: _Units | None = None
    billed_units: _Units | None = None

    def usage(self) -> Usage | None:
        """Return the counts."""
        units = self.tokens or self.billed_units
        return None if units is None else Usage(units.input_tokens)


class _MetaInfo(msgspec.Struct, gc=False):
    prompt_tokens: Count | None = None
    cached_tokens: Count | None = None

    def usage(self) -> Usage:
        """Return the counts."""
        return Usage(self.prompt_tokens, cached_tokens=self.cached_tokens)


class _Told(msgspec.Struct, gc=False):
    meta_info: _MetaInfo | None = None


class _Array(msgspec.Struct, gc=False):
    replies: list[_Told] | None = None


class Reply(_Told, gc=False):
    """A plain reply without what it computed."""

    id: str | None = None
    model: str | None = None
    usage: PoolingUsage | None = None
    meta: _Meta | None = None
    error: Any = None


# The inputs, by whatever name: OpenAI, Cohere, vLLM's score and rerank, text-embeddings-inference.
_INPUTS: Final = (
    "input",
    "inputs",
    "prompt",
    "text",
    "texts",
    "query",
    "queries",
    "documents",
    "items",
    "text_1",
    "text_2",
)

_decode: Final = msgspec.json.Decoder(Reply).decode
_decode_array: Final = msgspec.json.Decoder(_Array).decode
_decode_usage: Final = msgspec.json.Decoder(PoolingUsage).decode


class Pooling(CountingDialect):
    """One usage, no stream."""

    reads_head: ClassVar[bool] = True

    def __init__(self, operation: str) -> None:
        self.operation = operation

    def prompt(self, body: bytes) -> Iterator[Piece]:
        """Yield what is to be embedded, compared or classified."""
        loaded = load(body)
        yield from from_user(loaded, _INPUTS)
        yield from messages(loaded.get("messages"))
        yield from settings(loaded, SETTINGS)

    def read_head(self, observation: Observation, headers: Mapping[str, str]) -> None:
        """Take what stands in the head where the body is of vectors alone."""
        if "metadata" in headers:
            _read_metadata(observation, headers["metadata"].encode("latin-1", "replace"))
        elif (tokens := count_in(headers.get("x-compute-tokens", ""))) is not None:
            observation.own = Usage(tokens)

    def read_reply(self, observation: Observation, body: bytes) -> None:
        """Take a reply; an array has vectors or scores in it (text-embeddings-inference), or replies (SGLang)."""
        if body.lstrip(b" \t\r\n").startswith(b"["):
            _read_array(observation, body)
            return
        reply = whole_reply(observation, body, _decode, Reply)
        if reply is None:
            return
        note_names(observation, reply.id, reply.model)
        if reply.error:
            note_error(observation, reply.error)
        if reply.usage is not None:
            observation.final = reply.usage.usage()
        elif reply.meta is not None:
            observation.final = reply.meta.usage()
        elif reply.meta_info is not None:
            observation.final = reply.meta_info.usage()

    def read_reply_tail(self, observation: Observation, tail: bytes) -> None:
        """Take the usage, Cohere's `meta` or SGLang's of a lone reply, behind the vectors."""
        super().read_reply_tail(observation, tail)
        for raw in objects_named("meta", tail):
            observation.final = observation.final or salvage(load(raw), _Meta).usage()
        if not tail.rstrip().endswith(b"]"):
            for raw in objects_named("meta_info", tail):
                observation.final = observation.final or salvage(load(raw), _MetaInfo).usage()

    def read_usage(self, raw: bytes) -> Usage | None:
        """Return the usage object in `raw` JSON, None if it is none."""
        try:
            return _decode_usage(raw).usage()
        except BAD_JSON:
            loaded = load_object(raw)
            return None if loaded is None else salvage(loaded, PoolingUsage).usage()

    def totals(self, observation: Observation, choices: int) -> Totals:
        """Return the usage of the body, or that of the head."""
        totals = super().totals(observation, choices)
        told: Usage | None = observation.own
        if totals.prompt is not None or told is None:
            return totals
        return Totals(told.prompt_tokens, told.completion_tokens, told.cached, source=TokenSource.HEADERS)


def _read_array(observation: Observation, body: bytes) -> None:
    if b'"meta_info"' not in body:
        return
    array = whole_reply(observation, b'{"replies":%b}' % body, _decode_array, _Array)
    replies = (array.replies if array is not None else None) or ()
    told = [reply.meta_info.usage() for reply in replies if reply.meta_info is not None]
    observation.final = summed(told) if told else None


def _read_metadata(observation: Observation, metadata: bytes) -> None:
    """Take vLLM's JSON. It grows with the number of vectors; of a long one only the end is here, with the usage."""
    loaded = load_object(metadata)
    reply = None if loaded is None else salvage(loaded, Reply)
    if reply is not None:
        note_names(observation, reply.id, reply.model)
        observation.own = None if reply.usage is None else reply.usage.usage()
        return
    for raw in objects_named("usage", metadata):
        observation.own = salvage(load(raw), PoolingUsage).usage()
        return


EMBEDDINGS: Final = Pooling("embeddings")
RERANK: Final = Pooling("rerank")
SCORE: Final = Pooling("score")
CLASSIFY: Final = Pooling("classify")
POOLING: Final = Pooling("pooling")
