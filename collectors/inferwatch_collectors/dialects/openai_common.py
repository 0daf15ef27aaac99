"""What OpenAI's chat and text completions have in common, as vLLM 0.32 speaks them and, but for the usage rule, most
others.

Strategy for a stream. `read_event` runs once per token, so it decodes just the fields it needs into typed structs and
updates one `Choice`. What the typed decoder refuses goes to `lenient`, which keeps the right part of it.

Counting is `reading`'s. A usage on an event with one choice is cumulative for that choice (continuous usage); a usage
on an event with no choice, or with several, is for the whole answer. llama.cpp's `timings` count like a usage.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Final

import msgspec

from inferwatch.record import TokenClass, TokenSource
from inferwatch_collectors.dialects.alike import PROBE_TOKENS, Alike, around
from inferwatch_collectors.dialects.base import Observation
from inferwatch_collectors.dialects.content import BAD_JSON, load
from inferwatch_collectors.dialects.lenient import load_object, salvage
from inferwatch_collectors.dialects.reading import (
    MAX_FINISH_CHARS,
    CountingDialect,
    advance_choice,
    count,
    note_error,
    note_names,
    second_chance,
    whole_reply,
)
from inferwatch_collectors.dialects.timings import NO_TIMINGS, from_body
from inferwatch_collectors.dialects.usage import Count, Usage, from_timings

# Inside a JSON string the quotes would be escaped, so text that talks about finish reasons does not match.
_FINISH_REASON: Final = re.compile(rb'"finish_reason"\s*:\s*"([^"\\]{1,32})"')


class WireChoice(msgspec.Struct, gc=False):
    """A choice in an event or a plain reply."""

    index: Count | None = None
    finish_reason: str | None = None


class GroqExtra(msgspec.Struct, gc=False):
    """Groq's own field, on the first and the last event."""

    usage: Usage | None = None


class WireReply(msgspec.Struct, gc=False):
    """An event or a plain reply without its choices."""

    id: str | None = None
    model: str | None = None
    usage: Usage | None = None
    error: Any = None
    metrics: Any = None  # vLLM's own times of the request
    timings: Any = None  # llama.cpp's
    x_groq: GroqExtra | None = None  # has the usage also where nobody asked for it


class PlainReply(WireReply, gc=False):
    """A whole reply."""

    choices: list[WireChoice] | None = None


_decode_reply: Final = msgspec.json.Decoder(PlainReply).decode
_decode_usage: Final = msgspec.json.Decoder(Usage).decode


class OpenAIReplies(CountingDialect):
    """Plain replies and usage; the streaming dialects build on it."""

    def read_reply(self, observation: Observation, body: bytes) -> None:
        """Take id, model, usage and the finish reason of each choice."""
        reply = whole_reply(observation, body, _decode_reply, PlainReply)
        if reply is None:
            return
        note_names(observation, reply.id, reply.model)
        if reply.error:
            note_error(observation, reply.error)
        observation.final = reply.usage or _usage_elsewhere(observation, reply)
        if len(reply.choices or ()) == 1:
            _note_timings(observation, reply)
        elif reply.timings is not None:
            observation.source = TokenSource.PARTIAL_USAGE  # llama.cpp's is of the first choice alone
        note_finishes(observation, reply.choices or ())

    def read_reply_tail(self, observation: Observation, tail: bytes) -> None:
        """Take the usage, and the finish reasons in their order there; with some missing the indices are a guess."""
        super().read_reply_tail(observation, tail)
        if observation.facts.choices > 1 and b'"timings"' in tail:
            observation.source = TokenSource.PARTIAL_USAGE  # as above
        found = [match.decode("utf-8", "replace") for match in _FINISH_REASON.findall(tail)]
        note_finishes(observation, [WireChoice(index=i, finish_reason=reason) for i, reason in enumerate(found)])

    def read_usage(self, raw: bytes) -> Usage | None:
        """Return the usage object in `raw` without what is wrong in it; None if it is no object."""
        try:
            return _decode_usage(raw)
        except BAD_JSON:
            loaded = load_object(raw)
            return None if loaded is None else salvage(loaded, Usage)


class OpenAIStreams(OpenAIReplies):
    """Streamed replies. A subclass gives the struct of its chunks and tells what of a choice is generated."""

    generates: ClassVar[bool] = True

    def __init__(
        self,
        chunk: type[WireReply],
        classes: Callable[[Any], int],
        texts: Callable[[Any], Iterable[tuple[int, str]]],
    ) -> None:
        """`texts` returns the class (one bit) and the text of each thing that a choice of a chunk brings."""
        self._chunk = chunk
        self._texts = texts
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(chunk).decode
        self._classes = classes

    def read_event(self, observation: Observation, stamp_ns: int, name: bytes, data: bytes) -> None:
        """Take one event: a chunk, an error, or the end mark."""
        try:
            chunk = self._decode(data)
        except BAD_JSON:
            chunk = second_chance(observation, data, self._chunk)
            if chunk is None:
                observation.error |= name == b"error"
                return
        observation.events += 1
        if chunk.error or name == b"error":
            note_error(observation, chunk.error)
        if not observation.engine_model:
            note_names(observation, chunk.id, chunk.model)
        usage = chunk.usage
        if usage is None and (chunk.timings is not None or chunk.x_groq is not None):
            usage = _usage_elsewhere(observation, chunk)
        choices = chunk.choices
        if choices and len(choices) == 1:
            self._advance(observation, stamp_ns, choices[0], 0, usage)
            if chunk.timings is not None and choices[0].finish_reason:
                _note_timings(observation, chunk)
            return
        if usage is not None:
            if chunk.usage is not None and observation.source is TokenSource.TIMINGS:
                observation.source = None
            if chunk.timings is not None:
                _count_ended(observation, usage)
            else:
                observation.final = self.rule.final(observation.final, usage, observation.facts.prompts)
            _note_timings(observation, chunk)
        for position, choice in enumerate(choices or ()):
            self._advance(observation, stamp_ns, choice, position, None)

    def alike(self, observation: Observation, event: bytes) -> Alike | None:
        """Return what takes events like this one: of one choice a text, its running usage, and nothing else of note.

        What they say beside (the model, the id) must have been noted once and for all.
        """
        needed_whole = observation.listener is not None or observation.echo_only or not observation.engine_model
        parts = None if needed_whole else around(event)
        if parts is None:
            return None
        try:
            probe = self._decode(parts.probe())
        except BAD_JSON:
            return None
        if probe.usage is None or probe.usage.completion_tokens != PROBE_TOKENS or len(probe.choices or ()) != 1:
            return None
        wire = probe.choices[0]
        of_note = probe.error or probe.timings is not None or probe.x_groq is not None or wire.finish_reason
        choice = observation.choices.get(wire.index)
        return None if of_note or choice is None else Alike(parts, observation, choice, self._classes(wire))

    def unfinished(self, observation: Observation) -> bool:
        """Return whether a choice has no finish. TGI writes none behind a tool call, only its end mark."""
        if observation.done and observation.first_class is TokenClass.TOOL_CALL:
            return False
        return super().unfinished(observation)

    def tell_reply(self, observation: Observation, stamp_ns: int, body: bytes) -> None:
        """Tell the text of each choice: a plain reply has whole messages where a stream has deltas."""
        listener, choices = observation.listener, load(body).get("choices")
        if listener is None or observation.echo_only or not isinstance(choices, list):
            return
        for position, choice in enumerate(choices):
            if not isinstance(choice, dict):
                continue
            wire = salvage({"choices": [{**choice, "delta": choice.get("message")}]}, self._chunk)
            for whole in getattr(wire, "choices", None) or ():
                for bit, text in self._texts(whole):
                    listener.text(stamp_ns, position if whole.index is None else whole.index, bit, text)

    def _advance(self, observation: Observation, stamp_ns: int, wire: Any, position: int, usage: Usage | None) -> None:
        index = wire.index
        choice = observation.choices.get(index) or observation.choice(position if index is None else index)
        if choice is None:
            return
        classes = self._classes(wire)
        if classes and (observation.echo_only or (usage is not None and usage.nothing_generated())):
            classes = 0  # the prompt comes back
        if classes and observation.listener is not None:
            for bit, text in self._texts(wire):
                observation.listener.text(stamp_ns, position if index is None else index, bit, text)
        advance_choice(observation, stamp_ns, choice, classes, usage)
        if wire.finish_reason:
            choice.finish = wire.finish_reason[:MAX_FINISH_CHARS]


def _usage_elsewhere(observation: Observation, reply: WireReply) -> Usage | None:
    """Return the counts of a reply without `usage`, if it has others."""
    if reply.x_groq is not None:
        return reply.x_groq.usage
    usage = from_timings(reply.timings)
    if usage is not None:
        observation.source = TokenSource.TIMINGS
    return usage


def note_finishes(observation: Observation, choices: Sequence[WireChoice]) -> None:
    """Remember how each of `choices` finished."""
    for position, wire in enumerate(choices):
        choice = observation.choice(position if wire.index is None else wire.index)
        if choice is not None and wire.finish_reason:
            choice.finish = wire.finish_reason[:MAX_FINISH_CHARS]


def _count_ended(observation: Observation, usage: Usage) -> None:
    """Take llama.cpp's usage that stands alone: of the choice that has just ended, however many there are.

    Each has one, so where that end was missed, any choice without a count makes the same sum.
    """
    choices = observation.choices.values()
    uncounted = [choice for choice in choices if choice.usage is None]
    ended = next((choice for choice in uncounted if choice.finish), uncounted[0] if uncounted else None)
    if ended is None:  # with `timings_per_token` each event has a count
        ended = next((choice for choice in choices if choice.finish and not choice.counted), None)
    if ended is not None:
        ended.guessed = observation.lossy or not ended.finish
        count(ended, usage, 0)
        return
    if observation.facts.choices > 1:
        observation.source = TokenSource.PARTIAL_USAGE
    if observation.facts.choices <= 1 or not choices:
        observation.final = usage


def _note_timings(observation: Observation, reply: WireReply) -> None:
    """Take the engine's own times. They are of one sequence: with several choices they are not the request's."""
    if len(observation.choices) > 1:
        observation.timings = NO_TIMINGS
    elif reply.metrics is not None or reply.timings is not None:
        observation.timings = from_body(reply.metrics, reply.timings) or observation.timings
