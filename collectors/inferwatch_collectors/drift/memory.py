"""What is remembered of drift through a restart: a memo for each model and tenant, and one for each engine of before,
up to KEPT of them.

One is written when a reference is pinned, when a signal begins or is over (all of them, if it is one of all together),
once an hour, and when the collector ends: one that is killed loses an hour of votes at most. Beside them stands whether
all together have a signal, so that it is told once.
What is written are counts; see `reference` and `trigrams`. What is set aside is nowhere else.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from inferwatch_collectors.drift.features import Feature
from inferwatch_collectors.drift.following import Followed, FollowedState
from inferwatch_collectors.drift.made import Made
from inferwatch_collectors.drift.reference import Terms
from inferwatch_collectors.memo_places import MemoPlaces
from inferwatch_collectors.metric_store import MetricStore

NAME: Final = "drift"
TOGETHER: Final = "drift_together"

_SIGNALLING: Final = b"1"

# Who goes back, goes back to what was there before, or before that.
KEPT: Final = 2

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(FollowedState).decode

Key = tuple[str, str]  # model, tenant
_Place = tuple[str, str, Made | None]  # of which engine, if it was set aside


class _Aside(NamedTuple):
    """One that was set aside. The least is forgotten first: what was only being learnt, then the oldest."""

    pinned: bool
    wall_s: int
    made: Made

    @property
    def worth(self) -> tuple[bool, int]:
        return self.pinned, self.wall_s


class _Found(NamedTuple):
    """What an earlier life left."""

    place: _Place
    followed: Followed
    aside_s: int


class Memory:
    """Writes and reads the memos. Not more places than (1 + KEPT) times the streams at a time."""

    def __init__(self, store: MetricStore, numbers: int = 0) -> None:
        """`numbers`: that an embedding is projected to; 0: there are none."""
        self._numbers = numbers
        self._store = store
        self._places = MemoPlaces[_Place](store, NAME)
        self._aside: dict[Key, list[_Aside]] = {}
        self.references_cut = 0

    @property
    def damaged(self) -> int:
        """Memos that could not be read."""
        return self._places.damaged

    def read(self, of: Sequence[Feature], terms: Terms, now_weeks: float, most: int) -> list[Followed]:
        """Return up to `most` that an earlier life left; what cannot be read, or is too much, is forgotten."""

        def made(data: bytes) -> _Found:
            state = _decode(data)
            if state.aside_s and state.made is None:
                raise ValueError("set aside for an engine that was never asked")
            followed = Followed.of_state(state, of, terms, now_weeks, self._numbers)  # what is aside is read to the end
            return _Found(_place(state), followed, state.aside_s)

        all_found = self._places.read(made, lambda each: each.place, (1 + KEPT) * most)
        found: dict[Key, Followed] = {}
        for each in all_found:
            if each.aside_s:
                continue
            if len(found) < most:
                found[each.place[:2]] = each.followed
            else:
                self._places.forget(each.place)
        for each in all_found:
            if not each.aside_s:
                continue
            key, engine = each.place[:2], each.place[2]
            if key in found and engine is not None:
                aside = _Aside(each.followed.watched is not None, each.aside_s, engine)
                self._aside.setdefault(key, []).append(aside)
            else:
                self._places.forget(each.place)
        return list(found.values())

    def write(self, followed: Followed) -> int:
        """Write down what is known; return how many bytes that is."""
        data = _encode(followed.state())
        self._places.write((followed.model, followed.tenant, None), data)
        return len(data)

    def set_aside(self, followed: Followed, wall_s: float) -> None:
        """Keep what was learnt of an engine that is not there any more, should it come back, if that is anything."""
        key = (followed.model, followed.tenant)
        self._places.forget((*key, None))
        if followed.made is None or not followed.votes:
            return
        aside = _Aside(followed.watched is not None, max(1, int(wall_s)), followed.made)  # 0 is not aside
        self._places.write((*key, aside.made), _encode(followed.state(aside.wall_s)))
        kept = self._aside.setdefault(key, [])
        kept.append(aside)
        if len(kept) > KEPT:
            least = min(kept, key=lambda each: each.worth)
            kept.remove(least)
            self._places.forget((*key, least.made))
            self.references_cut += 1

    def take_back(self, key: Key, now: Made, of: Sequence[Feature], terms: Terms, now_weeks: float) -> Followed | None:
        """Return what was set aside of this engine, to be followed and written on; None if nothing was."""
        kept = next((each for each in self._aside.get(key, ()) if not each.made.is_another(now)), None)
        if kept is None:
            return None
        self._aside[key].remove(kept)
        data = self._places.data((*key, kept.made))
        self._places.forget((*key, kept.made))
        return Followed.of_state(_decode(data), of, terms, now_weeks, self._numbers)  # as `read`, or we, found it

    def read_together(self) -> bool:
        """Return whether all together had a signal in an earlier life; False if that cannot be read."""
        return self._store.memo(TOGETHER).data == _SIGNALLING

    def write_together(self, *, signalling: bool) -> None:
        """Write down whether all together have a signal."""
        self._store.memo(TOGETHER).set(_SIGNALLING if signalling else b"")

    def has_aside(self, key: Key) -> bool:
        """Whether there is a reference of an engine that was there before."""
        return any(kept.pinned for kept in self._aside.get(key, ()))

    def kept(self, key: Key) -> tuple[Made, ...]:
        """Return of which engines there is something set aside, the latest first."""
        return tuple(each.made for each in sorted(self._aside.get(key, ()), key=lambda each: -each.wall_s))

    def forget_lessons(self) -> None:
        """Forget what was set aside while it was being learnt: its hours of the week are not to be trusted any more."""
        for key, kept in self._aside.items():
            for each in [each for each in kept if not each.pinned]:
                kept.remove(each)
                self._places.forget((*key, each.made))

    def forget(self, key: Key) -> None:
        """Nothing is known of these any more."""
        self._places.forget((*key, None))
        for kept in self._aside.pop(key, ()):
            self._places.forget((*key, kept.made))


def _place(state: FollowedState) -> _Place:
    return state.model, state.tenant, state.made if state.aside_s else None
