"""A record as a span: names of the conventions, true times, and nothing that is not known."""

import pytest
import semconv
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from otlp_receiver import attributes as received
from otlp_records import Make

from inferwatch.record import ErrorType, Outcome, RequestRecord, TokenClass
from inferwatch_collectors.otlp import attributes as plain
from inferwatch_collectors.otlp.retries import Failed
from inferwatch_collectors.otlp.spans import SpanMaker
from inferwatch_collectors.otlp.trace_state import Members

SERVER = ("engine.internal", 8000)


def encoded(record: RequestRecord, retried: Failed | None = None, state: Members = ()) -> object:
    maker = SpanMaker(Resource({}), InstrumentationScope("inferwatch"), 0.5)
    span = maker.span(record, plain.attributes(record, SERVER, "vllm"), retried, state)
    return encode_spans([span]).resource_spans[0].scope_spans[0].spans[0]


def test_a_chat_as_the_conventions_want_it(record: Make) -> None:
    """Required and recommended attributes, in the words of v1.41."""
    found = plain.attributes(record(), SERVER, "vllm")

    assert {name: found[name] for name in found if name.startswith(("gen_ai.", "server.", "http."))} == {
        "server.address": "engine.internal",
        "server.port": 8000,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "qwen",
        "gen_ai.request.stream": True,
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.model": "qwen",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 4,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"outcome": Outcome.STREAM_ERROR, "error": ErrorType.ENGINE_EVENT, "retried": True, "n": 2, "stalled_s": 0.1},
        {"user": "a1b2", "session": "c3d4", "feature": "search", "reasoning_tokens": 1, "price_nanodollars": 5},
        {"operation": "other", "route": "/v1/models", "method": "GET"},
        {"prompt_tokens": None, "completion_tokens": None, "status": 0, "model": "", "engine_id": ""},
    ],
)
def test_every_attribute_is_one_of_opentelemetrys_or_marked_as_ours(record: Make, changes: dict[str, object]) -> None:
    """Names are checked against the package of the conventions; what is not known is not there."""
    found = plain.attributes(record(**changes), SERVER)

    assert not [name for name in found if not name.startswith("inferwatch.") and name not in semconv.ATTRIBUTES]
    assert None not in found.values()
    assert "" not in found.values()


def test_ids_times_and_kind(record: Make) -> None:
    """The span is the client's towards the engine: child of the caller's, parent of the engine's."""
    span = encoded(record())

    assert span.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert span.span_id.hex() == "b7ad6b7169203331"
    assert span.parent_span_id.hex() == "00f067aa0ba902b7"
    assert span.name == "chat qwen"
    assert span.kind == 3  # CLIENT
    assert span.end_time_unix_nano - span.start_time_unix_nano == 1_000_000_000
    assert span.start_time_unix_nano == 1_800_000_000_000_000_000


def test_the_state_of_a_trace_is_the_spans(record: Make) -> None:
    """As W3C writes it; without any there is none."""
    assert encoded(record(), state=(("ot", "th:c8"), ("dd", "s:1"))).trace_state == "ot=th:c8,dd=s:1"
    assert encoded(record()).trace_state == ""


def test_a_trace_without_a_caller_is_a_root(record: Make) -> None:
    """And a request without any trace gets ids of its own."""
    assert encoded(record(parent_span_id="")).parent_span_id == b""
    alone = encoded(record(trace_id="", span_id="", parent_span_id=""))
    assert len(alone.trace_id) == 16
    assert len(alone.span_id) == 8


def test_events_for_first_token_and_stall(record: Make) -> None:
    """Each at its own time; a gap below the threshold is no event."""
    found = plain.events(record(first_token=TokenClass.REASONING, ttft_answer_s=0.9), 0.5)

    assert [(event.name, event.wall_ns - record().wall_ns) for event in found] == [
        ("inferwatch.first_token", 250_000_000),
        ("inferwatch.stall", 300_000_000),
        ("inferwatch.first_answer_token", 900_000_000),
    ]
    assert found[0].attributes == {"inferwatch.token_class": "reasoning"}
    assert found[1].attributes == {"inferwatch.gap_s": 0.6}
    assert "inferwatch.stall" not in [event.name for event in plain.events(record(), 0.7)]
    assert plain.events(record(ttft_s=None, ttft_answer_s=None, gap_max_at_s=None), 0.1) == []


@pytest.mark.parametrize(
    ("outcome", "error", "error_type", "code"),
    [
        (Outcome.OK, ErrorType.NONE, None, 0),
        (Outcome.CLIENT_ABORT, ErrorType.NONE, "client_abort", 0),
        (Outcome.UPSTREAM_ERROR, ErrorType.CONNECT_FAILED, "connect_failed", 2),
        (Outcome.REJECTED, ErrorType.ENGINE_4XX, "engine_4xx", 2),
    ],
)
def test_failures_are_told(record: Make, outcome: Outcome, error: ErrorType, error_type: str, code: int) -> None:
    """By a closed set of words, never by a message; who hangs up has not failed."""
    span = encoded(record(outcome=outcome, error=error))

    assert received(span).get("error.type") == error_type
    assert span.status.code == code
    assert span.status.message == ""


def test_a_retry_links_to_what_it_makes_good(record: Make) -> None:
    """With a word that says what the link is."""
    span = encoded(record(), Failed("f" * 32, "e" * 16, 0.0))

    assert span.links[0].trace_id.hex() == "f" * 32
    assert span.links[0].span_id.hex() == "e" * 16
    assert received(span.links[0]) == {"inferwatch.link": "retry_of"}


def test_a_relays_own_retry_is_an_attribute(record: Make) -> None:
    """It happened within the span."""
    assert received(encoded(record(retried=True)))["http.request.resend_count"] == 1
