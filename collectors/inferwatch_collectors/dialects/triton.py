"""Triton's generate extension (`/v2/models/NAME/generate`, `…/generate_stream`): text, and no usage.

Whether `text_output` is a piece or everything so far depends on the model behind it; either way an event with text in
it stands for one token. Models that make their counts output tensors are believed: vLLM's backend has
`num_output_tokens` (of this event alone) and `num_input_tokens`, when the request asks for them. No end mark: the end
of the body is the end.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Final

import msgspec

from inferwatch.record import TokenSource
from inferwatch_collectors.dialects.base import ANSWER, Observation
from inferwatch_collectors.dialects.content import Piece, from_user, load, strings
from inferwatch_collectors.dialects.reading import (
    CountingDialect,
    advance,
    decoded,
    note_error,
    note_names,
    tell,
    whole_reply,
)
from inferwatch_collectors.dialects.usage import Usage, known, summed


class Reply(msgspec.Struct, gc=False):
    """An event, or a plain reply. Tensors of one element are scalars, others lists."""

    id: str | None = None
    model_name: str | None = None
    text_output: Any = None
    num_input_tokens: Any = None
    num_output_tokens: Any = None
    input_token_count: Any = None
    output_token_count: Any = None
    error: Any = None

    def usage(self) -> Usage | None:
        """Return the counts, None if the model does not tell any."""
        completion = _total(self.num_output_tokens, self.output_token_count)
        prompt = _total(self.num_input_tokens, self.input_token_count)
        return None if completion is None and prompt is None else Usage(prompt, completion)


_decode: Final = msgspec.json.Decoder(Reply).decode


class Triton(CountingDialect):
    """One prompt, one answer."""

    operation = "text_completion"
    generates: ClassVar[bool] = True

    def prompt(self, body: bytes) -> Iterator[Piece]:
        """Yield the input; what else models take as tensors, they name themselves."""
        yield from from_user(load(body), ("text_input",))

    def read_event(self, observation: Observation, stamp_ns: int, name: bytes, data: bytes) -> None:
        """Take one event."""
        event = decoded(observation, data, _decode, Reply)
        if event is None:
            observation.error |= name == b"error"
            return
        observation.events += 1
        if event.error or name == b"error":
            note_error(observation, event.error)
        if event.text_output:
            advance(observation, stamp_ns, 0, ANSWER, None)
            if observation.listener is not None:
                for text in strings(event.text_output):
                    tell(observation, stamp_ns, 0, ANSWER, text)
        _note(observation, event)

    def read_reply(self, observation: Observation, body: bytes) -> None:
        """Take a reply."""
        reply = whole_reply(observation, body, _decode, Reply)
        if reply is not None:
            if reply.error:
                note_error(observation, reply.error)
            _note(observation, reply)

    def tell_reply(self, observation: Observation, stamp_ns: int, body: bytes) -> None:
        """Tell the text."""
        for text in strings(load(body).get("text_output")):
            tell(observation, stamp_ns, 0, ANSWER, text)

    def unfinished(self, observation: Observation) -> bool:
        """Return whether nothing came at all; otherwise nothing tells."""
        return not observation.events


def _note(observation: Observation, reply: Reply) -> None:
    if not observation.engine_model:
        note_names(observation, reply.id, reply.model_name)
    usage = reply.usage()
    if usage is None:
        return
    before = observation.final
    if before is not None:  # the prompt is told again with each event
        usage = summed((Usage(before.prompt_tokens, before.completion_tokens), Usage(None, usage.completion_tokens)))
    observation.final = usage
    observation.source = TokenSource.DETAILS


def _total(*tensors: Any) -> int | None:
    for tensor in tensors:
        values = tensor if isinstance(tensor, list) else [tensor]
        counts = [known(value) for value in values]
        if counts and None not in counts:
            return sum(count for count in counts if count is not None)
    return None


TRITON_GENERATE: Final = Triton()
