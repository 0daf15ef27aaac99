"""The record of a finished request: its closed sets, and that unknown is not zero."""

from __future__ import annotations

import msgspec
import pytest

from inferwatch.record import ErrorType, Outcome, RequestRecord, TokenClass, TokenSource


def bare() -> RequestRecord:
    """A record with nothing in it but what every request has."""
    return RequestRecord(
        request_id="b00t00000001",
        wall_ns=1,
        tenant="anonymous",
        model="",
        operation="other",
        route="other",
        method="GET",
        stream=False,
        outcome=Outcome.OK,
        status=200,
        duration_s=0.5,
    )


def test_the_outcomes_are_a_public_closed_set() -> None:
    """They are label values of `inferwatch_requests_total`; renaming one breaks dashboards."""
    assert list(Outcome) == ["ok", "client_abort", "upstream_error", "stream_error", "rejected", "interrupted"]


def test_the_error_types_are_a_public_closed_set() -> None:
    """They are label values, and OpenTelemetry's `error.type`; no error is the empty one."""
    assert {
        "",
        "connect_failed",
        "connect_timeout",
        "out_of_files",
        "first_byte_timeout",
        "idle_timeout",
        "total_timeout",
        "upstream_reset",
        "upstream_protocol",
        "engine_4xx",
        "engine_5xx",
        "engine_event",
        "no_finish",
        "malformed_request",
        "unknown_key",
        "budget",
        "loop",
        "request_too_large",
        "relay_died",
        "internal",
    } == set(ErrorType)
    assert not ErrorType.NONE


def test_the_token_sources_go_from_best_to_none() -> None:
    """Their order is the order of trust."""
    assert list(TokenSource) == [
        "final_usage",
        "continuous_usage",
        "timings",
        "details",
        "headers",
        "partial_usage",
        "engine_counters",
        "chunk_estimate",
        "none",
    ]


def test_the_token_classes_are_three() -> None:
    """A first token is reasoning, answer or a tool call; a role is no token."""
    assert {"reasoning", "answer", "tool_call"} == set(TokenClass)


def test_what_nobody_reported_is_unknown_and_not_zero() -> None:
    """Counts and times without a source are None, and are not in the JSON."""
    record = bare()
    counts = (record.prompt_tokens, record.cached_tokens, record.completion_tokens, record.reasoning_tokens)
    times = (record.sent_s, record.head_s, record.ttft_s, record.ttft_answer_s)

    assert counts == (None, None, None, None)
    assert times == (None, None, None, None)
    assert TokenSource.NONE is record.token_source
    assert not {"prompt_tokens", "completion_tokens", "ttft_s"} & set(msgspec.json.decode(msgspec.json.encode(record)))


def test_a_counted_zero_is_kept() -> None:
    """An engine that says 0 has said something."""
    record = msgspec.structs.replace(bare(), completion_tokens=0, token_source=TokenSource.FINAL_USAGE)

    again = msgspec.json.decode(msgspec.json.encode(record), type=RequestRecord)

    assert again.completion_tokens == 0
    assert record == again


def test_a_full_record_survives_the_ledger_and_the_log() -> None:
    """JSON and MessagePack give back the same record."""
    record = msgspec.structs.replace(
        bare(),
        prompt_tokens=11,
        cached_tokens=0,
        completion_tokens=4,
        reasoning_tokens=1,
        token_source=TokenSource.CONTINUOUS_USAGE,
        finish_reasons=("length", "stop"),
        first_token=TokenClass.REASONING,
        error=ErrorType.IDLE_TIMEOUT,
        ttft_s=0.25,
    )

    assert record == msgspec.json.decode(msgspec.json.encode(record), type=RequestRecord)
    assert record == msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=RequestRecord)


def test_a_record_is_immutable() -> None:
    """No sink can change what the next one sees."""
    with pytest.raises(AttributeError):
        bare().status = 500  # type: ignore[misc]
