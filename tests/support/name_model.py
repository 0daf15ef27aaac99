"""A function in place of a pipeline that finds names."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any


class NameModel:
    """As `privacy.names` uses one: it remembers nothing."""

    def __init__(self, read: Callable[[str], Any]) -> None:
        """`read` returns what has `ents`."""
        self._read = read

    def __call__(self, text: str, /) -> Any:
        return self._read(text)

    def memory_zone(self) -> nullcontext[None]:
        """There is nothing to forget."""
        return nullcontext()
