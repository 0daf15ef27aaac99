"""The floor: a relay in Python that does nothing. `python -m bench.pipe PORT ENGINE_PORT`

Bytes from each client's connection go to a connection of its own to the engine, and back, unread: no HTTP, no pool, no
counting. What it costs is what uvloop and the kernel cost, and no proxy in Python can be cheaper.
"""

import asyncio
import sys
from typing import cast

import uvloop


class End(asyncio.Protocol):
    """One of two connections; what it reads, the other writes."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: asyncio.Transport | None = None
        self.waiting: list[bytes] = []  # until there is another

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.waiting.append(data)
        else:
            self.other.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.close()


class Front(End):
    """The client's."""

    def __init__(self, engine_port: int, tasks: set[asyncio.Task[None]]) -> None:
        super().__init__()
        self._engine_port = engine_port
        self._tasks = tasks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        task = asyncio.get_running_loop().create_task(self._join())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self) -> None:
        loop = asyncio.get_running_loop()
        other, back = await loop.create_connection(End, "127.0.0.1", self._engine_port)
        back.other = self.transport
        self.other = other
        for data in self.waiting:
            other.write(data)


async def main(port: int, engine_port: int) -> None:
    """Pipe until killed."""
    tasks: set[asyncio.Task[None]] = set()
    server = await asyncio.get_running_loop().create_server(lambda: Front(engine_port, tasks), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
