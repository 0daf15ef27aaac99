"""Own every task: a bare asyncio task is collected with its exception unseen."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class TaskSet:
    """Background tasks of one owner. A task that fails tells `on_failure`; `close` cancels the rest and waits."""

    def __init__(self, on_failure: Callable[[str, BaseException], None]) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_failure = on_failure

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> None:
        """Start `coroutine` and keep it until it ends."""
        _ = self.start(coroutine, name)

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """The same, for an owner who may have to cancel it earlier."""
        task = asyncio.create_task(coroutine, name=name)  # noqa: TID251 - the one place that owns it
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(task.get_name(), error)

    async def close(self) -> None:
        """Cancel what still runs and wait for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
