"""What attribution remembers: written to memos, read back as it was."""

import pytest

from inferwatch_collectors.attribution.accounts import Account, Ended
from inferwatch_collectors.attribution.joules import Baseline
from inferwatch_collectors.attribution.memory import BLOCK, RING, VERSION, Idle, Memory, State
from inferwatch_collectors.attribution.timeline import Interval
from inferwatch_collectors.attribution.weights import Sums
from inferwatch_collectors.metric_store import MetricStore

LABELS = ("qwen", "acme", "chat")


def a_state(divided_until: int = 10, **changes: object) -> State:
    state = State(
        VERSION, 1, 2, divided_until, 7, ("1/3", "0", f"{10**30}/{10**30 + 1}"), {"GPU-1": Baseline(5, 10**12, None)},
        Sums(3, 0.5), Idle(60, 5, 6, True),
    )  # fmt: skip
    for name, value in changes.items():
        setattr(state, name, value)
    return state


def an_account(number: int) -> Account:
    account = Account(number, f"r{number}", 1, "acme", "qwen", LABELS, -5, -4, 3, waits_from_ns=-4)
    account.gpu_nanodollars = 2**62
    return account


def an_end(number: int) -> Ended:
    return Ended(f"r{number}", 1, "acme", "qwen", LABELS, 0, 0, 5, None, 10, None, 20, True)


def again(store: MetricStore) -> MetricStore:
    """The store after the end of its process."""
    fresh = MetricStore()
    store.touch_all()
    fresh.restore(store.take_dirty())
    return fresh


def test_nothing_was_left() -> None:
    """The first life; and looking leaves no trace in the ledger."""
    store = MetricStore()
    assert Memory(store).read() is None
    assert store.take_dirty() == []


def test_all_comes_back_as_it_was() -> None:
    """State, accounts, intervals in the order of time, ends in the order in which they came."""
    store = MetricStore()
    memory = Memory(store)
    intervals = [Interval(RING + 2, 10**18, 5, 0.25, 1.5, {3: 2**60, 1: 4}), Interval(RING - 1, 7)]
    memory.write(a_state(), [an_account(3), an_account(1)], intervals)
    ends = [an_end(number) for number in range(2 * BLOCK + 5)]
    for each in ends:
        memory.ended(each)
    found = Memory(again(store)).read()
    assert found is not None
    assert found.state == a_state()
    assert found.accounts == [an_account(3), an_account(1)]
    assert found.intervals == [intervals[1], intervals[0]]
    assert list(found.intervals[1].work) == [3, 1]
    assert found.ended == ends


def test_what_is_done_with_is_gone() -> None:
    """Divided intervals, and ends that are in the accounts; a place in the ring is used again."""
    store = MetricStore()
    memory = Memory(store)
    memory.write(a_state(), [], [Interval(12), Interval(13)])
    memory.ended(an_end(1))
    memory.divided(12)
    memory.forget_ended()
    memory.ended(an_end(2))
    memory.write(a_state(14), [], [Interval(13 + RING, 5)])
    found = Memory(again(store)).read()
    assert found is not None
    assert found.intervals == [Interval(13 + RING, 5)]
    assert found.ended == [an_end(2)]
    memory.clear()
    memory.write(a_state(), [], [])
    found = Memory(again(store)).read()
    assert found is not None
    assert (found.intervals, found.ended) == ([], [])


@pytest.mark.parametrize(
    "changes", [{"version": VERSION + 1}, {"rests": ("1/0", "0", "0")}, {"rests": ("x", "0", "0")}, {"rests": ("-1", "0", "0")}],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_right_is_not_taken(changes: dict[str, object]) -> None:
    """Another version's state, or one that would make money out of nothing."""
    store = MetricStore()
    Memory(store).write(a_state(**changes), [], [])
    assert Memory(again(store)).read() is None


@pytest.mark.parametrize("name", ["attribution", "attribution_accounts", "attribution_interval", "attribution_ended"])
def test_what_cannot_be_read_is_not_taken(name: str) -> None:
    """Half of it would be worse than nothing."""
    store = MetricStore()
    memory = Memory(store)
    memory.write(a_state(), [an_account(1)], [Interval(12)])
    memory.ended(an_end(1))
    store.memos(name)[0].set(b"\xc1\x00\x00\x00\x00\x09")
    assert Memory(again(store)).read() is None
