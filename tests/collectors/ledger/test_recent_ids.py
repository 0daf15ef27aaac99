"""The ids booked last, in bounded memory."""

from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.ledger.recent_ids import RecentIds


@given(st.lists(st.integers(0, 200).map(str)), st.integers(1, 20))
def test_knows_the_last_generation(ids: list[str], generation: int) -> None:
    """Whatever was added, the last `generation` additions are known."""
    recent = RecentIds(generation)
    for each in ids:
        recent.add(each)
    assert all(each in recent for each in ids[-generation:])


@given(st.integers(1, 20), st.integers(0, 200))
def test_memory_is_bounded(generation: int, count: int) -> None:
    """No more than two generations are known."""
    recent = RecentIds(generation)
    for number in range(count):
        recent.add(str(number))
    assert sum(str(number) in recent for number in range(count)) <= 2 * generation


@given(st.integers(1, 20), st.integers(1, 40), st.integers(0, 400))
def test_what_nobody_else_knows_is_kept(generation: int, max_kept: int, count: int) -> None:
    """While nothing may be forgotten at least the last `max_kept` are known, and memory is bounded all the same."""
    recent = RecentIds(generation, may_forget=lambda: False, max_kept=max_kept)
    for number in range(count):
        recent.add(str(number))
    known = [number for number in range(count) if str(number) in recent]
    assert known == list(range(count - len(known), count))
    assert min(count, max_kept) <= len(known) <= 2 * max(max_kept, generation)


def test_an_id_never_added_is_unknown() -> None:
    """What was not added is not known."""
    recent = RecentIds()
    recent.add("a")
    assert "b" not in recent
