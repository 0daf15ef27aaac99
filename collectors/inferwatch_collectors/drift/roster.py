"""Who is followed: the streams, a model of a tenant each, and that they are written down.

Above `max_streams` the one that is still learning and was silent for an hour, longest first, makes room; else the new
one is not followed, and counted. Names folded into `other` are not followed: a changing mix is no stream.

Time comes from the caller.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from inferwatch import canary
from inferwatch_collectors.cardinality import OTHER, CardinalityGuard
from inferwatch_collectors.drift.features import Feature
from inferwatch_collectors.drift.following import Followed
from inferwatch_collectors.drift.made import Made
from inferwatch_collectors.drift.memory import Key, Memory
from inferwatch_collectors.drift.reference import Terms
from inferwatch_collectors.engine.said import Said

# Who is silent for so long while learning makes room for another.
IDLE_S: Final = 3600.0

# Names looked up without asking the guard again; clients choose them, so it is bounded.
MAX_NAMES: Final = 4096


class Roster:
    """All streams."""

    def __init__(
        self, guard: CardinalityGuard, memory: Memory, features: Sequence[Feature], *, numbers: int, max_streams: int
    ) -> None:
        """`numbers`: that an embedding is projected to, 0 without any."""
        self.memory = memory
        self.max_streams = max_streams
        self._guard = guard
        self._features = tuple(features)
        self._numbers = numbers
        self._streams: dict[Key, Followed] = {}
        self._names: dict[Key, Followed | None] = {}  # as clients wrote them
        self._writing: list[Followed] = []
        self.parts = 1  # most that were judged at a time since the start: weights may not grow afterwards
        self.cut = 0  # not followed, for want of room

    def __iter__(self) -> Iterator[Followed]:
        """Over those of this moment: any of them may be replaced meanwhile."""
        return iter(tuple(self._streams.values()))

    def __contains__(self, each: Followed) -> bool:
        return self._streams.get((each.model, each.tenant)) is each

    def get(self, key: Key) -> Followed | None:
        """Return who is followed under these labels."""
        return self._streams.get(key)

    def known(self, key: Key) -> Followed | None:
        """Return who is followed under these names, without looking them up: they are looked up anew each hour."""
        return self._names.get(key) or self._streams.get(key)

    def leaves_out(self, key: Key) -> bool:
        """Tell whether it is settled that nobody is followed under these names."""
        return key in self._names and self._names[key] is None

    def of(self, key: Key, operation: str, *, now_s: float, wall_s: float, said: Said | None) -> Followed | None:
        """Return who is followed under these names, from now on if need be; None if nobody is. `said`: the engine."""
        if key in self._names:
            return self._names[key]
        labels = self._guard.labels(*key, operation, now_s=now_s)
        if len(self._names) >= MAX_NAMES:
            self._names.clear()
        if OTHER in (labels.model, labels.tenant) or labels.tenant in canary.OWN:
            self._names[key] = None
            return None
        found = self._streams.get((labels.model, labels.tenant))
        if found is None and self._has_room(now_s):
            found = self._streams[labels.model, labels.tenant] = self.new(labels.model, labels.tenant, wall_s)
            if said is not None:
                found.made = Made.of(said, labels.model)
        if found is not None:
            self._names[key] = found
        return found

    def new(self, model: str, tenant: str, wall_s: float) -> Followed:
        """Return one that has learnt nothing; nobody follows it yet."""
        return Followed(model, tenant, self._features, wall_s, self._numbers)

    def replace(self, before: Followed, now: Followed) -> None:
        """Follow another one in its place."""
        self._streams[now.model, now.tenant] = now
        self._forget_names(before)
        self.write(now)
        self.count()

    def count(self) -> None:
        """Somebody may be judged who was not."""
        self.parts = max(self.parts, sum(1 for each in self if each.watched is not None))

    def _has_room(self, now_s: float) -> bool:
        if len(self._streams) < self.max_streams or self._make_room(now_s):
            return True
        self.cut += 1
        return False

    def _make_room(self, now_s: float) -> bool:
        learning = [
            each
            for key, each in self._streams.items()
            if each.watched is None and now_s - each.seen_s >= IDLE_S and not self.memory.has_aside(key)
        ]
        if not learning:
            return False
        oldest = min(learning, key=lambda each: each.seen_s)
        del self._streams[oldest.model, oldest.tenant]
        self._forget_names(oldest)
        self.memory.forget((oldest.model, oldest.tenant))
        return True

    def _forget_names(self, gone: Followed) -> None:
        self._names.clear()
        self._writing = [each for each in self._writing if each is not gone]

    # --- writing down

    def read(self, terms: Terms, now_s: float, now_weeks: float) -> None:
        """Take up what an earlier life knew."""
        for each in self.memory.read(self._features, terms, now_weeks, self.max_streams):
            each.seen_s = now_s
            self._streams[each.model, each.tenant] = each
        self.count()

    def write(self, each: Followed) -> None:
        """Write one down, now."""
        self.memory.write(each)

    def write_soon(self, each: Followed) -> None:
        """Write one down when it is its turn."""
        self._writing.append(each)

    def turn(self) -> None:
        """An hour is over: all are to be written down, and looked up anew, for the guard may have retired some."""
        self._names.clear()
        self.write_all_soon()

    def write_all_soon(self) -> None:
        """Write all down, one after the other."""
        self._writing = list(self._streams.values())

    def finish(self) -> None:
        """All are to be written down for the last time, those first whose evidence would be lost."""
        self._writing = sorted(self._streams.values(), key=lambda each: each.weeks)

    def write_one(self) -> None:
        """Write down the next one that is to be: some milliseconds."""
        if self._writing:
            self.write(self._writing.pop())

    @property
    def unwritten(self) -> int:
        """How many are to be written down."""
        return len(self._writing)
