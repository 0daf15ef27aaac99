"""The guard in front of label values: whoever can choose a model name must not be able to choose our memory.

How it decides:
* A label has a limit on how many values it may have at a time. Values are admitted first come, first served; above the
  limit a value is counted as `other`, and that is counted.
* Names that are known (configured, or reported by the engine) are *pinned*: never folded, never retired, no slot used.
* The product of the labels is what fills a Prometheus, so combinations have a limit of their own. Above it the tenant
  becomes `other` if the model is pinned, else both do. One combination is at most some 180 series.
* A combination that nobody used for `idle_s` is retired: its series go, and the slots of its values are free again, so
  that yesterday's burst of names does not leave `other` for ever. If it comes back it begins at 0; rates stay right,
  and all-time sums are in the ledger. Folding it into `other` instead would show as traffic that nobody sent.

Pure: time is an argument, in seconds of a clock that never goes back.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

OTHER: Final = "other"

# For a request that names no model, and the like. An empty label value would be no label at all.
UNKNOWN: Final = "unknown"

# The longest names in use, paths of model snapshots with a revision hash, have some 120 characters.
MAX_VALUE_CHARS: Final = 128

# OpenTelemetry's well-known operations are 7; ours are among them.
MAX_OPERATIONS: Final = 16

# For labels whose values come from our own code and are few: a bug must not become a leak.
MAX_INTERNAL_VALUES: Final = 32

COMBINATION: Final = "combination"

DAY_S: Final = 24 * 3600.0


class RequestLabels(NamedTuple):
    """The labels of request-level families, admitted."""

    model: str
    tenant: str
    operation: str


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much is let through. The defaults hold the exposition below 100,000 series."""

    models: int = 100
    tenants: int = 500
    combinations: int = 500  # as many as one model with all tenants it may have; each is up to 180 series
    idle_s: float | None = DAY_S  # a day, so that a nightly job keeps its series; None: never retire


class Retired(NamedTuple):
    """What `retire` let go: combinations, and values that no combination uses any more."""

    combinations: frozenset[RequestLabels]
    models: frozenset[str]
    tenants: frozenset[str]


@lru_cache(maxsize=4096)  # the same few names with every request; bounded, because clients choose them
def sanitize(value: str) -> str:
    """Return `value` fit for a label: printable characters only, at most MAX_VALUE_CHARS, never empty.

    Unpaired surrogates, which no scrape could encode, are among the characters that go. Names that differ only in
    what is cut off share a series.
    """
    if len(value) > MAX_VALUE_CHARS or not value.isprintable():
        value = "".join(filter(str.isprintable, value[: 4 * MAX_VALUE_CHARS]))[:MAX_VALUE_CHARS]
    return value.strip() or UNKNOWN


class CardinalityGuard:
    """Decides which label values are exported under their own name. See the head of this file."""

    def __init__(self, limits: Limits | None = None, on_fold: Callable[[str], None] | None = None) -> None:
        """`on_fold` is told the label each time that a value of a finished request becomes `other`."""
        self.limits = limits or Limits()
        self.on_fold = on_fold
        self._caps = {"model": self.limits.models, "tenant": self.limits.tenants, "operation": MAX_OPERATIONS}
        self._pinned: dict[str, set[str]] = {label: {OTHER, UNKNOWN} for label in self._caps}
        # How many combinations use a value, and which values fill a slot: those in use that are not pinned.
        self._uses: dict[str, Counter[str]] = {label: Counter() for label in self._caps}
        self._slots: dict[str, set[str]] = {label: set() for label in self._caps}
        self._last_used_s: dict[RequestLabels, float] = {}
        self._internal: dict[str, set[str]] = {}

    def pin(self, label: str, names: Iterable[str]) -> None:
        """Never fold or retire `names` of `label` ("model", "tenant" or "operation")."""
        pinned = {sanitize(name) for name in names}
        self._pinned[label] |= pinned
        self._slots[label] -= pinned

    def labels(self, model: str, tenant: str, operation: str, *, now_s: float, count: bool = False) -> RequestLabels:
        """Return the labels under which a request is counted. `count`: tell `on_fold` what was folded."""
        wanted = RequestLabels(sanitize(model), sanitize(tenant), sanitize(operation))
        if wanted not in self._last_used_s:
            wanted = self._admit(wanted, count=count)
        self._last_used_s[wanted] = max(now_s, self._last_used_s.get(wanted, now_s))
        return wanted

    def used(self, labels: RequestLabels, *, now_s: float) -> None:
        """Note that requests were counted under `labels`, which `labels()` returned, without asking again."""
        if now_s > self._last_used_s.get(labels, now_s):
            self._last_used_s[labels] = now_s

    def internal(self, label: str, value: str) -> str:
        """Return `value` of a label whose values come from our own code, or `other` if there are implausibly many."""
        values = self._internal.setdefault(label, set())
        value = sanitize(value)
        if value in values:
            return value
        if len(values) >= MAX_INTERNAL_VALUES:
            self._folded(label)
            return OTHER
        values.add(value)
        return value

    def readmit(self, combinations: Iterable[RequestLabels], *, now_s: float) -> None:
        """Take up combinations of an earlier life, whose series were restored. They count, even above the limits."""
        for combination in combinations:
            if combination not in self._last_used_s:
                self._enter(combination)
            self._last_used_s[combination] = now_s

    def retire(self, *, now_s: float, busy: Collection[RequestLabels] = ()) -> Retired:
        """Let go of what was idle for `idle_s`, is not pinned in full, and is not in `busy`."""
        idle_s = self.limits.idle_s
        if idle_s is None:
            return Retired(frozenset(), frozenset(), frozenset())
        gone = frozenset(
            each
            for each, used_s in self._last_used_s.items()
            if now_s - used_s > idle_s and each not in busy and not self._all_pinned(each)
        )
        for combination in gone:
            del self._last_used_s[combination]
            for label, value in zip(self._caps, combination, strict=True):
                self._uses[label][value] -= 1
        unused = {label: self._release(label) for label in self._caps}
        return Retired(gone, unused["model"], unused["tenant"])

    @property
    def combinations(self) -> int:
        """Combinations admitted at present."""
        return len(self._last_used_s)

    def _admit(self, wanted: RequestLabels, *, count: bool) -> RequestLabels:
        folded: list[str] = []
        values = []
        for label, value in zip(self._caps, wanted, strict=True):
            fits = self._fits(label, value)
            values.append(value if fits else OTHER)
            if not fits:
                folded.append(label)
        labels = RequestLabels(*values)
        if labels not in self._last_used_s:
            if len(self._last_used_s) >= self.limits.combinations and not self._all_pinned(labels):
                folded.append(COMBINATION)
                model = labels.model if labels.model in self._pinned["model"] else OTHER
                labels = RequestLabels(model, OTHER, labels.operation)
            if labels not in self._last_used_s:
                self._enter(labels)
        if count:
            for label in folded:
                self._folded(label)
        return labels

    def _fits(self, label: str, value: str) -> bool:
        slots = self._slots[label]
        return value in self._pinned[label] or value in slots or len(slots) < self._caps[label]

    def _enter(self, labels: RequestLabels) -> None:
        for label, value in zip(self._caps, labels, strict=True):
            self._uses[label][value] += 1
            if value not in self._pinned[label]:
                self._slots[label].add(value)

    def _all_pinned(self, labels: RequestLabels) -> bool:
        return all(value in self._pinned[label] for label, value in zip(self._caps, labels, strict=True))

    def _release(self, label: str) -> frozenset[str]:
        """Free the slots of values that no combination uses any more, and return those values."""
        uses = self._uses[label]
        unused = frozenset(value for value, count in uses.items() if count <= 0)
        for value in unused:
            del uses[value]
        self._slots[label] -= unused
        return unused - self._pinned[label]

    def _folded(self, label: str) -> None:
        if self.on_fold is not None:
            self.on_fold(label)
