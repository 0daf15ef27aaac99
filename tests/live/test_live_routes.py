"""The page over HTTP."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from inferwatch_collectors.live import routes
from inferwatch_collectors.live.routes import LivePage
from inferwatch_collectors.live.service import LiveService


@pytest.fixture(name="url")
async def _url(traffic: Any) -> AsyncIterator[str]:
    traffic.request()
    page = LivePage(LiveService(traffic.store, lambda: None, list, dict))
    app = web.Application()

    async def index(_: web.Request) -> web.Response:
        return await page.page()

    app.add_routes([*page.routes(), web.get("/", index)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield "http://127.0.0.1:{1}".format(*runner.addresses[0])
    await runner.cleanup()


@pytest.fixture(name="session")
async def _session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_everything_that_the_page_names_is_there(url: str, session: aiohttp.ClientSession) -> None:
    """And comes from here: the page names no other host, and the browser is told to ask none."""
    async with session.get(url) as reply:
        page = await reply.text()
        assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    paths = re.findall(r'(?:src|href)="([^"#]+)"', page)
    assert all(path.startswith("/") for path in paths)
    for path in paths:
        if path == "/metrics":
            continue
        async with session.get(url + path) as reply:
            assert reply.status == 200, path
            assert "://" not in (await reply.text()).replace("http://www.w3.org", "").replace(
                "https://github.com/leeoniya/uPlot", ""
            )


async def test_frames_come_as_events(url: str, session: aiohttp.ClientSession) -> None:
    """The first at once."""
    async with session.get(f"{url}/live/events") as reply:
        assert reply.content_type == "text/event-stream"
        line = await reply.content.readline()
    assert json.loads(line.removeprefix(b"data: "))["totals"]["requests"] == 1


async def test_pages_are_limited(url: str, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is told so; when one leaves there is room."""
    monkeypatch.setattr(routes, "MAX_VIEWERS", 1)
    async with session.get(f"{url}/live/events") as first:
        await first.content.readline()
        async with session.get(f"{url}/live/events") as second:
            assert second.status == 503


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/live/history?minutes=15", 200),
        ("/live/history", 200),
        ("/live/history?minutes=361", 400),
        ("/live/history?minutes=1440", 400),
        ("/live/alerts", 200),
        ("/live/history?minutes=0", 400),
        ("/live/history?minutes=nan", 400),
        ("/live/history?minutes=many", 400),
        ("/live/nothing.js", 404),
        ("/live/vendor/uPlot.LICENSE", 404),
        ("/live/../service.py", 404),
        ("/live/%2e%2e/service.py", 404),
    ],
)
async def test_other_paths(url: str, session: aiohttp.ClientSession, path: str, status: int) -> None:
    """What is not of the page is not served."""
    async with session.get(url + path) as reply:
        assert reply.status == status
