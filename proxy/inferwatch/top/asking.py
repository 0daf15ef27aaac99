"""Frames from the admin port: one connection, kept open, and a thread that asks.

Asking in a thread: a host that has gone would hold up the keys for as long as the time-out.
"""

import http.client
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from inferwatch.admin_token import CLIENT_VARIABLE
from inferwatch.config import ConfigError
from inferwatch.top.views import Frame

TIMEOUT_S: Final = 3.0

# The collector makes a new frame after a second.
MIN_INTERVAL_S: Final = 0.5

# Rates need two looks with at least this between them; a frame that was made for nobody else has but one.
RATES_WINDOW_S: Final = 0.9

_decode: Final = msgspec.json.Decoder().decode


ELSEWHERE: Final = "is `inferwatch serve` running there? --admin HOST:PORT names another"
TOKEN: Final = f"give the token of the admin port: --token-file FILE, or the token itself in ${CLIENT_VARIABLE}"
SOON: Final = "try again in a few seconds"


class NoAnswerError(Exception):
    """There is no frame; the message says why, and `remedy` what to do."""

    def __init__(self, why: str, remedy: str = ELSEWHERE) -> None:
        super().__init__(why)
        self.remedy = remedy


class AdminPort:
    """Asks one admin port. One thread at a time."""

    def __init__(
        self,
        host: str,
        port: int,
        headers: Callable[[], Mapping[str, str]] = dict,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """`headers` returns those with which to ask, anew for each frame: a token may be changed while we run."""
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._headers = headers
        self._connection = http.client.HTTPConnection(host, port, timeout=timeout_s)

    def frame(self, *, all_streams: bool) -> Frame:
        """Return what happens now; with `all_streams` as many of them as there are to be had.

        Raises:
            NoAnswerError: nobody answers, or not as an Inferwatch does.
        """
        try:
            headers = self._headers()
        except ConfigError as error:
            raise NoAnswerError(str(error), TOKEN) from None
        frame = self._get("/live/frame", headers)
        if not isinstance(frame, dict) or "totals" not in frame:
            raise NoAnswerError("what answers there is no Inferwatch")
        running = frame.get("running") or 0
        if all_streams and running > len(frame.get("streams") or ()):
            frame["streams"] = self._get("/live/streams", headers)
        return frame

    def with_rates(self) -> Frame:
        """Return a frame that has rates, which takes a second if nobody else is looking.

        Raises:
            NoAnswerError: as above.
        """
        frame = self.frame(all_streams=True)
        if (frame.get("window_s") or 0.0) < RATES_WINDOW_S:
            time.sleep(RATES_WINDOW_S + 0.1)
            frame = self.frame(all_streams=True)
        return frame

    def close(self) -> None:
        self._connection.close()

    def _get(self, path: str, headers: Mapping[str, str]) -> Any:
        try:
            self._connection.request("GET", path, headers={"Accept": "application/json", **headers})
            reply = self._connection.getresponse()
            body = reply.read()
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._connection.close()
            raise NoAnswerError(_words(error)) from None
        if reply.status == http.client.SERVICE_UNAVAILABLE:
            raise NoAnswerError("the collector is away, as while it restarts (503)", SOON)
        if reply.status == http.client.UNAUTHORIZED:
            raise NoAnswerError(f"it wants {'another' if headers else 'a'} token (401)", TOKEN)
        if reply.status != http.client.OK:
            raise NoAnswerError(f"what answers there has no live page ({path}: {reply.status})")
        try:
            return _decode(body)
        except msgspec.DecodeError:
            raise NoAnswerError("what answers there is no Inferwatch") from None


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, ValueError):
        return "that is no host's name"  # what Python says here may quote what was to be sent
    return "the connection was closed" if isinstance(error, http.client.HTTPException) else str(error)


class Watcher(threading.Thread):
    """Asks until it is closed, and says so when there is something new. The rest is for the thread of the screen."""

    def __init__(self, port: AdminPort, interval_s: float, told: Callable[[], None]) -> None:
        super().__init__(name="asking", daemon=True)
        self._port = port
        self._interval_s = interval_s
        self._told = told
        self._hurry = threading.Event()
        self._closed = False
        self.paused = False
        self.all_streams = False
        # Written by this thread as one, read by the other.
        self.latest: tuple[Frame | None, str, float] = (None, "", time.monotonic())  # frame, fault, when it came

    def hurry(self) -> None:
        """Ask now: something else is wanted."""
        self._hurry.set()

    def close(self) -> None:
        """End after the present question; waits for nothing."""
        self._closed = True
        self._hurry.set()

    def run(self) -> None:
        """Ask at each interval, also after a failure."""
        while not self._closed:
            if not self.paused:
                self.ask()
                self._told()
            self._hurry.wait(self._interval_s)
            self._hurry.clear()
        self._port.close()

    def ask(self) -> None:
        """Ask once."""
        try:
            frame = self._port.frame(all_streams=self.all_streams)
        except NoAnswerError as error:
            self.latest = (self.latest[0], str(error), self.latest[2])
        else:
            self.latest = (frame, "", time.monotonic())
