"""Counts signs that an answer was of no use: from the record of each request, and with `listen` from what is said.

A prompt that is sent again is known by a keyed hash of the request's body, without what says only how to answer it,
kept for a minute. Names go through the cardinality guard.
"""

import hashlib
from collections.abc import Iterator
from typing import Final

from inferwatch import canary
from inferwatch.record import ErrorType, Outcome, RequestRecord
from inferwatch.settings.quality import Quality
from inferwatch.tap import Open
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import OTHER, CardinalityGuard
from inferwatch_collectors.dialects.base import ANSWER, TOOL_CALL, Dialect
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.quality.asked import asked
from inferwatch_collectors.quality.refusals import OPENING_CHARS, is_refusal
from inferwatch_collectors.quality.tail_cycle import TailCycle
from inferwatch_collectors.recorder import LENGTH_REASONS
from inferwatch_collectors.verdict import is_empty

# vLLM's own detection ends an answer so.
REPETITION_REASON: Final = "repetition"

# Who asks the same within a minute was not content, or did not get anything.
NS_PER_S: Final = 1_000_000_000
AGAIN_NS: Final = 60 * NS_PER_S
# Prompts remembered: 2 MB. Above it the oldest are forgotten, and counted.
MAX_PROMPTS: Final = 16_384
DIGEST_BYTES: Final = 16
# Answers to one request in which loops are looked for, the first ones: 6 kB each (12 kB of Chinese), for reasoning as
# much again. Hardly anybody asks for more.
MAX_LOOKED_AT: Final = 8
_KEY_USE: Final = b"iw-same-prompt"  # blake2b's `person`: two uses of one secret give unrelated hashes


def signs(record: RequestRecord, stall_s: float) -> Iterator[str]:
    """Yield what the record of a generating request shows."""
    reasons = record.finish_reasons
    if not LENGTH_REASONS.isdisjoint(reasons):
        yield "truncated"
    if REPETITION_REASON in reasons:
        yield "repetition"
    if record.error is ErrorType.LOOP:
        yield "loop_cut"
    if is_empty(record):
        yield "empty"
    if record.outcome is Outcome.CLIENT_ABORT:
        yield "unheard" if record.ttft_s is None else "abandoned"
    if record.gap_max_s >= stall_s:
        yield "stalled"


class _Prompt:
    """A prompt that was sent, what came of it, and when it was sent again."""

    __slots__ = ("again_ns", "answered_ns", "over", "stamp_ns")

    def __init__(self, stamp_ns: int) -> None:
        self.stamp_ns = stamp_ns
        self.over = False
        self.answered_ns: int | None = None
        self.again_ns: int | None = None

    @property
    def again(self) -> str:
        """What it is called that it was sent again."""
        assert self.again_ns is not None
        return "regeneration" if self.answered_ns is not None and self.answered_ns <= self.again_ns else "retry"


class QualityWatch:
    """All requests."""

    def __init__(self, store: MetricStore, guard: CardinalityGuard, settings: Quality, *, secret: bytes) -> None:
        """`secret` has 16 bytes or more if it listens."""
        self._store = store
        self._guard = guard
        self._settings = settings
        self._secret = secret[:64]
        self._prompts: dict[bytes, _Prompt] = {}
        self._now_s = 0.0
        self.prompts_cut = 0
        self.choices_cut = 0

    def tick(self, now_s: float) -> None:
        """Let time pass, twice a second; CLOCK_MONOTONIC."""
        self._now_s = now_s

    @property
    def listens(self) -> bool:
        """Whether texts are heard."""
        return self._settings.enabled and self._settings.listen

    def record(self, record: RequestRecord) -> None:
        """Take a request, after it was counted."""
        if self._settings.enabled and record.operation != OTHER and record.tenant not in canary.OWN:
            for sign in signs(record, self._settings.stall_s):
                self.count(record.model, record.tenant, record.operation, sign)

    def opened(self, opened: Open, dialect: Dialect) -> "_Hearing | None":
        """Listen to whatever generates."""
        if not dialect.generates or opened.resumed or opened.tenant in canary.OWN:
            return None
        self.choices_cut += max(0, opened.choices - MAX_LOOKED_AT)
        prompt = self._sent(opened, dialect.operation) if opened.body else None
        return _Hearing(self, opened, dialect.operation, prompt)

    def count(self, model: str, tenant: str, operation: str, sign: str) -> None:
        """Count a sign; "": a request that was heard."""
        labels = self._guard.labels(model, tenant, operation, now_s=self._now_s)
        if sign:
            self._store.counter(m.QUALITY_SIGNS, (labels.model, labels.tenant, sign)).add()
        else:
            self._store.counter(m.QUALITY_HEARD, (labels.model, labels.tenant)).add()

    def _sent(self, opened: Open, operation: str) -> _Prompt:
        who = f"{opened.tenant}\0{opened.user}\0{opened.model}\0".encode()
        key = hashlib.blake2b(who + asked(opened), digest_size=DIGEST_BYTES, key=self._secret, person=_KEY_USE).digest()
        before = self._prompts.pop(key, None)
        if before is not None and 0 <= opened.arrival_ns - before.stamp_ns <= AGAIN_NS:
            before.again_ns = opened.arrival_ns
            if before.over:  # else it is called something when that is known: beginnings are told before ends
                self.count(opened.model, opened.tenant, operation, before.again)
        if len(self._prompts) >= MAX_PROMPTS:
            oldest = self._prompts.pop(next(iter(self._prompts)))
            self.prompts_cut += opened.arrival_ns - oldest.stamp_ns <= AGAIN_NS
        prompt = self._prompts[key] = _Prompt(opened.arrival_ns)
        return prompt


class _Hearing:
    """Listens to one request: for how its first answer begins, and for loops in any of the first few.

    What was reasoned and what was answered are two texts. Arguments of tools are a third, of which only blanks are a
    loop, for rows of a document may be alike.
    """

    __slots__ = (
        "_choices", "_cycles", "_last", "_looped", "_opened", "_opening", "_operation", "_prompt", "_said", "_watch",
        "_whole",
    )  # fmt: skip

    def __init__(self, watch: QualityWatch, opened: Open, operation: str, prompt: _Prompt | None) -> None:
        self._watch = watch
        self._opened = (opened.model, opened.tenant)
        self._choices = opened.choices
        self._operation = operation
        self._prompt = prompt
        self._cycles: dict[tuple[int, int], TailCycle] = {}  # by choice and class
        self._last: dict[int, int] = {}  # the class that a choice said last
        self._opening = ""
        self._looped = False
        self._whole = True
        self._said = False  # anything at all, by any choice; or what was not seen may have

    def text(self, stamp_ns: int, choice: int, classes: int, text: str, pieces: int = 1) -> None:
        """Take some of an answer."""
        self._said = True
        if not choice and classes & ANSWER and len(self._opening) < OPENING_CHARS:
            self._opening += text[:OPENING_CHARS]
        if choice >= MAX_LOOKED_AT:
            return
        cycle = self._cycles.get((choice, classes))
        if cycle is None:
            cycle = self._cycles[choice, classes] = TailCycle()
        self._last[choice] = classes
        if cycle.take(text, pieces) and not self._looped and _is_loop(cycle, classes):
            self._suspect()

    def missing(self) -> None:
        """Some of the answer was not seen."""
        for cycle in self._cycles.values():
            cycle.missing()
        self._said = True
        self._whole = bool(self._opening)

    def closed(self, record: RequestRecord) -> None:
        """Say what it was."""
        if self._prompt is not None:
            self._over(self._prompt, record)
        self._watch.count(*self._opened, self._operation, "")
        if self._heard_nothing_of(record):
            self._watch.count(*self._opened, self._operation, "empty")
        was_cut = record.error is ErrorType.LOOP
        if was_cut and not self._looped:
            self._suspect()
        if was_cut or (self._looped and self._ends_in_loop()):
            self._watch.count(*self._opened, self._operation, "loop")
        if self._whole and is_refusal(self._opening):
            self._watch.count(*self._opened, self._operation, "refusal")

    def _suspect(self) -> None:
        self._looped = True
        self._watch.count(*self._opened, self._operation, "loop_suspected")

    def _ends_in_loop(self) -> bool:
        """Tell whether what a choice said last was a loop."""
        last = ((self._cycles[choice, classes], classes) for choice, classes in self._last.items())
        return any(cycle.finish() and _is_loop(cycle, classes) for cycle, classes in last)

    def _over(self, prompt: _Prompt, record: RequestRecord) -> None:
        prompt.over = True
        if record.outcome is Outcome.OK:
            prompt.answered_ns = prompt.stamp_ns + int(record.duration_s * NS_PER_S)
        if prompt.again_ns is not None:
            self._watch.count(*self._opened, self._operation, prompt.again)

    def _heard_nothing_of(self, record: RequestRecord) -> bool:
        """Tell whether an answer is empty though its record does not show it: one token a choice may be its mere end.

        Of more than that something is there, if not text.
        """
        tokens = record.completion_tokens or 0
        return not self._said and record.outcome is Outcome.OK and 0 < tokens <= self._choices and not is_empty(record)


def _is_loop(cycle: TailCycle, classes: int) -> bool:
    """Tell whether what repeats itself is one in this class."""
    return not classes & TOOL_CALL or (cycle.period or "").isspace()
