"""exchange: which time-out has passed, and what a stop does. Its way with bytes is tested on the wire."""

from typing import Any

import pytest
from harness import RecordingTap

from inferwatch.record import ErrorType
from inferwatch.relay.exchange import HIGH_WATER_BYTES, Exchange
from inferwatch.relay.observer import Observer, Subject
from inferwatch.relay.usage_filter import Fingerprint
from inferwatch.settings.traffic import Upstream

S = 1_000_000_000
LIMITS = Upstream(first_byte_timeout_s=10, idle_timeout_s=5, total_timeout_s=60)


class Transport:
    """The client's or the engine's end, as the exchange sees it."""

    def __init__(self) -> None:
        self.written = b""
        self.full = lambda: None  # what asyncio calls when more than the high-water mark is buffered
        self.buffered = 0
        self.reading = True
        self.closed = ""

    def write(self, data: bytes) -> None:
        self.written += data
        if self.buffered > HIGH_WATER_BYTES:
            self.full()

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return bool(self.closed)

    def close(self) -> None:
        self.closed = "close"

    def abort(self) -> None:
        self.closed = "abort"


class Connection:
    def __init__(self) -> None:
        self.transport = Transport()

    def abort(self) -> None:
        self.transport.abort()


def exchange(**options: Any) -> Exchange:
    """A request that arrived at 100 s and was sent at once."""
    tap = RecordingTap()
    watcher = Observer(tap, Subject(arrival_ns=100 * S, method="GET", path="/", tenant="t", headers={}))  # type: ignore[arg-type]
    settings = {"is_head_request": False, "client_11": True, "client_keep_alive": True} | options
    made = Exchange(
        watcher,
        Transport(),  # type: ignore[arg-type]
        arrival_ns=100 * S,
        fingerprint=Fingerprint(),
        **settings,
    )
    made.connection = Connection()  # type: ignore[assignment]
    made.sent_ns = 100 * S
    client(made).full = lambda: made.block(110 * S)
    return made


def client(made: Exchange) -> Transport:
    return made.transport  # type: ignore[return-value]


def engine(made: Exchange) -> Transport:
    assert made.connection is not None
    return made.connection.transport  # type: ignore[return-value]


def answering(made: Exchange, at_s: int = 101) -> Exchange:
    made.head(at_s * S, 200, b"OK", [(b"content-type", b"text/event-stream")], True)
    made.read_done()
    return made


@pytest.mark.parametrize(("now_s", "error"), [(109, None), (111, ErrorType.FIRST_BYTE_TIMEOUT)])
def test_first_byte_timeout_runs_from_the_end_of_the_request(now_s: int, error: ErrorType | None) -> None:
    """To the head."""
    assert exchange().overdue(now_s * S, LIMITS) is error


def test_first_byte_timeout_does_not_run_during_an_upload() -> None:
    """The engine cannot answer what it has not got."""
    made = exchange()
    made.sent_ns = 0
    assert made.overdue(159 * S, LIMITS) is None


@pytest.mark.parametrize(("now_s", "error"), [(105, None), (107, ErrorType.IDLE_TIMEOUT)])
def test_idle_timeout_runs_from_the_head(now_s: int, error: ErrorType | None) -> None:
    """If nothing comes behind it."""
    assert answering(exchange()).overdue(now_s * S, LIMITS) is error


def test_idle_timeout_runs_from_the_last_read() -> None:
    """Not from the first."""
    made = answering(exchange())
    made.body(110 * S, b"x")
    assert made.overdue(114 * S, LIMITS) is None
    assert made.overdue(116 * S, LIMITS) is ErrorType.IDLE_TIMEOUT


def test_idle_timeout_does_not_run_while_the_client_is_slow() -> None:
    """It is we who do not read from the engine."""
    made = answering(exchange())
    client(made).buffered = HIGH_WATER_BYTES + 1
    made.body(110 * S, b"x")
    assert made.blocked
    assert made.overdue(130 * S, LIMITS) is None


def test_total_timeout_runs_whatever_happens() -> None:
    """From arrival."""
    made = answering(exchange())
    made.body(159 * S, b"x")
    assert made.overdue(159 * S, LIMITS) is None
    assert made.overdue(161 * S, LIMITS) is ErrorType.TOTAL_TIMEOUT


def test_finished_exchange_is_never_overdue() -> None:
    """Whatever its client does now is not the engine's time."""
    made = answering(exchange())
    made.complete([])
    assert made.overdue(1000 * S, LIMITS) is None


def test_client_that_takes_nothing_is_stuck() -> None:
    """As long as an engine may be silent, a client may not read."""
    made = answering(exchange())
    client(made).buffered = HIGH_WATER_BYTES + 1
    made.body(110 * S, b"x")
    assert not made.stuck(114 * S, LIMITS)
    assert made.stuck(116 * S, LIMITS)
    made.complete([])
    assert made.stuck(116 * S, LIMITS), "also when the engine has said all"
    client(made).buffered = 0
    made.unblock(117 * S)
    assert not made.stuck(116 * S, LIMITS)


def test_slow_client_pauses_the_engine_and_resumes_it() -> None:
    """One unsent buffer per stream, whatever the reply's length."""
    made = answering(exchange())
    client(made).buffered = HIGH_WATER_BYTES
    made.body(110 * S, b"x")
    assert engine(made).reading
    client(made).buffered = HIGH_WATER_BYTES + 1
    made.body(110 * S, b"x")
    assert not engine(made).reading
    made.unblock(117 * S)
    assert engine(made).reading
    assert made.stalled_ns > 0


def test_connection_of_a_finished_reply_reads_again() -> None:
    """It is the pool's, which must notice when it dies."""
    made = answering(exchange())
    connection = engine(made)
    client(made).buffered = HIGH_WATER_BYTES + 1
    made.body(110 * S, b"x")
    made.complete([])
    assert connection.reading


def test_giving_up_closes_the_engines_connection_at_once() -> None:
    """So that it stops generating."""
    made = answering(exchange())
    connection = engine(made)
    made.give_up(ErrorType.IDLE_TIMEOUT)
    assert connection.closed == "abort"
    assert (made.finished, made.error) == (True, ErrorType.IDLE_TIMEOUT)


def test_giving_up_on_a_client_that_does_not_read_cuts_it_off() -> None:
    """Nothing else would wake the handler."""
    made = answering(exchange())
    client(made).buffered = HIGH_WATER_BYTES + 1
    made.body(110 * S, b"x")
    made.give_up(ErrorType.TOTAL_TIMEOUT)
    assert client(made).closed == "abort"


def test_giving_up_after_the_end_does_nothing() -> None:
    """The connection is somebody else's by now."""
    made = answering(exchange())
    connection = engine(made)
    made.complete([])
    made.give_up(ErrorType.TOTAL_TIMEOUT)
    made.hang_up()
    assert connection.closed == ""
    assert made.error is ErrorType.NONE


@pytest.mark.parametrize(
    ("client_11", "keep_alive", "headers", "framing"),
    [
        (True, True, [], b"Transfer-Encoding: chunked\r\n"),
        (True, False, [], b"Transfer-Encoding: chunked\r\nConnection: close\r\n"),
        (True, True, [(b"Content-Length", b"3")], b"Content-Length: 3\r\n"),
        (False, True, [(b"Content-Length", b"3")], b"Content-Length: 3\r\nConnection: keep-alive\r\n"),
        (False, True, [], b"Connection: close\r\n"),
        (False, False, [(b"Content-Length", b"3")], b"Content-Length: 3\r\nConnection: close\r\n"),
    ],
)
def test_framing_suits_the_client(client_11: bool, keep_alive: bool, headers: Any, framing: bytes) -> None:
    """Chunks for HTTP/1.1, the end of the connection for HTTP/1.0, a length where the engine gave one."""
    made = exchange(client_11=client_11, client_keep_alive=keep_alive)
    made.head(101 * S, 200, b"OK", headers, True)
    made.body(101 * S, b"abc")
    made.complete([])
    head, _, body = client(made).written.partition(b"\r\n\r\n")
    assert head + b"\r\n" == b"HTTP/1.1 200 OK\r\n" + framing
    assert body == (b"3\r\nabc\r\n0\r\n\r\n" if b"chunked" in framing else b"abc")


def test_informational_reply_is_not_for_http_10() -> None:
    """RFC 9110 15.2: such a client does not know them."""
    for client_11, seen in ((True, b"HTTP/1.1 103 Early Hints\r\n\r\n"), (False, b"")):
        made = exchange(client_11=client_11)
        made.informational(103, b"Early Hints", [])
        assert client(made).written == seen
