"""room: a request waits only for what others still hold, and never for a budget that is no more."""

import asyncio
from typing import Any, cast

import pytest

from inferwatch.relay import room as room_module
from inferwatch.relay.admission import BudgetRefusal, Gate
from inferwatch.relay.heads import RequestHead
from inferwatch.relay.observer import Observer
from inferwatch.relay.room import LOOKS, Room
from inferwatch.relay.usage_request import Facts

HELD = BudgetRefusal("acme", "budget `acme`: try again", 1, spent=False, soon=True)


class Asked:
    """In place of an observer: says what it is told to, and remembers which time was to be the last."""

    def __init__(self, *answers: BudgetRefusal | None) -> None:
        self.answers = list(answers)
        self.last: list[bool] = []

    def admit(self, gate: Gate, facts: Facts, body_bytes: int, *, last: bool) -> BudgetRefusal | None:
        self.last.append(last)
        return self.answers.pop(0)


@pytest.fixture(name="room")
def _room(monkeypatch: pytest.MonkeyPatch) -> Room:
    monkeypatch.setattr(room_module, "LOOK_S", 0.001)
    room = Room()
    room.gate = cast("Gate", object())
    return room


def take(room: Room, asked: Asked, path: str = "/v1/completions") -> BudgetRefusal | None:
    head: Any = type("Head", (), {"path": path})()
    return room.take(cast("Observer", asked), b"POST", cast("RequestHead", head), Facts(), 10)


async def wait(room: Room, asked: Asked) -> BudgetRefusal | None:
    return await room.wait(cast("Observer", asked), Facts(), 10)


def test_without_budgets_nobody_is_asked(room: Room) -> None:
    """Nor for what costs nothing."""
    asked = Asked()
    assert take(room, asked, "/tokenize") is None
    room.gate = None
    assert take(room, asked) is None
    assert asked.last == []


async def test_it_is_let_in_when_there_is_room(room: Room) -> None:
    asked = Asked(HELD, HELD, None)
    assert take(room, asked) == HELD
    assert await wait(room, asked) is None
    assert asked.last == [False, False, False]
    assert room.waiting == 0


async def test_the_last_refusal_stands(room: Room) -> None:
    """It is not to be waited out again, and only it is counted as the last."""
    asked = Asked(*[HELD] * LOOKS)
    assert await wait(room, asked) == HELD._replace(soon=False)
    assert asked.last == [False] * (LOOKS - 1) + [True]


async def test_what_will_not_pass_soon_is_not_waited_out(room: Room) -> None:
    asked = Asked(HELD, HELD._replace(soon=False, spent=True))
    assert await wait(room, asked) == HELD._replace(soon=False, spent=True)


async def test_a_budget_that_is_no_more_refuses_nobody(room: Room) -> None:
    """A reload took the last one away meanwhile."""
    asked = Asked(HELD)
    waiting = asyncio.create_task(wait(room, asked))
    await asyncio.sleep(0)
    room.gate = None
    assert await waiting is None
    assert asked.last == []


def test_above_the_bound_it_is_refused_at_once(room: Room) -> None:
    room.waiting = room_module.MAX_WAITING
    asked = Asked(HELD)
    assert take(room, asked) == HELD._replace(soon=False)
    assert asked.last == [True]
