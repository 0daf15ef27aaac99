"""A client for tests that sees what came over the wire, for the simulator alone or with a proxy before it."""

import asyncio
import contextlib
import io
import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from inferwatch_simulator.server import RunningSimulator


class Answered(NamedTuple):
    """A whole response; `headers` in the order and with the values they came in, names in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[str]:
        """The server-sent events, comments included, each with its blank line."""
        return [event + "\n\n" for event in self.body.decode().split("\n\n")[:-1]]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The JSON of every event that has some."""
        return [json.loads(event[6:]) for event in self.events if event.startswith("data: {")]


class Client:
    """Requests to one base URL, without a trailing slash."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def request(
        self, method: str, path: str, data: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answered:
        """One request, sent as it is."""
        named = {"content-type": "application/json"} | (headers or {})
        body = None if data is None else io.BytesIO(data)  # aiohttp warns of large plain bytes
        async with self.session.request(method, self.url + path, data=body, headers=named) as response:
            raw = [(name.decode().lower(), value.decode()) for name, value in response.raw_headers]
            return Answered(response.status, raw, await response.read())

    async def post(self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> Answered:
        """A JSON body to any route."""
        return await self.request("POST", path, json.dumps(body).encode(), headers)

    async def chat(self, content: str = "hi", headers: dict[str, str] | None = None, **body: Any) -> Answered:
        """A chat of one message."""
        messages = [{"role": "user", "content": content}]
        return await self.post("/v1/chat/completions", {"messages": messages} | body, headers)

    async def complete(self, prompt: Any = "hi", headers: dict[str, str] | None = None, **body: Any) -> Answered:
        """A completion."""
        return await self.post("/v1/completions", {"prompt": prompt} | body, headers)

    async def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of that name with these labels at `/metrics`."""
        text = (await self.request("GET", "/metrics")).body.decode()
        total = 0.0
        for line in text.splitlines():
            if line.startswith((name + "{", name + " ")) and all(f'{k}="{v}"' in line for k, v in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total

    async def raw(self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> "Received":
        """All bytes that come back for one request on a connection of its own."""
        data = json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", "host: test", f"content-length: {len(data)}", "connection: close"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        host, port = urlsplit(self.url).hostname, urlsplit(self.url).port
        reader, writer = await asyncio.open_connection(host, port)
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        reads: list[bytes] = []
        was_reset = False
        try:
            while piece := await reader.read(65536):
                reads.append(piece)
        except ConnectionResetError:
            was_reset = True
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        return Received(b"".join(reads), len(reads), was_reset)


class Received(NamedTuple):
    """Bytes from the wire, in how many reads they came, and whether the connection ended with a reset."""

    data: bytes
    reads: int
    was_reset: bool

    @property
    def body(self) -> bytes:
        """What follows the response head, still framed."""
        return self.data.partition(b"\r\n\r\n")[2]


class SimulatorClient(Client):
    """A client of a simulator in the same process."""

    def __init__(self, simulator: RunningSimulator, session: aiohttp.ClientSession) -> None:
        super().__init__(simulator.url, session)
        self.simulator = simulator


Serve = Callable[..., Awaitable[SimulatorClient]]
