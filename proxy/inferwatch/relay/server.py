"""What the requests of one relay process share: configuration, engine, books, and the rules that hold for all.

The clients' side is ours (`client_connection`), on llhttp: what a general server adds to a request, a task, a timer,
objects for headers and streams, costs several times what the forwarding does. A reply is written by `Exchange` straight
to the client's transport, so nothing in it is reordered, renamed or added.
"""

import logging
import time

from inferwatch.config import Config
from inferwatch.record import ErrorType, Outcome
from inferwatch.relay import heads, trace_context, usage_request
from inferwatch.relay.client_request import Request
from inferwatch.relay.engine_probe import Engine
from inferwatch.relay.exchange import Exchange
from inferwatch.relay.identity import ANONYMOUS, Identity, Who, clean
from inferwatch.relay.mirror import Mirror
from inferwatch.relay.observer import Observer, Subject
from inferwatch.relay.pool import Pool
from inferwatch.relay.room import Room
from inferwatch.tap import CUT_REASONS, Cut
from inferwatch.tasks import TaskSet

log = logging.getLogger(__name__)


class Relay:
    """Everything the requests of one relay process share."""

    def __init__(self, config: Config, *, pool: Pool, engine: Engine, identity: Identity, mirror: Mirror) -> None:
        self.config = config
        self.pool = pool
        self.engine = engine
        self.identity = identity
        self.mirror = mirror
        self.room = Room()
        self.active: set[Exchange] = set()
        self.tasks = TaskSet(self._task_failed)  # of requests that must wait for something
        self.retries = 0
        self.cutting = False  # the drain's time is over: what is cut off now did not hang up

    def _task_failed(self, name: str, error: BaseException) -> None:
        log.error("handler_fault task=%s type=%s", name, type(error).__name__)

    def subject(self, request: Request, who: Who, arrival_ns: int) -> Subject:
        """Return what is known of a request when it is admitted."""
        head = request.head
        subject = Subject(
            arrival_ns=arrival_ns,
            method=request.method.decode(),
            path=head.path,
            tenant=who.tenant,
            headers=head.mirrored,
        )
        if head.ours:
            subject.user = self.identity.pseudonym(b"user", head.ours.get(b"user"))
            subject.feature = clean(head.ours.get(b"feature", b""))
            subject.session = self.identity.pseudonym(b"session", head.ours.get(b"session"))
        traceparent = head.named.get(b"traceparent")
        context = trace_context.join(traceparent) if traceparent else None
        if context is None and not traceparent and (self.config.trace.mint or self.config.otlp.traces):
            context = trace_context.mint()
        if context is not None:
            head.without(b"traceparent")
            head.trace_line = context.header
            subject.trace_id = context.trace_id
            subject.span_id = context.span_id
            subject.parent_span_id = context.parent_span_id
            subject.trace_sampled = context.sampled
        return subject

    def asks(self, head: heads.RequestHead) -> bool:
        """Whether to ask for usage, if the engine takes it."""
        path = head.path
        return self.config.usage.ask and (usage_request.is_usage_route(path) or usage_request.is_details_route(path))

    def cut(self, told: Cut) -> None:
        """The collector says that these requests must end, and why; those that are over are ignored."""
        ids, error = frozenset(told.ids), CUT_REASONS.get(told.reason, ErrorType.BUDGET)
        for exchange in list(self.active):
            if exchange.observer.id in ids:
                exchange.cut(error)

    def sweep(self, now_ns: int) -> None:
        """Enforce the time-outs of everything in flight; called about once a second."""
        settings = self.config.upstream
        for exchange in list(self.active):
            error = exchange.overdue(now_ns, settings)
            if error is not None:
                exchange.give_up(error)
            elif exchange.stuck(now_ns, settings):
                exchange.transport.abort()  # its connection is lost, and booked as a client that went away
        self.pool.sweep(now_ns / 1e9)

    def malformed(self) -> None:
        """Something came that was not HTTP: book that it happened."""
        subject = Subject(arrival_ns=time.monotonic_ns(), method="", path="", tenant=ANONYMOUS, headers={})
        observer = Observer(self.mirror, subject)
        observer.closed(Outcome.REJECTED, ErrorType.MALFORMED_REQUEST, status=400, stalled_ns=0, retried=False)
