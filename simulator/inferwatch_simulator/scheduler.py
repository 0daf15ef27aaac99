"""Continuous batching, as vLLM's scheduler does it, without I/O and without a clock.

The life of a sequence is waiting, running, finished. Time passes in steps: `schedule(now_s)` decides what the next
step computes and how long that takes, `commit(step, now_s)` books its results. What happens between the two (the
wait) is the caller's business. Rules:

1. Running sequences come first, in the order they were admitted: each gets one decode token, or the next piece of
   its prompt (chunked prefill), within `max_num_batched_tokens` for the whole step.
2. Then waiting ones are admitted strictly in order of arrival, while batch, token budget and memory allow. Nobody
   overtakes, and nobody is admitted in a step that preempted.
3. When memory runs out the youngest running sequence is preempted: its blocks are freed, it goes back to the head of
   the queue, and what it had generated is computed anew with its prompt.
4. The step that completes a prompt yields the first token. A sequence never gets more than one token per step.
5. An abort frees at once, also in the midst of a step; that step then yields nothing for it.

Prompt tokens are counted when the first token comes, once per sequence, also after a preemption: this is when
vLLM's counter moves.
"""

from collections import deque
from collections.abc import Sequence as Items
from typing import NamedTuple

import msgspec

from inferwatch_simulator.kv_cache import BLOCK_TOKENS, Holding, KvCache, blocks_for


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The size and the speed of the engine. Units are in the names."""

    max_num_seqs: int
    max_num_batched_tokens: int
    kv_blocks: int
    prefill_tokens_per_s: float
    decode_step_s_base: float
    decode_step_s_per_seq: float


class Sequence:
    """One answer in the making. The times are None until they have come.

    Args:
        key: the caller's name for it, unique among those alive.
        prompt_tokens: at least 1.
        output_tokens: how many tokens it will generate, at least 1.
        block_hashes: prefix hashes of the prompt's full blocks, in order.
        arrival_s: when it was submitted.
    """

    __slots__ = (
        "admitted_s",
        "arrival_s",
        "block_hashes",
        "cached_tokens",
        "computed",
        "first_token_s",
        "gap_s",
        "generated",
        "holding",
        "key",
        "last_token_s",
        "output_tokens",
        "preemptions",
        "prompt_tokens",
        "running",
    )

    def __init__(
        self, key: int, prompt_tokens: int, output_tokens: int, block_hashes: Items[int], arrival_s: float
    ) -> None:
        self.key = key
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.block_hashes = block_hashes
        self.arrival_s = arrival_s
        self.admitted_s: float | None = None
        self.first_token_s: float | None = None
        self.last_token_s: float | None = None
        self.gap_s = 0.0  # between the last two tokens
        self.computed = 0  # tokens whose keys and values exist
        self.generated = 0
        self.cached_tokens = 0  # prompt tokens found in the cache at the first admission
        self.preemptions = 0
        self.running = False
        self.holding = Holding()

    @property
    def finished(self) -> bool:
        return self.generated >= self.output_tokens

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.generated


class Step(NamedTuple):
    """What one step computes: the sequences that will get a token, and how many tokens each piece of prompt has."""

    duration_s: float
    decodes: list[Sequence]
    prefills: list[tuple[Sequence, int]]
    admitted: list[Sequence]
    preempted: list[Sequence]

    @property
    def batched_tokens(self) -> int:
        return len(self.decodes) + sum(tokens for _, tokens in self.prefills)


class Scheduler:
    """The batch, the queue and the memory of one engine."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.kv = KvCache(limits.kv_blocks)
        self.running: list[Sequence] = []
        self.waiting: deque[Sequence] = deque()

    @property
    def idle(self) -> bool:
        return not self.running and not self.waiting

    def submit(self, sequence: Sequence) -> None:
        """Queue it.

        Raises:
            ValueError: it could never fit in memory, even alone.
        """
        if blocks_for(sequence.prompt_tokens + sequence.output_tokens) > self.limits.kv_blocks:
            tokens = sequence.prompt_tokens + sequence.output_tokens
            raise ValueError(
                f"{tokens} tokens, more than the {self.limits.kv_blocks * BLOCK_TOKENS} that fit in memory"
            )
        self.waiting.append(sequence)

    def abort(self, sequence: Sequence) -> None:
        """Forget it and free its memory. Aborting what has finished, or was aborted, does nothing."""
        if sequence.running:
            self.running.remove(sequence)
            self._leave(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def schedule(self, now_s: float) -> Step:
        """Decide on the next step. It is empty, with no duration, when there is nothing to do."""
        decodes: list[Sequence] = []
        prefills: list[tuple[Sequence, int]] = []
        preempted: list[Sequence] = []
        budget = self._continue_running(decodes, prefills, preempted)
        admitted = [] if preempted else self._admit(prefills, budget, now_s)
        return Step(self._duration_s(len(decodes), prefills), decodes, prefills, admitted, preempted)

    def _continue_running(
        self, decodes: list[Sequence], prefills: list[tuple[Sequence, int]], preempted: list[Sequence]
    ) -> int:
        budget = self.limits.max_num_batched_tokens
        position = 0
        # The list shrinks at its end while we walk: the youngest make room for the older.
        while position < len(self.running) and budget > 0:
            sequence = self.running[position]
            tokens = min(sequence.total_tokens - sequence.computed, budget)
            if not self._make_room(sequence, blocks_for(sequence.computed + tokens), preempted):
                break
            if tokens == 1 and sequence.generated:
                decodes.append(sequence)
            else:
                self._prefill(sequence, tokens, prefills)
            budget -= tokens
            position += 1
        return budget

    def _make_room(self, sequence: Sequence, blocks: int, preempted: list[Sequence]) -> bool:
        """Grow the sequence, preempting from the young end; False if it had to go itself."""
        while not self.kv.grow(sequence.holding, blocks):
            victim = self.running.pop()
            self._leave(victim)
            victim.computed = 0
            victim.preemptions += 1
            self.waiting.appendleft(victim)
            preempted.append(victim)
            if victim is sequence:
                return False
        return True

    def _admit(self, prefills: list[tuple[Sequence, int]], budget: int, now_s: float) -> list[Sequence]:
        admitted: list[Sequence] = []
        while self.waiting and budget > 0 and len(self.running) < self.limits.max_num_seqs:
            sequence = self.waiting[0]
            # The last prompt token is always computed: its output is the first token.
            shareable = sequence.block_hashes[: (sequence.prompt_tokens - 1) // BLOCK_TOKENS]
            hit = shareable[: self.kv.longest_prefix(shareable)]
            cached = len(hit) * BLOCK_TOKENS
            tokens = min(sequence.total_tokens - cached, budget)
            if blocks_for(cached + tokens) - len(hit) + self.kv.unclaimed(hit) > self.kv.free:
                break
            self.waiting.popleft()
            self.kv.claim_prefix(sequence.holding, hit)
            self.kv.grow(sequence.holding, blocks_for(cached + tokens))
            self._enter(sequence, cached, now_s)
            admitted.append(sequence)
            self._prefill(sequence, tokens, prefills)
            budget -= tokens
        return admitted

    def _prefill(self, sequence: Sequence, tokens: int, prefills: list[tuple[Sequence, int]]) -> None:
        """Take up a piece of prompt. Its full blocks answer look-ups from now on, so that sequences of the same
        prompt admitted in this very step share them (vLLM, too, caches when it allocates, not when it has computed).
        """
        full_blocks = min(sequence.computed + tokens, sequence.prompt_tokens) // BLOCK_TOKENS
        self.kv.share(sequence.holding, sequence.block_hashes[:full_blocks])
        prefills.append((sequence, tokens))

    def _enter(self, sequence: Sequence, cached: int, now_s: float) -> None:
        if sequence.admitted_s is None:
            sequence.admitted_s = now_s
            sequence.cached_tokens = cached
        sequence.computed = cached
        sequence.running = True
        self.running.append(sequence)

    def _leave(self, sequence: Sequence) -> None:
        sequence.running = False
        self.kv.release(sequence.holding)

    def _duration_s(self, decodes: int, prefills: list[tuple[Sequence, int]]) -> float:
        if not decodes and not prefills:
            return 0.0
        limits = self.limits
        prompt_tokens = sum(tokens for _, tokens in prefills)
        return (
            limits.decode_step_s_base
            + limits.decode_step_s_per_seq * decodes
            + prompt_tokens / limits.prefill_tokens_per_s
        )

    def commit(self, step: Step, now_s: float) -> list[Sequence]:
        """Book a step that ended at `now_s`.

        Returns:
            The sequences that got one token each. Those that are `finished` now have left the batch.
        """
        got_token: list[Sequence] = []
        finished = False
        for sequence, tokens in step.prefills:
            if not sequence.running:
                continue
            sequence.computed += tokens
            if sequence.computed == sequence.total_tokens:
                finished |= self._book(sequence, now_s)
                got_token.append(sequence)
        for sequence in step.decodes:
            if sequence.running:
                sequence.computed += 1
                finished |= self._book(sequence, now_s)
                got_token.append(sequence)
        if finished:
            self._retire()
        return got_token

    @staticmethod
    def _book(sequence: Sequence, now_s: float) -> bool:
        """Give it a token; True if that was its last."""
        sequence.generated += 1
        if sequence.last_token_s is None:
            sequence.first_token_s = now_s
        else:
            sequence.gap_s = now_s - sequence.last_token_s
        sequence.last_token_s = now_s
        return sequence.generated >= sequence.output_tokens

    def _retire(self) -> None:
        still_running = []
        for sequence in self.running:
            if sequence.finished:
                self._leave(sequence)
            else:
                still_running.append(sequence)
        self.running = still_running
