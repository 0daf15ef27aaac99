"""The way of one request: admit, forward, watch the end. Read `Relay.handle` downwards.

The client's side is aiohttp's low-level server: its parser, limits, keep-alive, TLS and shutdown. The reply does not
pass through aiohttp's writer: `Exchange` writes the engine's head and body straight to the client's transport, so
nothing in it is reordered, renamed or added.
"""

import asyncio
import logging
import time
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.http import HttpVersion11

from inferwatch.config import Config
from inferwatch.record import ErrorType, Outcome
from inferwatch.relay import errors, heads, request_body, trace_context, usage_request
from inferwatch.relay.done import CLOSED, KEPT, Done
from inferwatch.relay.engine_probe import Engine
from inferwatch.relay.exchange import HIGH_WATER_BYTES, Exchange, RefusedError
from inferwatch.relay.identity import ANONYMOUS, Identity, clean
from inferwatch.relay.mirror import Mirror
from inferwatch.relay.observer import Observer, Subject
from inferwatch.relay.tunnel import ClientTunnel
from inferwatch.relay.upstream import SWITCHING_PROTOCOLS, ConnectError, Connection, Pool
from inferwatch.relay.usage_request import Facts

log = logging.getLogger(__name__)

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

# Routes that take `stream_options`, behind any prefix.
_USAGE_ROUTES: Final = ("/chat/completions", "/completions")

_ACCEPT_ENCODING: Final = frozenset({b"accept-encoding"})

# Draining waits for the transport's own mark; this only keeps a transport with another idea of it from spinning.
DRAIN_POLL_S: Final = 0.001

_JSON_BODY: Final = b"application/json"

WEBSOCKET: Final = b"websocket"


class Relay:
    """Everything the requests of one relay process share."""

    def __init__(self, config: Config, *, pool: Pool, engine: Engine, identity: Identity, mirror: Mirror) -> None:
        self.config = config
        self.pool = pool
        self.engine = engine
        self.identity = identity
        self.mirror = mirror
        self.active: set[Exchange] = set()
        self.retries = 0
        self.cutting = False  # the drain's time is over: what is cancelled now did not hang up

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Relay one request; aiohttp calls this."""
        arrival_ns = time.monotonic_ns()
        transport = request.transport
        if transport is None:
            raise ConnectionResetError
        head = heads.RequestHead(request.raw_path, request.raw_headers)
        subject = self._subject(request, head, arrival_ns)
        observer = Observer(self.mirror, subject)
        exchange = Exchange(
            observer,
            transport,
            arrival_ns=arrival_ns,
            is_head_request=request.method == "HEAD",
            client_11=request.version >= HttpVersion11,
            client_keep_alive=request.keep_alive,
            fingerprint=self.engine.fingerprint,
        )
        self.active.add(exchange)
        try:
            await self._serve(request, head, exchange)
            if exchange.tunnel_rest is not None:
                await self._tunnel(request, exchange)
            return self._conclude(request, exchange)
        except RefusedError as refusal:
            return self._refuse(request, exchange, refusal)
        except request_body.ClientGoneError:
            self._cancelled(exchange)
            return CLOSED
        except asyncio.CancelledError:
            self._cancelled(exchange)
            raise
        finally:
            self.active.discard(exchange)
            exchange.hang_up()
            if not exchange.closed:
                self._close(exchange, Outcome.INTERRUPTED, ErrorType.INTERNAL)

    def _subject(self, request: web.BaseRequest, head: heads.RequestHead, arrival_ns: int) -> Subject:
        subject = Subject(
            arrival_ns=arrival_ns,
            method=request.method,
            path=head.path,
            tenant=self.identity.tenant(head, request),
            headers=head.mirrored,
        )
        if head.ours:
            subject.user = self.identity.pseudonym(b"user", head.ours.get(b"user"))
            subject.feature = clean(head.ours.get(b"feature", b""))
            subject.session = self.identity.pseudonym(b"session", head.ours.get(b"session"))
        traceparent = head.named.get(b"traceparent")
        context = trace_context.join(traceparent) if traceparent else None
        if context is None and not traceparent and self.config.trace.mint:
            context = trace_context.mint()
        if context is not None:
            head.without(b"traceparent")
            head.trace_line = context.header
            subject.trace_id = context.trace_id
            subject.span_id = context.span_id
            subject.parent_span_id = context.parent_span_id
        return subject

    async def _serve(self, request: web.BaseRequest, head: heads.RequestHead, exchange: Exchange) -> None:
        if request.method == "CONNECT":
            raise RefusedError(405, "CONNECT is for forward proxies", ErrorType.MALFORMED_REQUEST)
        request_body.check_size(request.content_length or 0, self.config.limits)
        if head.expects_continue and exchange.client_11 and not request.content.is_eof():
            exchange.transport.write(CONTINUE)
        buffered = b""
        if request.body_exists or head.upgrade.lower() != WEBSOCKET:
            # A proxy may ignore an upgrade, and so the engines do; Java's client offers h2c with its first POST.
            head.upgrade = b""
        if request.body_exists:
            buffered, complete = await request_body.read(request, self.config.limits)
            if not complete:
                await self._stream(request, head, exchange, buffered)
                return
        await self._buffered(request, head, exchange, buffered)

    async def _buffered(
        self, request: web.BaseRequest, head: heads.RequestHead, exchange: Exchange, body: bytes
    ) -> None:
        """A request whose body is at hand: edit it if usage must be asked for, send it, and again if need be."""
        facts, edit = await self._plan(head, body)
        sent = edit.apply(body) if edit is not None else body
        has_length = bool(body) or request.content_length is not None
        connection = self.pool.take() if not head.upgrade else None
        if connection is None:
            connection = await self._connect(exchange)
        exchange.edited = edit is not None
        observer = exchange.observer
        while connection is not None:
            extra = b"Content-Length: %d\r\n" % len(sent) if has_length else b""
            if head.upgrade:
                extra = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.upgrade
            message = self._request_head(request, head, extra, edited=exchange.edited) + sent
            self._send(exchange, connection, message, takes_upgrade=bool(head.upgrade))
            if not observer.is_open:
                mirrored = body[: self.config.tap.max_body_bytes]
                observer.opened(facts, mirrored, len(body), exchange.sent_ns, asked_usage=edit is not None)
                if edit is not None:
                    observer.hide(edit.hide, self.engine.fingerprint)
            await self._await_reply(request, exchange)
            if exchange.edit_refused and not exchange.finished:
                # The reply was about our body, not the client's. A refused request costs the engine nothing: ask again
                # with the client's own, and pass on what it says to that.
                exchange.edit_refused = exchange.edited = False
                observer.show_all()
                sent = body
            elif exchange.went_stale:
                # The engine closed the idle connection just as we took it; nothing of the request was answered.
                exchange.went_stale = False
                exchange.retried = True
                self.retries += 1
            else:
                return
            connection = await self._connect(exchange)

    async def _plan(self, head: heads.RequestHead, body: bytes) -> tuple[Facts, usage_request.Edit | None]:
        """Look into the body, and decide what to ask for."""
        if not body or not self._is_readable(head):
            return Facts(), None
        read = usage_request.read(body)
        if read is None:
            return Facts(), None
        facts, options = read
        if not facts.stream or not await self._may_ask(head):
            return facts, None
        return facts, usage_request.edit(body, options)

    async def _stream(
        self, request: web.BaseRequest, head: heads.RequestHead, exchange: Exchange, beginning: bytes
    ) -> None:
        """A request too large to buffer: pass it on as it comes, on a connection that cannot be stale."""
        ask = self._is_readable(head) and await self._may_ask(head)
        edit = usage_request.StreamedEdit(ask=ask)
        connection = await self._connect(exchange)
        if connection is None:
            return
        # Until the body is through, a reply ends the connection: what follows on it would be the rest of the body.
        keep_alive, exchange.client_keep_alive = exchange.client_keep_alive, False
        first = edit.feed(beginning)
        message = self._request_head(request, head, b"Transfer-Encoding: chunked\r\n", edited=ask)
        connection.uploading = True
        self._send(exchange, connection, message + request_body.chunk(first))
        exchange.sent_ns = 0  # not before its end
        exchange.observer.opened(
            edit.facts(), beginning[: self.config.tap.max_body_bytes], len(beginning), 0, asked_usage=ask
        )
        async with asyncio.TaskGroup() as group:
            upload = group.create_task(self._upload(request, exchange, edit, len(beginning), keep_alive=keep_alive))
            await self._await_reply(request, exchange)
            upload.cancel()
        if exchange.refusal is not None and not exchange.head_written:
            raise exchange.refusal

    async def _upload(
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        edit: usage_request.StreamedEdit,
        size: int,
        *,
        keep_alive: bool,
    ) -> None:
        limits = self.config.limits
        connection = exchange.connection
        assert connection is not None
        try:
            while not request.content.at_eof():
                part = await request_body.read_some(request, limits)
                size += len(part)
                request_body.check_size(size, limits)
                connection.write(request_body.chunk(edit.feed(part)))
                await connection.drain()
        except RefusedError as refusal:
            exchange.refusal = refusal
            exchange.give_up(refusal.error)
            return
        except request_body.ClientGoneError:
            return  # aiohttp cancels the handler, which does the rest
        end = edit.finish()
        if edit.hide is not None:
            exchange.observer.hide(edit.hide, self.engine.fingerprint)
        connection.write(request_body.chunk(end) + b"0\r\n\r\n")
        connection.uploading = False
        exchange.sent_ns = time.monotonic_ns()
        exchange.observer.sent(edit.facts(), size, exchange.sent_ns)
        if not exchange.head_written:
            exchange.client_keep_alive = keep_alive

    async def _connect(self, exchange: Exchange) -> Connection | None:
        """Open a connection; None when the exchange has failed with it."""
        try:
            return await self.pool.connect()
        except ConnectError as failure:
            self.engine.unreachable()
            exchange.failed(failure.error)
            return None

    def _send(self, exchange: Exchange, connection: Connection, message: bytes, *, takes_upgrade: bool = False) -> None:
        connection.begin(exchange, is_head_request=exchange.is_head_request, takes_upgrade=takes_upgrade)
        exchange.connection = connection
        connection.write(message)
        exchange.sent_ns = time.monotonic_ns()

    async def _await_reply(self, request: web.BaseRequest, exchange: Exchange) -> None:
        """Sleep until the reply is over, letting a slow client catch up whenever it must."""
        while True:
            await exchange.wait()
            if not exchange.blocked:
                return
            while exchange.transport.get_write_buffer_size() > HIGH_WATER_BYTES and request.transport is not None:
                await request.writer.drain()
                await asyncio.sleep(DRAIN_POLL_S)
            exchange.unblock()

    def _request_head(self, request: web.BaseRequest, head: heads.RequestHead, extra: bytes, *, edited: bool) -> bytes:
        target = heads.origin_form(request.raw_path)
        return heads.request(
            request.method.encode(),
            target,
            head,
            host=self.pool.authority,
            # Behind TLS the name decides who answers; on plain HTTP the engine sees what it would see without us.
            replace_host=self.config.upstream.tls,
            # A compressed reply cannot be edited; engines do not compress streams, so nothing changes for the client.
            without=_ACCEPT_ENCODING if edited else frozenset(),
            extra=head.trace_line + extra,
        )

    def _is_readable(self, head: heads.RequestHead) -> bool:
        """Whether to look into the body. vLLM reads JSON whatever its type says; a compressed body stays closed."""
        if b"content-encoding" in head.named:
            return False
        if head.path.endswith(_USAGE_ROUTES):
            return True
        return head.named.get(b"content-type", b"").startswith(_JSON_BODY)

    async def _may_ask(self, head: heads.RequestHead) -> bool:
        if not self.config.usage.ask or not head.path.endswith(_USAGE_ROUTES):
            return False
        await self.engine.known()
        return self.engine.takes_continuous_usage

    async def _tunnel(self, request: web.BaseRequest, exchange: Exchange) -> None:
        """After a 101, until either side hangs up (which cancels us)."""
        connection = exchange.connection
        assert connection is not None
        connection.tunnel = exchange.transport
        if exchange.tunnel_rest:
            exchange.transport.write(exchange.tunnel_rest)
        cast("Any", request.protocol).set_parser(ClientTunnel(connection))
        await asyncio.get_running_loop().create_future()

    # the end

    def _conclude(self, request: web.BaseRequest, exchange: Exchange) -> Done:
        if exchange.error is ErrorType.NONE:
            self._close(exchange, Outcome.OK, ErrorType.NONE)
            return KEPT if exchange.client_keep_alive else CLOSED
        if exchange.head_written:
            # The client must see what the engine did: a reply that breaks off.
            exchange.transport.close()
            self._close(exchange, Outcome.STREAM_ERROR, exchange.error)
            return CLOSED
        status, message = errors.for_error(exchange.error)
        done = self._write_error(request, exchange, status, message)
        self._close(exchange, Outcome.UPSTREAM_ERROR, exchange.error)
        return done

    def _refuse(self, request: web.BaseRequest, exchange: Exchange, refusal: RefusedError) -> Done:
        done = self._write_error(request, exchange, refusal.status, refusal.message)
        self._close(exchange, Outcome.REJECTED, refusal.error)
        return done

    def _cancelled(self, exchange: Exchange) -> None:
        """The client hung up; or we are shutting down and its time is over."""
        exchange.hang_up()
        if exchange.status == SWITCHING_PROTOCOLS:
            self._close(exchange, Outcome.OK, ErrorType.NONE)
        elif exchange.error is not ErrorType.NONE and exchange.head_written:
            self._close(exchange, Outcome.STREAM_ERROR, exchange.error)
        elif self.cutting:
            self._close(exchange, Outcome.INTERRUPTED, ErrorType.NONE)
        else:
            self._close(exchange, Outcome.CLIENT_ABORT, ErrorType.NONE)

    def _write_error(self, request: web.BaseRequest, exchange: Exchange, status: int, message: str) -> Done:
        exchange.status = status
        exchange.head_written = True
        keep_alive = exchange.client_keep_alive and request.content.is_eof()
        path = heads.path_of(request.raw_path)
        if request.transport is not None:
            with_body = not exchange.is_head_request
            exchange.transport.write(errors.reply(status, message, path, keep_alive=keep_alive, with_body=with_body))
        return KEPT if keep_alive else CLOSED

    def _close(self, exchange: Exchange, outcome: Outcome, error: ErrorType) -> None:
        exchange.closed = True
        exchange.observer.closed(
            outcome, error, status=exchange.status, stalled_ns=exchange.stalled_ns, retried=exchange.retried
        )

    def sweep(self, now_ns: int) -> None:
        """Enforce the time-outs of everything in flight; called about once a second."""
        settings = self.config.upstream
        for exchange in list(self.active):
            error = exchange.overdue(now_ns, settings)
            if error is not None:
                exchange.give_up(error)
            elif exchange.stuck(now_ns, settings):
                exchange.transport.abort()  # the handler is cancelled and books a client that went away
        self.pool.sweep(now_ns / 1e9)

    def malformed(self) -> None:
        """aiohttp refused something as HTTP: book that it happened."""
        subject = Subject(arrival_ns=time.monotonic_ns(), method="", path="", tenant=ANONYMOUS, headers={})
        observer = Observer(self.mirror, subject)
        observer.closed(Outcome.REJECTED, ErrorType.MALFORMED_REQUEST, status=400, stalled_ns=0, retried=False)
