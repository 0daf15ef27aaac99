"""Engine: what the inference server says of itself, under one set of names, and what of its work we have booked."""

from typing import Final

from inferwatch_collectors.metrics.base import Group, Kind, Metric

ENGINE_UP: Final = Metric(
    name="inferwatch_engine_up",
    kind=Kind.GAUGE,
    group=Group.ENGINE,
    labels=("upstream",),
    help="1 if the engine's own metrics could be read at the last scrape, 0 if not.",
    measured="Absent before the first scrape, or with `engine_metrics.enabled` off. 0 does not mean that the engine "
    "serves nobody (that is upstream_up): some have no metrics, some only with a flag. While it is 0 the gauges of "
    "this chapter are absent.",
)
ENGINE_INFO: Final = Metric(
    name="inferwatch_engine_info",
    kind=Kind.GAUGE,
    group=Group.ENGINE,
    labels=("upstream", "engine"),
    help="Always 1; which engine it is, by the names of its metrics, is in the label.",
    measured="Absent while its metrics cannot be read.",
)
ENGINE_SCRAPE_FAILURES: Final = Metric(
    name="inferwatch_engine_scrape_failures_total",
    kind=Kind.COUNTER,
    group=Group.ENGINE,
    labels=("upstream", "reason"),
    help="Scrapes of the engine's metrics that gave no reading.",
    measured="Reason connect, timeout, status (not 200), not_text, too_large, malformed, or no_metrics: none that we "
    "know. After a failure the pause until the next scrape grows up to a minute.",
)
ENGINE_SCRAPE_DURATION: Final = Metric(
    name="inferwatch_engine_scrape_duration_seconds",
    kind=Kind.GAUGE,
    group=Group.ENGINE,
    labels=("upstream",),
    unit="seconds",
    help="How long the engine took to answer the last scrape.",
    measured="To the last byte. vLLM answers from the loop that also sends tokens: a long time is a busy loop.",
)
ENGINE_REQUESTS_RUNNING: Final = Metric(
    name="inferwatch_engine_requests_running",
    kind=Kind.GAUGE,
    group=Group.ENGINE,
    labels=("upstream",),
    help="Sequences that the engine computes at present.",
    measured="The engine's own figure at the last scrape, over all its instances. A request with n answers is n.",
)
ENGINE_REQUESTS_WAITING: Final = Metric(
    name="inferwatch_engine_requests_waiting",
    kind=Kind.GAUGE,
    group=Group.ENGINE,
    labels=("upstream",),
    help="Sequences that wait in the engine's queue.",
    measured="The engine's own figure at the last scrape, over all its instances.",
)
ENGINE_KV_CACHE_USAGE: Final = Metric(
    name="inferwatch_engine_kv_cache_usage_ratio",
    kind=Kind.GAUGE,
    group=Group.ENGINE,
    labels=("upstream",),
    unit="ratio",
    help="Share of the engine's KV cache that is in use, 0 to 1.",
    measured="The engine's own figure at the last scrape; with several instances that of the fullest. "
    "TGI and llama.cpp do not tell.",
)
ENGINE_PREEMPTIONS: Final = Metric(
    name="inferwatch_engine_preemptions_total",
    kind=Kind.COUNTER,
    group=Group.ENGINE,
    labels=("upstream",),
    help="Sequences that the engine put back to make room in its KV cache, to compute them anew.",
    measured="The engine's counter; goes on where the engine begins anew.",
)
ENGINE_PREFIX_CACHE_QUERIES: Final = Metric(
    name="inferwatch_engine_prefix_cache_queries_total",
    kind=Kind.COUNTER,
    group=Group.ENGINE,
    labels=("upstream",),
    help="Prompt tokens that the engine looked up in its prefix cache.",
    measured="The engine's counter; goes on where the engine begins anew. vLLM only.",
)
ENGINE_PREFIX_CACHE_HITS: Final = Metric(
    name="inferwatch_engine_prefix_cache_hits_total",
    kind=Kind.COUNTER,
    group=Group.ENGINE,
    labels=("upstream",),
    help="Prompt tokens that the engine found in its prefix cache.",
    measured="The engine's counter; goes on where the engine begins anew.",
)
ENGINE_TOKENS: Final = Metric(
    name="inferwatch_engine_tokens_total",
    kind=Kind.COUNTER,
    group=Group.ENGINE,
    labels=("upstream", "type"),
    unit="tokens",
    help="Tokens by the engine's own count, whoever asked for them.",
    measured="Types prompt (includes cached), cached and completion. The engine's counters, from its start; a restart "
    "of either side neither loses what was read nor counts it twice. What the engine counted between the last scrape "
    "and its end nobody knows. vLLM counts a prompt once per answer (n), SGLang and others when a request finishes.",
)
ENGINE_RESTARTS: Final = Metric(
    name="inferwatch_engine_restarts_total",
    kind=Kind.COUNTER,
    group=Group.ENGINE,
    labels=("upstream",),
    help="How often the engine was found to have begun anew.",
    measured="By its process's start time, or, for engines that do not tell, by a counter that fell.",
)
CAPTURE_RATIO: Final = Metric(
    name="inferwatch_capture_ratio",
    kind=Kind.GAUGE,
    group=Group.ENGINE,
    labels=("upstream", "type"),
    unit="ratio",
    help="Share of the engine's tokens that we have booked, over the last hour.",
    measured="Types prompt and completion, in the engine's terms; those that wait to be given back to hung-up requests "
    "are not taken for missing. 1 exactly if all traffic came through the proxy. "
    "A scrape is judged when every request that was open at it has been booked, so it lags behind a long "
    "request; with nothing open at once, and to the token. Under load what the open requests still got is taken as "
    "explained: the ratio is then never too small, and may be too large by that. Above 1: more was booked than "
    "the engine counted. Absent if the engine counted nothing in the hour, or if nothing could be judged for "
    "15 minutes.",
)
UNBOOKED_TOKENS: Final = Metric(
    name="inferwatch_unbooked_tokens_total",
    kind=Kind.COUNTER,
    group=Group.ENGINE,
    labels=("upstream", "type", "reason"),
    unit="tokens",
    help="Tokens that the engine counted and nobody was booked for.",
    measured="Reason cut: as many as requests that were broken off since the scrape before can have had, beyond what "
    "is known of them and what was given back to them (tokens_by_source_total, source engine_counters); "
    "unreported: the same for answers without a count of their own; "
    "bypass: all others, which somebody fetched around the proxy. An estimate of the reason, not of the number. "
    "Never counted before it is certain; see capture_ratio.",
)
