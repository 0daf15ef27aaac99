"""Owned tasks: none is lost, none fails unseen, none outlives its owner."""

from __future__ import annotations

import asyncio
import gc

import pytest

from inferwatch.tasks import TaskSet

Failures = list[tuple[str, BaseException]]


@pytest.fixture(name="failures")
def _failures() -> Failures:
    return []


@pytest.fixture(name="tasks")
def _tasks(failures: Failures) -> TaskSet:
    return TaskSet(lambda name, error: failures.append((name, error)))


async def _sleep_for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_task_runs_to_its_end_in_silence(tasks: TaskSet, failures: Failures) -> None:
    """A task that ends well is not heard of."""
    done = asyncio.Event()

    async def work() -> None:
        done.set()

    tasks.spawn(work(), "work")
    await done.wait()
    await tasks.close()

    assert failures == []


async def test_a_failing_task_tells_its_name_and_error(tasks: TaskSet, failures: Failures) -> None:
    """The owner hears of it at once, not when the task is collected as garbage."""

    async def work() -> None:
        raise RuntimeError("broken")

    tasks.spawn(work(), "work")
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert [(name, str(error)) for name, error in failures] == [("work", "broken")]
    await tasks.close()


async def test_a_task_nobody_else_holds_is_not_collected(tasks: TaskSet) -> None:
    """The set keeps the reference that asyncio does not."""
    reached = asyncio.Event()
    gate = asyncio.get_running_loop().create_future()

    async def work() -> None:
        await gate
        reached.set()

    tasks.spawn(work(), "work")
    await asyncio.sleep(0)
    gc.collect()
    gate.set_result(None)

    await asyncio.wait_for(reached.wait(), 1)


async def test_close_cancels_the_rest_and_waits_for_it(tasks: TaskSet, failures: Failures) -> None:
    """After `close` nothing runs; being cancelled is no failure, and clean-up has finished."""
    cleaned = []

    async def work() -> None:
        try:
            await _sleep_for_ever()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    for number in range(3):
        tasks.spawn(work(), f"work-{number}")
    await asyncio.sleep(0)
    await tasks.close()

    assert cleaned == [True, True, True]
    assert failures == []
    assert len(asyncio.all_tasks()) == 1


async def test_a_failure_while_closing_is_told_and_does_not_stop_the_closing(
    tasks: TaskSet, failures: Failures
) -> None:
    """One task that breaks in its clean-up does not leave the others running."""

    async def work() -> None:
        try:
            await _sleep_for_ever()
        finally:
            raise RuntimeError("cannot clean up")

    tasks.spawn(work(), "breaks")
    tasks.spawn(_sleep_for_ever(), "sleeps")
    await asyncio.sleep(0)
    await tasks.close()

    assert [name for name, _ in failures] == ["breaks"]
    assert len(asyncio.all_tasks()) == 1


async def test_start_gives_the_task_to_cancel_earlier(tasks: TaskSet, failures: Failures) -> None:
    """A cancelled task is gone without a failure, and carries the name it was given."""
    task = tasks.start(_sleep_for_ever(), "probe")
    await asyncio.sleep(0)

    assert task.get_name() == "probe"
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert failures == []
    await tasks.close()


async def test_close_without_tasks_is_nothing(tasks: TaskSet) -> None:
    """Closing an empty set, and closing twice, is allowed."""
    await tasks.close()
    await tasks.close()
