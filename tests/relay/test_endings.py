"""endings: what is said to the client at the end, and what is booked. On the wire: test_server_failures."""

from types import SimpleNamespace
from typing import Any

import pytest

from inferwatch.record import ErrorType, Outcome
from inferwatch.relay.endings import Ending, hung_up, last_word
from inferwatch.relay.exchange import Refusal

TOO_LARGE = Refusal(413, "too large", ErrorType.REQUEST_TOO_LARGE)
SPENT = Refusal(429, "no room", ErrorType.BUDGET, retry_after_s=7, spent=True)


class Transport:
    """The client's end."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def exchange(**fields: Any) -> Any:
    """Return one that is finished, as far as is looked at here."""
    known: dict[str, Any] = {
        "transport": Transport(),
        "refusal": None,
        "error": ErrorType.NONE,
        "head_written": False,
        "well_ended": False,
        "status": 0,
        "client_keep_alive": True,
        "is_head_request": False,
    }
    return SimpleNamespace(**known | fields)


def request(*, complete: bool = True) -> Any:
    """Return what was asked."""
    return SimpleNamespace(complete=complete, head=SimpleNamespace(path="/v1/chat/completions"))


@pytest.mark.parametrize(
    ("fields", "ending", "said"),
    [
        ({"head_written": True}, Ending(Outcome.OK, ErrorType.NONE, True), b""),
        ({"head_written": True, "client_keep_alive": False}, Ending(Outcome.OK, ErrorType.NONE, False), b""),
        (
            {"head_written": True, "well_ended": True, "error": ErrorType.BUDGET},
            Ending(Outcome.STREAM_ERROR, ErrorType.BUDGET, True),
            b"",
        ),
        (
            {"error": ErrorType.CONNECT_FAILED},
            Ending(Outcome.UPSTREAM_ERROR, ErrorType.CONNECT_FAILED, True),
            b"HTTP/1.1 503 ",
        ),
        ({"refusal": TOO_LARGE}, Ending(Outcome.REJECTED, ErrorType.REQUEST_TOO_LARGE, True), b"HTTP/1.1 413 "),
        ({"refusal": SPENT}, Ending(Outcome.REJECTED, ErrorType.BUDGET, True), b"HTTP/1.1 429 "),
    ],
)
def test_what_is_said_and_booked(fields: dict[str, Any], ending: Ending, said: bytes) -> None:
    """A reply has been said already; a refusal or the engine's failure is said now, with its status."""
    it = exchange(**fields)
    assert last_word(it, request()) == ending
    assert it.transport.written.startswith(said)
    assert bool(it.transport.written) == bool(said)
    assert it.head_written
    assert not said or it.status == int(said.split()[1])
    assert not it.transport.closed


@pytest.mark.parametrize("refusal", [None, TOO_LARGE])
def test_a_reply_that_breaks_off_is_seen_to(refusal: Refusal | None) -> None:
    """Nothing can be said any more: the connection ends, whoever is to blame."""
    it = exchange(head_written=True, error=ErrorType.UPSTREAM_RESET, refusal=refusal)
    assert last_word(it, request()) == Ending(Outcome.STREAM_ERROR, ErrorType.UPSTREAM_RESET, False)
    assert (it.transport.written, it.transport.closed) == (b"", True)


def test_who_is_refused_in_the_midst_of_a_body_is_let_go() -> None:
    """What follows on the connection is the rest of it. A HEAD gets no body; who is gone gets nothing."""
    it = exchange(refusal=TOO_LARGE, is_head_request=True)
    assert not last_word(it, request(complete=False)).keep_alive
    assert b"connection: close\r\n" in it.transport.written
    assert it.transport.written.endswith(b"\r\n\r\n")
    gone = exchange(refusal=TOO_LARGE)
    gone.transport.closed = True
    assert last_word(gone, request()).outcome is Outcome.REJECTED
    assert gone.transport.written == b""


def test_a_budget_says_when_to_come_again() -> None:
    """And that it is of no use before."""
    it = exchange(refusal=SPENT)
    last_word(it, request())
    assert b"retry-after: 7\r\nx-should-retry: false\r\n" in it.transport.written


@pytest.mark.parametrize(
    ("fields", "by_fault", "cutting", "ending"),
    [
        ({}, False, False, Ending(Outcome.CLIENT_ABORT, ErrorType.NONE)),
        ({}, False, True, Ending(Outcome.INTERRUPTED, ErrorType.NONE)),
        ({}, True, True, Ending(Outcome.INTERRUPTED, ErrorType.INTERNAL)),
        ({"status": 101}, True, True, Ending(Outcome.OK, ErrorType.NONE)),
        ({"error": ErrorType.CONNECT_FAILED}, False, False, Ending(Outcome.CLIENT_ABORT, ErrorType.NONE)),
        (
            {"error": ErrorType.UPSTREAM_RESET, "head_written": True},
            *(True, True),
            Ending(Outcome.STREAM_ERROR, ErrorType.UPSTREAM_RESET),
        ),
    ],
)
def test_a_client_that_hung_up(fields: dict[str, Any], by_fault: bool, cutting: bool, ending: Ending) -> None:
    """By itself, unless we were shutting down, or broke it; a tunnel ends so; a reply had broken off before."""
    it = exchange(**fields)
    assert hung_up(it, by_fault=by_fault, cutting=cutting) == ending
    assert it.transport.written == b""
