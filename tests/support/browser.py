"""A headless Chromium for tests, spoken to by the DevTools protocol: what a page shows, asks for and complains of.

It keeps every request that the page makes and every error on its console, so that a test can say there were none.
"""

import asyncio
import base64
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

START_S = 20.0
MAX_MESSAGE_BYTES = 64 * 1024 * 1024


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.requests: list[str] = []
        self.errors: list[str] = []

    async def listen(self) -> None:
        """Take what the browser says; runs until it is gone."""
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                waiting = self._waiting.pop(told["id"])
                if not waiting.done():
                    waiting.set_result(told)
            elif told["method"] == "Network.requestWillBeSent":
                self.requests.append(told["params"]["request"]["url"])
            elif told["method"] == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(told["params"]["exceptionDetails"])[:500])
            elif told["method"] == "Log.entryAdded" and told["params"]["entry"]["level"] == "error":
                self.errors.append(told["params"]["entry"]["text"])

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        self._number += 1
        waiting: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[self._number] = waiting
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        told = await asyncio.wait_for(waiting, 30)
        assert "error" not in told, told
        result: dict[str, Any] = told["result"]
        return result

    async def open(self, url: str) -> None:
        for domain in ("Network", "Runtime", "Log", "Page"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def run(self, script: str) -> Any:
        """Return what a JavaScript expression gives; a promise is waited for."""
        told = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def until(self, script: str, timeout_s: float = 15.0) -> None:
        """Wait until an expression is true."""
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        while not await self.run(f"Boolean({script})"):
            assert asyncio.get_running_loop().time() < deadline_s, f"not within {timeout_s} s: {script}"
            await asyncio.sleep(0.1)

    async def size(self, width: int, height: int, *, mobile: bool = False) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile
        )

    async def prefer(self, scheme: str) -> None:
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def press(self, key: str) -> None:
        code = {"Tab": 9, "Enter": 13}.get(key, ord(key[0].upper()) if key.isalnum() else 0)
        text = {"Tab": "", "Enter": "\r"}.get(key, key)
        for kind in ("keyDown", "keyUp"):
            shown = {"text": text} if kind == "keyDown" and text else {}
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **shown)

    async def picture(self, file: Path) -> None:
        """Write a picture of the whole page."""
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        await asyncio.to_thread(file.write_bytes, base64.b64decode(shot["data"]))


def chromium() -> str:
    """Return the browser's command.

    Raises:
        AssertionError: it is not installed; the suite's script does that.
    """
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert found, "no chromium here: make test-services installs it"
    return found


@contextlib.asynccontextmanager
async def browsing() -> AsyncIterator[Page]:
    """Start a browser with one empty tab."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            chromium(),
            *(
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--remote-debugging-port=0",
                "--disable-dev-shm-usage",
            ),
            *("--no-first-run", "--disable-background-networking", f"--user-data-dir={profile}", "about:blank"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
                socket = await session.ws_connect(await _tab(session, Path(profile)), max_msg_size=MAX_MESSAGE_BYTES)
                page = Page(socket)
                listening = group.create_task(page.listen())
                try:
                    yield page
                finally:
                    await socket.close()
                    listening.cancel()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _tab(session: aiohttp.ClientSession, profile: Path) -> str:
    port_file = profile / "DevToolsActivePort"
    deadline_s = asyncio.get_running_loop().time() + START_S
    while asyncio.get_running_loop().time() < deadline_s:
        await asyncio.sleep(0.1)
        if port_file.exists() and (words := port_file.read_text().split()):
            async with session.get(f"http://127.0.0.1:{words[0]}/json/list") as reply:
                for tab in await reply.json(content_type=None):
                    if tab["type"] == "page":
                        return str(tab["webSocketDebuggerUrl"])
    raise AssertionError(f"no browser within {START_S} s")
