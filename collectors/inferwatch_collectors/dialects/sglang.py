"""SGLang's own `/generate`: each event has the whole text so far and the counts so far.

Events may be left out when the reader is slow, and `text` repeats itself (unless the server runs with
`--incremental-streaming-output`), so nothing is learnt from it; `meta_info` has everything. `finish_reason` is an
object. A list of prompts, or n answers, gives an array, or events with an `index` of prompt × n + i.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Final

import msgspec

from inferwatch_collectors.dialects.base import ANSWER, Observation, RequestFacts
from inferwatch_collectors.dialects.content import BAD_JSON, Piece, from_user, load, settings
from inferwatch_collectors.dialects.lenient import objects_named, salvage
from inferwatch_collectors.dialects.reading import (
    CountingDialect,
    advance,
    decoded,
    note_count,
    note_error,
    note_finish,
    note_names,
    tell,
    whole_reply,
)
from inferwatch_collectors.dialects.replies import whole_replies
from inferwatch_collectors.dialects.usage import Count, Usage


class Meta(msgspec.Struct, gc=False):
    """`meta_info`."""

    id: str | None = None
    finish_reason: Any = None
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    cached_tokens: Count | None = None
    reasoning_tokens: Count | None = None

    def usage(self) -> Usage:
        """Return the counts."""
        return Usage(
            self.prompt_tokens,
            self.completion_tokens,
            cached_tokens=self.cached_tokens,
            reasoning_tokens=self.reasoning_tokens,
        )


class Reply(msgspec.Struct, gc=False):
    """An event, or a plain reply."""

    index: Count | None = None
    text: str | None = None
    meta_info: Meta | None = None
    error: Any = None


class _Sampling(msgspec.Struct, gc=False):
    n: int | None = None


class _Body(msgspec.Struct, gc=False):
    sampling_params: _Sampling | list[Any] | None = None


# What a text begins with tells whether the next one repeats it.
_MAX_START_CHARS: Final = 32

_decode: Final = msgspec.json.Decoder(Reply).decode
_decode_body: Final = msgspec.json.Decoder(_Body).decode


class SGLang(CountingDialect):
    """Counts are cumulative for each index."""

    operation = "text_completion"
    generates: ClassVar[bool] = True

    def facts(self, body: bytes, choices: int) -> RequestFacts:
        """Read how many answers each prompt gets."""
        if b'"sampling_params"' not in body:
            return RequestFacts(choices_per_prompt=1 if body else None)
        try:
            sampling = _decode_body(body).sampling_params
        except BAD_JSON:
            return RequestFacts(choices_per_prompt=None)
        n = sampling.n if isinstance(sampling, _Sampling) else None
        return RequestFacts(choices_per_prompt=max(1, n or 1))

    def prompt(self, body: bytes) -> Iterator[Piece]:
        """Yield the prompts, and the stop sequences of sampling parameters that are one object."""
        loaded = load(body)
        yield from from_user(loaded, ("text",))
        sampling = loaded.get("sampling_params")
        if isinstance(sampling, dict):
            yield from settings(sampling, ("stop",))

    def read_event(self, observation: Observation, stamp_ns: int, name: bytes, data: bytes) -> None:
        """Take one event."""
        event = decoded(observation, data, _decode, Reply)
        if event is None:
            observation.error |= name == b"error"
            return
        observation.events += 1
        if event.error or name == b"error":
            note_error(observation, event.error)
        meta = event.meta_info
        if meta is None:
            return
        index = event.index or 0
        usage = meta.usage()
        choice = observation.choices.get(index)
        fresh = (usage.completion_tokens or 0) > (choice.tokens if choice is not None else 0)
        advance(observation, stamp_ns, index, ANSWER if fresh else 0, usage)
        if observation.listener is not None and event.text:
            _tell_new(observation, stamp_ns, index, event.text)
        _note(observation, index, meta)

    def tell_reply(self, observation: Observation, stamp_ns: int, body: bytes) -> None:
        """Tell the text of each reply."""
        for index, raw in enumerate(whole_replies(observation, body)):
            tell(observation, stamp_ns, index, ANSWER, load(raw).get("text"))

    def read_reply(self, observation: Observation, body: bytes) -> None:
        """Take a reply, or an array of them."""
        for index, raw in enumerate(whole_replies(observation, body)):
            reply = whole_reply(observation, raw, _decode, Reply)
            if reply is None:
                continue
            if reply.error:
                note_error(observation, reply.error)
            if reply.meta_info is not None:
                note_count(observation, index, reply.meta_info.usage())
                _note(observation, index, reply.meta_info)

    def read_reply_tail(self, observation: Observation, tail: bytes) -> None:
        """Take the counts of a lone reply; those of an array are all over it."""
        if not tail.rstrip().endswith(b"]"):
            for raw in objects_named("meta_info", tail):
                observation.final = salvage(load(raw), Meta).usage()
                return


def _tell_new(observation: Observation, stamp_ns: int, index: int, text: str) -> None:
    """Tell what is new of a text that repeats itself; with `--incremental-streaming-output` all of it is."""
    if observation.own is None:
        observation.own = {}
    length, start = observation.own.get(index, (0, ""))
    repeats = len(text) >= length and text.startswith(start)
    tell(observation, stamp_ns, index, ANSWER, text[length:] if repeats else text)
    observation.own[index] = (len(text), text[:_MAX_START_CHARS]) if repeats else (0, "")


def _note(observation: Observation, index: int, meta: Meta) -> None:
    if not observation.engine_id:
        note_names(observation, meta.id, None)
    why = meta.finish_reason
    kind = why.get("type") if isinstance(why, dict) else why
    if isinstance(kind, str):
        note_finish(observation, index, kind)
        if kind == "abort" and isinstance(why, dict) and why.get("status_code") is not None:
            note_error(observation, why)


SGLANG_NATIVE: Final = SGLang()
