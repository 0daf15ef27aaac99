"""THE table: every metric Inferwatch exports, as data.

The store, the exposition, `docs/metrics.md` and the tests are all made from it, so a name is written in one place.
Names, labels and bucket bounds are public: changing one is breaking. A metric's measuring points stand beside it,
because a latency without "from where to where" cannot be compared with anybody else's.

Three rules hold for all of them:
* A value that is not known is not exported (no series, rather than 0).
* Label values come from closed sets, from the configuration, or through the cardinality guard.
* Where OpenTelemetry defines a twin, our bounds contain all of its bounds, so that the twin's counts follow exactly.
"""

import enum
from typing import Final

import msgspec

from inferwatch.record import ErrorType, Outcome, TokenSource


class Kind(enum.StrEnum):
    """How a metric behaves. Counters and histograms survive a restart, gauges do not."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Group(enum.StrEnum):
    """Chapters of the reference page, in order."""

    REQUESTS = "Requests"
    LATENCY = "Latency"
    TOKENS = "Tokens"
    RELAY = "Relay (data plane)"
    TAP = "Tap (relay to collector)"
    COLLECTOR = "Collector and service"


class TokenType(enum.StrEnum):
    """Values of the label `type`."""

    PROMPT = "prompt"  # includes cached
    CACHED = "cached"
    COMPLETION = "completion"  # includes reasoning
    REASONING = "reasoning"


class Buckets(msgspec.Struct, frozen=True):
    """Upper bounds (inclusive, ascending, without +Inf) in the metric's unit, and why just these."""

    bounds: tuple[float, ...]
    reason: str


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric family. `help` says what, `measured` from where to where or when it is counted."""

    name: str  # as Prometheus stores it: counters end in _total
    kind: Kind
    group: Group
    help: str
    measured: str
    labels: tuple[str, ...] = ()
    unit: str = ""  # seconds, bytes, tokens; "" for plain counts and flags
    buckets: Buckets | None = None
    semconv: str = ""  # OpenTelemetry twin, semantic conventions v1.41
    note: str = ""  # how it differs from the twin, or what is nearest
    since: str = "0.1.0"

    @property
    def family(self) -> str:
        """The name without `_total`: what OpenMetrics calls the family."""
        return self.name.removesuffix("_total")

    @property
    def exposed_unit(self) -> str:
        """The unit for a `# UNIT` line. OpenMetrics allows one only where the family's name ends in it."""
        return self.unit if self.unit and self.family.endswith(f"_{self.unit}") else ""

    @property
    def documentation(self) -> str:
        """The text of the `# HELP` line."""
        return f"{self.help} {self.measured}".strip()


REQUEST: Final = ("model", "tenant", "operation")

LABELS: Final[dict[str, str]] = {
    "model": "the model as the client asked for it; `unknown` if the request names none; through the cardinality guard",
    "tenant": "the tenant's configured name, or a keyed hash of its API key; through the cardinality guard",
    "operation": "OpenTelemetry's `gen_ai.operation.name`: `chat`, `text_completion`, `generate_content`, "
    "`embeddings`, …; `other` for routes that generate nothing",
    "outcome": ", ".join(f"`{outcome}`" for outcome in Outcome),
    "error_type": ", ".join(f"`{error}`" for error in ErrorType if error),
    "type": ", ".join(f"`{token_type}`" for token_type in TokenType),
    "source": ", ".join(f"`{source}`" for source in TokenSource),
    "reason": "a closed set, listed with the metric",
    "worker": "the relay process: 0 to the number of relay processes minus one",
    "stage": "the part of the collector in which an error was caught",
    "label": "the label whose value became `other`; `combination` when the number of label combinations was the limit",
    "upstream": "host:port of a configured engine",
    "version": "the version of Inferwatch",
}

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

TOKEN_BUCKETS: Final = Buckets(
    tuple(float(4**power) for power in range(14)),
    "OpenTelemetry's 14 bounds, powers of four: from one token to contexts of 64 million.",
)

# --- requests ---------------------------------------------------------------------------------------------------------

REQUESTS: Final = Metric(
    name="inferwatch_requests_total",
    kind=Kind.COUNTER,
    group=Group.REQUESTS,
    labels=(*REQUEST, "outcome"),
    help="Finished requests by outcome.",
    measured="Counted once per request, when the ledger has taken it; "
    "every outcome starts at 0 with the first request of its labels.",
    note="the count of `gen_ai.server.request.duration`, but of all outcomes",
)
REQUESTS_IN_FLIGHT: Final = Metric(
    name="inferwatch_requests_in_flight",
    kind=Kind.GAUGE,
    group=Group.REQUESTS,
    labels=REQUEST,
    help="Requests admitted and not finished.",
    measured="As reported by the relays; up to some 100 ms late.",
    note="nearest: `http.server.active_requests`",
)
REQUEST_ERRORS: Final = Metric(
    name="inferwatch_request_errors_total",
    kind=Kind.COUNTER,
    group=Group.REQUESTS,
    labels=("model", "error_type"),
    help="Finished requests that had an error, by its type.",
    measured="Every type starts at 0 with the first request of its model. "
    "Type internal is a fault of Inferwatch and must stay 0.",
    note="`error_type` is `error.type`",
)
CLIENT_STALL: Final = Metric(
    name="inferwatch_client_stall_seconds_total",
    kind=Kind.COUNTER,
    group=Group.REQUESTS,
    labels=("tenant",),
    unit="seconds",
    help="Time for which reading from the engine was paused because the client read too slowly.",
    measured="Added when the request finishes.",
)
CONTENT_DROPPED: Final = Metric(
    name="inferwatch_content_dropped_requests_total",
    kind=Kind.COUNTER,
    group=Group.REQUESTS,
    labels=("model", "operation"),
    help="Finished requests of whose answer the collector missed a part.",
    measured="Their token counts hold (the relay keeps the engine's usage); first-token time and gaps may be absent.",
)

# --- latency ----------------------------------------------------------------------------------------------------------

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

# --- tokens -----------------------------------------------------------------------------------------------------------

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
    measured="Counted once per request, in the transaction that puts it into the ledger. "
    "A count that nobody reported is not added; prompt includes cached, completion includes reasoning.",
)
TOKENS_BY_SOURCE: Final = Metric(
    name="inferwatch_tokens_by_source_total",
    kind=Kind.COUNTER,
    group=Group.TOKENS,
    labels=("model", "source", "type"),
    unit="tokens",
    help="Tokens booked, by where their count comes from.",
    measured="Types prompt and completion; their sum over all sources is that of tokens_total.",
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
    measured="Every finished request whose prompt tokens are known, whatever its outcome.",
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

# --- relay ------------------------------------------------------------------------------------------------------------

RELAY_CPU: Final = Metric(
    name="inferwatch_relay_cpu_seconds_total",
    kind=Kind.COUNTER,
    group=Group.RELAY,
    labels=("worker",),
    unit="seconds",
    help="CPU time of the relay process.",
    measured="User and system, of all processes that had this worker's place.",
)
RELAY_LOOP_LAG: Final = Metric(
    name="inferwatch_relay_event_loop_lag_seconds",
    kind=Kind.GAUGE,
    group=Group.RELAY,
    labels=("worker",),
    unit="seconds",
    help="Worst lateness of a timer in the relay's event loop.",
    measured="Over the last 30 s, so that no peak falls between two scrapes.",
)
RELAY_OPEN_REQUESTS: Final = Metric(
    name="inferwatch_relay_open_requests",
    kind=Kind.GAUGE,
    group=Group.RELAY,
    labels=("worker",),
    help="Requests that the relay is working on.",
    measured="Counted in the relay itself; absent when the relay has been silent for 10 s.",
)
RELAY_CLIENT_CONNECTIONS: Final = Metric(
    name="inferwatch_relay_client_connections",
    kind=Kind.GAUGE,
    group=Group.RELAY,
    labels=("worker",),
    help="Open connections from clients.",
    measured="Idle keep-alive connections included.",
)
RELAY_UPSTREAM_IDLE: Final = Metric(
    name="inferwatch_relay_upstream_idle_connections",
    kind=Kind.GAUGE,
    group=Group.RELAY,
    labels=("worker",),
    help="Connections to the engine that wait for a request.",
    measured="Kept open for the next request.",
)
RELAY_UPSTREAM_CONNECTS: Final = Metric(
    name="inferwatch_relay_upstream_connects_total",
    kind=Kind.COUNTER,
    group=Group.RELAY,
    labels=("worker",),
    help="Connections opened to the engine.",
    measured="A rate near the request rate means that keep-alive does not work.",
)
RELAY_UPSTREAM_CONNECT_ERRORS: Final = Metric(
    name="inferwatch_relay_upstream_connect_errors_total",
    kind=Kind.COUNTER,
    group=Group.RELAY,
    labels=("worker",),
    help="Connections to the engine that could not be opened.",
    measured="Refused, timed out, or not resolved.",
)
RELAY_UPSTREAM_RETRIES: Final = Metric(
    name="inferwatch_relay_upstream_retries_total",
    kind=Kind.COUNTER,
    group=Group.RELAY,
    labels=("worker",),
    help="Requests sent again because a kept connection turned out to be closed.",
    measured="Only before any byte of an answer.",
)
RELAY_RESTARTS: Final = Metric(
    name="inferwatch_relay_restarts_total",
    kind=Kind.COUNTER,
    group=Group.RELAY,
    labels=("worker",),
    help="Times another relay process took this worker's place.",
    measured="Restarts of the whole service included, as far as the ledger survived them.",
)
RELAY_OBSERVER_ERRORS: Final = Metric(
    name="inferwatch_relay_observer_errors_total",
    kind=Kind.COUNTER,
    group=Group.RELAY,
    labels=("worker",),
    help="Faults of the observing side in the relay that were kept away from the traffic.",
    measured="Each is a bug; the request went on untouched.",
)

# --- tap --------------------------------------------------------------------------------------------------------------

TAP_PENDING: Final = Metric(
    name="inferwatch_tap_pending_bytes",
    kind=Kind.GAUGE,
    group=Group.TAP,
    labels=("worker",),
    unit="bytes",
    help="Bytes that wait in the relay to be sent to the collector.",
    measured="Bounded; near the bound, copies of answers are dropped.",
)
TAP_DROPPED_BYTES: Final = Metric(
    name="inferwatch_tap_dropped_bytes_total",
    kind=Kind.COUNTER,
    group=Group.TAP,
    labels=("worker",),
    unit="bytes",
    help="Bytes of answers not copied to the collector because it was slow or away.",
    measured="Clients got them all the same.",
)
TAP_DROPPED_READS: Final = Metric(
    name="inferwatch_tap_dropped_reads_total",
    kind=Kind.COUNTER,
    group=Group.TAP,
    labels=("worker",),
    help="Reads from the engine not copied to the collector because it was slow or away.",
    measured="Token counts do not depend on them.",
)
TAP_SPOOLED: Final = Metric(
    name="inferwatch_tap_spooled_total",
    kind=Kind.COUNTER,
    group=Group.TAP,
    labels=("worker",),
    help="Finished requests written to the relay's disk because the collector was away.",
    measured="They are booked when it is back.",
)
TAP_LOST: Final = Metric(
    name="inferwatch_tap_lost_total",
    kind=Kind.COUNTER,
    group=Group.TAP,
    labels=("worker",),
    help="Finished requests that found neither memory nor disk and are not booked.",
    measured="Must stay 0.",
)

# --- collector and service --------------------------------------------------------------------------------------------

COLLECTOR_OBSERVER_ERRORS: Final = Metric(
    name="inferwatch_collector_observer_errors_total",
    kind=Kind.COUNTER,
    group=Group.COLLECTOR,
    labels=("stage",),
    help="Faults caught in the collector, by the stage in which they happened.",
    measured="Each is a bug; the request is booked with what was known.",
)
CARDINALITY_FOLDED: Final = Metric(
    name="inferwatch_cardinality_folded_total",
    kind=Kind.COUNTER,
    group=Group.COLLECTOR,
    labels=("label",),
    help="Finished requests whose label value was counted under `other`.",
    measured="Not 0: raise the limit, or find out who sends so many names.",
)
LEDGER_COMMITS: Final = Metric(
    name="inferwatch_ledger_commits_total",
    kind=Kind.COUNTER,
    group=Group.COLLECTOR,
    help="Transactions committed to the ledger.",
    measured="One holds all requests that finished within a few ms.",
)
LEDGER_COMMIT_FAILURES: Final = Metric(
    name="inferwatch_ledger_commit_failures_total",
    kind=Kind.COUNTER,
    group=Group.COLLECTOR,
    help="Transactions that the ledger could not commit.",
    measured="Their records wait in memory and are tried again.",
)
LEDGER_PENDING: Final = Metric(
    name="inferwatch_ledger_pending_records",
    kind=Kind.GAUGE,
    group=Group.COLLECTOR,
    help="Finished requests that are not in the ledger yet.",
    measured="Bounded; relays keep theirs until they are acknowledged.",
)
LEDGER_DURABLE: Final = Metric(
    name="inferwatch_ledger_durable",
    kind=Kind.GAUGE,
    group=Group.COLLECTOR,
    help="1 if what is booked survives a crash, 0 if the ledger is in memory only.",
    measured="0 also while the disk refuses to take commits.",
)
UPSTREAM_UP: Final = Metric(
    name="inferwatch_upstream_up",
    kind=Kind.GAUGE,
    group=Group.COLLECTOR,
    labels=("upstream",),
    help="1 if the engine answered the last health check, 0 if not.",
    measured="Absent before the first check.",
)
CONFIG_RELOAD_SUCCESSFUL: Final = Metric(
    name="inferwatch_config_last_reload_successful",
    kind=Kind.GAUGE,
    group=Group.COLLECTOR,
    help="1 if the last reload of the configuration succeeded, 0 if the old one was kept.",
    measured="The load at the start counts as one.",
)
CONFIG_RELOAD_TIMESTAMP: Final = Metric(
    name="inferwatch_config_last_reload_success_timestamp_seconds",
    kind=Kind.GAUGE,
    group=Group.COLLECTOR,
    unit="seconds",
    help="Unix time of the last successful load of the configuration.",
    measured="The load at the start counts as one.",
)
BUILD_INFO: Final = Metric(
    name="inferwatch_build_info",
    kind=Kind.GAUGE,
    group=Group.COLLECTOR,
    labels=("version",),
    help="Always 1; the version is in the label.",
    measured="",
    note="`service.version`",
)
START_TIME: Final = Metric(
    name="inferwatch_start_time_seconds",
    kind=Kind.GAUGE,
    group=Group.COLLECTOR,
    unit="seconds",
    help="Unix time at which the collector started.",
    measured="A restarted collector goes on with its counters; this tells that it was restarted.",
)
DRAINING: Final = Metric(
    name="inferwatch_draining",
    kind=Kind.GAUGE,
    group=Group.COLLECTOR,
    help="1 while the service finishes its open requests and takes no new ones.",
    measured="Set when the service is told to stop.",
)

COLLECTOR_LOOP_LAG: Final = Metric(
    name="inferwatch_collector_event_loop_lag_seconds",
    kind=Kind.GAUGE,
    group=Group.COLLECTOR,
    unit="seconds",
    help="Worst lateness of a timer in the collector's event loop.",
    measured="Over the last 30 s. It delays metrics, never traffic.",
)
COLLECTOR_CUT: Final = Metric(
    name="inferwatch_collector_cut_total",
    kind=Kind.COUNTER,
    group=Group.COLLECTOR,
    labels=("reason",),
    help="What the collector's bounds cut off, by the bound.",
    measured="ledger_records: rows given up while the disk failed (their tokens are in the counters); "
    "log_lines: not written because nobody read stdout; "
    "unwatched_requests, plain_replies: answers not read because too many were open; "
    "orphan_frames: of requests that were never opened; bad_peers: connections that did not speak the protocol; "
    "spool_torn, spool_bad: files cut in the middle, or unreadable; "
    "unsure: requests told again that could not be looked up.",
)

TABLE: Final[tuple[Metric, ...]] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))

BY_NAME: Final[dict[str, Metric]] = {metric.name: metric for metric in TABLE}
