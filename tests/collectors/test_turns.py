"""Long work on the loop, in turns."""

import asyncio
from collections.abc import Callable

import pytest

from inferwatch_collectors import turns
from inferwatch_collectors.turns import TURN_S, Turn


class Clock:
    """The time that `turns` sees."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture(name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(turns, "time", clock)
    return clock


async def turns_of_others(work: Callable[[], None], steps: int) -> int:
    """Return how often another task ran while `steps` steps of `work` were taken."""
    count = 0

    async def other() -> None:
        nonlocal count
        while True:
            count += 1
            await asyncio.sleep(0)

    task = asyncio.get_running_loop().create_task(other())
    await asyncio.sleep(0)
    count = 0
    turn = Turn()
    for _ in range(steps):
        work()
        await turn.over()
    task.cancel()
    return count


async def test_short_steps_share_a_turn(clock: Clock) -> None:
    """However many they are, nobody else runs before TURN_S is over."""
    assert await turns_of_others(lambda: None, 1000) == 0


@pytest.mark.parametrize("steps_per_turn", [1, 4, 50])
async def test_others_run_once_a_turn(clock: Clock, steps_per_turn: int) -> None:
    """Twice as long steps, twice as many turns: what counts is the time and not the steps."""

    def work() -> None:
        clock.now_s += 1.001 * TURN_S / steps_per_turn

    assert await turns_of_others(work, 200) == 200 // steps_per_turn


async def test_the_next_turn_begins_when_others_have_had_theirs(clock: Clock) -> None:
    """What others take is theirs: after it there is a whole turn again, not the rest of one."""

    async def other() -> None:
        clock.now_s += 10 * TURN_S

    turn = Turn()
    clock.now_s += TURN_S
    task = asyncio.get_running_loop().create_task(other())
    await turn.over()
    assert task.done()
    late = asyncio.get_running_loop().create_task(other())
    await turn.over()
    assert not late.done()
    await late
