"""What is remembered of many things of a kind through a restart: a memo each, in numbered places that are used again.

Memos are committed with the counters and the records. They are numbered, not named after what they are about: who goes
leaves the place to the next one, so there are never more memos than things at a time.
"""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import msgspec

from inferwatch_collectors.metric_store import MetricStore

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class MemoPlaces(Generic[K]):
    """The memos called `name`, by the key of what each is about."""

    def __init__(self, store: MetricStore, name: str) -> None:
        self._store = store
        self._name = name
        self._places: dict[K, int] = {}
        self._free: list[int] = []
        self._next = 0  # a number that was never given

    def read(self, made: Callable[[bytes], T], key: Callable[[T], K], most: int) -> list[T]:
        """Return up to `most` things that an earlier life left. Once, after the store was restored.

        What is too much, is there twice, or of which `made` raises DecodeError, ValueError or KeyError, is forgotten.
        """
        found: list[T] = []
        for memo in self._store.memos(self._name):
            place = int(memo.labels[0])
            self._next = max(self._next, place + 1)
            thing = _made(made, memo.data) if len(found) < most else None
            if thing is None or key(thing) in self._places:
                memo.set(b"")
                self._free.append(place)
            else:
                self._places[key(thing)] = place
                found.append(thing)
        return found

    def write(self, key: K, data: bytes) -> None:
        """Write down what is known of a thing."""
        place = self._places.get(key)
        if place is None:
            if not self._free:
                self._free.append(self._next)
                self._next += 1
            place = self._places[key] = self._free.pop()
        self._store.memo(self._name, (str(place),)).set(data)

    def data(self, key: K) -> bytes:
        """Return what is written down of a thing; nothing if that is nothing."""
        place = self._places.get(key)
        return b"" if place is None else self._store.memo(self._name, (str(place),)).data

    def forget(self, key: K) -> None:
        """Nothing is known of it any more."""
        place = self._places.pop(key, None)
        if place is not None:
            self._store.memo(self._name, (str(place),)).set(b"")
            self._free.append(place)


def _made(made: Callable[[bytes], T], data: bytes) -> T | None:
    if not data:
        return None
    try:
        return made(data)
    except (msgspec.DecodeError, ValueError, KeyError):
        return None
