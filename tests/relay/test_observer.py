"""observer: the fence. What is watched is remembered; what fails in here never reaches the bytes."""

import itertools
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import RecordingTap

from inferwatch.record import ErrorType, Outcome
from inferwatch.relay import lane, usage_filter
from inferwatch.relay import observer as observer_module
from inferwatch.relay.masking import masked_close
from inferwatch.relay.observer import Observer, Subject
from inferwatch.relay.usage_filter import Fingerprint, Hide, UsageFilter
from inferwatch.relay.usage_request import Facts

SSE = [(b"Content-Type", b"text/event-stream; charset=utf-8")]
JSON = [(b"content-type", b"application/json")]
EVENT = b'data: {"choices":[{"index":0,"text":"%d","finish_reason":null}],"usage":{"completion_tokens":%d}}\n\n'
BARE = b'data: {"choices":[{"index":0,"text":"%d","finish_reason":null}]}\n\n'


def subject(**values: Any) -> Subject:
    made = Subject(arrival_ns=1, method="POST", path="/v1/completions", tenant="t", headers={"user-agent": "x"})
    for name, value in values.items():
        setattr(made, name, value)
    return made


def watching(tap: RecordingTap, hide: Hide | None = Hide.ALL, choices: int = 1, headers: Any = SSE) -> Observer:
    """An observer behind the head of a reply."""
    watcher = Observer(tap, subject())  # type: ignore[arg-type]
    watcher.opened(Facts("m", True, choices), b"body", 4, 2, asked_usage=hide is not None)
    if hide is not None:
        watcher.hide(hide, Fingerprint())
    watcher.head(3, 200, headers, Fingerprint())
    return watcher


def finish(watcher: Observer, outcome: Outcome = Outcome.OK) -> None:
    watcher.closed(outcome, ErrorType.NONE, status=200, stalled_ns=7, retried=True)


def test_open_frame_says_what_is_known() -> None:
    """Who, what, when; the body as far as it is mirrored, and its true length."""
    tap = RecordingTap()
    who = subject(user="u", feature="f", session="s", trace_id="a" * 32, span_id="b" * 16, parent_span_id="c" * 16)
    watcher = Observer(tap, who)  # type: ignore[arg-type]
    watcher.opened(Facts("m", True, 4), b"beginning", 1000, 5, asked_usage=True)
    (frame,) = tap.opens
    assert (frame.id, frame.request_id, frame.body, frame.body_bytes) == (1, "test00000001", b"beginning", 1000)
    assert (frame.model, frame.stream, frame.choices, frame.asked_usage) == ("m", True, 4, True)
    assert (frame.arrival_ns, frame.sent_ns, frame.resumed) == (1, 5, False)
    assert (frame.user, frame.feature, frame.session, frame.tenant) == ("u", "f", "s", "t")
    assert (frame.trace_id, frame.span_id, frame.parent_span_id) == ("a" * 32, "b" * 16, "c" * 16)


def test_open_frame_sent_again_has_no_body() -> None:
    """The copy is gone; the rest is made anew."""
    watcher = watching(RecordingTap())
    frame = watcher.open_frame(resumed=True)
    assert (frame.body, frame.body_bytes, frame.resumed, frame.model) == (b"", 4, True, "m")


def test_streamed_body_updates_the_facts() -> None:
    """The number of choices is known only at its end; a reconnect then says so."""
    watcher = watching(RecordingTap())
    watcher.sent(Facts("late", True, 3), 9999, 77, asked_usage=True)
    frame = watcher.open_frame(resumed=True)
    assert (frame.model, frame.choices, frame.body_bytes, frame.sent_ns) == ("late", 3, 9999, 77)


@pytest.mark.parametrize("end", ["sent", "head", "close"])
def test_request_is_introduced_when_its_body_is_known(end: str) -> None:
    """A model named at the end of a long body is in the books; a reply or an end that comes before is not without an
    introduction."""
    tap = RecordingTap()
    watcher = Observer(tap, subject())  # type: ignore[arg-type]
    watcher.uploading(Facts(), b"beginning")
    assert not tap.opens
    if end == "sent":
        watcher.sent(Facts("late", True, 3), 9999, 77, asked_usage=True)
    elif end == "head":
        watcher.head(3, 200, [], Fingerprint())
    watcher.came(9999)
    finish(watcher)
    (frame,) = tap.opens
    assert (frame.body, frame.asked_usage) == (b"beginning", end == "sent")
    if end == "sent":
        assert (frame.model, frame.choices, frame.body_bytes, frame.sent_ns) == ("late", 3, 9999, 77)


def test_close_alone_is_enough_to_book() -> None:
    """Counts, stamps, usage and the end of the answer are all in the Close."""
    tap = RecordingTap()
    watcher = watching(tap)
    for number in range(10):
        watcher.body(10 + number, EVENT % (number, number))
    assert watcher.end() == b""
    finish(watcher)
    (close,) = tap.closes
    sent = b"".join(EVENT % (number, number) for number in range(10))
    assert (close.reads, close.response_bytes) == (10, len(sent))
    assert (close.head_ns, close.first_body_ns, close.last_body_ns) == (3, 10, 19)
    assert close.usages == {0: b'{"completion_tokens":9}'}
    assert sent.endswith(close.tail)
    assert close.tail.count(b"data: ") == 4
    assert (close.stalled_ns, close.retried, close.status) == (7, True, 200)


def test_copies_are_what_the_engine_sent() -> None:
    """The client sees it without usage, the collector with."""
    tap = RecordingTap()
    watcher = watching(tap)
    assert watcher.body(10, EVENT % (1, 1)) == BARE % 1
    assert tap.reads == [(1, 10, EVENT % (1, 1))]


def test_tail_is_bounded() -> None:
    """O(1) memory per stream, whatever the length of reads and replies."""
    tap = RecordingTap()
    watcher = watching(tap, hide=None)
    for number in range(100):
        watcher.body(number, bytes([number]) * 100_000)
    finish(watcher)
    limit = 4 * lane.TAIL_READ_BYTES
    assert len(tap.closes[0].tail) == limit
    assert tap.closes[0].tail[-1] == 99


def test_what_is_left_of_two_reads_is_not_taken_for_one_event() -> None:
    """Between the end of the first and the kept end of the second is a hole: joined, they would be a usage."""
    tap = RecordingTap()
    watcher = watching(tap, hide=None)
    watcher.body(10, b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":7')
    last = b"7777}}\n\ndata: [DONE]\n\n".ljust(lane.TAIL_READ_BYTES)
    watcher.body(11, b'7}}\n\ndata: {"choices":[{"delta":{"content":"' + last)
    finish(watcher)
    (close,) = tap.closes
    assert close.tail.endswith(last[2:])
    assert b"777" not in close.tail
    assert b"usage" not in masked_close(close).tail
    assert b"[DONE]" in masked_close(close).tail


@pytest.mark.parametrize(
    ("headers", "edited"),
    [
        (SSE, True),
        ([(b"content-type", b"text/event-stream")], True),
        (JSON, False),
        ([], False),
        ([*SSE, (b"Content-Encoding", b"gzip")], False),
        ([(b"content-type", b"text/event-stream-not"), (b"content-encoding", b"br")], False),
    ],
)
def test_only_a_plain_event_stream_is_edited(headers: Any, edited: bool) -> None:
    """An error in JSON, or anything compressed, passes as it is."""
    watcher = Observer(RecordingTap(), subject())  # type: ignore[arg-type]
    watcher.opened(Facts(), b"", 0, 0, asked_usage=True)
    watcher.hide(Hide.ALL, Fingerprint())
    assert watcher.head(1, 200, headers, Fingerprint()) is edited
    assert watcher.body(2, EVENT % (1, 1)) == (BARE if edited else EVENT) % ((1,) if edited else (1, 1))


def test_fingerprint_is_learnt_from_a_plain_reply_only_if_it_is_there() -> None:
    """A list of models says nothing about the engine's fingerprint."""
    fingerprint = Fingerprint()
    for body, value in (
        (b'{"data":[]}', None),
        (b'{"choices":[],"system_fingerprint":"x"}', b',"system_fingerprint":"x"'),
    ):
        watcher = Observer(RecordingTap(), subject())  # type: ignore[arg-type]
        watcher.head(1, 200, JSON, fingerprint)
        watcher.body(2, body)
        watcher.end()
        assert fingerprint.value == value


def test_refused_request_is_opened_and_closed() -> None:
    """What never reached the engine is in the books all the same."""
    tap = RecordingTap()
    watcher = Observer(tap, subject())  # type: ignore[arg-type]
    watcher.closed(Outcome.REJECTED, ErrorType.REQUEST_TOO_LARGE, status=413, stalled_ns=0, retried=False)
    assert [frame.id for frame in tap.opens] == [frame.id for frame in tap.closes] == [1]
    assert tap.closes[0].error == "request_too_large"


# faults


class BrokenTap(RecordingTap):
    """A mirror in which one method fails."""

    def __init__(self, method: str) -> None:
        super().__init__()

        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError("secret prompt")

        setattr(self, method, fail)


@pytest.mark.parametrize("method", ["opened", "head", "read", "closed"])
@pytest.mark.parametrize("hide", [Hide.ALL, Hide.CONTINUOUS, None])
def test_broken_mirror_changes_no_byte_of_a_whole_reply(
    method: str, hide: Hide | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The fault is counted, logged without a word of content, and the client gets a reply with or without usage."""
    tap = BrokenTap(method)
    with caplog.at_level(logging.ERROR):
        watcher = watching(tap, hide)
        out = b"".join(watcher.body(number, EVENT % (number, number)) for number in range(5)) + watcher.end()
        finish(watcher)
    assert tap.observer_errors >= 1
    assert without_usage(out) == b"".join(BARE % number for number in range(5))
    assert "observer_fault" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("size", [40, 130, 400])
def test_mirror_that_breaks_in_mid_event(size: int) -> None:
    """What the filter held when the mirror broke comes out in its place."""
    sent = events(4)
    body = b"".join(sent)
    for choices, calls in itertools.product((1, 2), range(len(body) // size)):
        tap = RecordingTap()
        watcher = watching(tap, Hide.ALL, choices)
        tap.read = Fuse(tap.read, calls)  # type: ignore[method-assign]
        out = b"".join(watcher.body(1, body[start : start + size]) for start in range(0, len(body), size))
        out += watcher.end()
        assert not bytes_lost_or_doubled(out, sent), (choices, calls)


def test_log_does_not_fill_with_the_same_fault(caplog: pytest.LogCaptureFixture) -> None:
    """The counter has them all, the log the first ones."""
    tap = BrokenTap("read")
    for _ in range(50):
        watching(tap, None).body(1, b"x")
    assert tap.observer_errors == 50
    assert len(caplog.records) == observer_module.MAX_LOGGED_FAULTS


def without_usage(body: bytes) -> bytes:
    return re.sub(rb',"usage":\{[^}]*\}', b"", body)


def events(number: int) -> list[bytes]:
    """A stream with several choices, a finish event in its middle, and all that follows."""
    made = [EVENT % (index, index) for index in range(number)]
    made.insert(2, b'data: {"choices":[{"index":1,"finish_reason":"stop"}],"usage":{"completion_tokens":1}}\n\n')
    made.append(b'data: {"choices":[{"index":0,"finish_reason":"stop"}],"usage":{"completion_tokens":9}}\n\n')
    made.append(b'data: {"choices":[],"usage":{"completion_tokens":10},"system_fingerprint":"fp"}\n\n')
    made.append(b"data: [DONE]\n\n")
    return made


class Fuse:
    """Lets a function work some times, then fail for ever."""

    def __init__(self, function: Callable[..., Any], calls: int) -> None:
        self._function = function
        self._left = calls

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._left <= 0:
            raise RuntimeError("fuse")
        self._left -= 1
        return self._function(*args, **kwargs)


def bytes_lost_or_doubled(out: bytes, sent: list[bytes]) -> bool:
    """Whether what came out is not, event by event and in order, either the event or the event without usage."""
    left = out
    for event in sent:
        bare = without_usage(event)
        options = [event, bare.replace(b"}]}", b'}],"system_fingerprint":"fp"}'), bare]
        if b'"choices":[]' in event:
            options.append(b"")  # taken out before the fault
        match = next((option for option in options if left.startswith(option)), None)
        if match is None:
            return True
        left = left[len(match) :]
    return left != b""


PARTS = ["_event", "_events", "_hold", "_piece", "_other", "_finish_event", "_usage_only", "_release"]


@pytest.mark.parametrize("size", [7, 40, 130, 400, 10_000])
@pytest.mark.parametrize("part", PARTS)
def test_fault_in_the_filter_loses_and_doubles_no_byte(part: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever and whenever the filter fails, held bytes come out in their place; then the stream passes as it is."""
    sent = events(4)
    body = b"".join(sent)
    for held_limit, choices, calls in itertools.product((64, 65_536), (1, 2), range(12)):
        monkeypatch.setattr(usage_filter, "MAX_HELD_BYTES", held_limit)
        watcher = watching(RecordingTap(), Hide.ALL, choices)
        assert watcher._filter is not None
        fuse = Fuse(getattr(watcher._filter, part), calls)
        fused = {"__slots__": (), part: lambda _, *args, fuse=fuse, **options: fuse(*args, **options)}
        watcher._filter.__class__ = type("Fused", (UsageFilter,), fused)
        out = b"".join(watcher.body(1, body[start : start + size]) for start in range(0, len(body), size))
        out += watcher.end()
        assert not bytes_lost_or_doubled(out, sent), (held_limit, choices, calls)


def test_broken_usage_object_is_the_engines_business() -> None:
    """A filter that meets nonsense passes nonsense on."""
    watcher = watching(RecordingTap())
    odd = b'data: {"choices":[{"index":99999999999999999999}],"usage":{"a":{{{}}\n\n'
    out = watcher.body(1, odd) + watcher.end()
    assert out == odd


def test_recorded_streams_survive_any_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real stream: after the fault every event of vLLM's is still there, once."""
    path = Path(__file__).parents[1] / "fixtures" / "vllm" / "chat_n2.continuous.json"
    chunks = [chunk.encode() for chunk in json.loads(path.read_text())["response"]["chunks"]]
    for calls in range(len(chunks)):
        watcher = watching(RecordingTap(), Hide.ALL, choices=2)
        fuse = Fuse(usage_filter.object_end, calls)
        with monkeypatch.context() as patch:
            patch.setattr(usage_filter, "object_end", fuse)
            out = b"".join(watcher.body(1, chunk) for chunk in chunks) + watcher.end()
        texts = re.findall(rb'"delta":\{[^}]*\}', out)
        assert texts == re.findall(rb'"delta":\{[^}]*\}', b"".join(chunks))
