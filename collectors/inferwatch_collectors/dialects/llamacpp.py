"""llama.cpp server's own `/completion`: counts in every event, `timings` in the last, no `[DONE]`.

`tokens_evaluated` includes what came from the cache, `timings.prompt_n` does not. `tokens_cached` is how full the slot
is, not what the cache saved. With `return_progress` events come that only say how far the prompt is. A list of prompts,
or an `n`, gives an array, or events with an `index`, and perhaps a `data: null` before them.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Final

import msgspec

from inferwatch_collectors.dialects.base import ANSWER, Observation, RequestFacts
from inferwatch_collectors.dialects.content import BAD_JSON, SETTINGS, Piece, from_user, load, settings
from inferwatch_collectors.dialects.lenient import objects_named
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
from inferwatch_collectors.dialects.timings import from_body
from inferwatch_collectors.dialects.usage import ONE_PROMPT, Count, Usage, from_timings, known


class Reply(msgspec.Struct, gc=False):
    """An event, or a plain reply."""

    index: Count | None = None
    content: str | None = None
    model: str | None = None
    stop: bool | None = None
    stop_type: str | None = None
    tokens_predicted: Count | None = None
    tokens_evaluated: Count | None = None
    timings: dict[str, Any] | None = None
    prompt_progress: Any = None
    error: Any = None

    def usage(self) -> Usage | None:
        """Return the counts."""
        if self.tokens_predicted is None:
            return None
        cached = known((self.timings or {}).get("cache_n"))
        return Usage(self.tokens_evaluated, self.tokens_predicted, cached_tokens=cached)


class _Body(msgspec.Struct, gc=False):
    prompt: Any = None
    n: Count | None = None


_decode: Final = msgspec.json.Decoder(Reply).decode
_decode_body: Final = msgspec.json.Decoder(_Body).decode


class LlamaCpp(CountingDialect):
    """Counts are cumulative for each index."""

    operation = "text_completion"
    generates: ClassVar[bool] = True

    def facts(self, body: bytes, choices: int) -> RequestFacts:
        """Read whether the prompt is a list of prompts, and how many answers each gets."""
        try:
            request = _decode_body(body)
        except BAD_JSON:
            return RequestFacts(choices_per_prompt=None)
        prompt = request.prompt
        several = isinstance(prompt, list) and any(isinstance(part, str | list) for part in prompt[:1])
        return RequestFacts(choices_per_prompt=max(1, request.n or 1) if several else ONE_PROMPT)

    def prompt(self, body: bytes) -> Iterator[Piece]:
        """Yield the prompts, and what stands around the place to fill in."""
        loaded = load(body)
        yield from from_user(loaded, ("prompt", "input_prefix", "input_suffix"))
        yield from settings(loaded, SETTINGS)

    def read_event(self, observation: Observation, stamp_ns: int, name: bytes, data: bytes) -> None:
        """Take one event."""
        event = decoded(observation, data, _decode, Reply)
        if event is None:
            observation.error |= name == b"error"
            return
        observation.events += 1
        if event.error or name == b"error":
            note_error(observation, event.error)
        if event.content is None or event.prompt_progress is not None:
            return
        index = event.index or 0
        advance(observation, stamp_ns, index, ANSWER if event.content else 0, event.usage())
        tell(observation, stamp_ns, index, ANSWER, event.content)
        if event.stop:
            _note_end(observation, index, event)

    def read_reply(self, observation: Observation, body: bytes) -> None:
        """Take a reply, or an array of them."""
        for position, raw in enumerate(whole_replies(observation, body)):
            reply = whole_reply(observation, raw, _decode, Reply)
            if reply is None:
                continue
            if reply.error:
                note_error(observation, reply.error)
            usage = reply.usage()
            if usage is not None:
                index = position if reply.index is None else reply.index
                note_count(observation, index, usage)
                _note_end(observation, index, reply)

    def read_reply_tail(self, observation: Observation, tail: bytes) -> None:
        """Take the `timings` of a lone reply: they stand behind the prompt, which comes back, and the counts do not."""
        if not tail.rstrip().endswith(b"]"):
            for raw in objects_named("timings", tail):
                observation.final = from_timings(load(raw))
                return

    def tell_reply(self, observation: Observation, stamp_ns: int, body: bytes) -> None:
        """Tell the text of each reply; its `prompt` is the request's once more."""
        for index, raw in enumerate(whole_replies(observation, body)):
            tell(observation, stamp_ns, index, ANSWER, load(raw).get("content"))


def _note_end(observation: Observation, index: int, reply: Reply) -> None:
    note_names(observation, None, reply.model)
    note_finish(observation, index, reply.stop_type or "stop")
    if len(observation.choices) == 1:
        observation.timings = from_body(None, reply.timings) or observation.timings


LLAMACPP_NATIVE: Final = LlamaCpp()
