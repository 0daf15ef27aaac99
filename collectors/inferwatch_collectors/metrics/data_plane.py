"""Relay and tap: how the data plane itself is doing."""

from typing import Final

from inferwatch_collectors.metrics.base import Group, Kind, Metric

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
