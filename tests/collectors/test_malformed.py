"""Requests that are none: one line in the log, and not a word of what was sent."""

import asyncio
import logging

import pytest
from aiohttp import web

from inferwatch_collectors import malformed


async def _answered(*requests: bytes) -> list[bytes]:
    async def fails(_: web.Request) -> web.Response:
        raise RuntimeError

    app = web.Application()
    app.add_routes([web.get("/fails", fails)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    answers = []
    for request in requests:
        reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
        writer.write(request)
        answers.append(await reader.readline())
        writer.close()
        await writer.wait_closed()
    await runner.cleanup()
    return answers


@pytest.mark.parametrize(
    ("request_line", "kind"),
    [(b"GET /usage?sesame\xff HTTP/1.1", "InvalidURLError"), (b"GET http://[sesame HTTP/1.1", "InvalidURLError")],
)
async def test_one_line(request_line: bytes, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """However often it was asked for; the client hears that it was wrong."""
    for _ in range(2):
        malformed.tell_in_one_line()
    (status,) = await _answered(request_line + b"\r\nHost: a\r\n\r\n")
    assert status.startswith(b"HTTP/1.0 400 ")
    assert caplog.messages == [f"admin_request_malformed error={kind}"]
    assert "sesame" not in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_fault_of_ours_keeps_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody has to find it."""
    malformed.tell_in_one_line()
    (status,) = await _answered(b"GET /fails HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b" 500 " in status
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "Traceback" in caplog.text
