"""What is remembered of the canary through a restart: one memo for each model.

Written when a reference is pinned or forgotten, when a signal begins or is over, once an hour, and when the collector
ends. What is written are numbers, and keyed hashes of tokens.
"""

from typing import Final

import msgspec

from inferwatch_collectors.canary.probed import Probed, ProbedState
from inferwatch_collectors.memo_places import MemoPlaces
from inferwatch_collectors.metric_store import MetricStore

NAME: Final = "canary"

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(ProbedState).decode


class Memory:
    """Writes and reads the memos."""

    def __init__(self, store: MetricStore) -> None:
        self._places = MemoPlaces[str](store, NAME)  # by model

    @property
    def damaged(self) -> int:
        """Memos that could not be read."""
        return self._places.damaged

    def read(self, asked: str, prompts: int, now_weeks: float, most: int) -> list[Probed]:
        """Return up to `most` that an earlier life left; what cannot be read, or was asked otherwise, is forgotten."""

        def made(data: bytes) -> Probed:
            return Probed.of_state(_decode(data), asked, prompts, now_weeks)

        return self._places.read(made, lambda probed: probed.model, most)

    def write(self, probed: Probed) -> int:
        """Write down what is known; return how many bytes that is."""
        data = _encode(probed.state())
        self._places.write(probed.model, data)
        return len(data)

    def forget(self, model: str) -> None:
        """Nothing is known of it any more."""
        self._places.forget(model)
