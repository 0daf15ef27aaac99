"""Memos in numbered places: what was left is found, a place is used again, and none twice."""

import random
from typing import Any

import msgspec
import pytest

from inferwatch_collectors.memo_places import AnotherError, MemoPlaces
from inferwatch_collectors.metric_store import MetricStore

NAME = "things"


def text(data: bytes) -> str:
    return data.decode("ascii")


def first(thing: str) -> str:
    return thing[0]


def left(store: MetricStore) -> dict[str, bytes]:
    return {"".join(memo.labels): memo.data for memo in store.memos(NAME) if memo.data}


def again(store: MetricStore, most: int = 10, made: Any = text) -> tuple[MemoPlaces[str], list[str], MetricStore]:
    """Return what the next life reads of what is in `store`, with the rows as a ledger keeps them."""
    fresh = MetricStore()
    for memo in store.memos(NAME):
        fresh.memo(NAME, memo.labels).set(memo.data)
    places = MemoPlaces[str](fresh, NAME)
    return places, sorted(places.read(made, first, most)), fresh


def test_it_is_there_in_the_next_life() -> None:
    """What was written last of each; nothing of what was forgotten, whose place is the next one's."""
    store = MetricStore()
    places = MemoPlaces[str](store, NAME)
    for thing in ("a1", "b1", "a2", "c1"):
        places.write(thing[0], thing.encode())
    places.forget("b")
    places.forget("nobody")
    assert again(store)[1] == ["a2", "c1"]
    places, _, store = again(store)
    places.write("d", b"d1")
    assert left(store) == {"0": b"a2", "1": b"d1", "2": b"c1"}


def test_what_cannot_be_read_is_forgotten() -> None:
    """Or is too much, or of the same thing once more: their places are free."""
    store = MetricStore()
    for number, data in enumerate((b"\xff", b"a1", b"a2", b"b1", b"c1")):
        store.memo(NAME, (str(number),)).set(data)
    places, found, store = again(store, most=2)
    assert found == ["a1", "b1"]
    assert left(store) == {"1": b"a1", "3": b"b1"}
    for thing in "defg":
        places.write(thing, thing.encode())
    assert sorted(left(store)) == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize("fault", [ValueError, KeyError, RecursionError, msgspec.DecodeError])
def test_what_is_damaged_is_counted_and_told(fault: type[Exception], caplog: pytest.LogCaptureFixture) -> None:
    """In one line, which does not say what is in it, nor what the fault says."""

    def made(_: bytes) -> str:
        raise fault("ann")

    store = MetricStore()
    MemoPlaces[str](store, NAME).write("a", b"a1")
    places, found, _ = again(store, made=made)
    assert (places.damaged, found) == (1, [])
    assert caplog.messages == [f"memo_damaged name=things place=0 error={fault.__name__}"]


def test_what_is_of_something_else_is_not_damaged(caplog: pytest.LogCaptureFixture) -> None:
    """Another version, or what is looked at no more: it is forgotten without a word."""

    def made(_: bytes) -> str:
        raise AnotherError

    store = MetricStore()
    MemoPlaces[str](store, NAME).write("a", b"a1")
    places, found, store = again(store, made=made)
    assert (places.damaged, found, left(store)) == (0, [], {})
    assert caplog.messages == []


@pytest.mark.parametrize("labels", [(), ("",), ("x",), ("-1",), ("\u00b2",), ("1" * 5_000,), ("0", "1")])
def test_a_place_that_is_no_number(labels: tuple[str, ...]) -> None:
    """Once: what is left of it is empty."""
    store = MetricStore()
    store.memo(NAME, labels).set(b"a1")
    store.memo(NAME, ("0",)).set(b"b1")
    places, found, store = again(store)
    assert (places.damaged, found, left(store)) == (1, ["b1"], {"0": b"b1"})
    assert again(store)[0].damaged == 0


def test_a_row_that_the_ledger_lost() -> None:
    """Its number is not known to be free, and nobody gets another one's."""
    store = MetricStore()
    for number in (0, 2):
        store.memo(NAME, (str(number),)).set(f"{number}".encode())
    places, _, store = again(store)
    places.write("x", b"x")
    assert sorted(left(store).values()) == [b"0", b"2", b"x"]


def test_no_more_memos_than_things() -> None:
    """Whatever comes and goes, in whichever order."""
    rng = random.Random(1)
    store, known = MetricStore(), set[str]()
    places = MemoPlaces[str](store, NAME)
    for _ in range(2000):
        key = rng.choice("abcdefgh")
        if key in known and rng.random() < 0.5:
            known.discard(key)
            places.forget(key)
        else:
            known.add(key)
            places.write(key, key.encode())
        assert sorted(left(store).values()) == sorted(each.encode() for each in known)
    assert len(store.memos(NAME)) <= 8
