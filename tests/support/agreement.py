"""Two that must say the same, one of them a moment later than the other: looked at until they do."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

# What requests cost is known some seconds after them, and the page shows it a second later; on a busy machine all of
# this takes a few times as long.
AGREE_S = 40.0
LOOK_AGAIN_S = 0.5


class Pair(NamedTuple):
    """One figure, as both say it."""

    name: str
    shown: Any
    booked: Any


async def agreed(look: Callable[[], Awaitable[Iterable[Pair]]], timeout_s: float = AGREE_S) -> None:
    """Wait until each pair that `look` gives is equal; a figure that it does not find may be there a moment later.

    Raises:
        AssertionError: some never were; it names them.
    """
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    while differing := await _differing(look):
        assert asyncio.get_running_loop().time() < deadline_s, f"not within {timeout_s} s: {differing}"
        await asyncio.sleep(LOOK_AGAIN_S)


async def _differing(look: Callable[[], Awaitable[Iterable[Pair]]]) -> object:
    try:
        return [pair for pair in await look() if pair.shown != pair.booked]
    except AssertionError as missing:
        return missing
