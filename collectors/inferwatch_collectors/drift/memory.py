"""What is remembered of drift through a restart: one memo for each model and tenant, in numbered places that are used
again.

Memos are committed with the counters and the records. One is written when a reference is pinned, and then once an
hour: a collector that is killed loses an hour of votes. What is written are counts; see `reference` and `trigrams`.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from inferwatch_collectors.drift.features import Feature
from inferwatch_collectors.drift.following import Followed, FollowedState
from inferwatch_collectors.drift.reference import Terms
from inferwatch_collectors.metric_store import MetricStore

NAME: Final = "drift"

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(FollowedState).decode

Key = tuple[str, str]  # model, tenant


class Memory:
    """Writes and reads the memos. Not more places than streams at a time."""

    def __init__(self, store: MetricStore) -> None:
        self._store = store
        self._places: dict[Key, int] = {}
        self._free: list[int] = []

    def read(self, of: Sequence[Feature], terms: Terms, now_weeks: float, most: int) -> list[Followed]:
        """Return up to `most` that an earlier life left; what cannot be read, or is too much, is forgotten."""
        found: list[Followed] = []
        for memo in self._store.memos(NAME):
            followed = _read(memo.data, of, terms, now_weeks) if len(found) < most else None
            place = int(memo.labels[0])
            if followed is None or (followed.model, followed.tenant) in self._places:
                memo.set(b"")
                self._free.append(place)
            else:
                self._places[followed.model, followed.tenant] = place
                found.append(followed)
        return found

    def write(self, followed: Followed) -> int:
        """Write down what is known; return how many bytes that is."""
        key = (followed.model, followed.tenant)
        place = self._places.get(key)
        if place is None:
            place = self._free.pop() if self._free else len(self._places)
            self._places[key] = place
        data = _encode(followed.state())
        self._store.memo(NAME, (str(place),)).set(data)
        return len(data)

    def forget(self, key: Key) -> None:
        """Nothing is known of these any more."""
        place = self._places.pop(key, None)
        if place is not None:
            self._store.memo(NAME, (str(place),)).set(b"")
            self._free.append(place)


def _read(data: bytes, of: Sequence[Feature], terms: Terms, now_weeks: float) -> Followed | None:
    if not data:
        return None
    try:
        return Followed.of_state(_decode(data), of, terms, now_weeks)
    except (msgspec.DecodeError, ValueError, KeyError):
        return None
