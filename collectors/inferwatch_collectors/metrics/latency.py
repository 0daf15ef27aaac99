"""Latency: from where to where each time is measured, and in which steps it is counted."""

from typing import Final

from inferwatch_collectors.metrics.base import REQUEST, Buckets, Group, Kind, Metric

DURATION_BUCKETS: Final = Buckets(
    (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68, 655.36),
    "OpenTelemetry's 14 bounds, doubled three times more: long answers and queues last minutes, "
    "and the usual client gives up after 600 s.",
)

TTFT_BUCKETS: Final = Buckets(
    (
        *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 7.5, 10.0),
        *(15.0, 30.0, 60.0, 120.0),
    ),
    "OpenTelemetry's 16 bounds; 0.15, 0.35 and 1.5 added so that no step between 60 ms and 5 s, where targets are set, "
    "is more than twofold; 15 to 120 s added because a prompt of a million tokens takes about a minute.",
)

ITL_BUCKETS: Final = Buckets(
    (
        *(0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5),
        *(1.0, 2.5, 5.0),
    ),
    "0.5 ms is a speculative decoder or a tiny model; 5 to 50 ms is ordinary decoding and gets the finest steps; "
    "100 ms is about reading speed; 0.25 to 5 s are stalls: another request's prefill, preemption, swapping.",
)

TPOT_BUCKETS: Final = Buckets(
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
    "OpenTelemetry's 13 bounds; 1 to 5 ms added for small models, which would all fall below its first bound.",
)


REQUEST_DURATION: Final = Metric(
    name="inferwatch_request_duration_seconds",
    kind=Kind.HISTOGRAM,
    group=Group.LATENCY,
    labels=REQUEST,
    unit="seconds",
    buckets=DURATION_BUCKETS,
    semconv="gen_ai.server.request.duration",
    note="the twin also holds failures, told apart by `error.type`",
    help="Duration of requests with outcome ok.",
    measured="From the last byte of the request head to the end of the answer. Only outcome ok, so that fast failures "
    "do not pass for fast service: divide by requests_total for the share that was fast and good.",
)
TIME_TO_FIRST_TOKEN: Final = Metric(
    name="inferwatch_time_to_first_token_seconds",
    kind=Kind.HISTOGRAM,
    group=Group.LATENCY,
    labels=REQUEST,
    unit="seconds",
    buckets=TTFT_BUCKETS,
    semconv="gen_ai.server.time_to_first_token",
    note="the twin takes successful requests only; ours takes every stream that had a first token, "
    "because the impatient hang up on the slow ones",
    help="Time to the first generated token of a streamed answer, of whatever class: reasoning, answer or tool call.",
    measured="From the last byte of the request head to the engine read that carried the first generated token; "
    "headers, role chunks, comments and empty deltas are no token. "
    "Streams that had none are in first_token_missing_total.",
)
TIME_TO_FIRST_ANSWER_TOKEN: Final = Metric(
    name="inferwatch_time_to_first_answer_token_seconds",
    kind=Kind.HISTOGRAM,
    group=Group.LATENCY,
    labels=REQUEST,
    unit="seconds",
    buckets=TTFT_BUCKETS,
    note="a family of its own, not a label of the one above: summing over such a label would count requests twice",
    help="Time to the first token of the visible answer, of streams that reasoned first.",
    measured="From the last byte of the request head to the engine read that carried the first answer token. "
    "Streams that did not reason are not in it: theirs is time_to_first_token_seconds.",
)
INTER_TOKEN_LATENCY: Final = Metric(
    name="inferwatch_inter_token_latency_seconds",
    kind=Kind.HISTOGRAM,
    group=Group.LATENCY,
    labels=REQUEST,
    unit="seconds",
    buckets=ITL_BUCKETS,
    note="`gen_ai.client.operation.time_per_output_chunk` is per chunk, and a chunk is not a token",
    help="Gap between one generated token and the next of the same choice.",
    measured="From the engine read that carried the one to the engine read that carried the next: an event with n "
    "tokens is n observations of gap / n, and events in one read are 0 apart. Observed live, while the answer streams: "
    "not exactly once across a crash of the collector.",
)
TIME_PER_OUTPUT_TOKEN: Final = Metric(
    name="inferwatch_time_per_output_token_seconds",
    kind=Kind.HISTOGRAM,
    group=Group.LATENCY,
    labels=REQUEST,
    unit="seconds",
    buckets=TPOT_BUCKETS,
    semconv="gen_ai.server.time_per_output_token",
    help="Mean time per generated token after the first, one value per request.",
    measured="(duration - time to first token) / (completion tokens - 1). "
    "Streamed requests with outcome ok, one choice, at least two tokens, "
    "and a count that is the engine's own, not an estimate.",
)
FIRST_TOKEN_MISSING: Final = Metric(
    name="inferwatch_first_token_missing_total",
    kind=Kind.COUNTER,
    group=Group.LATENCY,
    labels=(*REQUEST, "reason"),
    help="Finished streams of a generating operation that never had a first token, by reason.",
    measured="Reason timeout, error_event, client_abort, upstream_error or interrupted: what ended it. "
    "empty: it ended well, with nothing in it. "
    "unreadable or tap_gap: it may have had one that the collector did not see. "
    "They are absent from time_to_first_token_seconds; without this count a hanging engine looks fast.",
)
