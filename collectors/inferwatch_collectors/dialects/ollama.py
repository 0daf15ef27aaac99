"""Ollama's own API (`/api/chat`, `/api/generate`, `/api/embed`): records of NDJSON, the counts in the last.

Streams are the default. Counts and durations (nanoseconds) that are 0 are left out, so beside others a missing one is
0; a last record with no figures at all (SGLang speaks this dialect, and streams so) says nothing. An empty prompt loads
or unloads a model and generates nothing. An error after the first record is a record of its own, at 200.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Final

import msgspec

from inferwatch.record import TimingSource
from inferwatch_collectors.dialects.base import ANSWER, REASONING, TOOL_CALL, Observation
from inferwatch_collectors.dialects.content import Piece, Source, from_user, load, messages, settings, strings, texts
from inferwatch_collectors.dialects.lenient import salvage
from inferwatch_collectors.dialects.reading import (
    CountingDialect,
    advance,
    decoded,
    note_error,
    note_finish,
    note_names,
    tell,
    whole_reply,
)
from inferwatch_collectors.dialects.timings import MAX_S, EngineTimings
from inferwatch_collectors.dialects.usage import Count, Usage


class Said(msgspec.Struct, gc=False):
    """`message` of `/api/chat`."""

    content: str | None = None
    thinking: str | None = None
    tool_calls: list[Any] | None = None


class Record(msgspec.Struct, gc=False):
    """One record, or a plain reply."""

    model: str | None = None
    message: Said | None = None
    response: str | None = None
    thinking: str | None = None
    done: bool | None = None
    done_reason: str | None = None
    total_duration: Any = None
    prompt_eval_count: Count | None = None
    prompt_eval_duration: Any = None
    eval_count: Count | None = None
    eval_duration: Any = None
    error: Any = None

    def usage(self) -> Usage | None:
        """Return the counts of a last record, None if it has none."""
        if self.prompt_eval_count is None and self.eval_count is None and self.total_duration is None:
            return None
        return Usage(self.prompt_eval_count or 0, self.eval_count or 0)

    def classes(self) -> int:
        """Return the classes (bits) of output in it."""
        said = self.message
        classes = ANSWER if self.response or (said is not None and said.content) else 0
        if self.thinking or (said is not None and said.thinking):
            classes |= REASONING
        return classes | (TOOL_CALL if said is not None and said.tool_calls else 0)


_decode: Final = msgspec.json.Decoder(Record).decode


class Ollama(CountingDialect):
    """One prompt, one answer."""

    generates: ClassVar[bool] = True

    def __init__(self, operation: str) -> None:
        self.operation = operation

    def prompt(self, body: bytes) -> Iterator[Piece]:
        """Yield the system's text, the prompt or the messages, and the stop sequences."""
        loaded = load(body)
        for text in texts(loaded.get("system")):
            yield Piece(Source.SYSTEM, text)
        yield from from_user(loaded, ("prompt", "suffix", "input"))
        yield from messages(loaded.get("messages"))
        options = loaded.get("options")
        if isinstance(options, dict):
            yield from settings(options, ("stop",))

    def read_event(self, observation: Observation, stamp_ns: int, name: bytes, data: bytes) -> None:
        """Take one record."""
        record = decoded(observation, data, _decode, Record)
        if record is None:
            return
        observation.events += 1
        if record.error:
            note_error(observation, record.error)
        classes = record.classes()
        if classes:
            advance(observation, stamp_ns, 0, classes, None)
            _tell(observation, stamp_ns, record)
        self._note(observation, record)

    def read_reply(self, observation: Observation, body: bytes) -> None:
        """Take a plain reply."""
        record = whole_reply(observation, body, _decode, Record)
        if record is not None:
            if record.error:
                note_error(observation, record.error)
            self._note(observation, record)

    def tell_reply(self, observation: Observation, stamp_ns: int, body: bytes) -> None:
        """Tell the text."""
        _tell(observation, stamp_ns, salvage(load(body), Record))

    def read_reply_tail(self, observation: Observation, tail: bytes) -> None:
        """Take the figures, which stand together at the end."""
        _, figures, rest = tail.rpartition(b'"total_duration":')
        if figures:
            self._note(observation, salvage(load(b'{"done":true,' + figures + rest), Record))

    def unfinished(self, observation: Observation) -> bool:
        """Return whether the last record never came."""
        return not observation.done

    def _note(self, observation: Observation, record: Record) -> None:
        if not observation.engine_model:
            note_names(observation, None, record.model)
        if not record.done:
            return
        observation.done = True
        observation.final = record.usage()
        note_finish(observation, 0, record.done_reason or "stop")
        prefill_s, decode_s = _seconds(record.prompt_eval_duration), _seconds(record.eval_duration)
        if prefill_s is not None or decode_s is not None:
            observation.timings = EngineTimings(TimingSource.ENGINE_TIMINGS, prefill_s=prefill_s, decode_s=decode_s)


class OllamaEmbed(CountingDialect):
    """`/api/embed`: a prompt, and nothing generated. The older `/api/embeddings` counts nothing."""

    operation = "embeddings"

    def prompt(self, body: bytes) -> Iterator[Piece]:
        """Yield the inputs."""
        yield from from_user(load(body), ("input", "prompt"))

    def read_reply(self, observation: Observation, body: bytes) -> None:
        """Take a plain reply."""
        record = whole_reply(observation, body, _decode, Record)
        if record is None:
            return
        if record.error:
            note_error(observation, record.error)
        note_names(observation, None, record.model)
        if record.prompt_eval_count is not None:
            observation.final = Usage(record.prompt_eval_count)

    def read_reply_tail(self, observation: Observation, tail: bytes) -> None:
        """Take the count, which stands behind the vectors."""
        _, name, rest = tail.rpartition(b'"prompt_eval_count":')
        record = salvage(load(b"{" + name + rest), Record)
        if record.prompt_eval_count is not None:
            observation.final = Usage(record.prompt_eval_count)


def _tell(observation: Observation, stamp_ns: int, record: Record) -> None:
    if observation.listener is None:
        return
    said = record.message or Said()
    for text in (record.thinking, said.thinking):
        tell(observation, stamp_ns, 0, REASONING, text)
    for text in (record.response, said.content):
        tell(observation, stamp_ns, 0, ANSWER, text)
    for text in strings([_arguments(call) for call in said.tool_calls or ()]):
        tell(observation, stamp_ns, 0, TOOL_CALL, text)


def _arguments(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    return function.get("arguments") if isinstance(function, dict) else None


def _seconds(nanoseconds: Any) -> float | None:
    if type(nanoseconds) is not int or not 0 <= nanoseconds < MAX_S * 1e9:
        return None
    return nanoseconds / 1e9


OLLAMA_CHAT: Final = Ollama("chat")
OLLAMA_GENERATE: Final = Ollama("text_completion")
OLLAMA_EMBED: Final = OllamaEmbed()
