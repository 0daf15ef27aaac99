"""Service: do users get answers, how fast, and is that what they were promised?"""

from typing import Final

from alerts.src.promises import PROMISES
from alerts.src.slo import le
from dashboards.src.panels import (
    BAD,
    FAIR,
    GOOD,
    HOST,
    MODEL,
    REQUEST,
    TENANT,
    Board,
    Query,
    Row,
    counted,
    percentiles,
    quantile,
    series,
    spread,
    stack,
    stat,
    total,
    value,
)

BURN_STEPS: Final = ((0, GOOD), (1, FAIR), (6, BAD))

_TO_TENANT: Final = (("This tenant", "/d/inferwatch-tenants?var-tenant=${__field.labels.tenant}&${__url_time_range}"),)
_TO_TRIAGE: Final = (("Triage", "/d/inferwatch-oncall?var-model=${__field.labels.model}&${__url_time_range}"),)
_TTFT: Final = "inferwatch_time_to_first_token_seconds"
_ITL: Final = "inferwatch_inter_token_latency_seconds"
_IN_TIME: Final = f'le="{le(PROMISES.slos["ttft"].threshold_s or 0)}"'

_PROMISES: Final = Row(
    "What was promised",
    (
        stat(
            "Error budget burn, last hour",
            Query('max by (slo) (model_slo:inferwatch_burn_rate:1h{model=~"$model"})', "{{slo}}"),
            "none",
            "How many times faster than allowed each service level's error budget is used up, of the model that is "
            "worst off. 1 lasts just the 30 days; at 14.4 somebody is paged.",
            width=8,
            steps=BURN_STEPS,
        ),
        stat(
            "Good, of the last 3 days",
            Query(
                "1 - (sum by (slo) (sum_over_time(model_slo:inferwatch_bad_events:rate5m"
                '{model=~"$model"}[3d])) / sum by (slo) '
                '(sum_over_time(model_slo:inferwatch_events:rate5m{model=~"$model"}[3d])))',
                "{{slo}}",
            ),
            "percentunit",
            "Share of requests, first tokens and tokens that were as promised in alerts/slo.yml.",
            width=8,
        ),
        stat(
            "First tokens in time",
            (
                Query(f"sum(rate({_TTFT}_bucket{{{REQUEST}, {_IN_TIME}}}[$__rate_interval]))", "in time"),
                Query(f"sum(rate({_TTFT}_count{{{REQUEST}}}[$__rate_interval]))", "all"),
            ),
            "reqps",
            "Goodput: streams a second whose first token came within what was promised, beside all of them.",
            width=8,
        ),
        series(
            "Burn rate by model",
            Query('model_slo:inferwatch_burn_rate:1h{model=~"$model"}', "{{slo}} · {{model}}"),
            "none",
            "Over an hour. The dashed lines are where a page is sent, if it is so for five minutes as well (14.4), or "
            "for six hours (6).",
            width=12,
            steps=((0, GOOD), (6, FAIR), (14.4, BAD)),
            links=_TO_TRIAGE,
        ),
        series(
            "Goodput under the promise",
            (
                Query(
                    f"sum by (model) (rate({_TTFT}_bucket{{{REQUEST}, {_IN_TIME}}}[$__rate_interval]))",
                    "{{model}} in time",
                ),
                Query(f"sum by (model) (rate({_TTFT}_count{{{REQUEST}}}[$__rate_interval]))", "{{model}} all"),
            ),
            "reqps",
            "Streams a second whose first token came in time. Where it parts from all, load has gone beyond capacity.",
            width=12,
        ),
    ),
)

_TRAFFIC: Final = Row(
    "Rate and errors",
    (
        stack(
            "Requests by outcome",
            total("inferwatch_requests_total", REQUEST, "outcome"),
            "reqps",
            "ok; client_abort: hung up; upstream_error: the engine failed; stream_error: it failed in mid-stream; "
            "rejected: the client's fault, or a budget; interrupted: ours.",
        ),
        series(
            "Errors by type",
            total("inferwatch_request_errors_total", MODEL, "error_type"),
            "reqps",
            "Why. connect_*: the engine is away; *_timeout: it hangs; engine_5xx, engine_event: it says so itself; "
            "engine_4xx, malformed_request, request_too_large, unknown_key: the client; budget, loop: refused or cut "
            "because the configuration says so; internal: ours.",
        ),
        series(
            "In flight",
            value("inferwatch_requests_in_flight", REQUEST, "model"),
            "short",
            "Requests admitted and not finished. Climbing while the rate does not: they take longer.",
        ),
        stack(
            "Requests by model",
            total("inferwatch_requests_total", REQUEST, "model"),
            "reqps",
            "Who is asked.",
            links=_TO_TRIAGE,
        ),
        stack(
            "Requests by tenant",
            Query(
                f"topk(10, sum by (tenant) (rate(inferwatch_requests_total{{{REQUEST}}}[$__rate_interval])))",
                "{{tenant}}",
            ),
            "reqps",
            "Who asks: the ten busiest.",
            links=_TO_TENANT,
        ),
        series(
            "Streams without a first token",
            total("inferwatch_first_token_missing_total", REQUEST, "reason"),
            "reqps",
            "They are missing in all latencies of first tokens. client_abort: whoever left had seen nothing; timeout: a "
            "hang; empty: an answer with nothing in it.",
        ),
    ),
)

_LATENCY: Final = Row(
    "Latency",
    (
        percentiles(
            "Time to first token",
            _TTFT,
            REQUEST,
            "s",
            "From the request to the first generated token of a stream, of whatever class. Points are traces.",
        ),
        percentiles(
            "Gap between tokens",
            _ITL,
            REQUEST,
            "s",
            "From one token to the next of the same answer. 0.1 s is about reading speed. A high 99 % with a good "
            "median: stalls by other people's prompts, or preemptions.",
        ),
        percentiles(
            "Duration",
            "inferwatch_request_duration_seconds",
            REQUEST,
            "s",
            "Of requests that ended well; it goes with the length of answers.",
        ),
        spread(
            "Time to first token, spread", _TTFT, REQUEST, "s", "Two bands: a cache that hits and misses, or a queue."
        ),
        spread("Gap between tokens, spread", _ITL, REQUEST, "s", "What is far above the band is a stall."),
        spread(
            "Duration, spread",
            "inferwatch_request_duration_seconds",
            REQUEST,
            "s",
            "Bands are kinds of use: completion, chat, agents.",
        ),
        percentiles(
            "Time to first answer token, of models that reason",
            "inferwatch_time_to_first_answer_token_seconds",
            REQUEST,
            "s",
            "What people wait for before they can read, where the model thinks first.",
            width=12,
        ),
        percentiles(
            "Time per output token",
            "inferwatch_time_per_output_token_seconds",
            REQUEST,
            "s",
            "Mean of each answer, one value a request: its own speed.",
            width=12,
        ),
    ),
)

_TIME: Final = Row(
    "Where the time goes",
    (
        stack(
            "Seconds of requests, by phase",
            total("inferwatch_request_phase_seconds_sum", MODEL, "phase"),
            "s",
            "How many seconds of waiting users spend each second, by where. queue: for a place in the batch; prefill: "
            "their prompt is read; decode: the answer is made; client: they read slowly.",
        ),
        series(
            "90 % of requests spend less than this",
            Query(quantile(0.9, "inferwatch_request_phase_seconds", MODEL, by="phase"), "{{phase}}"),
            "s",
            "The same, for a request that is slower than nine of ten.",
        ),
        stack(
            "Seconds of tenants, by phase",
            Query(
                "topk(12, sum by (tenant, phase) "
                f"(rate(inferwatch_tenant_phase_seconds_total{{{TENANT}}}[$__rate_interval])))",
                "{{tenant}} · {{phase}}",
            ),
            "s",
            "Whose requests wait where: the twelve largest.",
            links=_TO_TENANT,
        ),
        series(
            "Behind other people's prompts",
            total("inferwatch_prefill_blocked_seconds_total", REQUEST, "tenant"),
            "s",
            "Seconds a second in which requests of a tenant stood behind long prompts of others: an upper bound.",
            links=_TO_TENANT,
        ),
        series(
            "Who stands in front",
            total("inferwatch_neighbour_delay_seconds_total", f'{TENANT}, victims="others"', "tenant"),
            "s",
            "The same seconds, by whose prompts they were.",
            links=_TO_TENANT,
        ),
        series(
            "Clients that read too slowly",
            total("inferwatch_client_stall_seconds_total", TENANT, "tenant"),
            "s",
            "Seconds a second in which the engine was held back since a client did not take its answer.",
            links=_TO_TENANT,
        ),
    ),
)

_TOKENS: Final = Row(
    "Tokens",
    (
        series(
            "Tokens",
            total("inferwatch_tokens_total", REQUEST, "type"),
            "short",
            "A second. cached is a part of prompt, reasoning a part of completion.",
        ),
        stack(
            "Wasted completion tokens",
            total("inferwatch_wasted_tokens_total", REQUEST, "reason"),
            "short",
            "A second, of answers that nobody got in full: an upper bound.",
        ),
        stack(
            "Where counts come from",
            total("inferwatch_tokens_by_source_total", MODEL, "source"),
            "short",
            "final_usage, continuous_usage and engine_counters are the engine's own counts; chunk_estimate is a guess.",
        ),
        percentiles(
            "Prompt length",
            "inferwatch_request_prompt_tokens",
            REQUEST,
            "short",
            "Tokens, cached ones included. A jump of the 99 %: somebody sends whole documents.",
        ),
        percentiles(
            "Answer length",
            "inferwatch_request_completion_tokens",
            REQUEST,
            "short",
            "Tokens, reasoning included. Sudden growth: a model that does not stop.",
        ),
        series(
            "Requests that lack something",
            (
                counted("inferwatch_requests_without_usage_total", MODEL, legend="no token count"),
                counted("inferwatch_content_dropped_requests_total", MODEL, legend="copy dropped"),
                counted("inferwatch_cardinality_folded_total", HOST, legend="counted under `other`"),
            ),
            "short",
            "In the time shown. no token count: missing on bills; copy dropped: no latency known, tokens counted.",
        ),
    ),
)

BOARD: Final = Board(
    uid="inferwatch-service",
    about="Do users get answers, how fast, and is that what they were promised?",
    rows=(_PROMISES, _TRAFFIC, _LATENCY, _TIME, _TOKENS),
)
