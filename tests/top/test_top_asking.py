"""Frames over HTTP: what is asked for, and what is said when there is none."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import live_frame
import pytest

from inferwatch.top import asking
from inferwatch.top.asking import AdminPort, NoAnswerError, Watcher


@pytest.fixture(name="server")
def _server(frame: dict[str, Any]) -> Iterator[Any]:
    with live_frame.serving(frame) as server:
        yield server


@pytest.fixture(name="port")
def _port(server: Any) -> Iterator[AdminPort]:
    port = AdminPort("127.0.0.1", server.server_port, timeout_s=5)
    yield port
    port.close()


def put(server: Any, frame: dict[str, Any]) -> None:
    server.replies["/live/frame"] = (200, json.dumps(frame).encode())


def test_more_streams_are_asked_for_only_if_wanted_and_there(server: Any, port: AdminPort, frame: Any) -> None:
    """A frame has the oldest few; the others cost the collector something."""
    assert len(port.frame(all_streams=True)["streams"]) == 3
    put(server, frame | {"running": 4})
    server.replies["/live/streams"] = (200, json.dumps(frame["streams"] * 2).encode())
    assert len(port.frame(all_streams=False)["streams"]) == 3
    assert len(port.frame(all_streams=True)["streams"]) == 6
    assert server.asked == ["/live/frame"] * 3 + ["/live/streams"]


def test_rates_take_a_second_look(server: Any, port: AdminPort, frame: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only if nobody has been looking."""
    monkeypatch.setattr(asking.time, "sleep", lambda _: put(server, frame))
    port.with_rates()
    assert len(server.asked) == 1
    put(server, frame | {"window_s": 0.0})
    assert port.with_rates()["window_s"] == 10.0
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ((503, b""), "the collector is away, as while it restarts (503)"),
        ((404, b""), "what answers there has no live page (/live/frame: 404)"),
        ((200, b"<html>"), "what answers there is no Inferwatch"),
        ((200, b"[]"), "what answers there is no Inferwatch"),
        ((200, b"{}"), "what answers there is no Inferwatch"),
    ],
)
def test_no_frame_has_a_reason_and_the_next_is_asked_for(
    server: Any, port: AdminPort, frame: Any, reply: tuple[int, bytes], why: str
) -> None:
    """And never a traceback."""
    server.replies["/live/frame"] = reply
    with pytest.raises(NoAnswerError) as caught:
        port.frame(all_streams=True)
    assert str(caught.value) == why
    put(server, frame)
    assert port.frame(all_streams=True)["running"] == 3


def test_nobody_there(free_port: Callable[[], int]) -> None:
    """Is told in the system's words."""
    with pytest.raises(NoAnswerError, match=r"^connection refused$"):
        AdminPort("127.0.0.1", free_port()).frame(all_streams=False)


def test_a_name_that_cannot_be_one() -> None:
    """Is said to be none; Python raises a ValueError there."""
    with pytest.raises(NoAnswerError, match=r"^that is no host's name$"):
        AdminPort("a..b", 9480).frame(all_streams=False)


def test_an_address_as_people_write_it() -> None:
    """IPv6 in brackets."""
    assert AdminPort("::1", 9480).address == "[::1]:9480"


def test_the_watcher_keeps_the_last_frame_when_the_connection_is_lost(server: Any, port: AdminPort, frame: Any) -> None:
    """And takes the next one when it is back."""
    watcher = Watcher(port, 1.0, lambda: None)
    watcher.ask()
    assert watcher.latest[:2] == (frame, "")
    came_s = watcher.latest[2]
    server.replies["/live/frame"] = (503, b"")
    watcher.ask()
    assert watcher.latest == (frame, "the collector is away, as while it restarts (503)", came_s)
    put(server, frame | {"running": 0})
    watcher.ask()
    assert watcher.latest[1] == ""
    assert watcher.latest[0] is not None
    assert watcher.latest[0]["running"] == 0


def test_the_watcher_in_its_thread(server: Any, port: AdminPort) -> None:
    """It asks at once, again when hurried, not while paused, and ends when told."""
    told = threading.Semaphore(0)
    watcher = Watcher(port, 3600.0, told.release)
    watcher.start()
    assert told.acquire(timeout=10)
    watcher.hurry()
    assert told.acquire(timeout=10)
    watcher.paused = True
    watcher.hurry()
    watcher.close()
    watcher.join(10)
    assert not watcher.is_alive()
    assert len(server.asked) == 2
