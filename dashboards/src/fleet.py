"""Fleet: many hosts on one page, and how Inferwatch itself is doing on each."""

from typing import Final

from dashboards.src.panels import (
    BAD,
    FAIR,
    GOOD,
    HOST,
    Board,
    Query,
    Row,
    bars,
    counted,
    rows_of,
    series,
    stack,
    stat,
    total,
    value,
)

_TO_HOST: Final = (("This host", "/d/inferwatch-oncall?var-instance=${__field.labels.instance}&${__url_time_range}"),)
_TO_ROW: Final = (("This host", "/d/inferwatch-oncall?var-instance=${__data.fields.instance}&${__url_time_range}"),)
_WORKER: Final = "instance, worker"

_HOSTS: Final = Row(
    "Hosts",
    (
        stat(
            "Hosts that answer",
            Query(f"count(inferwatch_build_info{{{HOST}}})"),
            "none",
            "Inferwatches that Prometheus reads.",
            width=6,
        ),
        stat(
            "Without an engine",
            Query(f"count(inferwatch_upstream_up{{{HOST}}} == 0) or vector(0)"),
            "none",
            "Hosts whose engine is down.",
            width=6,
            steps=((0, GOOD), (1, BAD)),
        ),
        stat(
            "Draining",
            Query(f"sum(inferwatch_draining{{{HOST}}})"),
            "none",
            "Hosts that finish what they have and take nothing new.",
            width=6,
        ),
        stat(
            "Configuration refused",
            Query(f"count(inferwatch_config_last_reload_successful{{{HOST}}} == 0) or vector(0)"),
            "none",
            "Hosts that still run by an old configuration.",
            width=6,
            steps=((0, GOOD), (1, FAIR)),
        ),
        rows_of(
            "Traffic by host",
            (
                Query(f"sum by (instance) (rate(inferwatch_requests_total{{{HOST}}}[5m]))", "requests/s"),
                Query(f"sum by (instance) (inferwatch_requests_in_flight{{{HOST}}})", "in flight"),
                Query(f"max by (instance) (inferwatch_engine_requests_waiting{{{HOST}}})", "waiting"),
                Query(f"sum by (instance) (rate(inferwatch_engine_tokens_total{{{HOST}}}[5m]))", "tokens/s"),
            ),
            "short",
            "One line each; the odd one out is the one to look at.",
            links=_TO_ROW,
        ),
        series(
            "Late tokens by host",
            Query(f"instance:inferwatch_slow_tokens:ratio_rate10m{{{HOST}}}", "{{instance}}"),
            "percentunit",
            "Share of tokens later than promised.",
            links=_TO_HOST,
        ),
        series(
            "First token, 90 % of streams, by host",
            Query(
                "histogram_quantile(0.9, sum by (instance, le) "
                f"(rate(inferwatch_time_to_first_token_seconds_bucket{{{HOST}}}[$__rate_interval])))",
                "{{instance}}",
            ),
            "s",
            "A host apart from the others is ill, or gets other requests.",
            links=_TO_HOST,
        ),
        bars(
            "Versions",
            Query(f"count by (version) (inferwatch_build_info{{{HOST}}})", "{{version}}"),
            "short",
            "How many hosts run which.",
        ),
    ),
)

_RELAY: Final = Row(
    "Data plane",
    (
        series(
            "CPU",
            total("inferwatch_relay_cpu_seconds_total", HOST, _WORKER),
            "s",
            "CPU seconds a second of each relay. 1 is full.",
            steps=((0, GOOD), (0.9, BAD)),
        ),
        series(
            "Late by",
            value("inferwatch_relay_event_loop_lag_seconds", HOST, _WORKER, how="max"),
            "s",
            "Worst of the last 30 s: what tokens may be late. Pages at 0.25 s.",
        ),
        series(
            "Open requests",
            value("inferwatch_relay_open_requests", HOST, _WORKER),
            "short",
            "What each relay works on.",
        ),
        series(
            "Connections",
            (
                value("inferwatch_relay_client_connections", HOST, "instance", what="clients"),
                value("inferwatch_relay_upstream_idle_connections", HOST, "instance", what="idle to engine"),
            ),
            "short",
            "Open ones from clients, and idle ones to the engine.",
        ),
        series(
            "Connecting to the engine",
            (
                total("inferwatch_relay_upstream_connects_total", HOST, "instance", what="opened"),
                total("inferwatch_relay_upstream_connect_errors_total", HOST, "instance", what="failed"),
                total("inferwatch_relay_upstream_retries_total", HOST, "instance", what="sent again"),
            ),
            "short",
            "A second. As many opened as requests: keep-alive does not work.",
        ),
        series(
            "Restarts and faults",
            (
                counted("inferwatch_relay_restarts_total", HOST, "instance", what="restarts"),
                counted("inferwatch_relay_observer_errors_total", HOST, "instance", what="faults"),
            ),
            "short",
            "In the time shown. A restart breaks the answers that were under way.",
        ),
    ),
)

_TAP: Final = Row(
    "From relay to collector",
    (
        series(
            "Waiting",
            value("inferwatch_tap_pending_bytes", HOST, _WORKER),
            "bytes",
            "Copies that wait for the collector. Near the bound they are dropped.",
        ),
        series(
            "Dropped copies",
            (
                total("inferwatch_tap_dropped_bytes_total", HOST, "instance", what="bytes"),
                total("inferwatch_tap_dropped_reads_total", HOST, "instance", what="reads"),
            ),
            "short",
            "A second. Clients got them all the same; latencies of these answers are unknown.",
        ),
        series(
            "Spooled and lost",
            (
                counted("inferwatch_tap_spooled_total", HOST, "instance", what="spooled"),
                counted("inferwatch_tap_lost_total", HOST, "instance", what="lost"),
            ),
            "short",
            "Requests in the time shown. Spooled ones are booked later, lost ones never.",
        ),
    ),
)

_COLLECTOR: Final = Row(
    "Collector",
    (
        series(
            "Collector late by",
            value("inferwatch_collector_event_loop_lag_seconds", HOST, "instance", how="max"),
            "s",
            "Delays metrics and budgets, never traffic.",
        ),
        stack(
            "Cut off by bounds",
            counted("inferwatch_collector_cut_total", HOST, "reason"),
            "short",
            "In the time shown; docs/metrics.md says what each is.",
        ),
        series(
            "Faults and folded names",
            (
                counted("inferwatch_collector_observer_errors_total", HOST, "stage", legend="fault: {{stage}}"),
                counted("inferwatch_cardinality_folded_total", HOST, "label", legend="`other`: {{label}}"),
            ),
            "short",
            "In the time shown.",
        ),
        series(
            "Refused on the admin port",
            (counted("inferwatch_admin_refused_total", HOST, "reason"),),
            "short",
            "In the time shown: without its token, or for a page of another site.",
        ),
        series(
            "Ledger commits",
            (
                total("inferwatch_ledger_commits_total", HOST, "instance", what="commits"),
                total("inferwatch_ledger_commit_failures_total", HOST, "instance", what="failures"),
            ),
            "short",
            "A second. Each holds all requests of some milliseconds.",
        ),
        series(
            "Not in the ledger yet",
            value("inferwatch_ledger_pending_records", HOST, "instance"),
            "short",
            "Finished requests. Growing: the disk does not keep up.",
        ),
        rows_of(
            "State",
            (
                Query(f"min by (instance) (inferwatch_ledger_durable{{{HOST}}})", "durable"),
                Query(f"min by (instance) (inferwatch_config_last_reload_successful{{{HOST}}})", "configuration"),
                Query(f"time() - max by (instance) (inferwatch_start_time_seconds{{{HOST}}})", "up for (s)"),
                Query(
                    f"time() - max by (instance) (inferwatch_config_last_reload_success_timestamp_seconds{{{HOST}}})",
                    "configured for (s)",
                ),
            ),
            "none",
            "durable 0: counts would not survive a restart.",
            width=8,
        ),
    ),
)

_EXPORT: Final = Row(
    "Traces, metrics and logs by OTLP",
    (
        series(
            "Taken by the endpoint",
            total(
                "inferwatch_otlp_items_total",
                f'{HOST}, result="exported"',
                "instance, signal",
                legend="{{instance}} {{signal}}",
            ),
            "short",
            "Spans, log records and collections of metrics a second.",
        ),
        stack(
            "Lost on the way",
            counted(
                "inferwatch_otlp_items_total",
                f'{HOST}, result=~"failed|dropped"',
                "instance, signal, result",
                legend="{{instance}} {{signal}} {{result}}",
            ),
            "short",
            "In the time shown. failed: the endpoint did not take them in time; dropped: the queue was full. Traffic "
            "knows nothing of it.",
        ),
        series(
            "Waiting for the exporter",
            value("inferwatch_otlp_queue_items", HOST, "instance, signal", legend="{{instance}} {{signal}}"),
            "short",
            "Near OTEL_BSP_MAX_QUEUE_SIZE (2,048) the next ones are dropped.",
        ),
    ),
)

_CONTENT: Final = Row(
    "Personal data in content",
    (
        stack(
            "Content of traces",
            counted("inferwatch_privacy_requests_total", HOST, "result"),
            "short",
            "Requests in the time shown, by what became of their texts. cut: kept up to a bound, or but for the end of an answer that broke off. Nothing is kept after "
            "timeout, failed and overflow.",
        ),
        stack(
            "Found, by kind",
            counted("inferwatch_privacy_found_total", HOST, "entity"),
            "short",
            "Places in texts, in the time shown. Each has a pseudonym in its place.",
        ),
        series(
            "Not looked at to the end, by host",
            total(
                "inferwatch_privacy_requests_total",
                f'{HOST}, result=~"timeout|failed|overflow"',
                "instance, result",
                legend="{{instance}} {{result}}",
            ),
            "short",
            "Requests a second of which nothing is kept.",
        ),
        series(
            "Key of the pseudonyms",
            value("inferwatch_privacy_key_current", HOST, "instance", how="min"),
            "none",
            "1: the last of privacy.key_file. 0: it was rotated without a restart, or the file cannot be read; looked at "
            "once a minute while content is kept.",
        ),
    ),
)

BOARD: Final = Board(
    uid="inferwatch-fleet",
    about="Many hosts on one page, and how Inferwatch itself is doing on each.",
    rows=(_HOSTS, _RELAY, _TAP, _COLLECTOR, _EXPORT, _CONTENT),
    variables=("job", "instance"),
)
