"""The noisy neighbour: whose long prompt was being prefilled while others waited for a token.

Inference from overlap, seen from outside the engine: an upper bound, and no proof. No I/O, no clock.

A request waits from the moment it was sent until its first token, and again during a gap between two tokens much larger
than its others. A prompt is a suspect while it is in prefill, as far as can be told:

* of a stream, from when it was sent (or by the engine's own number, once that is known) to its first token;
* of a plain reply, by the engine's own numbers; without them for as long as a prompt of its size usually takes, by the
  streams seen before; before any was seen, not at all.

What two or more suspects share of a time is divided by their sizes, so the seconds of a victim are the sum of its
culprits'. Who waits for a first token can only be held up by what was sent before it: engines begin with prompts in
order of arrival.

Only prompts from HEAVY_TOKENS upwards are kept, so an ordinary request costs a comparison when it opens and a search in
a short sorted list at its first token. Sizes that nobody has told yet are guessed from bytes, for weights alone.
"""

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterator
from itertools import islice
from statistics import median
from typing import Final, NamedTuple

from msgspec.structs import replace

from inferwatch.record import RequestRecord
from inferwatch.tap import Open
from inferwatch_collectors.phases import WAITED_IN_VAIN

# What vLLM computes in one step at least (`max_num_batched_tokens`, 2,048 to 16,384): a prompt that fits into one step
# holds up nobody for longer than that step.
HEAVY_TOKENS: Final = 2_048

# English text; code has fewer, images far more. Right to within a factor of two is enough for who is heavy.
BYTES_PER_TOKEN: Final = 4

# Heavy prompts in prefill at a time, and those kept after it. At 0.3 s each the latter are the last five minutes.
MAX_UNDER_WAY: Final = 4_096
MAX_ENDED: Final = 1_024

# Suspects looked at for one wait, of those under way and of those that ended: bounds its cost to some 0.1 ms. Where
# more of them queue, they hold up each other, and the first in line stand for them all.
MAX_SUSPECTS: Final = 32

# A gap is a stall if it is so many times the mean of the others, and longer than a busy engine's step.
STALL_FACTOR: Final = 4.0
MIN_STALL_S: Final = 0.05
# With fewer gaps there is no telling what is usual.
MIN_GAPS: Final = 4

# Streams by whose time per token a plain reply's prefill is estimated.
PACE_SAMPLES: Final = 32


class Prompt:
    """A heavy prompt. `end_ns` None: still in prefill, as far as is known."""

    __slots__ = ("end_ns", "label", "request_id", "sent_ns", "start_ns", "stream", "tenant", "tokens", "weight")

    def __init__(self, opened: Open, label: str) -> None:
        self.request_id = opened.request_id
        self.tenant = opened.tenant
        self.label = label  # the tenant as it is exported
        self.stream = opened.stream
        self.sent_ns = self.start_ns = opened.sent_ns
        self.end_ns: int | None = None
        self.tokens: int | None = None
        self.weight = opened.body_bytes // BYTES_PER_TOKEN

    def measured(self, prompt_tokens: int | None, cached_tokens: int | None) -> None:
        """The engine has counted it: what came from a cache was not computed."""
        if prompt_tokens is not None:
            self.tokens = prompt_tokens
            self.weight = max(0, prompt_tokens - (cached_tokens or 0))


class Blocked:
    """For how long a request was held up, and by whom."""

    __slots__ = ("shares_ns", "total_ns")

    def __init__(self) -> None:
        self.total_ns = 0
        self.shares_ns: dict[Prompt, float] = {}

    def add(self, other: "Blocked") -> None:
        """Add another wait of the same request."""
        self.total_ns += other.total_ns
        for prompt, share_ns in other.shares_ns.items():
            self.shares_ns[prompt] = self.shares_ns.get(prompt, 0.0) + share_ns

    @property
    def culprit(self) -> Prompt | None:
        """The prompt with the largest share."""
        return max(self.shares_ns, key=self.shares_ns.__getitem__, default=None)


class Span(NamedTuple):
    """A suspect's time within a wait."""

    start_ns: int
    end_ns: int
    prompt: Prompt


class Neighbours:
    """All heavy prompts of one engine. Stamps are CLOCK_MONOTONIC nanoseconds."""

    def __init__(self) -> None:
        self._under_way: dict[str, Prompt] = {}  # in the order in which they came
        self._ended: list[Prompt] = []  # by the end of their prefill
        self._pace: deque[float] = deque(maxlen=PACE_SAMPLES)  # ns a token, of streams
        self.cut = 0  # heavy prompts not kept, and waits that had more suspects than are looked at

    def opened(self, opened: Open, label: str) -> Prompt | None:
        """Take a request that begins; None if its prompt is too light to matter."""
        if opened.body_bytes < HEAVY_TOKENS * BYTES_PER_TOKEN or opened.sent_ns <= 0:
            return None
        if len(self._under_way) >= MAX_UNDER_WAY:
            self.cut += 1
            return None
        prompt = self._under_way[opened.request_id] = Prompt(opened, label)
        return prompt

    def left(self, prompt: Prompt) -> None:
        """Its request is over, or forgotten."""
        self._under_way.pop(prompt.request_id, None)

    def first_token(self, prompt: Prompt, stamp_ns: int, prompt_tokens: int | None, cached_tokens: int | None) -> None:
        """Its prefill has ended."""
        self.left(prompt)
        prompt.measured(prompt_tokens, cached_tokens)
        if prompt.tokens is not None and prompt.weight >= HEAVY_TOKENS and stamp_ns > prompt.sent_ns:
            self._pace.append((stamp_ns - prompt.sent_ns) / prompt.weight)
        self._end(prompt, stamp_ns)

    def finished(self, prompt: Prompt, record: RequestRecord, arrival_ns: int) -> None:
        """Its request is over: what is known of its prefill only now."""
        self.left(prompt)
        prompt.measured(record.prompt_tokens, record.cached_tokens)
        closed_ns = arrival_ns + round(record.duration_s * 1e9)
        if prompt.end_ns is None and record.ttft_s is not None:
            first_ns = arrival_ns + round(record.ttft_s * 1e9)
            self.first_token(prompt, first_ns, record.prompt_tokens, record.cached_tokens)
        if prompt.end_ns is not None:
            if record.prefill_s is not None:
                prompt.start_ns = max(prompt.sent_ns, prompt.end_ns - round(record.prefill_s * 1e9))
        elif record.prefill_s is not None:
            prompt.start_ns = min(closed_ns, prompt.sent_ns + round((record.queue_s or 0) * 1e9))
            self._end(prompt, min(closed_ns, prompt.start_ns + round(record.prefill_s * 1e9)))
        elif record.first_token_missing in WAITED_IN_VAIN:
            self._end(prompt, closed_ns)
        elif not prompt.stream:
            self._end(prompt, self._estimated_end(prompt, closed_ns))

    def blocked(self, own_id: str, from_ns: int, to_ns: int, *, in_order: bool) -> Blocked:
        """Return what overlaps the wait of request `own_id`.

        Args:
            own_id: its `request_id`; its own prompt is no suspect.
            from_ns: when the wait began.
            to_ns: when it ended.
            in_order: only what was sent before `from_ns` can have been in front.
        """
        if not self._under_way and (not self._ended or _end_ns(self._ended[-1]) <= from_ns):
            return Blocked()  # the rule, not the exception
        spans = []
        for prompt in self._suspects(from_ns, to_ns):
            if prompt.request_id == own_id or (in_order and prompt.sent_ns > from_ns):
                continue
            end_ns = self._estimated_end(prompt, to_ns) if prompt.end_ns is None else min(prompt.end_ns, to_ns)
            start_ns = max(prompt.start_ns, from_ns)
            if start_ns < end_ns:
                spans.append(Span(start_ns, end_ns, prompt))
        return divide(spans)

    def account(
        self, opened: Open, prompt: Prompt | None, record: RequestRecord, largest_gap: tuple[int, int] | None
    ) -> Blocked | None:
        """Close the account of a finished request; return by whom it was held up, None if that cannot be told.

        Args:
            prompt: what `opened` returned for it.
            largest_gap: the stamps between which its largest gap lay.
        """
        if prompt is not None:
            self.finished(prompt, record, opened.arrival_ns)
        wait = waited(opened, record)
        if wait is None:
            return None
        blocked = self.blocked(record.request_id, *wait, in_order=True)
        if largest_gap is not None and stalled(record):
            blocked.add(self.blocked(record.request_id, *largest_gap, in_order=False))
        return blocked

    def _suspects(self, from_ns: int, to_ns: int) -> Iterator[Prompt]:
        """Yield those that ended after `from_ns`, then those under way, the longest waiting first."""
        first = bisect_right(self._ended, from_ns, key=_end_ns)
        last = first + MAX_SUSPECTS
        yield from self._ended[first:last]
        yield from islice(self._under_way.values(), MAX_SUSPECTS)
        if last < len(self._ended) and _end_ns(self._ended[last]) < to_ns:
            self.cut += 1
        if len(self._under_way) > MAX_SUSPECTS:
            self.cut += 1

    def _end(self, prompt: Prompt, end_ns: int) -> None:
        prompt.end_ns = end_ns
        if prompt.weight < HEAVY_TOKENS or end_ns <= prompt.start_ns:
            return
        insort(self._ended, prompt, key=_end_ns)
        if len(self._ended) >= 2 * MAX_ENDED:
            del self._ended[:MAX_ENDED]

    def _estimated_end(self, prompt: Prompt, latest_ns: int) -> int:
        """Return until when a prompt is taken to be in prefill whose first token nobody saw."""
        if prompt.stream:
            return latest_ns
        if not self._pace:
            return prompt.start_ns
        # The middle one: a cache makes some too short, a queue makes some too long.
        return min(latest_ns, prompt.start_ns + round(prompt.weight * median(self._pace)))


def divide(spans: list[Span]) -> Blocked:
    """Return the time covered by `spans`, none of it twice; where several overlap, each has a share by its weight."""
    blocked = Blocked()
    if len(spans) == 1:
        (span,) = spans
        blocked.total_ns = span.end_ns - span.start_ns
        blocked.shares_ns[span.prompt] = float(blocked.total_ns)
        return blocked
    edges = sorted((stamp_ns, index) for index, span in enumerate(spans) for stamp_ns in span[:2])
    began: dict[int, float] = {}  # the integral of dt / weight at the start of each open span
    weight = 0
    integral = 0.0
    before_ns = 0
    for stamp_ns, index in edges:
        if weight:
            blocked.total_ns += stamp_ns - before_ns
            integral += (stamp_ns - before_ns) / weight
        before_ns = stamp_ns
        prompt = spans[index].prompt
        if index not in began:
            began[index] = integral
            weight += prompt.weight
        else:
            weight -= prompt.weight
            blocked.shares_ns[prompt] = prompt.weight * (integral - began[index])
    return blocked


def noted(record: RequestRecord, blocked: Blocked) -> RequestRecord:
    """Return `record` with what is known of its neighbours."""
    culprit = blocked.culprit
    if culprit is None:
        return replace(record, blocked_s=0.0)
    return replace(
        record,
        blocked_s=blocked.total_ns / 1e9,
        blocked_by=culprit.request_id,
        blocked_by_tenant=culprit.tenant,
        blocked_by_tokens=culprit.tokens,
    )


def waited(opened: Open, record: RequestRecord) -> tuple[int, int] | None:
    """Return from when until when a finished request waited for the engine to begin; None if that is not known."""
    if opened.sent_ns <= 0:
        return None
    if record.ttft_s is not None:
        return opened.sent_ns, opened.arrival_ns + round(record.ttft_s * 1e9)
    if record.queue_s is not None:
        return opened.sent_ns, opened.sent_ns + round(record.queue_s * 1e9)
    if record.first_token_missing in WAITED_IN_VAIN:
        return opened.sent_ns, opened.arrival_ns + round(record.duration_s * 1e9)
    return None


def stalled(record: RequestRecord) -> bool:
    """Return whether the largest gap of a request was out of the ordinary.

    Against the mean of the others, as the median is not kept: without the largest one the two differ little.
    """
    if record.gap_count < MIN_GAPS or record.gap_max_s < MIN_STALL_S:
        return False
    return record.gap_max_s * (record.gap_count - 1) > STALL_FACTOR * (record.gap_sum_s - record.gap_max_s)


def _end_ns(prompt: Prompt) -> int:
    return prompt.end_ns or 0
