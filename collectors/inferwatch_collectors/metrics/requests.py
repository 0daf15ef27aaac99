"""Requests: how many, and how they ended."""

from typing import Final

from inferwatch_collectors.metrics.base import REQUEST, Group, Kind, Metric

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
