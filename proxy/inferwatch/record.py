"""What Inferwatch knows of one finished request: one immutable record, the only thing that sinks ever see.

Unknown is None (promise 6): a count that nobody reported is not 0.
"""

import enum

import msgspec


class Outcome(enum.StrEnum):
    """How a request ended. The values are public: they are label values of `inferwatch_requests_total`."""

    OK = "ok"  # the engine answered in full, status below 400
    CLIENT_ABORT = "client_abort"  # the client hung up first
    UPSTREAM_ERROR = "upstream_error"  # no answer, or a status of 500 and above
    STREAM_ERROR = "stream_error"  # an error or a cut after the status line had gone out
    REJECTED = "rejected"  # refused as the client's fault: by the engine (4xx) or by a limit of ours
    INTERRUPTED = "interrupted"  # our own relay died under it


class ErrorType(enum.StrEnum):
    """Why. A closed set: it becomes a label and OpenTelemetry's `error.type`."""

    NONE = ""
    CONNECT_FAILED = "connect_failed"
    CONNECT_TIMEOUT = "connect_timeout"
    OUT_OF_FILES = "out_of_files"  # none left here for a connection to the engine: the limit of open files
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    UPSTREAM_RESET = "upstream_reset"  # closed or reset before the answer was complete
    UPSTREAM_PROTOCOL = "upstream_protocol"  # what came was not HTTP
    ENGINE_4XX = "engine_4xx"
    ENGINE_5XX = "engine_5xx"
    ENGINE_EVENT = "engine_event"  # an error event inside a 200 stream
    NO_FINISH = "no_finish"  # the stream ended in good form but no choice had finished
    MALFORMED_REQUEST = "malformed_request"
    REQUEST_TOO_LARGE = "request_too_large"
    UNKNOWN_KEY = "unknown_key"  # only tenants are let in, and the API key is nobody's
    BUDGET = "budget"  # no room in a budget: refused, or cut off in mid-stream
    LOOP = "loop"  # it said the same words without end, and was cut off in mid-stream (`quality.cut_loops`)
    RELAY_DIED = "relay_died"
    INTERNAL = "internal"  # a fault of ours; must stay 0


class TokenSource(enum.StrEnum):
    """Where the token counts come from, best first."""

    FINAL_USAGE = "final_usage"
    CONTINUOUS_USAGE = "continuous_usage"
    TIMINGS = "timings"
    DETAILS = "details"
    HEADERS = "headers"
    PARTIAL_USAGE = "partial_usage"  # the engine's count of a part of what it is known to have generated
    ENGINE_COUNTERS = "engine_counters"  # the engine's own counters, shared among requests that were hung up on
    CHUNK_ESTIMATE = "chunk_estimate"
    NONE = "none"


class TokenClass(enum.StrEnum):
    """What the first generated token was."""

    REASONING = "reasoning"
    ANSWER = "answer"
    TOOL_CALL = "tool_call"


class TimingSource(enum.StrEnum):
    """Where the engine's own times of a request come from."""

    NONE = "none"
    ENGINE_BODY = "engine_body"  # vLLM's `metrics` in the answer
    ENGINE_TIMINGS = "engine_timings"  # llama.cpp's `timings` in the answer
    ENGINE_HEADERS = "engine_headers"  # TGI's x-queue-time and x-inference-time


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One finished request. Times are seconds from arrival unless said otherwise."""

    request_id: str
    wall_ns: int  # Unix time of arrival
    tenant: str
    model: str  # as requested; "" if unknown
    operation: str  # OpenTelemetry gen_ai.operation.name, or "other"
    route: str  # from a closed set, "other" for the rest; never the raw path
    method: str
    stream: bool
    outcome: Outcome
    status: int  # sent to the client; 0: none
    error: ErrorType = ErrorType.NONE

    prompt_tokens: int | None = None  # includes cached
    cached_tokens: int | None = None
    completion_tokens: int | None = None  # includes reasoning
    reasoning_tokens: int | None = None
    token_source: TokenSource = TokenSource.NONE
    choices: int = 0  # choices seen in the answer
    n: int = 1  # choices asked for per prompt: vLLM's own counter takes the prompt this often, its usage once
    finish_reasons: tuple[str, ...] = ()
    # The most that all its answers may have had together; None: not asked for, or it ended well.
    max_tokens: int | None = None
    price_nanodollars: int | None = None  # by the price book of its day; None: no price is configured for the model

    duration_s: float
    sent_s: float | None = None  # the request was with the engine
    head_s: float | None = None  # response head; not a token
    ttft_s: float | None = None  # first generated token of any class
    ttft_answer_s: float | None = None  # first token of the visible answer
    first_token: TokenClass | None = None
    first_token_missing: str = ""  # why there is no ttft_s, when a generating stream had none
    gap_count: int = 0  # tokens after the first of each choice, with a measured gap
    gap_sum_s: float = 0.0
    gap_max_s: float = 0.0
    gap_max_at_s: float | None = None  # when the largest gap began
    stalled_s: float = 0.0  # the client read too slowly

    # The engine's own times, by its own clock. They are no phases of `duration_s`: `phases.of` makes those.
    timing_source: TimingSource = TimingSource.NONE
    queue_s: float | None = None  # until the engine began with it
    prefill_s: float | None = None  # from there to its first token
    decode_s: float | None = None  # from its first token to its last
    inference_s: float | None = None  # prefill and decode together, of an engine that does not part them

    # Other requests' prompts whose prefill may have stood in the way. Inferred from overlap: an upper bound.
    blocked_s: float | None = None  # None: cannot be told
    blocked_by: str = ""  # request_id of the one with the largest part
    blocked_by_tenant: str = ""
    blocked_by_tokens: int | None = None  # of its prompt

    events: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    dropped_bytes: int = 0  # not mirrored: what depends on content may be missing
    retried: bool = False

    engine_id: str = ""  # the id in the engine's answer
    engine_model: str = ""  # the model in the engine's answer
    trace_id: str = ""
    span_id: str = ""
    parent_span_id: str = ""
    trace_sampled: bool = True  # False: the client's trace context says that nobody keeps this trace
    user: str = ""
    feature: str = ""
    session: str = ""


def lacks_count(record: RequestRecord) -> bool:
    """Tell whether the engine told nothing of `record`: what is known of its answer, if anything, was only seen."""
    return record.prompt_tokens is None and (
        record.completion_tokens is None or record.token_source is TokenSource.CHUNK_ESTIMATE
    )


class Share(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one request was charged of the machine; or nobody, for the time in which nothing was to do.

    Known only after the request has closed, when every interval in which it worked has been divided among all that
    worked in it: so it is a fact of its own, not part of `RequestRecord`. Exactly one for each request.
    """

    request_id: str = ""  # "": idle, of the minute that begins at `wall_ns`
    wall_ns: int  # Unix time: the request's arrival, as in its record
    tenant: str = ""
    model: str = ""
    user: str = ""
    feature: str = ""
    gpu_nanodollars: int | None = None  # None: no price of the hardware is configured
    energy_uj: int | None = None  # microjoules; None: nothing measures energy


class LateCount(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the engine counted for a request that was hung up on before any count was on the wire.

    Known only when the engine's counters have been read and compared, seconds or minutes after the request has closed:
    so it is a fact of its own, as `Share` is. At most one for each request, and none for one that had counts. Of a
    stream that was cut the record has an estimate of the completion: then this is what came to more.
    """

    request_id: str
    wall_ns: int  # Unix time: the request's arrival, as in its record
    tenant: str
    model: str
    operation: str
    outcome: Outcome
    user: str = ""
    feature: str = ""
    prompt_tokens: int | None = None  # as in `usage`: once, whatever n was; None: the engine's cannot be compared
    completion_tokens: int | None = None  # beyond `estimated_tokens`
    estimated_tokens: int = 0  # of its completion, which its record has
    price_nanodollars: int | None = None  # by the price book of its day; None: no price is configured for the model
