"""The engine's own `/metrics`, under vLLM's names, with its quirks.

- Labels are `model_name` and `engine`; counters end in `_total` and bring `_created` series along.
- `vllm:iteration_tokens_total` is a histogram in spite of its name.
- An aborted request moves the token counters and nothing else: no latency, no success, not even `abort`.
- Prompt tokens are counted with the first token, once per sequence: a request with n answers counts its prompt n
  times here and once in its usage.
- The queue-time buckets begin at 0.3 s.
"""

from collections.abc import Iterable
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.kv_cache import BLOCK_TOKENS
from inferwatch_simulator.scheduler import Scheduler, Sequence, Step

_REQUEST_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_FIRST_TOKEN_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_TOKEN_GAP_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
_STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_N = (1, 2, 5, 10, 20)
_PREEMPTIONS = (1, 2, 3, 4, 5, 10, 20)

_COUNTERS = {
    "prefix_cache_queries": "Prefix cache queries, in terms of number of queried tokens.",
    "prefix_cache_hits": "Prefix cache hits, in terms of number of cached tokens.",
    "external_prefix_cache_queries": (
        "External prefix cache queries from KV connector cross-instance cache sharing, "
        "in terms of number of queried tokens."
    ),
    "external_prefix_cache_hits": (
        "External prefix cache hits from KV connector cross-instance cache sharing, "
        "in terms of number of cached tokens."
    ),
    "mm_cache_queries": "Multi-modal cache queries, in terms of number of queried items.",
    "mm_cache_hits": "Multi-modal cache hits, in terms of number of cached items.",
    "num_preemptions": "Cumulative number of preemption from the engine.",
    "prompt_tokens": "Number of prefill tokens processed.",
    "prompt_tokens_cached": "Number of cached prompt tokens (local + external).",
    "generation_tokens": "Number of generation tokens processed.",
}
_HISTOGRAMS: dict[str, tuple[str, tuple[float, ...]]] = {
    "iteration_tokens_total": ("Histogram of number of tokens per engine_step.", _STEP_TOKENS),
    "request_params_n": ("Histogram of the n request parameter.", _N),
    "time_to_first_token_seconds": ("Histogram of time to first token in seconds.", _FIRST_TOKEN_S),
    "inter_token_latency_seconds": ("Histogram of inter-token latency in seconds.", _TOKEN_GAP_S),
    "request_time_per_output_token_seconds": (
        "Histogram of time_per_output_token_seconds per request.",
        _TOKEN_GAP_S,
    ),
    "e2e_request_latency_seconds": ("Histogram of e2e request latency in seconds.", _REQUEST_S),
    "request_queue_time_seconds": ("Histogram of time spent in WAITING phase for request.", _REQUEST_S),
    "request_inference_time_seconds": ("Histogram of time spent in RUNNING phase for request.", _REQUEST_S),
    "request_prefill_time_seconds": ("Histogram of time spent in PREFILL phase for request.", _REQUEST_S),
    "request_decode_time_seconds": ("Histogram of time spent in DECODE phase for request.", _REQUEST_S),
    "request_num_preemptions": ("Histogram of the number of times a request was preempted.", _PREEMPTIONS),
}
# These take vLLM's 1-2-5 buckets up to the context length.
_TOKEN_HISTOGRAMS = {
    "request_prompt_tokens": "Number of prefill tokens processed.",
    "request_generation_tokens": "Number of generation tokens processed.",
    "request_max_num_generation_tokens": "Histogram of maximum number of requested generation tokens.",
    "request_params_max_tokens": "Histogram of the max_tokens request parameter.",
    "request_prefill_kv_computed_tokens": (
        "Histogram of new KV tokens computed during prefill (excluding cached tokens)."
    ),
}
_FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")
_TOKEN_SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")
_REJECTIONS = ("max_num_queued_reqs", "max_num_queued_tokens")


class Finished(NamedTuple):
    """What is booked when a sequence ends by itself. `max_tokens` is its limit."""

    sequence: Sequence
    finish_reason: str
    max_tokens: int


class EngineTotals(NamedTuple):
    """The engine's counters and gauges, for whoever tells them under other names."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    succeeded: int
    rejected: int
    running: int
    waiting: int
    kv_usage_ratio: float
    finished_prompt_tokens: int
    finished_completion_tokens: int


class EngineMetrics:
    """Registry and recording of one engine."""

    def __init__(self, config: SimulatorConfig, scheduler: Scheduler) -> None:
        self.registry = CollectorRegistry()
        GCCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        ProcessCollector(registry=self.registry)
        self._scheduler = scheduler
        self._finished = [0, 0, 0]  # sequences, their prompt and completion tokens
        self._rejected = 0
        self._labels = {"model_name": config.model, "engine": "0"}
        self._model = config.model
        self._gauges(config, scheduler)
        self._counters = {name: self._counter(name, text) for name, text in _COUNTERS.items()}
        self._by_source = self._labelled_counter(
            "prompt_tokens_by_source", "Number of prompt tokens by source.", "source", _TOKEN_SOURCES
        )
        self._success = self._labelled_counter(
            "request_success", "Count of successfully processed requests.", "finished_reason", _FINISH_REASONS
        )
        rejections = Counter(
            "vllm:admission_rejections",
            "Number of admission attempts rejected by a queue limit, by reason.",
            ("model_name", "reason"),
            registry=self.registry,
        )
        self._rejections = {reason: rejections.labels(config.model, reason) for reason in _REJECTIONS}
        self._histograms = {name: self._histogram(name, *rest) for name, rest in _HISTOGRAMS.items()}
        tokens = _one_two_five(config.max_model_len)
        self._histograms |= {name: self._histogram(name, text, tokens) for name, text in _TOKEN_HISTOGRAMS.items()}
        self._http = Counter(
            "http_requests",
            "Total number of requests by method, status and handler.",
            ("handler", "method", "status"),
            registry=self.registry,
        )
        self._observe_gap = self._histograms["inter_token_latency_seconds"].observe

    def _gauges(self, config: SimulatorConfig, scheduler: Scheduler) -> None:
        """State is read when scraped: cheaper than setting it every step, and never stale."""
        running = self._gauge("num_requests_running", "Number of requests in model execution batches.")
        running.set_function(lambda: len(scheduler.running))
        waiting = self._gauge("num_requests_waiting", "Number of requests waiting to be processed.")
        waiting.set_function(lambda: len(scheduler.waiting))
        by_reason = Gauge(
            "vllm:num_requests_waiting_by_reason",
            "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling capacity; "
            "'deferred' = deferred by transient constraints (LoRA budget, KV transfer, blocked status). "
            "Sum of all reasons equals vllm:num_requests_waiting.",
            (*self._labels, "reason"),
            registry=self.registry,
        )
        by_reason.labels(**self._labels, reason="capacity").set_function(lambda: len(scheduler.waiting))
        by_reason.labels(**self._labels, reason="deferred")
        usage = self._gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.")
        usage.set_function(lambda: scheduler.kv.usage_ratio)
        info = {
            "block_size": str(BLOCK_TOKENS),
            "enable_prefix_caching": "True",
            "num_gpu_blocks": str(config.kv_tokens // BLOCK_TOKENS),
            "engine": "0",
        }
        text = "Information of the LLMEngine CacheConfig"
        Gauge("vllm:cache_config_info", text, tuple(info), registry=self.registry).labels(**info).set(1)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"vllm:{name}", text, tuple(self._labels), registry=self.registry).labels(**self._labels)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"vllm:{name}", text, tuple(self._labels), registry=self.registry).labels(**self._labels)

    def _labelled_counter(self, name: str, text: str, label: str, values: Iterable[str]) -> dict[str, Counter]:
        counter = Counter(f"vllm:{name}", text, (*self._labels, label), registry=self.registry)
        return {value: counter.labels(**self._labels, **{label: value}) for value in values}

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        histogram = Histogram(f"vllm:{name}", text, tuple(self._labels), buckets=buckets, registry=self.registry)
        return histogram.labels(**self._labels)

    def step(self, step: Step, got_token: list[Sequence]) -> None:
        """Book a finished step and the sequences that got a token in it."""
        computed = 0
        for sequence in got_token:
            if sequence.generated == 1:
                computed += self._first_token(sequence)
            else:
                self._observe_gap(sequence.gap_s)
        counters, histograms = self._counters, self._histograms
        counters["generation_tokens"].inc(len(got_token))
        histograms["iteration_tokens_total"].observe(computed + len(got_token))
        if step.preempted:
            counters["num_preemptions"].inc(len(step.preempted))
        for sequence in step.admitted:
            if sequence.preemptions == 0:
                counters["prefix_cache_queries"].inc(sequence.prompt_tokens)
                counters["prefix_cache_hits"].inc(sequence.cached_tokens)

    def _first_token(self, sequence: Sequence) -> int:
        """Book a prompt that is done; how many of its tokens were computed."""
        computed = sequence.prompt_tokens - sequence.cached_tokens
        self._counters["prompt_tokens"].inc(sequence.prompt_tokens)
        self._counters["prompt_tokens_cached"].inc(sequence.cached_tokens)
        self._by_source["local_compute"].inc(computed)
        self._by_source["local_cache_hit"].inc(sequence.cached_tokens)
        if sequence.first_token_s is not None:
            self._histograms["time_to_first_token_seconds"].observe(sequence.first_token_s - sequence.arrival_s)
        return computed

    def embedded(self, tokens: int) -> None:
        """Book texts that were read, and nothing generated for them."""
        self._counters["prompt_tokens"].inc(tokens)
        self._by_source["local_compute"].inc(tokens)

    def finished(self, finished: Finished) -> None:
        """Book a sequence that ended by itself, not by abort."""
        sequence, histograms = finished.sequence, self._histograms
        admitted_s, first_s, last_s = sequence.admitted_s, sequence.first_token_s, sequence.last_token_s
        if admitted_s is None or first_s is None or last_s is None:
            raise ValueError(f"sequence {sequence.key} has not finished")
        self._success[finished.finish_reason].inc()
        for position, amount in enumerate((1, sequence.prompt_tokens, sequence.generated)):
            self._finished[position] += amount
        histograms["e2e_request_latency_seconds"].observe(last_s - sequence.arrival_s)
        histograms["request_queue_time_seconds"].observe(admitted_s - sequence.arrival_s)
        histograms["request_inference_time_seconds"].observe(last_s - admitted_s)
        histograms["request_prefill_time_seconds"].observe(first_s - admitted_s)
        histograms["request_decode_time_seconds"].observe(last_s - first_s)
        histograms["request_num_preemptions"].observe(sequence.preemptions)
        histograms["request_prefill_kv_computed_tokens"].observe(sequence.prompt_tokens - sequence.cached_tokens)
        histograms["request_prompt_tokens"].observe(sequence.prompt_tokens)
        histograms["request_generation_tokens"].observe(sequence.generated)
        gaps = sequence.generated - 1
        histograms["request_time_per_output_token_seconds"].observe((last_s - first_s) / gaps if gaps else 0.0)
        histograms["request_params_max_tokens"].observe(finished.max_tokens)

    def request_finished(self, n: int, longest: int) -> None:
        """Book a request all of whose sequences ended by themselves: its n, and the longest answer."""
        self._histograms["request_params_n"].observe(n)
        self._histograms["request_max_num_generation_tokens"].observe(longest)

    def totals(self) -> EngineTotals:
        """Return where the counters and gauges are."""
        counters, scheduler = self._counters, self._scheduler
        succeeded, prompt, completion = self._finished
        return EngineTotals(
            prompt_tokens=_value(counters["prompt_tokens"]),
            cached_tokens=_value(counters["prompt_tokens_cached"]),
            completion_tokens=_value(counters["generation_tokens"]),
            succeeded=succeeded,
            rejected=self._rejected,
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            kv_usage_ratio=scheduler.kv.usage_ratio,
            finished_prompt_tokens=prompt,
            finished_completion_tokens=completion,
        )

    def rejected(self) -> None:
        self._rejected += 1
        self._rejections["max_num_queued_reqs"].inc()

    def http(self, handler: str, method: str, status: int) -> None:
        self._http.labels(handler, method, f"{status // 100}xx").inc()

    def exposition(self) -> bytes:
        return generate_latest(self.registry)


def _value(counter: Counter) -> int:
    (sample,) = [sample for metric in counter.collect() for sample in metric.samples if sample.name.endswith("_total")]
    return int(sample.value)


def _one_two_five(limit: int) -> tuple[float, ...]:
    """1, 2, 5, 10, … up to the limit."""
    buckets: list[float] = []
    scale = 1
    while True:
        for mantissa in (1, 2, 5):
            if mantissa * scale > limit:
                return tuple(buckets)
            buckets.append(mantissa * scale)
        scale *= 10
