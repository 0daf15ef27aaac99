"""What is remembered of drift through a restart: one memo for each model and tenant.

One is written when a reference is pinned, and then once an hour: a collector that is killed loses an hour of votes.
What is written are counts; see `reference` and `trigrams`.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from inferwatch_collectors.drift.features import Feature
from inferwatch_collectors.drift.following import Followed, FollowedState
from inferwatch_collectors.drift.reference import Terms
from inferwatch_collectors.memo_places import MemoPlaces
from inferwatch_collectors.metric_store import MetricStore

NAME: Final = "drift"

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(FollowedState).decode

Key = tuple[str, str]  # model, tenant


class Memory:
    """Writes and reads the memos. Not more places than streams at a time."""

    def __init__(self, store: MetricStore) -> None:
        self._places = MemoPlaces[Key](store, NAME)

    def read(self, of: Sequence[Feature], terms: Terms, now_weeks: float, most: int) -> list[Followed]:
        """Return up to `most` that an earlier life left; what cannot be read, or is too much, is forgotten."""

        def made(data: bytes) -> Followed:
            return Followed.of_state(_decode(data), of, terms, now_weeks)

        return self._places.read(made, lambda followed: (followed.model, followed.tenant), most)

    def write(self, followed: Followed) -> int:
        """Write down what is known; return how many bytes that is."""
        data = _encode(followed.state())
        self._places.write((followed.model, followed.tenant), data)
        return len(data)

    def forget(self, key: Key) -> None:
        """Nothing is known of these any more."""
        self._places.forget(key)
