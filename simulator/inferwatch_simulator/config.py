"""What the simulated engine is told at start: its speed, its limits, and the vLLM flags that change its replies."""

import math

import msgspec

VLLM_VERSION = "0.32.0"  # the release whose bytes the persona reproduces; told by /version and system_fingerprint

MAX_PORT = 65_535


class SimulatorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of one simulated engine.

    The speed defaults resemble an 8-billion-parameter model on one large data-centre GPU: about 8 ms per decode step
    when alone, 20 ms with 120 answers in the batch, and 20,000 prompt tokens per second.

    Args:
        port: 0 picks a free port.
        seed: the same seed, prompt and parameters give the same answer.
        max_num_seqs: sequences decoded together; more wait in the queue.
        max_num_batched_tokens: prompt and decode tokens computed in one step (longer prompts take several steps).
        kv_tokens: tokens whose keys and values fit in memory; beyond them the youngest sequence is preempted.
        prefill_tokens_per_s: rate at which prompt tokens that are not cached are computed.
        decode_step_ms_base: duration of a step for a batch of none.
        decode_step_ms_per_seq: what each decoded sequence adds to it.
        default_max_tokens: limit of a chat answer whose request names none.
        mean_output_tokens: mean length of answers that end by themselves.
        speed: divides every simulated duration; 1.0 is real time.
        stream_interval: tokens per streamed chunk after the first.
        sse_keep_alive_interval_s: silence after which a stream gets a comment; None writes none.
        max_num_queued_reqs: sequences, waiting and running, beyond which new ones are refused with 503; None never.
        version: what the vLLM persona says that it is; its bytes are those of VLLM_VERSION.
    """

    engine: str = "vllm"
    host: str = "127.0.0.1"
    port: int = 8000
    model: str = "simulated-8b"
    seed: int = 0
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    kv_tokens: int = 400_000
    prefill_tokens_per_s: float = 20_000.0
    decode_step_ms_base: float = 8.0
    decode_step_ms_per_seq: float = 0.1
    default_max_tokens: int = 2048
    mean_output_tokens: float = 180.0
    speed: float = 1.0
    max_model_len: int = 32_768
    enable_prompt_tokens_details: bool = False
    force_include_usage: bool = False
    stream_interval: int = 1
    sse_keep_alive_interval_s: float | None = None
    enable_per_request_metrics: bool = False
    max_num_queued_reqs: int | None = None
    version: str = VLLM_VERSION

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ValueError(f"engine: {self.engine!r} is not simulated, expected one of {', '.join(ENGINES)}")
        for name in (*_POSITIVE, *_NOT_NEGATIVE, "sse_keep_alive_interval_s"):
            if not math.isfinite(getattr(self, name) or 0):
                raise ValueError(f"{name}: {getattr(self, name)} is no number")
        if self.port > MAX_PORT:
            raise ValueError(f"port: {self.port} must not be above {MAX_PORT}")
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: {getattr(self, name)} must be above 0")
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)} must not be negative")
        if self.kv_tokens < self.max_model_len:
            # A sequence that cannot fit alone would be preempted by itself for ever; vLLM refuses to start, too.
            raise ValueError(
                f"kv_tokens: {self.kv_tokens} cannot hold one sequence of max_model_len {self.max_model_len}"
            )
        if self.sse_keep_alive_interval_s is not None and self.sse_keep_alive_interval_s <= 0:
            raise ValueError(f"sse_keep_alive_interval_s: {self.sse_keep_alive_interval_s} must be above 0")


# `vllm` has routes of its own, the others are in `personas.all`.
ENGINES = (
    "vllm",
    "tgi",
    "sglang",
    "trtllm",
    "triton",
    "llamacpp",
    "ollama",
    "transformers",
    "anthropic",
    "openai",
)
_POSITIVE = (
    "max_num_seqs",
    "max_num_batched_tokens",
    "prefill_tokens_per_s",
    "default_max_tokens",
    "mean_output_tokens",
    "speed",
    "max_model_len",
    "stream_interval",
)
_NOT_NEGATIVE = ("port", "decode_step_ms_base", "decode_step_ms_per_seq")
