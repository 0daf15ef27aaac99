"""Tokens: what was booked, where the count comes from, and what nobody got."""

from typing import Final

from inferwatch_collectors.metrics.base import REQUEST, Buckets, Group, Kind, Metric

TOKEN_BUCKETS: Final = Buckets(
    tuple(float(4**power) for power in range(14)),
    "OpenTelemetry's 14 bounds, powers of four: from one token to contexts of 64 million.",
)


TOKENS: Final = Metric(
    name="inferwatch_tokens_total",
    kind=Kind.COUNTER,
    group=Group.TOKENS,
    labels=(*REQUEST, "type"),
    unit="tokens",
    semconv="gen_ai.client.token.usage",
    note="the sum of the twin. `cached` is part of `prompt` and `reasoning` part of `completion`: never add all four. "
    "In the newer conventions: `gen_ai.client.inference.usage.*`",
    help="Tokens booked, by type.",
    measured="Counted once per request, in the transaction that puts it into the ledger; of a request that was hung up "
    "on before any count was on the wire some seconds later, when the engine's own counters tell. "
    "A count that nobody reported is not added; prompt includes cached, completion includes reasoning.",
)
TOKENS_BY_SOURCE: Final = Metric(
    name="inferwatch_tokens_by_source_total",
    kind=Kind.COUNTER,
    group=Group.TOKENS,
    labels=("model", "source", "type"),
    unit="tokens",
    help="Tokens booked, by where their count comes from.",
    measured="Types prompt and completion; their sum over all sources is that of tokens_total. Source engine_counters: "
    "what the engine had counted for requests that were hung up on before any count was on the wire, exact in sum, "
    "divided among them by size and time (see docs/topics/capture-ratio.md).",
)
REQUESTS_WITHOUT_USAGE: Final = Metric(
    name="inferwatch_requests_without_usage_total",
    kind=Kind.COUNTER,
    group=Group.TOKENS,
    labels=("model", "operation"),
    help="Requests with outcome ok and no token count from anywhere.",
    measured="Operation other is left out: it has no tokens to count.",
)
WASTED_TOKENS: Final = Metric(
    name="inferwatch_wasted_tokens_total",
    kind=Kind.COUNTER,
    group=Group.TOKENS,
    labels=(*REQUEST, "reason"),
    unit="tokens",
    help="Completion tokens of answers that nobody got in full.",
    measured="Reason client_abort, upstream_error, stream_error, interrupted or rejected: the request's outcome. "
    "no_answer: outcome ok, but the length limit was reached while the model still reasoned. "
    "An upper bound of the waste: a client that stops reading on purpose has used what it got.",
)
REQUEST_PROMPT_TOKENS: Final = Metric(
    name="inferwatch_request_prompt_tokens",
    kind=Kind.HISTOGRAM,
    group=Group.TOKENS,
    labels=REQUEST,
    unit="tokens",
    buckets=TOKEN_BUCKETS,
    semconv="gen_ai.client.token.usage",
    note="with `gen_ai.token.type` = `input`",
    help="Prompt tokens of a request, cached ones included.",
    measured="Every finished request whose prompt tokens are known at its end, whatever its outcome.",
)
REQUEST_COMPLETION_TOKENS: Final = Metric(
    name="inferwatch_request_completion_tokens",
    kind=Kind.HISTOGRAM,
    group=Group.TOKENS,
    labels=REQUEST,
    unit="tokens",
    buckets=TOKEN_BUCKETS,
    semconv="gen_ai.client.token.usage",
    note="with `gen_ai.token.type` = `output`",
    help="Completion tokens of a request, reasoning included.",
    measured="Finished requests with outcome ok: a cut answer says nothing about how long answers are.",
)
