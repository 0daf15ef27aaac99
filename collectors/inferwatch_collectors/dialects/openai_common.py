"""What OpenAI's chat and text completions have in common, as vLLM 0.32 speaks them and, but for the usage rule, most
others.

Strategy for a stream. `read_event` runs once per token, so it decodes just the fields it needs into typed structs and
updates one `Choice`. What the typed decoder refuses goes to `lenient`, which keeps the right part of it.

Counting. A usage on an event with one choice is cumulative for that choice (continuous usage) and is kept, never added
up. A usage on an event with no choice, or with several, is for the whole answer. The difference of two counts of one
choice is how many tokens came, also when the text is empty (an end token, a held-back character) or the tokens came
with no event of their own (a tool parser that waits). Without counts every event with something generated in it stands
for one token.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Final

import msgspec

from inferwatch.record import TokenSource
from inferwatch_collectors.dialects.base import MAX_NAME_CHARS, Choice, Dialect, Observation
from inferwatch_collectors.dialects.content import BAD_JSON, Piece, Source, load, settings, texts
from inferwatch_collectors.dialects.lenient import load_object, salvage
from inferwatch_collectors.dialects.timings import NO_TIMINGS, from_body
from inferwatch_collectors.dialects.usage import Count, LastFinalWins, Totals, Usage, UsageRule

# A finish reason is a word of the engine's; those known have 14 characters at most.
_MAX_FINISH_CHARS: Final = 32

# Inside a JSON string the quotes would be escaped, so text that talks about finish reasons does not match.
_FINISH_REASON: Final = re.compile(rb'"finish_reason"\s*:\s*"([^"\\]{1,32})"')


# Strings that clients put beside the conversation, and that say who they are or what they look for.
SETTINGS: Final = ("stop", "user", "safety_identifier", "prompt_cache_key", "metadata")


class WireChoice(msgspec.Struct, gc=False):
    """A choice in an event or a plain reply."""

    index: Count | None = None
    finish_reason: str | None = None


class WireReply(msgspec.Struct, gc=False):
    """An event or a plain reply without its choices."""

    id: str | None = None
    model: str | None = None
    usage: Usage | None = None
    error: Any = None
    metrics: Any = None  # vLLM's own times of the request
    timings: Any = None  # llama.cpp's


class PlainReply(WireReply, gc=False):
    """A whole reply."""

    choices: list[WireChoice] | None = None


# At hand: before Python 3.12 each mention of an enum's member calls a descriptor.
_FINAL_USAGE: Final = TokenSource.FINAL_USAGE

_decode_reply: Final = msgspec.json.Decoder(PlainReply).decode
_decode_usage: Final = msgspec.json.Decoder(Usage).decode


class OpenAIReplies(Dialect):
    """Plain replies and usage; the streaming dialects build on it."""

    reads: ClassVar[bool] = True
    rule: ClassVar[UsageRule] = LastFinalWins()

    def read_reply(self, observation: Observation, body: bytes) -> None:
        """Take id, model, usage and the finish reason of each choice."""
        try:
            reply = _decode_reply(body)
        except BAD_JSON:
            loaded = load_object(body)
            if loaded is None:
                observation.malformed += 1
                observation.lossy = True
                return
            reply = salvage(loaded, PlainReply)
        _note_names(observation, reply)
        observation.error = bool(reply.error)
        observation.final = reply.usage
        if len(reply.choices or ()) == 1:
            _note_timings(observation, reply)
        note_finishes(observation, reply.choices or ())

    def read_reply_tail(self, observation: Observation, tail: bytes) -> None:
        """Take the finish reasons in the order in which they stand there; with some missing the indices are a guess."""
        found = [match.decode("utf-8", "replace") for match in _FINISH_REASON.findall(tail)]
        note_finishes(observation, [WireChoice(index=i, finish_reason=reason) for i, reason in enumerate(found)])

    def read_usage(self, raw: bytes) -> Usage | None:
        """Return the usage object in `raw` without what is wrong in it; None if it is no object."""
        try:
            return _decode_usage(raw)
        except BAD_JSON:
            loaded = load_object(raw)
            return None if loaded is None else salvage(loaded, Usage)

    def totals(self, observation: Observation, choices: int) -> Totals:
        """Return the final usage, or the sum of the running ones, or what the events let us guess."""
        final = observation.final
        if final is not None and (final.prompt_tokens is not None or final.completion_tokens is not None):
            return Totals(final.prompt_tokens, final.completion_tokens, final.cached, final.reasoning, _FINAL_USAGE)
        seen = observation.choices
        usages = {index: choice.usage for index, choice in seen.items() if choice.usage is not None}
        if usages:
            running = self.rule.running(usages, observation.facts.choices_per_prompt)
            # A choice that has finished and was counted then has its final count, and so has the whole.
            complete = len(seen) >= choices and all(choice.finish and choice.counted for choice in seen.values())
            return running._replace(source=TokenSource.FINAL_USAGE) if complete else running
        events = sum(choice.events for choice in seen.values())
        return Totals(completion=events, source=TokenSource.CHUNK_ESTIMATE) if events else Totals()


class OpenAIStreams(OpenAIReplies):
    """Streamed replies. A subclass gives the struct of its chunks and tells what of a choice is generated."""

    generates: ClassVar[bool] = True

    def __init__(
        self,
        chunk: type[WireReply],
        classes: Callable[[Any], int],
        texts: Callable[[Any], Iterator[tuple[int, str]]],
    ) -> None:
        """`texts` yields the class (one bit) and the text of each thing that a choice of a chunk brings."""
        self._chunk = chunk
        self._texts = texts
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(chunk).decode
        self._classes = classes

    def read_event(self, observation: Observation, stamp_ns: int, name: bytes, data: bytes) -> None:
        """Take one event: a chunk, an error, or the end mark."""
        try:
            chunk = self._decode(data)
        except BAD_JSON:
            chunk = self._second_chance(observation, data)
            if chunk is None:
                observation.error |= name == b"error"
                return
        observation.events += 1
        if name or chunk.error:
            observation.error |= name == b"error" or bool(chunk.error)
        if not observation.engine_model:
            _note_names(observation, chunk)
        usage = chunk.usage
        choices = chunk.choices
        if choices and len(choices) == 1:
            self._advance(observation, stamp_ns, choices[0], 0, usage)
            if chunk.timings is not None and choices[0].finish_reason:
                _note_timings(observation, chunk)
            return
        if usage is not None:
            observation.final = self.rule.final(observation.final, usage)
            _note_timings(observation, chunk)
        for position, choice in enumerate(choices or ()):
            self._advance(observation, stamp_ns, choice, position, None)

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

    def _second_chance(self, observation: Observation, data: bytes) -> Any:
        """Return the chunk in `data` that the typed decoder refused, or None: the end mark, or nothing of use."""
        text = data.strip()
        if not text:
            return None
        if text == b"[DONE]":
            observation.done = True
            return None
        loaded = load_object(data)
        if loaded is None:
            # Errors put together by hand may hold quotes that nobody escaped (Transformers serve).
            observation.error |= text.startswith(b'{"error"')
            observation.malformed += 1
            observation.lossy = True
            return None
        return salvage(loaded, self._chunk)

    def _advance(self, observation: Observation, stamp_ns: int, wire: Any, position: int, usage: Usage | None) -> None:
        index = wire.index
        choice = observation.choices.get(index) or observation.choice(position if index is None else index)
        if choice is None:
            return
        classes = self._classes(wire)
        if classes and (observation.echo_only or (usage is not None and usage.nothing_generated())):
            classes = 0  # the prompt comes back
        tokens = 0
        if classes:
            choice.events += 1
            tokens = 1
            if observation.awaits_token:
                observation.token_seen(stamp_ns, classes)
            if observation.listener is not None:
                for bit, text in self._texts(wire):
                    observation.listener.text(stamp_ns, position if index is None else index, bit, text)
        if usage is None:
            choice.counted = False
        else:
            tokens = count(choice, usage, tokens)
        if tokens:
            observation.tokens_arrived(choice, stamp_ns, tokens)
        if wire.finish_reason:
            choice.finish = wire.finish_reason[:_MAX_FINISH_CHARS]


def count(choice: Choice, usage: Usage, guess: int) -> int:
    """Take the cumulative `usage` of `choice`; return how many tokens came since the event before.

    `guess` is the answer where the count before is not known, or this one is no count.
    """
    total = usage.completion_tokens
    if total is None or total < choice.tokens or (total == 0 and usage.blank()):
        choice.counted = False
        return guess
    # Without a count before it the difference means nothing, unless nothing came before it at all.
    tokens = total - choice.tokens if choice.counted or not choice.events else guess
    choice.tokens = total
    choice.usage = usage
    choice.counted = True
    return tokens


def note_finishes(observation: Observation, choices: Sequence[WireChoice]) -> None:
    """Remember how each of `choices` finished."""
    for position, wire in enumerate(choices):
        choice = observation.choice(position if wire.index is None else wire.index)
        if choice is not None and wire.finish_reason:
            choice.finish = wire.finish_reason[:_MAX_FINISH_CHARS]


def _note_names(observation: Observation, reply: WireReply) -> None:
    if reply.id:
        observation.engine_id = reply.id[:MAX_NAME_CHARS]
    if reply.model:
        observation.engine_model = reply.model[:MAX_NAME_CHARS]


def _note_timings(observation: Observation, reply: WireReply) -> None:
    """Take the engine's own times. They are of one sequence: with several choices they are not the request's."""
    if len(observation.choices) > 1:
        observation.timings = NO_TIMINGS
    elif reply.metrics is not None or reply.timings is not None:
        observation.timings = from_body(reply.metrics, reply.timings) or observation.timings


class Embeddings(OpenAIReplies):
    """`/v1/embeddings`: one usage, no stream."""

    operation: ClassVar[str] = "embeddings"

    def prompt(self, body: bytes) -> Iterator[Piece]:
        """Yield the inputs."""
        loaded = load(body)
        for text in texts(loaded.get("input")):
            yield Piece(Source.USER, text)
        yield from settings(loaded, SETTINGS)
