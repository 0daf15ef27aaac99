"""The engine in time: drives the scheduler by the clock and hands out tokens.

There is no task. While there is work, one timer runs at the end of the current step; its callback books the step, lets
every reply take its tokens, flushes each touched reply once, and starts the next step. When there is no work there is
no timer. A step begins when the one before was due, not when its callback ran, so that a late loop does not slow the
simulated engine down, unless it is late by more than `_CATCH_UP_S`: then time that was lost is lost.

The clock is `time.monotonic`: uvloop's own has a resolution of a millisecond, too coarse for latencies.

Everything runs in one thread, so a reply may be submitted or aborted at any moment between two callbacks.
"""

import asyncio
import time
from collections.abc import Sequence as Items
from typing import Any, Protocol

import msgspec

from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.gpus import SimulatedGpu
from inferwatch_simulator.kv_cache import BLOCK_TOKENS
from inferwatch_simulator.metrics import EngineMetrics
from inferwatch_simulator.scheduler import Limits, Scheduler, Sequence, Step

_CATCH_UP_S = 0.1  # a loop hung for longer than this looks to the clients like an engine that hung


class Receiver(Protocol):
    """Takes the tokens of one reply."""

    def token(self, sequence: Sequence) -> bool:
        """This sequence has one token more. True asks for a `flush` at the end of the step."""

    def flush(self) -> None:
        """The step is over: send what came in it."""


def limits_of(config: SimulatorConfig) -> Limits:
    """The configured engine, with simulated time compressed by `speed`."""
    return Limits(
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        kv_blocks=config.kv_tokens // BLOCK_TOKENS,
        prefill_tokens_per_s=config.prefill_tokens_per_s * config.speed,
        decode_step_s_base=config.decode_step_ms_base / 1000 / config.speed,
        decode_step_s_per_seq=config.decode_step_ms_per_seq / 1000 / config.speed,
    )


class Engine:
    """One simulated engine on the running event loop."""

    def __init__(self, config: SimulatorConfig) -> None:
        self._loop = asyncio.get_running_loop()
        self.scheduler = Scheduler(limits_of(config))
        self.metrics = EngineMetrics(config, self.scheduler)
        self._receivers: dict[int, Receiver] = {}
        self._next_key = 0
        self._timer: asyncio.Handle | None = None
        self._due_s = 0.0
        self._step: Step | None = None
        self._config = config
        self._gpu = SimulatedGpu(time.monotonic())
        self.busy_s = 0.0  # spent in steps
        self.speed = 1.0  # times that of the configuration

    def set_speed(self, speed: float) -> None:
        """Go on at so many times the configured speed, from the next step."""
        self.speed = speed
        self.scheduler.limits = limits_of(msgspec.structs.replace(self._config, speed=self._config.speed * speed))

    def gpu(self) -> dict[str, Any]:
        """Return what the driver of the engine's GPU would say."""
        scheduler = self.scheduler
        cache = 1 - scheduler.kv.free / scheduler.limits.kv_blocks
        running = len(scheduler.running)
        return self._gpu.read(time.monotonic(), busy_s=self.busy_s, batch=running, cache=cache, speed=self.speed)

    @property
    def unfinished(self) -> int:
        """Sequences running or waiting."""
        return len(self._receivers)

    def sequence(self, prompt_tokens: int, output_tokens: int, block_hashes: Items[int]) -> Sequence:
        """A new sequence that arrives now; `submit` starts it."""
        self._next_key += 1
        return Sequence(self._next_key, prompt_tokens, output_tokens, block_hashes, time.monotonic())

    def submit(self, sequences: Items[Sequence], receiver: Receiver) -> None:
        """Queue the sequences of one reply."""
        for sequence in sequences:
            self.scheduler.submit(sequence)
            self._receivers[sequence.key] = receiver
        if self._timer is None:
            # On the next turn of the loop, so that what arrives together is scheduled together.
            self._due_s = time.monotonic()
            self._timer = self._loop.call_soon(self._end_step)

    def abort(self, sequences: Items[Sequence]) -> None:
        """Drop those that have not finished, at once."""
        for sequence in sequences:
            if self._receivers.pop(sequence.key, None) is not None:
                self.scheduler.abort(sequence)

    def close(self) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_step(self) -> None:
        now_s = time.monotonic()
        self._timer = None
        if self._step is not None:
            self._deliver(self._step, now_s)
            self._step = None
        if self.scheduler.idle:
            return
        self._step = self.scheduler.schedule(now_s)
        self._timer = self._begin_step(self._step, now_s)

    def _begin_step(self, step: Step, now_s: float) -> asyncio.Handle:
        """Compute `step`, which is to say: wait. What is returned calls `_end_step` when it is over."""
        start_s = self._due_s if now_s - self._due_s < _CATCH_UP_S else now_s
        self._due_s = start_s + step.duration_s
        self.busy_s += step.duration_s
        return self._loop.call_later(max(0.0, self._due_s - time.monotonic()), self._end_step)

    def _deliver(self, step: Step, now_s: float) -> None:
        got_token = self.scheduler.commit(step, now_s)
        self.metrics.step(step, got_token)
        touched = []
        receivers = self._receivers
        for sequence in got_token:
            receiver = receivers[sequence.key]
            if sequence.generated >= sequence.output_tokens:
                del receivers[sequence.key]
            if receiver.token(sequence):
                touched.append(receiver)
        for receiver in touched:
            receiver.flush()
