"""A span's attributes and events, as plain data: names of OpenTelemetry's GenAI conventions v1.41, and our own.

Ours begin with `inferwatch.`. What OpenTelemetry's newer GenAI conventions changed concerns none of the attributes that
are set here; metrics differ (`otlp.metrics`).
"""

from typing import Final, NamedTuple

from inferwatch.record import ErrorType, Outcome, RequestRecord
from inferwatch_collectors.cardinality import OTHER
from inferwatch_collectors.phases import PHASES, spent

Value = str | bool | int | float | tuple[str, ...]

# What the conventions say of OpenAI-compatible servers that are not told apart.
UNKNOWN_PROVIDER: Final = "openai"


class Event(NamedTuple):
    """Something that happened within a span."""

    name: str
    wall_ns: int
    attributes: dict[str, Value]


def span_name(record: RequestRecord) -> str:
    """Return `{operation} {model}`; `{method} {route}` where nothing is generated."""
    if record.operation == OTHER:
        return f"{record.method} {record.route}"
    return f"{record.operation} {record.model}".rstrip()


def attributes(record: RequestRecord, server: tuple[str, int], provider: str = "") -> dict[str, Value]:
    """Return the attributes of a request's span; what is not known is left out. `server`: the engine's address."""
    found: dict[str, Value | None] = {
        "server.address": server[0],
        "server.port": server[1],
        "http.request.method": record.method,
        "http.response.status_code": record.status or None,
        "http.request.resend_count": 1 if record.retried else None,
        "error.type": error_type(record) or None,
        "user.hash": record.user or None,
        "inferwatch.request_id": record.request_id,
        "inferwatch.tenant": record.tenant,
        "inferwatch.outcome": record.outcome.value,
        "inferwatch.route": record.route,
        "inferwatch.feature": record.feature or None,
        **(_gen_ai(record, provider) if record.operation != OTHER else {}),
    }
    for place, spent_ns in spent(record):
        if spent_ns:
            found[f"inferwatch.phase.{PHASES[place]}_s"] = spent_ns / 1e9
    return {name: value for name, value in found.items() if value is not None}


def _gen_ai(record: RequestRecord, provider: str) -> dict[str, Value | None]:
    return {
        "gen_ai.operation.name": record.operation,
        "gen_ai.provider.name": provider or UNKNOWN_PROVIDER,
        "gen_ai.request.model": record.model or None,
        "gen_ai.request.stream": record.stream,
        "gen_ai.request.choice.count": record.n if record.n != 1 else None,
        "gen_ai.response.id": record.engine_id or None,
        "gen_ai.response.model": record.engine_model or None,
        "gen_ai.response.finish_reasons": record.finish_reasons or None,
        "gen_ai.response.time_to_first_chunk": record.ttft_s,
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
        "gen_ai.usage.reasoning.output_tokens": record.reasoning_tokens,
        "gen_ai.conversation.id": record.session or None,
        "inferwatch.token_source": record.token_source.value,
        "inferwatch.gap_max_s": record.gap_max_s if record.gap_count else None,
        "inferwatch.stalled_s": record.stalled_s or None,
        "inferwatch.price_dollars": None if record.price_nanodollars is None else record.price_nanodollars / 1e9,
    }


def error_type(record: RequestRecord) -> str:
    """Return OpenTelemetry's `error.type`; "" for a request that did not fail."""
    if record.outcome is Outcome.OK:
        return ""
    return record.error.value if record.error is not ErrorType.NONE else record.outcome.value


def events(record: RequestRecord, stall_s: float) -> list[Event]:
    """Return what happened within: the first token, the visible answer's first, the longest stall."""
    found: list[Event] = []
    if record.ttft_s is not None:
        kind = {} if record.first_token is None else {"inferwatch.token_class": record.first_token.value}
        found.append(_at(record, "inferwatch.first_token", record.ttft_s, kind))
    if record.ttft_answer_s is not None and record.ttft_answer_s != record.ttft_s:
        found.append(_at(record, "inferwatch.first_answer_token", record.ttft_answer_s, {}))
    if record.gap_max_at_s is not None and record.gap_max_s >= stall_s:
        found.append(_at(record, "inferwatch.stall", record.gap_max_at_s, {"inferwatch.gap_s": record.gap_max_s}))
    return sorted(found, key=lambda event: event.wall_ns)


def _at(record: RequestRecord, name: str, after_s: float, about: dict[str, str] | dict[str, float]) -> Event:
    return Event(name, record.wall_ns + round(after_s * 1e9), dict(about))
