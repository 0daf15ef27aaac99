"""What is remembered of the canary through a restart: one memo for each model, in numbered places that are used again.

Written when a reference is pinned or forgotten, and once an hour. What is written are numbers, and keyed hashes of
tokens.
"""

from typing import Final

import msgspec

from inferwatch_collectors.canary.probed import Probed, ProbedState
from inferwatch_collectors.metric_store import MetricStore

NAME: Final = "canary"

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(ProbedState).decode


class Memory:
    """Writes and reads the memos."""

    def __init__(self, store: MetricStore) -> None:
        self._store = store
        self._places: dict[str, int] = {}
        self._free: list[int] = []

    def read(self, asked: str, now_weeks: float, most: int) -> list[Probed]:
        """Return up to `most` that an earlier life left; what cannot be read, or was asked otherwise, is forgotten."""
        found: list[Probed] = []
        for memo in self._store.memos(NAME):
            probed = _read(memo.data, asked, now_weeks) if len(found) < most else None
            place = int(memo.labels[0])
            if probed is None or probed.model in self._places:
                memo.set(b"")
                self._free.append(place)
            else:
                self._places[probed.model] = place
                found.append(probed)
        return found

    def write(self, probed: Probed) -> int:
        """Write down what is known; return how many bytes that is."""
        place = self._places.get(probed.model)
        if place is None:
            place = self._free.pop() if self._free else len(self._places)
            self._places[probed.model] = place
        data = _encode(probed.state())
        self._store.memo(NAME, (str(place),)).set(data)
        return len(data)

    def forget(self, model: str) -> None:
        """Nothing is known of it any more."""
        place = self._places.pop(model, None)
        if place is not None:
            self._store.memo(NAME, (str(place),)).set(b"")
            self._free.append(place)


def _read(data: bytes, asked: str, now_weeks: float) -> Probed | None:
    if not data:
        return None
    try:
        return Probed.of_state(_decode(data), asked, now_weeks)
    except (msgspec.DecodeError, ValueError, KeyError):
        return None
