"""The fence: everything the relay does for the sake of watching, kept apart from the traffic.

Each request has one Observer. It takes out of the reply what we asked for, keeps in O(1) memory what is needed to
book the request whatever happens to the collector, and hands copies to the mirror. A fault in here is counted and
ends the watching of that request; the bytes go on as they came. The fence goes on in `lane`, where ordinary reads of a
stream are dealt with; the only other `except Exception` of the relay is in `masking`, which works in a thread.
"""

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from inferwatch.budget_rules import Names
from inferwatch.record import ErrorType, Outcome
from inferwatch.relay import heads
from inferwatch.relay.admission import Admission, BudgetRefusal, Gate, Reserved
from inferwatch.relay.cutting import Cutting
from inferwatch.relay.details_filter import DetailsFilter
from inferwatch.relay.lane import Lane
from inferwatch.relay.reckoning import Wish, generates
from inferwatch.relay.upstream import Header
from inferwatch.relay.usage_filter import NO_FINGERPRINT, Fingerprint, Hide, UsageFilter
from inferwatch.relay.usage_request import Facts
from inferwatch.tap import Close, Head, Open

if TYPE_CHECKING:
    from inferwatch.relay.mirror import Mirror

log = logging.getLogger(__name__)

# Server-sent events, and Ollama's records.
_STREAM_TYPES: Final = ("text/event-stream", "application/x-ndjson")

# After a fault the same fault is likely to come again with every request; the counter has them all, the log the first
# ones.
MAX_LOGGED_FAULTS: Final = 10


class Subject:
    """What is known of a request when it is admitted."""

    __slots__ = (
        "arrival_ns",
        "feature",
        "headers",
        "method",
        "parent_span_id",
        "path",
        "session",
        "span_id",
        "tenant",
        "trace_id",
        "trace_sampled",
        "user",
        "wall_ns",
    )

    def __init__(self, *, arrival_ns: int, method: str, path: str, tenant: str, headers: dict[str, str]) -> None:
        self.arrival_ns = arrival_ns
        self.wall_ns = time.time_ns() - (time.monotonic_ns() - arrival_ns)
        self.method = method
        self.path = path
        self.tenant = tenant
        self.headers = headers
        self.trace_id = self.span_id = self.parent_span_id = ""
        self.trace_sampled = True
        self.user = self.feature = self.session = ""


class Observer:
    """The watching of one request."""

    __slots__ = (
        "_beginning",
        "_body_bytes",
        "_broken",
        "_facts",
        "_filter",
        "_head_ns",
        "_lane",
        "_mirror",
        "_plain_fingerprint",
        "_sent_ns",
        "_status",
        "_subject",
        "_wishes_usage",
        "asked_usage",
        "dropped_bytes",
        "gap_marked",
        "id",
        "is_open",
        "is_stream",
        "request_id",
        "reserved",
    )

    def __init__(self, mirror: "Mirror", subject: Subject) -> None:
        self._mirror = mirror
        self._subject = subject
        self.id, self.request_id = mirror.next_id()
        self._lane = Lane(self, mirror, self.id)
        self._facts = Facts()
        self._filter: UsageFilter | DetailsFilter | None = None
        self._plain_fingerprint: Fingerprint | None = None
        self._beginning = b""  # of a body that is being passed on, until the request is introduced
        self._body_bytes = 0
        self._sent_ns = self._head_ns = self._status = 0
        self.dropped_bytes = 0
        self.gap_marked = False  # the collector knows that copies are missing here
        self.asked_usage = False
        self.is_open = False
        self.is_stream = False  # the reply is a stream of events that can be read
        self.reserved: Reserved = ()  # on the board, see `tap.Open`
        self._wishes_usage = True  # the client has asked for whatever usage comes at the end, or nobody has
        self._broken = False

    @property
    def last_body_ns(self) -> int:
        return self._lane.last_ns

    def admit(self, gate: Gate, facts: Facts, body_bytes: int, *, last: bool = True) -> BudgetRefusal | None:
        """Take room for the request in its budgets, or return what there is to say. A fault of ours refuses nobody.

        `last`: it is not asked again.
        """
        subject = self._subject
        self._facts = facts  # what was reserved is found again by them, also if the request ends before it is sent
        self._body_bytes = body_bytes
        try:
            names = Names(subject.tenant, subject.user, subject.feature, facts.model)
            wish = Wish(body_bytes, facts.choices, facts.max_tokens, facts.stream, generates(subject.path))
            found = gate.admit(names, wish, last=last)
        except Exception as error:  # noqa: BLE001 - the fence
            self.fault("admit", error)
            return None
        if not isinstance(found, Admission):
            return found
        self.reserved = found.reserved
        return None

    def opened(self, facts: Facts, body: bytes, body_bytes: int, sent_ns: int, *, asked_usage: bool) -> None:
        """The request is known; `body` as the client sent it, as far as it is mirrored."""
        try:
            self._facts = facts
            self._body_bytes = body_bytes
            self._sent_ns = sent_ns
            self.asked_usage = asked_usage
            self.is_open = True
            self._beginning = b""
            self._mirror.opened(self, self.open_frame(body))
        except Exception as error:  # noqa: BLE001 - the fence
            self.fault("open", error)

    def open_frame(self, body: bytes = b"", *, resumed: bool = False) -> Open:
        """Return the frame that introduces this request, also again after a reconnect."""
        subject = self._subject
        facts = self._facts
        return Open(
            id=self.id,
            request_id=self.request_id,
            wall_ns=subject.wall_ns,
            arrival_ns=subject.arrival_ns,
            sent_ns=self._sent_ns,
            method=subject.method,
            path=subject.path,
            tenant=subject.tenant,
            model=facts.model,
            stream=facts.stream,
            asked_usage=self.asked_usage,
            choices=facts.choices,
            n=facts.n,
            max_tokens=facts.max_tokens,
            headers=subject.headers,
            body=body,
            body_bytes=self._body_bytes,
            trace_id=subject.trace_id,
            span_id=subject.span_id,
            parent_span_id=subject.parent_span_id,
            trace_sampled=subject.trace_sampled,
            user=subject.user,
            feature=subject.feature,
            session=subject.session,
            resumed=resumed,
            reserved=self.reserved,
        )

    def uploading(self, facts: Facts, beginning: bytes) -> None:
        """A body is passed on as it comes. The request is introduced when all of it is known, or its reply begins."""
        self._facts = facts
        self._beginning = beginning

    def came(self, body_bytes: int) -> None:
        """The request ends, and so much of its body has come."""
        self._body_bytes = body_bytes

    def sent(self, facts: Facts, body_bytes: int, stamp_ns: int, *, asked_usage: bool) -> None:
        """A streamed body has been sent to its end."""
        self._facts = facts
        self._body_bytes = body_bytes
        self._sent_ns = stamp_ns
        self.asked_usage = asked_usage
        self._introduce()

    def _introduce(self) -> None:
        """Tell of the request what is known of it, unless that was done."""
        if not self.is_open:
            beginning, asked = self._beginning, self.asked_usage
            self.opened(self._facts, beginning, self._body_bytes, self._sent_ns, asked_usage=asked)

    def hide(self, hide: Hide, fingerprint: Fingerprint, nothing: bytes = b"") -> None:
        """Take usage out of the reply; `nothing` is what the engine has in the place of one."""
        self._wishes_usage = hide is Hide.CONTINUOUS
        if hide is Hide.DETAILS:
            self._filter = DetailsFilter()
            return
        # Where no fingerprint is to be put back, no finish event need wait for one: as with several choices.
        several = self._facts.choices != 1 or fingerprint is NO_FINGERPRINT
        self._filter = UsageFilter(hide, several_choices=several, fingerprint=fingerprint, nothing=nothing)

    def show_all(self) -> None:
        """Nothing was asked for after all."""
        self._wishes_usage = True
        self._filter = None

    def head(self, stamp_ns: int, status: int, headers: list[Header], fingerprint: Fingerprint) -> bool:
        """The reply's head. Returns whether the body will be edited, so that its length is not the engine's."""
        self._introduce()  # an engine may answer before it has the whole body
        try:
            self._head_ns = stamp_ns
            self._status = status
            mirrored = heads.mirrored_reply(headers)
            is_stream = mirrored.get("content-type", "").startswith(_STREAM_TYPES)
            self.is_stream = is_stream and "content-encoding" not in mirrored
            if not self.is_stream:
                self._filter = None
            if not is_stream and fingerprint.value is None and status == 200:
                self._plain_fingerprint = fingerprint
            self._mirror.head(self, Head(self.id, stamp_ns, status, mirrored))
        except Exception as error:  # noqa: BLE001 - the fence
            self.fault("head", error)
        return self._filter is not None

    def body(self, stamp_ns: int, data: bytes) -> bytes:
        """One read of the reply. Returns what the client may see of it now."""
        shown = data
        if self._filter is not None:
            try:
                self._catch_up()
                shown = self._filter.feed(data)
            except Exception as error:  # noqa: BLE001 - the fence
                shown = self._unfiltered(error) + data
        try:
            self._lane.keep(stamp_ns, data)
            if not self._broken:
                self._mirror.read(self, stamp_ns, data)
        except Exception as error:  # noqa: BLE001 - the fence
            self.fault("read", error)
        return shown

    def lane(self, client: asyncio.Transport) -> Lane | None:
        """Return what the next ordinary reads may take instead of `body`; None: it is not as simple as that."""
        hides = self._filter is not None
        if hides and not (isinstance(self._filter, UsageFilter) and self._filter.is_simple):
            return None
        if self._broken or self.gap_marked or not self.is_stream:
            return None
        return self._lane.open(client, hides_usage=hides)

    def _catch_up(self) -> None:
        """Tell the filter what went by it."""
        if self._lane.usage is not None and isinstance(self._filter, UsageFilter):
            self._filter.usages[0] = b"{%b}" % self._lane.usage
            self._lane.usage = None

    def cutting(self, error: ErrorType) -> Cutting:
        """Return what ends this stream in good form, from here on."""
        choices, usage = self._facts.choices, self._wishes_usage
        return Cutting(self._subject.path, self._lane.tail, error, choices=choices, usage=usage)

    def last_words(self, cutting: Cutting) -> bytes | None:
        """Return what ends the stream right here; None: it is within an event, or something of one is held back."""
        try:
            return None if self._filter is not None and self._filter.holds else cutting.end_here()
        except Exception as error:  # noqa: BLE001 - the fence
            self.fault("cut", error)
            return None

    def shorten(self, cutting: Cutting, shown: bytes) -> tuple[bytes, bool]:
        """Return what to show instead of `shown`, and whether the reply ends with it; after a fault it breaks off."""
        try:
            return cutting.feed(shown)
        except Exception as error:  # noqa: BLE001 - the fence
            self.fault("cut", error)
            cutting.in_good_form = False
            return b"", True

    def end(self) -> bytes:
        """The body ended, or broke off: return what was still held back."""
        try:
            if self._plain_fingerprint is not None:
                self._plain_fingerprint.learn_if_there(self._lane.tail)
            return self._filter.finish() if self._filter is not None else b""
        except Exception as error:  # noqa: BLE001 - the fence
            return self._unfiltered(error)

    def closed(self, outcome: Outcome, error: ErrorType, *, status: int, stalled_ns: int, retried: bool) -> None:
        """The request is over."""
        try:
            self._introduce()  # it may have been refused
            self._catch_up()
            self.is_open = False
            self._mirror.closed(
                self,
                Close(
                    id=self.id,
                    stamp_ns=time.monotonic_ns(),
                    outcome=outcome,
                    error=error,
                    status=status,
                    head_ns=self._head_ns,
                    first_body_ns=self._lane.first_ns,
                    last_body_ns=self._lane.last_ns,
                    reads=self._lane.count,
                    response_bytes=self._lane.size,
                    dropped_bytes=self.dropped_bytes,
                    stalled_ns=stalled_ns,
                    retried=retried,
                    usages=self._filter.usages if self._filter is not None else {},
                    tail=self._lane.tail,
                ),
            )
            self._lane.clear()
        except Exception as fault:  # noqa: BLE001 - the fence
            self.fault("close", fault)

    def _unfiltered(self, error: Exception) -> bytes:
        """Go on without the filter; return what it had not shown yet."""
        broken, self._filter = self._filter, None
        self.fault("filter", error)
        return broken.unshown() if broken is not None else b""

    def fault(self, stage: str, error: Exception) -> None:
        """Count a fault of the observing side, and end the watching of this request."""
        self._broken = True
        self._mirror.observer_errors += 1
        if self._mirror.observer_errors <= MAX_LOGGED_FAULTS:
            # The type only: a message may quote the request.
            log.error("observer_fault stage=%s type=%s", stage, type(error).__name__)
