"""Text Generation Inference's own API: `/generate`, `/generate_stream`, and `/`, which is either.

Every event of a stream is one token, also under speculation, so without `details` the number of events is the number of
tokens. With `details` the last event says how many there were, and how long the prompt was; a plain reply says the
latter only in its head. A plain `/` is an array of one reply. No `[DONE]`: the event with `generated_text` is the last.

Errors of a stream, refusals as well, come as one flat event at 200.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

import msgspec

from inferwatch.record import TokenSource
from inferwatch_collectors.dialects.base import ANSWER, Observation
from inferwatch_collectors.dialects.content import Piece, from_user, load, settings
from inferwatch_collectors.dialects.reading import (
    CountingDialect,
    advance,
    decoded,
    note_error,
    note_finish,
    tell,
    whole_reply,
)
from inferwatch_collectors.dialects.replies import whole_replies
from inferwatch_collectors.dialects.usage import Count, Totals, Usage, count_in, summed


class Token(msgspec.Struct, gc=False):
    """A generated token."""

    text: str | None = None
    special: bool | None = None


class Sequence(msgspec.Struct, gc=False):
    """What `details` says of a sequence."""

    finish_reason: str | None = None
    generated_tokens: Count | None = None
    input_length: Count | None = None
    prefill: list[Any] | None = None  # the prompt's tokens, with `decoder_input_details`

    def usage(self) -> Usage:
        """Return its counts."""
        return Usage(
            prompt_tokens=self.input_length or (len(self.prefill) if self.prefill else None),
            completion_tokens=self.generated_tokens,
        )


class Details(Sequence, gc=False):
    """`details`."""

    best_of_sequences: list[Sequence] | None = None  # the others, which were generated all the same


class Reply(msgspec.Struct, gc=False):
    """An event, or a plain reply."""

    token: Token | None = None
    generated_text: str | None = None
    details: Details | None = None
    error: Any = None
    error_type: str | None = None


_decode: Final = msgspec.json.Decoder(Reply).decode


class TGI(CountingDialect):
    """One prompt; of several sequences (`best_of`) only the best comes back."""

    operation = "text_completion"
    generates: ClassVar[bool] = True
    reads_head: ClassVar[bool] = True

    def prompt(self, body: bytes) -> Iterator[Piece]:
        """Yield the input and the stop sequences."""
        loaded = load(body)
        yield from from_user(loaded, ("inputs",))
        parameters = loaded.get("parameters")
        if isinstance(parameters, dict):
            yield from settings(parameters, ("stop",))

    def read_head(self, observation: Observation, headers: Mapping[str, str]) -> None:
        """Take the counts of a plain reply: they are of the best sequence alone."""
        prompt = count_in(headers.get("x-prompt-tokens", ""))
        completion = count_in(headers.get("x-generated-tokens", ""))
        if prompt is not None or completion is not None:
            observation.own = Usage(prompt_tokens=prompt, completion_tokens=completion)

    def read_event(self, observation: Observation, stamp_ns: int, name: bytes, data: bytes) -> None:
        """Take one event."""
        event = decoded(observation, data, _decode, Reply)
        if event is None:
            observation.error |= name == b"error"
            return
        observation.events += 1
        if event.error or name == b"error":
            note_error(observation, event.error, event.error_type)
        if event.token is not None:
            advance(observation, stamp_ns, 0, ANSWER, None)
            if not event.token.special:
                tell(observation, stamp_ns, 0, ANSWER, event.token.text)
        if event.generated_text is not None:
            observation.done = True
        if event.details is not None:
            _note(observation, 0, event.details)

    def read_reply(self, observation: Observation, body: bytes) -> None:
        """Take a reply, or an array of them."""
        for index, raw in enumerate(whole_replies(observation, body)):
            reply = whole_reply(observation, raw, _decode, Reply)
            if reply is None:
                continue
            if reply.error:
                note_error(observation, reply.error, reply.error_type)
            if reply.details is not None:
                _note(observation, index, reply.details)

    def tell_reply(self, observation: Observation, stamp_ns: int, body: bytes) -> None:
        """Tell the text of each reply."""
        for index, raw in enumerate(whole_replies(observation, body)):
            tell(observation, stamp_ns, index, ANSWER, load(raw).get("generated_text"))

    def totals(self, observation: Observation, choices: int) -> Totals:
        """Return what `details` says, completed by the head of a plain reply."""
        totals = super().totals(observation, choices)
        told: Usage | None = observation.own
        if told is None:
            return totals
        if totals.completion is None:
            return Totals(told.prompt_tokens, told.completion_tokens, source=TokenSource.HEADERS)
        return totals if totals.prompt is not None else totals._replace(prompt=told.prompt_tokens)

    def unfinished(self, observation: Observation) -> bool:
        """Return whether the last token never came; how it finished is only told with `details`."""
        return not observation.done


def _note(observation: Observation, index: int, details: Details) -> None:
    usage = details.usage()
    if details.best_of_sequences:
        others = [Usage(completion_tokens=other.generated_tokens) for other in details.best_of_sequences]
        usage = summed((usage, *others))
    observation.final = usage if observation.final is None else summed((observation.final, usage))
    observation.source = TokenSource.DETAILS
    note_finish(observation, index, details.finish_reason)


TGI_NATIVE: Final = TGI()
