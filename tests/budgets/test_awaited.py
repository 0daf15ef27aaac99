"""Ended requests that wait for their measurement: known until it comes or cannot come any more; not too many."""

import pytest

from inferwatch_collectors.budgets import awaited as module
from inferwatch_collectors.budgets.awaited import Awaited, Awaiting


def ended(arrival_s: float) -> Awaited:
    return Awaited((), arrival_s, 10, 5)


def test_each_is_taken_once() -> None:
    """By its id; who is not known is nobody."""
    awaiting = Awaiting()
    awaiting.note("a", ended(1.0))
    assert awaiting.take("a") == ended(1.0)
    assert awaiting.take("a") is None


def test_what_comes_too_late_does_not_come() -> None:
    """By the time of arrival."""
    awaiting = Awaiting()
    for number in range(4):
        awaiting.note(str(number), ended(float(number)))
    awaiting.forget_before(2.0)
    assert [awaiting.take(str(number)) is None for number in range(4)] == [True, True, False, False]


def test_there_are_no_more_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were there first stay."""
    monkeypatch.setattr(module, "MAX_AWAITED", 2)
    awaiting = Awaiting()
    for number in range(3):
        awaiting.note(str(number), ended(0.0))
    assert [awaiting.take(str(number)) is None for number in range(3)] == [False, False, True]
