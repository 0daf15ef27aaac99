"""What waits for the disk: in order, packed when there is much of it, and bounded."""

from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.record import RequestRecord, Share
from inferwatch_collectors.ledger import backlog as backlog_module
from inferwatch_collectors.ledger.backlog import BLOCK_ITEMS, Backlog


def numbered(number: int) -> Share:
    return Share(request_id=f"r{number}", wall_ns=number, gpu_nanodollars=number or None)


def ids(backlog: Backlog[Share]) -> list[int]:
    return [share.wall_ns for share in backlog]


def test_much_is_packed_and_comes_back_as_it_was(frames: Any) -> None:
    """Records in blocks take a fraction of their room, and read back equal, as often as one likes."""
    backlog = Backlog(RequestRecord, 1_000_000)
    records = [frames.record(number, user="u", finish_reasons=("stop",)) for number in range(5 * BLOCK_ITEMS + 7)]
    for record in records:
        backlog.append(record)
    assert len(backlog) == len(records)
    assert list(backlog) == records == list(backlog)
    assert 0 < backlog.packed_bytes < 200 * len(records)


def test_little_is_not_packed() -> None:
    """What a commit usually has costs no compression."""
    backlog = Backlog(Share, 1_000_000)
    for number in range(2 * BLOCK_ITEMS - 1):
        backlog.append(numbered(number))
    assert backlog.packed_bytes == 0


def test_taking_empties() -> None:
    """What was taken is with the taker alone."""
    backlog = Backlog(Share, 10)
    backlog.append(numbered(1))
    taken = backlog.take()
    backlog.append(numbered(2))
    assert (ids(taken), ids(backlog)) == ([1], [2])


STEPS = st.lists(st.tuples(st.sampled_from(["add", "take", "put_back", "cut"]), st.integers(1, 12)), max_size=40)


@given(steps=STEPS, bound=st.integers(1, 20))
def test_it_is_a_queue_that_forgets_the_oldest(steps: list[tuple[str, int]], bound: int) -> None:
    """However commits fail and succeed, the order is kept, nothing is doubled, and only the oldest is given up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backlog_module, "BLOCK_ITEMS", 3)
        backlog, taken = Backlog(Share, bound), None
        model: deque[int] = deque()
        taken_model: list[int] = []
        number = lost = model_lost = 0
        for step, count in steps:
            if step == "add":
                for _ in range(count):
                    backlog.append(numbered(number))
                    model.append(number)
                    number += 1
            elif step == "take" and taken is None:
                taken, taken_model = backlog.take(), list(model)
                model.clear()
                assert ids(taken) == taken_model
            elif step == "put_back" and taken is not None:
                backlog.put_back(taken)
                model.extendleft(reversed(taken_model))
                taken = None
            elif step == "cut":
                lost += backlog.cut()
                while len(model) > bound:
                    model.popleft()
                    model_lost += 1
            assert ids(backlog) == list(model)
            assert len(backlog) == len(model)
        assert lost == model_lost
