"""One request on its way through the engine: collects what its sequences generate, and tells when all is there."""

import asyncio
from collections.abc import Sequence as Items
from typing import Protocol

from inferwatch_simulator.answers import Answer
from inferwatch_simulator.metrics import EngineMetrics, Finished
from inferwatch_simulator.personas.vllm_requests import Generation
from inferwatch_simulator.scheduler import Sequence
from inferwatch_simulator.sinks import Sink


class Reply:
    """A reply that shows nothing before it is complete.

    `sequences` and `answers` are in the order of the choices. `done` is set with the last token.
    """

    def __init__(
        self, generation: Generation, answers: Items[Answer], sequences: Items[Sequence], metrics: EngineMetrics
    ) -> None:
        self._generation = generation
        self._answers = answers
        self._sequences = sequences
        self._metrics = metrics
        self._index = {sequence.key: index for index, sequence in enumerate(sequences)}
        self._unfinished = len(sequences)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def token(self, sequence: Sequence) -> bool:
        """Count the token; nothing to flush."""
        if sequence.finished:
            self._finish(sequence)
        return False

    def flush(self) -> None:
        """Nothing is held back."""

    def _finish(self, sequence: Sequence) -> None:
        index = self._index[sequence.key]
        n = self._generation.n
        wish = self._generation.wishes[index // n]
        self._metrics.finished(Finished(sequence, self._answers[index].finish_reason, wish.max_tokens))
        self._unfinished -= 1
        if self._unfinished:
            return
        for first in range(0, len(self._sequences), n):
            self._metrics.request_finished(n, max(len(answer.pieces) for answer in self._answers[first : first + n]))
        if not self.done.done():
            self.done.set_result(None)


class Events(Protocol):
    """The events of one streamed reply, by an engine's persona."""

    def opening(self) -> list[bytes]:
        """What comes before the first token."""

    def tokens(self, index: int, start: int, end: int, *, last: bool) -> bytes | None:
        """The event for tokens [start, end) of a choice; None if they have none."""

    def closing(self, sequences: Items[Sequence]) -> list[bytes]:
        """What comes after the last token."""


class StreamReply(Reply):
    """A reply sent token by token.

    A chunk usually has one token; more when `stream_interval` says so or when the client does not keep up.
    """

    def __init__(
        self,
        generation: Generation,
        answers: Items[Answer],
        sequences: Items[Sequence],
        metrics: EngineMetrics,
        events: Events,
        sink: Sink,
    ) -> None:
        super().__init__(generation, answers, sequences, metrics)
        self._events = events
        self._sink = sink
        self._interval = generation.stream_interval
        self._sent = [0] * len(sequences)  # tokens, by choice
        self._opened = False
        self._pending: list[bytes] = []

    def open(self) -> None:
        """Send what comes before the first token now, and not with it."""
        self._opened = True
        if opening := self._events.opening():
            self._sink.send(opening)

    def token(self, sequence: Sequence) -> bool:
        """Write the token's event, unless it is to come in one chunk with later ones."""
        index = self._index[sequence.key]
        generated, sent = sequence.generated, self._sent[index]
        last = generated >= sequence.output_tokens
        if not last and sent and (generated - sent < self._interval or self._sink.congested):
            return False
        pending = self._pending
        asked = bool(pending)
        if not self._opened:
            self._opened = True
            pending += self._events.opening()
        event = self._events.tokens(index, sent, generated, last=last)
        self._sent[index] = generated
        if event is not None:
            pending.append(event)
        if last:
            if self._unfinished == 1:
                pending += self._events.closing(self._sequences)
            self._finish(sequence)
        return not asked and bool(pending)

    def flush(self) -> None:
        """Send what this step brought, in one write."""
        pending, self._pending = self._pending, []
        self._sink.send(pending)
