"""When a probe is sent: one at a time, each prompt of each model in turn, and never to an engine in which others wait.

Probes that come to nothing slow it down, up to MAX_PAUSE_S. What is not sent costs nothing: it is tried at the next
turn.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from inferwatch_collectors.canary.logprobs import UnreadableError
from inferwatch_collectors.canary.watch import CanaryWatch
from inferwatch_collectors.fence import Fence

# An engine that refuses is asked this seldom at last.
MAX_PAUSE_S: Final = 600.0
MAX_DOUBLINGS: Final = 16

STAGE: Final = "canary"


class Conditions(Protocol):
    """What a probe depends on."""

    def hindered(self) -> str:
        """Return why none may be sent now, as a value of the label `result`; "" if one may."""

    def served(self) -> Sequence[str]:
        """Return the models that the engine lists, in its order."""

    def engine(self) -> str:
        """Return what the engine is, "" if that is not known."""


class Asks(Protocol):
    """Who asks."""

    async def ask(self, model: str, prompt: str, engine: str) -> dict[str, float]:
        """Return token -> log-probability.

        Raises:
            UnreadableError: nothing came of it.
        """

    async def close(self) -> None:
        """Leave."""


class Probing:
    """Sends the probes."""

    def __init__(
        self,
        watch: CanaryWatch,
        asker: Asks,
        conditions: Conditions,
        fault: Callable[[str], None],
    ) -> None:
        """`fault` takes the stage of each fault of ours."""
        self._watch = watch
        self._asker = asker
        self._conditions = conditions
        self._fence = Fence(fault)
        self._turn = 0
        self._failures = 0  # in a row

    async def run(self) -> None:
        """Probe for ever."""
        interval_s = self._watch.settings.interval_s
        try:
            while True:
                begin_s = time.monotonic()
                await self.probe()
                pause_s = min(interval_s * 2**self._failures, max(MAX_PAUSE_S, interval_s))
                await asyncio.sleep(max(0.0, begin_s + pause_s - time.monotonic()))
        finally:
            await self._asker.close()

    async def probe(self) -> None:
        """Send one probe, or note why not."""
        model, place = self._next()
        hindrance = self._conditions.hindered() or ("" if model else "no_model")
        if hindrance:
            self._fence.run(STAGE, time.monotonic_ns(), self._watch.failed, model, hindrance)
            return
        self._turn += 1
        try:
            logprobs = await self._asker.ask(model, self._watch.prompts[place], self._conditions.engine())
        except UnreadableError as error:
            self._failures = min(self._failures + 1, MAX_DOUBLINGS)
            self._fence.run(STAGE, time.monotonic_ns(), self._watch.failed, model, error.reason)
        else:
            self._failures = 0
            self._fence.run(STAGE, time.monotonic_ns(), self._watch.take, model, place, logprobs)

    def _next(self) -> tuple[str, int]:
        """Return whom to ask what: all models the same before the next prompt."""
        models = self._watch.settings.models or self._conditions.served()[:1]
        if not models:
            return "", 0
        round_, number = divmod(self._turn, len(models))
        return models[number], round_ % len(self._watch.prompts)
