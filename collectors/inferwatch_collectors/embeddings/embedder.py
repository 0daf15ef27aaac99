"""Has some prompts embedded, beside the traffic: a bounded queue, one call at a time, and nobody waits but a vote.

* **Which.** Of the prompts that vote a share by chance, and no more than so many a minute. What is not taken is
  counted, and votes without an embedding.
* **Text** is kept until its call is over, and no longer: two time-outs at most.
* **Faults.** An endpoint that fails is left alone for a while, longer each time, up to MAX_PAUSE_S; until then no
  prompt is taken. TRIES failures in a row, and a gauge says that there are none, and why.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from inferwatch.settings.embeddings import Embeddings
from inferwatch_collectors import metrics as m
from inferwatch_collectors.embeddings.asking import Embedded, EmbeddingError
from inferwatch_collectors.embeddings.redacting import MAX_CHARS, STAGE
from inferwatch_collectors.embeddings.sketch import Sketch, Sketcher
from inferwatch_collectors.fence import Fence
from inferwatch_collectors.metric_store import MetricStore

_log: Final = logging.getLogger(__name__)

# Texts in one call: more of them would keep the engine from others for longer.
BATCH: Final = 8
# Prompts that wait, 3 kB each.
MAX_WAITING: Final = 64
# Who comes at the same time goes together.
LINGER_S: Final = 0.1

MAX_PAUSE_S: Final = 300.0
MAX_DOUBLINGS: Final = 16
# So many failures in a row, and it is more than a hiccup.
TRIES: Final = 3


class Embeds(Protocol):
    """Who makes embeddings."""

    async def embed(self, texts: list[str]) -> Embedded:
        """Return a vector for each text.

        Raises:
            EmbeddingError: nothing came of it.
        """

    async def close(self) -> None:
        """Leave."""


class Ticket:
    """A prompt on its way. `sketch` is None until it is there, and for ever if nothing came of it."""

    __slots__ = ("_step", "is_open", "sketch", "taken_s", "text")

    def __init__(self, text: str, now_s: float) -> None:
        self.text = text
        self.taken_s = now_s
        self.is_open = True
        self.sketch: Sketch | None = None
        self._step: Callable[[], None] | None = None

    def then(self, step: Callable[[], None]) -> None:
        """Do `step` when it is known what came of it: now, or a few seconds later."""
        if self.is_open:
            self._step = step
        else:
            step()

    def settle(self, sketch: Sketch | None) -> None:
        """Say what came of it, and forget the text."""
        self.text, self.sketch, self.is_open = "", sketch, False
        step, self._step = self._step, None
        if step is not None:
            step()


class Embedder:
    """The queue, and who empties it."""

    def __init__(
        self,
        settings: Embeddings,
        store: MetricStore,
        endpoint: Embeds,
        sketcher: Sketcher,
        *,
        redact: Callable[[list[str]], list[str] | None] | None,
        fault: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        """`redact` takes personal data out of texts and cuts them, in a thread; see `redacting`. `fault` takes the
        stage of a fault.
        """
        self._settings = settings
        self._store = store
        self._endpoint = endpoint
        self._sketcher = sketcher
        self._redact = redact
        self._fence = Fence(fault)
        self._clock = clock
        self._dice = dice
        self._interval_s = 60 / settings.per_minute
        self._next_s = 0.0
        self._paused_s = 0.0  # until then none are taken
        self._failures = 0  # in a row
        self._waiting: deque[Ticket] = deque()
        self._some = asyncio.Event()
        self.off = ""  # why none come, "" while they do

    @property
    def numbers(self) -> int:
        """How many numbers of each are features."""
        return self._settings.numbers

    def take(self, text: str) -> Ticket | None:
        """Take a prompt, not empty and up to LOOKED_AT_CHARS of it, if it is one of those that are to be embedded."""
        if self._settings.share < 1 and self._dice() >= self._settings.share:
            return None
        now_s = self._clock()
        refused = (
            "paused"
            if now_s < self._paused_s
            else "capped"
            if now_s < self._next_s
            else "dropped"
            if len(self._waiting) >= MAX_WAITING
            else ""
        )
        if refused:
            self._count(refused)
            return None
        # A second's worth may come at once.
        self._next_s = max(self._next_s, now_s - 1.0) + self._interval_s
        ticket = Ticket(text[:MAX_CHARS] if self._redact is None else text, now_s)
        self._waiting.append(ticket)
        self._some.set()
        return ticket

    async def run(self) -> None:
        """Have prompts embedded for ever."""
        try:
            while True:
                await self._some.wait()
                await asyncio.sleep(LINGER_S)
                await self.send()
        finally:
            self._give_up("")
            await self._endpoint.close()

    async def send(self) -> None:
        """Have the next few embedded, of those that did not wait for too long."""
        tickets = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        if not self._waiting:
            self._some.clear()
        latest_s = self._clock() - self._settings.timeout_s
        batch = [ticket for ticket in tickets if ticket.taken_s >= latest_s]
        for ticket in tickets:
            if ticket.taken_s < latest_s:
                self._settle(ticket, None, "dropped")
        if not batch:
            return
        try:
            await self._embed(batch)
        except EmbeddingError as error:
            self._failed(error.reason, batch)
        except asyncio.CancelledError:
            self._settle_open(batch, "")
            raise
        except Exception as error:  # noqa: BLE001 - the same fence: the next ones are sent
            self._fence.caught(STAGE, time.monotonic_ns(), error)
            self._failed("fault", batch)

    async def _embed(self, batch: list[Ticket]) -> None:
        batch = await self._redacted(batch)
        if batch:
            found = await self._endpoint.embed([ticket.text for ticket in batch])
            self._answered()
            await self._take_up(batch, found)

    async def _redacted(self, batch: list[Ticket]) -> list[Ticket]:
        if self._redact is None:
            return batch
        loop = asyncio.get_running_loop()
        looked = loop.run_in_executor(None, self._redact, [ticket.text for ticket in batch])
        await asyncio.wait([looked])
        texts = self._fence.run(STAGE, time.monotonic_ns(), looked.result)
        if texts is None:
            raise EmbeddingError("redact")
        sent = []
        for ticket, text in zip(batch, texts, strict=True):
            if text:
                ticket.text = text
                sent.append(ticket)
            else:
                self._settle(ticket, None, "redact")
        return sent

    async def _take_up(self, batch: list[Ticket], found: Embedded) -> None:
        source = self._sketcher.source(found.model, len(found.vectors[0]))
        for ticket, vector in zip(batch, found.vectors, strict=True):
            numbers = self._sketcher.numbers(vector)
            if numbers is None:
                self._settle(ticket, None, "not_a_number")
            else:
                self._settle(ticket, Sketch(source, numbers), "ok")
            await asyncio.sleep(0)  # with its vote a millisecond or two: others have their turn between

    def _settle(self, ticket: Ticket, sketch: Sketch | None, result: str) -> None:
        if result:
            self._count(result)
        # The vote that waited for it is behind this fence.
        self._fence.run(STAGE, time.monotonic_ns(), ticket.settle, sketch)

    def _settle_open(self, batch: list[Ticket], result: str) -> None:
        for ticket in batch:
            if ticket.is_open:
                self._settle(ticket, None, result)

    def _failed(self, reason: str, batch: list[Ticket]) -> None:
        self._failures = min(self._failures + 1, MAX_DOUBLINGS)
        self._paused_s = self._clock() + min(MAX_PAUSE_S, 2.0**self._failures)
        self._settle_open(batch, reason)
        self._give_up("paused")
        if self._failures >= TRIES and self.off != reason:
            self.off = reason
            _log.warning("drift_embeddings_off reason=%s", reason)

    def _answered(self) -> None:
        self._failures = 0
        if self.off:
            self.off = ""
            _log.info("drift_embeddings_on")

    def _give_up(self, result: str) -> None:
        while self._waiting:
            self._settle(self._waiting.popleft(), None, result)
        self._some.clear()

    def _count(self, result: str) -> None:
        self._store.counter(m.DRIFT_EMBEDDINGS, (result,)).add()

    def refresh(self) -> None:
        """Set the gauge. Right before an exposition."""
        for (reason,) in self._store.series(m.DRIFT_EMBEDDINGS_OFF):
            self._store.gauge(m.DRIFT_EMBEDDINGS_OFF, (reason,)).set(None)
        if self.off:
            self._store.gauge(m.DRIFT_EMBEDDINGS_OFF, (self.off,)).set(1)
