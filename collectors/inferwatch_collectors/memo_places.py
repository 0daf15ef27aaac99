"""What is remembered of many things of a kind through a restart: a memo each, in numbered places that are used again.

Memos are committed with the counters and the records. They are numbered, not named after what they are about: who goes
leaves the place to the next one, so there are never more memos than things at a time.

A memo that is damaged is forgotten, with a line in the log and a count; the thing begins anew.
"""

import logging
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

import msgspec

from inferwatch_collectors.metric_store import MetricStore

_log: Final = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

# Of a place: there are no more things than fit into memory.
MAX_DIGITS: Final = 9


class AnotherError(ValueError):
    """A memo is whole, and of another version or of other settings: it is forgotten, and nothing is wrong."""


class MemoPlaces(Generic[K]):
    """The memos called `name`, by the key of what each is about."""

    def __init__(self, store: MetricStore, name: str) -> None:
        self._store = store
        self._name = name
        self._places: dict[K, int] = {}
        self._free: list[int] = []
        self._next = 0  # a number that was never given
        self.damaged = 0  # memos that could not be read

    def read(self, made: Callable[[bytes], T], key: Callable[[T], K], most: int) -> list[T]:
        """Return up to `most` things that an earlier life left. Once, after the store was restored.

        What is too much, is there twice, or of which `made` raises `AnotherError`, is forgotten; so is what is damaged:
        of which it raises DecodeError, ValueError, KeyError or RecursionError.
        """
        found: list[T] = []
        for memo in self._store.memos(self._name):
            place = _number(memo.labels)
            if place is None:
                if memo.data:
                    self._refuse("", "ValueError")
                    memo.set(b"")
                continue
            self._next = max(self._next, place + 1)
            thing = self._made(made, memo.data, place) if len(found) < most else None
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

    def _made(self, made: Callable[[bytes], T], data: bytes, place: int) -> T | None:
        if not data:
            return None
        try:
            return made(data)
        except AnotherError:
            return None
        except (msgspec.DecodeError, ValueError, KeyError, RecursionError) as error:
            self._refuse(str(place), type(error).__name__)
            return None

    def _refuse(self, place: str, error: str) -> None:
        self.damaged += 1
        _log.warning("memo_damaged name=%s place=%s error=%s", self._name, place, error)


def _number(labels: tuple[str, ...]) -> int | None:
    """Return the number that a memo's labels are; None if they are none."""
    if len(labels) != 1 or len(labels[0]) > MAX_DIGITS or not (labels[0].isascii() and labels[0].isdecimal()):
        return None
    return int(labels[0])
