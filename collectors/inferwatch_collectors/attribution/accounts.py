"""One request while it is charged: from what is known of it to work over stretches of time.

A stream tells its work while it runs: its prompt is read between the moment it was sent and its first token, and its
completion tokens come after that, counted at each look. A plain reply tells its counts at its end, and does not show
where the prompt ended; its work is taken as even over its time with the engine.

`waits_from_ns` .. `waits_to_ns` is the time whose work is not known yet (to None: it still goes on). Seconds in it
cannot be divided; where they must be, or if the request ends without counts, it is charged by its time.
"""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from inferwatch.record import ErrorType, Outcome, RequestRecord
from inferwatch.tap import Open
from inferwatch_collectors.attribution.times import NS_PER_S
from inferwatch_collectors.attribution.weights import Weights
from inferwatch_collectors.exchange import Progress

# The engine never got these.
_NEVER_SENT = frozenset({ErrorType.CONNECT_FAILED, ErrorType.CONNECT_TIMEOUT, ErrorType.OUT_OF_FILES})


class Work(NamedTuple):
    """Weighted tokens, done evenly over [start_ns, end_ns)."""

    start_ns: int
    end_ns: int
    weight: int
    prompt_tokens: float = 0.0  # for learning: cached ones in part
    decode_tokens: float = 0.0
    live: bool = False  # told while it was done: nobody had to guess it before


class Ended(msgspec.Struct, array_like=True, frozen=True):
    """What charging needs of a finished request. Times are CLOCK_MONOTONIC nanoseconds."""

    request_id: str
    wall_ns: int
    tenant: str
    model: str
    labels: tuple[str, str, str]
    arrival_ns: int
    sent_ns: int
    end_ns: int
    first_ns: int | None
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    worked: bool  # False: the engine did nothing for it, and that is known
    user: str = ""  # these two at the end: files of older versions do not have them
    feature: str = ""

    @classmethod
    def of(cls, record: RequestRecord, labels: tuple[str, str, str], arrival_ns: int) -> "Ended":
        """Read `record`, whose request arrived at `arrival_ns`."""

        def after_ns(seconds: float) -> int:
            return arrival_ns + round(seconds * NS_PER_S)

        counted = record.prompt_tokens is not None or record.completion_tokens is not None
        refused = record.outcome is Outcome.REJECTED or record.error in _NEVER_SENT or record.sent_s is None
        end_ns = after_ns(record.duration_s)
        return cls(
            record.request_id,
            record.wall_ns,
            record.tenant,
            record.model,
            labels,
            arrival_ns,
            min(end_ns, after_ns(record.sent_s or 0.0)),
            end_ns,
            min(end_ns, after_ns(record.ttft_s)) if record.stream and record.ttft_s is not None else None,
            record.prompt_tokens,
            record.cached_tokens,
            record.completion_tokens,
            counted or not refused,
            record.user,
            record.feature,
        )


class Account(msgspec.Struct, array_like=True):
    """What one request is charged so far, and what of its work was told."""

    number: int
    request_id: str
    wall_ns: int
    tenant: str
    model: str
    labels: tuple[str, str, str]
    arrival_ns: int
    sent_ns: int
    seen_ns: int  # it was open then
    waits_from_ns: int | None
    waits_to_ns: int | None = None
    end_ns: int | None = None  # None: open
    first_ns: int | None = None
    told_ns: int = 0  # completion tokens until then are told
    told_tokens: int = 0
    prompt_told: bool = False
    last_index: int | None = None  # the last interval with work of it
    gpu_nanodollars: int = 0
    energy_uj: int = 0
    user: str = ""  # these two at the end: files of older versions do not have them
    feature: str = ""

    @classmethod
    def of_open(cls, number: int, opened: Open, labels: tuple[str, str, str], now_ns: int) -> "Account":
        """Begin with a request that is under way; nothing of its work is known."""
        sent_ns = opened.sent_ns or opened.arrival_ns
        return cls(
            number,
            opened.request_id,
            opened.wall_ns,
            opened.tenant,
            opened.model,
            labels,
            opened.arrival_ns,
            sent_ns,
            now_ns,
            waits_from_ns=sent_ns,
            user=opened.user,
            feature=opened.feature,
        )

    @classmethod
    def of_ended(cls, number: int, ended: Ended) -> "Account":
        """Begin with a request that came and went between two looks."""
        return cls(
            number,
            ended.request_id,
            ended.wall_ns,
            ended.tenant,
            ended.model,
            ended.labels,
            ended.arrival_ns,
            ended.sent_ns,
            ended.end_ns,
            waits_from_ns=ended.sent_ns,
            user=ended.user,
            feature=ended.feature,
        )

    @property
    def live(self) -> bool:
        """Whether its tokens are told while it runs."""
        return self.first_ns is not None

    def progressed(self, progress: Progress, weights: Weights) -> Iterator[Work]:
        """Yield the work that a look at the open stream shows for the first time."""
        completion = progress.completion_tokens or 0
        if self.first_ns is None:
            first_ns = progress.first_ns
            if first_ns is None and completion:
                first_ns = progress.last_ns  # its first tokens went by unseen
            if first_ns is None:
                return
            self._began(first_ns)
        yield from self._prompt(progress.prompt_tokens, progress.cached_tokens, weights)
        yield from self._decoded(completion, progress.last_ns, weights, live=True)

    def ended(self, ended: Ended, weights: Weights) -> Iterator[Work]:
        """Yield the work that the end shows. Afterwards nothing more comes."""
        self.end_ns = self.seen_ns = max(ended.end_ns, self.told_ns, self.sent_ns)
        live = self.live
        if not ended.worked and not live:
            self.waits_from_ns = None
            self.sent_ns = self.end_ns  # it kept nothing busy
            return
        if self.first_ns is None and ended.first_ns is not None:
            self._began(ended.first_ns)
        prompt, completion = ended.prompt_tokens, ended.completion_tokens
        if self.first_ns is not None and (prompt is not None or self.told_tokens or completion):
            yield from self._prompt(prompt, ended.cached_tokens, weights)
            yield from self._decoded(completion or 0, self.end_ns, weights, live=live)
        elif prompt is not None or completion is not None:
            yield from self._whole(prompt or 0, ended.cached_tokens or 0, completion or 0, weights)
        else:
            self.waits_to_ns = self.end_ns

    def abandoned(self) -> None:
        """End it where it was last seen."""
        self.end_ns = max(self.seen_ns, self.sent_ns)
        if self.waits_from_ns is not None and self.waits_to_ns is None:
            self.waits_to_ns = self.end_ns

    def waiting_ns(self, start_ns: int, end_ns: int) -> int:
        """Return how much of [start_ns, end_ns) it worked without its work being known."""
        if self.waits_from_ns is None:
            return 0
        low = max(self.waits_from_ns, start_ns)
        high = end_ns if self.waits_to_ns is None else min(self.waits_to_ns, end_ns)
        return max(0, high - low)

    def present_ns(self, start_ns: int, end_ns: int) -> int:
        """Return how much of [start_ns, end_ns) it was with the engine."""
        high = end_ns if self.end_ns is None else min(self.end_ns, end_ns)
        return max(0, high - max(self.sent_ns, start_ns))

    def _began(self, first_ns: int) -> None:
        self.first_ns = self.told_ns = self.waits_to_ns = max(first_ns, self.sent_ns)

    def _prompt(self, prompt_tokens: int | None, cached_tokens: int | None, weights: Weights) -> Iterator[Work]:
        if self.prompt_told or prompt_tokens is None or self.first_ns is None:
            return
        self.prompt_told = True
        self.waits_from_ns = self.waits_to_ns = None
        weight = weights.prompt(prompt_tokens, cached_tokens or 0)
        yield Work(self.sent_ns, self.first_ns, weight, prompt_tokens=weight / weights.prefill)

    def _decoded(self, tokens: int, upto_ns: int, weights: Weights, *, live: bool) -> Iterator[Work]:
        fresh = tokens - self.told_tokens
        if fresh <= 0:
            return
        upto_ns = max(upto_ns, self.told_ns)
        yield Work(self.told_ns, upto_ns, fresh * weights.decode, decode_tokens=fresh, live=live)
        self.told_tokens, self.told_ns = tokens, upto_ns

    def _whole(self, prompt: int, cached: int, completion: int, weights: Weights) -> Iterator[Work]:
        self.waits_from_ns = self.waits_to_ns = None
        end_ns = self.sent_ns if self.end_ns is None else self.end_ns
        prompt_weight = weights.prompt(prompt, cached)
        weight = prompt_weight + completion * weights.decode
        yield Work(self.sent_ns, end_ns, weight, prompt_weight / weights.prefill, completion)
