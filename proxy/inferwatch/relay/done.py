"""What aiohttp gets instead of a response: the reply has been written already."""

from typing import Any, Final

from aiohttp import web


class Done(web.StreamResponse):
    """Tells aiohttp that the reply has been written."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._keeps_alive = keep_alive

    @property
    def keep_alive(self) -> bool:
        return self._keeps_alive

    async def prepare(self, request: web.BaseRequest) -> Any:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


# They say one bit and hold nothing of a request: made once.
KEPT: Final = Done(keep_alive=True)
CLOSED: Final = Done(keep_alive=False)
