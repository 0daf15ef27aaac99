"""What a metric is: the types of the table, and the labels that may stand on them."""

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
    TIME = "Where the time went"
    TOKENS = "Tokens"
    COST = "Cost"
    BUDGETS = "Budgets"
    DRIFT = "Drift and quality"
    ENERGY = "Energy"
    GPU = "GPU"
    ENGINE = "Engine"
    RELAY = "Relay (data plane)"
    TAP = "Tap (relay to collector)"
    OTLP = "OTLP export and content"
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
    scale: int = 1  # the store holds integers of 1/scale of the unit: their sums are exact, as floats' are not
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
    "`embeddings`, and `rerank`, `score`, `classify`, `pooling`, `transcription`; `other` for routes that generate "
    "nothing, and those that nothing here can read",
    "outcome": ", ".join(f"`{outcome}`" for outcome in Outcome),
    "error_type": ", ".join(f"`{error}`" for error in ErrorType if error),
    "type": ", ".join(f"`{token_type}`" for token_type in TokenType),
    "source": ", ".join(f"`{source}`" for source in TokenSource),
    "reason": "a closed set, listed with the metric",
    "phase": "`proxy`, `queue`, `prefill`, `wait` (queue and prefill, not told apart), `decode`, `inference` (prefill "
    "and decode, not told apart), `engine` (with the engine, not accounted for), `client`",
    "victims": "`own`: requests of the same tenant; `others`: of other tenants",
    "worker": "the relay process: 0 to the number of relay processes minus one",
    "basis": "`price`: by the configured price of tokens; `gpu`: by what the machine costs",
    "budget": "the name of a configured budget",
    "feature": "the feature that clients name in `x-inferwatch-feature`; of budgets with `per: [feature]`",
    "unit": "`tokens`, `prompt_tokens`, `completion_tokens`, `gpu_seconds`, `joules`; `dollars`",
    "bound": "`low`, `expected`, `high`",
    "percent": "one of a budget's `warn_percent`",
    "state": "a closed set, listed with the metric",
    "decision": "`admitted`, `rejected`, `would_reject`, `cut`",
    "catalogue_entry": "the name of a configured entry of the price catalogue, as `groq/gpt-oss-120b`",
    "signal": "`traces`, `metrics`, `logs`",
    "result": "a closed set, listed with the metric",
    "entity": "the name of an entity of `privacy.entities`, or of one of `privacy.custom`",
    "stage": "the part of the collector in which an error was caught",
    "kind": "`hour`, `five_minutes`: spending in such buckets; `huge_prompts`, `retry_storm`, `agent_loop`",
    "label": "the label whose value became `other`; `combination` when the number of label combinations was the limit",
    "upstream": "host:port of a configured engine",
    "engine": "what the engine is: `vllm`, `sglang`, `tgi`, `llamacpp`, `trtllm`, `triton`",
    "version": "the version of Inferwatch",
    "gpu": "the GPU's number as its driver counts (by PCI bus, not by CUDA_VISIBLE_DEVICES)",
    "uuid": "the GPU's own id, `GPU-…`; OpenTelemetry's `hw.id`",
    "gpu_model": "the product's name; OpenTelemetry's `hw.model`",
    "vendor": "`nvidia`, `amd`; another source of readings gives its own",
    "driver_version": "of the GPU's driver",
    "pci_bus_id": "where the GPU is plugged in, as `00000000:0F:00.0`",
    "clock": "`sm` (multiprocessors), `memory`",
    "severity": "`corrected`, `uncorrected`",
    "direction": "of a GPU's links `receive` (into the GPU), `transmit`; of drift `prompt`, `answer`, `pace`",
    "thumb": "`up`, `down`, `none`",
    "sign": "a closed set, listed with the metric",
    "drift_feature": "what is looked at in requests, of a closed set: `completion_tokens`, `finish_length`, …",
    "xid": "the number of NVIDIA's Xid error; `other`",
    "mig_uuid": "the MIG instance's own id, `MIG-…`",
    "mig_profile": "its size, as `3g.40gb`",
}
