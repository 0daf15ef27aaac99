"""Collector and service: how the observing side is doing, and what its bounds cut off."""

from typing import Final

from inferwatch_collectors.metrics.base import Group, Kind, Metric

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

ADMIN_REFUSED: Final = Metric(
    name="inferwatch_admin_refused_total",
    kind=Kind.COUNTER,
    group=Group.COLLECTOR,
    labels=("reason",),
    help="Requests that the admin port refused, by the reason.",
    measured="no_token, wrong_token (also a session that has ended): where `access` asks for one; "
    "other_site: a browser sent it for a page of another site, or its Host is none.",
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
    "ledger_shares: the same of what requests were charged of the machine; "
    "ledger_late: and of what the engine had counted for requests that were hung up on; "
    "log_lines: not written because nobody read stdout; "
    "unwatched_requests, plain_replies: answers not read because too many were open; "
    "orphan_frames: of requests that were never opened; bad_peers: connections that did not speak the protocol; "
    "spool_torn, spool_bad: files cut in the middle, or unreadable; "
    "memos_damaged: what drift, the canary or the watch for unusual spending had remembered in the ledger and could "
    "not be read, so that it is learnt anew; "
    "unsure: requests told again that could not be looked up; "
    "long_replies, long_events, inflated, choices, token_gaps: answers of which a part was not read, or not observed, "
    "because a plain reply, an event, its inflated bytes, its choices or its gaps between two commits were too many; "
    "neighbour_suspects: prompts that were not looked at in search of a noisy neighbour; "
    "anomaly_tenants, anomaly_runs, anomaly_late: tenants or runs of requests forgotten by the watch for unusual "
    "spending, and requests too late for it; drift_streams, drift_sessions: models and tenants that drift does not "
    "follow, and sessions that may vote on it twice; quality_prompts: prompts forgotten before a minute was over, of "
    "which a repeat is not noticed; quality_choices: answers beyond the first eight to one request, in which no loop "
    "is looked for; canary_models: models that the canary does not judge; "
    "otlp_retries: requests forgotten before it was known whether another one "
    "tries them again; otlp_asked: spans without the numbers that their requests asked for; "
    "otlp_trace_states: spans without what they would have kept of `tracestate`; "
    "drift_choices: requests that were to vote on drift and were forgotten while they were open; "
    "drift_references: what was learnt of an engine of before, forgotten for that of later ones; drift_unsure_votes: "
    "not counted because it is not known which version of the engine answered them.",
)
