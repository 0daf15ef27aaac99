"""Speech to text (`/v1/audio/transcriptions`, `/v1/audio/translations`).

OpenAI streams `transcript.text.delta` and ends with `transcript.text.done`, which has the usage; vLLM streams chunks
like those of chat. A usage may be of seconds (`{"type":"duration"}`): then there are no tokens.
"""

from typing import Any, ClassVar, Final

import msgspec

from inferwatch_collectors.dialects.base import ANSWER, Observation
from inferwatch_collectors.dialects.content import BAD_JSON, load
from inferwatch_collectors.dialects.openai_chat import OPENAI_CHAT
from inferwatch_collectors.dialects.openai_responses import OPENAI_RESPONSES, ResponsesUsage
from inferwatch_collectors.dialects.reading import (
    CountingDialect,
    advance,
    note_error,
    note_finish,
    tell,
    whole_reply,
)
from inferwatch_collectors.dialects.usage import Usage


class Event(msgspec.Struct, gc=False):
    """An event of OpenAI's, or a plain reply."""

    type: str | None = None
    delta: str | None = None
    usage: ResponsesUsage | None = None
    error: Any = None


_decode: Final = msgspec.json.Decoder(Event).decode


class Transcription(CountingDialect):
    """One file, one text."""

    operation = "transcription"
    generates: ClassVar[bool] = True

    def read_event(self, observation: Observation, stamp_ns: int, name: bytes, data: bytes) -> None:
        """Take one event."""
        try:
            event = _decode(data)
        except BAD_JSON:
            event = Event()
        kind = event.type or ""
        if not kind.startswith("transcript."):
            OPENAI_CHAT.read_event(observation, stamp_ns, name, data)
            return
        observation.events += 1
        if event.error:
            note_error(observation, event.error)
        if event.delta and kind == "transcript.text.delta":
            advance(observation, stamp_ns, 0, ANSWER, None)
            tell(observation, stamp_ns, 0, ANSWER, event.delta)
        if kind == "transcript.text.done":
            _note(observation, event)
            observation.done = True
            note_finish(observation, 0, "stop")

    def read_reply(self, observation: Observation, body: bytes) -> None:
        """Take a reply; one of plain text or subtitles is not read."""
        reply = whole_reply(observation, body, _decode, Event)
        if reply is not None:
            if reply.error:
                note_error(observation, reply.error)
            _note(observation, reply)

    def tell_reply(self, observation: Observation, stamp_ns: int, body: bytes) -> None:
        """Tell the text."""
        tell(observation, stamp_ns, 0, ANSWER, load(body).get("text"))

    def read_usage(self, raw: bytes) -> Usage | None:
        """Return the usage object in `raw` JSON, None if it is none."""
        usage = OPENAI_CHAT.read_usage(raw)
        return OPENAI_RESPONSES.read_usage(raw) if usage is None or usage.blank() else usage


def _note(observation: Observation, event: Event) -> None:
    if event.usage is not None:
        observation.final = event.usage.usage()


TRANSCRIPTION: Final = Transcription()
