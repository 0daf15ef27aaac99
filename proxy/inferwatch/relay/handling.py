"""The way of one request: admit, forward, watch the end. Read `Handling` downwards.

Where everything is at hand (the body, an idle connection to the engine) no task is made: the request is sent in the
call that received it, and concluded in the one that received the end of the reply. A task is started only to wait: for
a connection, for the engine's name, for a body too large to buffer, or for what a budget holds of requests that ended.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from inferwatch.engines import UNKNOWN
from inferwatch.record import ErrorType, Outcome
from inferwatch.relay import codings, endings, heads, stream_options, usage_request
from inferwatch.relay.admission import BudgetRefusal
from inferwatch.relay.client_request import Request, chunk
from inferwatch.relay.exchange import Exchange, Refusal
from inferwatch.relay.observer import Observer
from inferwatch.relay.pool import ConnectError
from inferwatch.relay.tunnel import Tunnel
from inferwatch.relay.upstream import Connection
from inferwatch.relay.usage_filter import Hide
from inferwatch.relay.usage_request import Facts

if TYPE_CHECKING:
    from inferwatch.relay.client_connection import ClientConnection
    from inferwatch.relay.server import Relay

log = logging.getLogger(__name__)

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

STRANGER: Final = Refusal(401, "the API key is not known here", ErrorType.UNKNOWN_KEY)

_NOTHING: Final[frozenset[bytes]] = frozenset()
_COMPRESSION: Final = frozenset({codings.ACCEPT_ENCODING})


class Handling:
    """One request, from its head to its Close."""

    __slots__ = (
        "_asks",
        "_body",
        "_client",
        "_edit",
        "_facts",
        "_options",
        "_relay",
        "_request",
        "_task",
        "_welcome",
        "exchange",
        "streams",
    )

    def __init__(self, relay: "Relay", client: "ClientConnection", request: Request) -> None:
        self._relay = relay
        self._client = client
        self._request = request
        self._body = b""  # whole, if it is buffered
        self._facts = Facts()
        self._options: bytes | None = None  # the client's own
        self._asks = False  # for usage, if the engine takes it
        self._edit: usage_request.Edit | None = None
        self._task: asyncio.Task[Any] | None = None
        self.streams = False  # the body is passed on as it comes
        arrival_ns = time.monotonic_ns()
        who = relay.identity.who(request.head, client)
        self._welcome = relay.identity.lets_in(who, request.method, request.head.path)
        self.exchange = Exchange(
            Observer(relay.mirror, relay.subject(request, who, arrival_ns)),
            client.transport,
            arrival_ns=arrival_ns,
            is_head_request=request.method == b"HEAD",
            client_11=request.is_11,
            client_keep_alive=request.keep_alive,
            fingerprint=relay.engine.fingerprint,
            tells_id=relay.config.feedback.response_header,
        )
        self.exchange.owner = self
        relay.active.add(self.exchange)

    def begin(self) -> None:
        """The head is here."""
        request = self._request
        if request.method == b"CONNECT":
            self.exchange.client_keep_alive = False  # what follows is not HTTP
            self.refuse(Refusal(405, "CONNECT is for forward proxies", ErrorType.MALFORMED_REQUEST))
            return
        if not self._welcome:
            self.refuse(STRANGER)
            return
        if request.complete:
            if self._fits(request.body_bytes):
                self._body = request.take()
                self._plan()
        elif self._fits(request.head.length):
            if request.head.expects_continue and request.is_11:
                self.exchange.transport.write(CONTINUE)
            self.more()

    def more(self) -> None:
        """More of the body is here, or all of it."""
        request = self._request
        if self.streams:
            request.wake()
        elif not self._fits(request.body_bytes):
            return
        elif request.complete:
            self._body = request.take()
            self._plan()
        elif request.body_bytes > self._relay.config.limits.buffer_request_bytes:
            self.streams = True
            self._start(self._stream)

    def _fits(self, body_bytes: int) -> bool:
        """Refuse a body above the limit."""
        most = self._relay.config.limits.max_request_bytes
        if body_bytes <= most:
            return True
        message = f"request body of at least {body_bytes} bytes, expected no more than {most}"
        self.refuse(Refusal(413, message, ErrorType.REQUEST_TOO_LARGE))
        return False

    def _start(self, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._task = self._relay.tasks.start(self._guarded(wait), "request")

    async def _guarded(self, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Whatever happens in a task, the request has its Close and the client its end."""
        try:
            await wait()
        except BaseException:
            self._fail()
            raise

    def _fail(self) -> None:
        """A fault of ours. What has been written cannot be taken back; the record says `internal`."""
        if not self.exchange.closed:
            self._end(Outcome.INTERRUPTED, ErrorType.INTERNAL)
            self._client.transport.abort()

    # a body that is at hand

    def _plan(self) -> None:
        """Look into the body, and decide what to ask for."""
        body, head = self._body, self._request.head
        # Whatever its type and coding are said to be: engines read JSON all the same.
        read = usage_request.read(body, head.path) if body else None
        if read is not None:
            self._facts, self._options = read
            self._asks = self._facts.stream and self._relay.asks(head)
        elif body:
            self._facts = self._form(body) or self._facts
        room, refusal = self._relay.room, None
        if room.gate is not None:
            refusal = room.take(self.exchange.observer, self._request.method, head, self._facts, len(body))
        if refusal is None:
            self._go_on()
        elif refusal.soon:
            self._start(self._wait_for_room)
        else:
            self._over_budget(refusal)

    def _form(self, beginning: bytes) -> Facts | None:
        return usage_request.read_form(beginning, self._request.head.named.get(b"content-type", b""))

    def _go_on(self) -> None:
        """Ask for usage, and send it."""
        if self._asks:
            if not self._relay.engine.is_known:
                self._start(self._wait_for_engine)
                return
            self._ask(self._options)
        self._forward()

    async def _wait_for_room(self) -> None:
        refusal = await self._relay.room.wait(self.exchange.observer, self._facts, len(self._body))
        if refusal is not None:
            self._over_budget(refusal)
        else:
            self._go_on()

    def _over_budget(self, found: BudgetRefusal) -> None:
        self.refuse(Refusal(429, found.message, ErrorType.BUDGET, retry_after_s=found.retry_after_s, spent=found.spent))

    async def _wait_for_engine(self) -> None:
        await self._relay.engine.known()
        self._ask(self._options)
        await self._connect()

    def _ask(self, options: bytes | None) -> None:
        self._edit = usage_request.asking(self._relay.engine.profile, self._request.head.path, self._body, options)
        self.exchange.edited = self._edit is not None

    def _forward(self) -> None:
        connection = self._relay.pool.take() if not self._request.head.upgrade else None
        if connection is None:
            self._start(self._connect)
        else:
            self._send(connection)

    async def _connect(self) -> None:
        """Send it on a new connection."""
        connection = await self._new_connection()
        if connection is not None:
            self._send(connection)

    async def _new_connection(self) -> Connection | None:
        """Open a connection; None when the request has failed with it."""
        try:
            return await self._relay.pool.connect()
        except ConnectError as failure:
            self._relay.engine.unreachable()
            self.exchange.failed(failure.error)
            return None

    def _send(self, connection: Connection) -> None:
        """Send the request, edited unless the engine has refused that."""
        exchange, head, body = self.exchange, self._request.head, self._body
        edit = self._edit
        sent = edit.apply(body) if edit is not None and exchange.edited else body
        has_length = sent or head.length_field or head.chunked
        extra = b"Content-Length: %d\r\n" % len(sent) if has_length else b""
        if head.upgrade:
            extra = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.upgrade
        self._speak(connection, self._head(extra, edited=exchange.edited) + sent)
        observer = exchange.observer
        if not observer.is_open:
            mirrored = body[: self._relay.config.tap.max_body_bytes]
            observer.opened(self._facts, mirrored, len(body), exchange.sent_ns, asked_usage=edit is not None)
            if edit is not None:
                self._hide(edit.hide)

    def _hide(self, hide: Hide) -> None:
        engine = self._relay.engine
        nothing = stream_options.nothing(engine.profile, self._request.head.path)
        self.exchange.observer.hide(hide, engine.put_back, nothing)

    def _speak(self, connection: Connection, message: bytes) -> None:
        exchange = self.exchange
        takes_upgrade = bool(self._request.head.upgrade)
        connection.begin(exchange, is_head_request=exchange.is_head_request, takes_upgrade=takes_upgrade)
        exchange.connection = connection
        connection.write(message)
        exchange.sent_ns = time.monotonic_ns()

    def _head(self, extra: bytes, *, edited: bool) -> bytes:
        head = self._request.head
        codings.offer_readable(self._request.method, head)
        return heads.request(
            self._request.method,
            heads.origin_form(head.target),
            head,
            host=self._relay.pool.authority,
            # Behind TLS the name decides who answers; on plain HTTP the engine sees what it would see without us.
            replace_host=self._relay.config.upstream.tls,
            # A compressed reply cannot be edited; engines do not compress streams, so nothing changes for the client.
            without=_COMPRESSION if edited else _NOTHING,
            extra=head.trace_line + extra,
        )

    # a body that is passed on as it comes

    async def _stream(self) -> None:
        """On a connection that cannot be stale: the beginning could not be sent again."""
        relay, exchange, request = self._relay, self.exchange, self._request
        path, profile = request.head.path, UNKNOWN
        if relay.asks(request.head) and usage_request.is_usage_route(path):
            await relay.engine.known()
            profile = relay.engine.profile
        ask = usage_request.takes_options(profile, path)
        beginning = self._take()
        edit = usage_request.StreamedEdit(profile, path, self._form(beginning))
        first = edit.feed(beginning)
        # Without a length, the most that may come. Names behind the beginning are not known to budgets.
        size = request.head.length or relay.config.limits.max_request_bytes
        refusal = relay.room.take(exchange.observer, request.method, request.head, edit.facts(), size)
        if refusal is not None and refusal.soon:
            refusal = await relay.room.wait(exchange.observer, edit.facts(), size)
        if refusal is not None:
            self._over_budget(refusal)
            return
        connection = await self._new_connection()
        if connection is None:
            return
        # Until the body is through, a reply ends the connection: what follows on it would be the rest of the body.
        keep_alive, exchange.client_keep_alive = exchange.client_keep_alive, False
        connection.uploading = True
        self._speak(connection, self._head(b"Transfer-Encoding: chunked\r\n", edited=ask) + chunk(first))
        exchange.sent_ns = 0  # not before its end
        mirrored = beginning[: relay.config.tap.max_body_bytes]
        exchange.observer.uploading(edit.facts(), mirrored)
        await self._upload(connection, edit)
        if not exchange.head_written:
            exchange.client_keep_alive = keep_alive and not self._client.is_last

    def _take(self) -> bytes:
        data = self._request.take()
        self._client.read_on()
        return data

    async def _upload(self, connection: Connection, edit: usage_request.StreamedEdit) -> None:
        """Pass on the rest. Whatever ends the request cancels us."""
        request, exchange = self._request, self.exchange
        await self._taken(connection)
        while await request.wait():
            if not self._fits(request.body_bytes):
                return
            connection.write(chunk(edit.feed(self._take())))
            await self._taken(connection)
        connection.write(chunk(edit.finish()) + b"0\r\n\r\n")
        connection.uploading = False
        exchange.sent_ns = time.monotonic_ns()
        asked = edit.hide is not None
        exchange.observer.sent(edit.facts(), request.body_bytes, exchange.sent_ns, asked_usage=asked)
        if edit.hide is not None and not exchange.head_written:  # what has begun is no answer to what we asked
            self._hide(edit.hide)

    async def _taken(self, connection: Connection) -> None:
        """Wait until the engine takes more. Meanwhile the client is not read from, so that nobody sees it leave."""
        self.exchange.offered_ns = time.monotonic_ns()
        await connection.drain()
        self.exchange.offered_ns = 0

    # the end

    def settled(self) -> None:
        """The exchange has something to decide."""
        exchange = self.exchange
        if exchange.finished:
            if exchange.tunnel_rest is not None:
                self._tunnel()
            elif not exchange.blocked:
                self._conclude()
        elif exchange.edit_refused:
            # The reply was about our body, not the client's. A refused request costs the engine nothing: ask again
            # with the client's own, and pass on what it says to that.
            exchange.edit_refused = exchange.edited = False
            exchange.observer.show_all()
            self._start(self._connect)
        elif exchange.went_stale:
            # The engine closed the idle connection just as we took it; nothing of the request was answered.
            exchange.went_stale = False
            exchange.retried = True
            self._relay.retries += 1
            self._start(self._connect)

    def _tunnel(self) -> None:
        """After a 101, until either side hangs up."""
        exchange = self.exchange
        connection = exchange.connection
        assert connection is not None
        connection.tunnel = exchange.transport
        if exchange.tunnel_rest:
            exchange.transport.write(exchange.tunnel_rest)
        self._client.switch(Tunnel(connection))

    def refuse(self, refusal: Refusal) -> None:
        """End it as the client's fault, as far as it has got."""
        self.exchange.refusal = refusal
        self.exchange.give_up(refusal.error)

    def _conclude(self) -> None:
        try:
            ending = endings.last_word(self.exchange, self._request)
            self._end(ending.outcome, ending.error)
        except BaseException:
            self._fail()
            raise
        self._client.done(keep_alive=ending.keep_alive)

    def client_gone(self, *, by_fault: bool) -> None:
        """The client hung up; or we are shutting down and its time is over; or a fault of ours broke its connection."""
        exchange = self.exchange
        if exchange.closed:
            return
        exchange.hang_up()
        ending = endings.hung_up(exchange, by_fault=by_fault, cutting=self._relay.cutting)
        self._end(ending.outcome, ending.error)

    def _end(self, outcome: Outcome, error: ErrorType) -> None:
        """Book it; nothing is left waiting."""
        exchange = self.exchange
        exchange.closed = True
        exchange.owner = None  # they hold each other
        self._relay.active.discard(exchange)
        exchange.hang_up()
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        if self.streams:
            exchange.observer.came(self._request.body_bytes)
        exchange.observer.closed(
            outcome, error, status=exchange.status, stalled_ns=exchange.stalled_ns, retried=exchange.retried
        )
