"""What inference servers there are, as data: how to know one, what may be asked of it, and what its words mean.

Both planes read it: the relay asks an engine for what its profile allows and for nothing else, `docs/engines.md` is
written from it, and tests hold that each profile has a persona of the simulator and a conformance test.

A profile's `asked` needs evidence: that the engine takes it, where it puts the answer, and that the answer can be taken
out again without a trace. Where that was not seen or read in its source, nothing is asked.
"""

import enum
from typing import Final

import msgspec

AUTO: Final = "auto"

CHAT: Final = "/chat/completions"
COMPLETIONS: Final = "/completions"
INVOCATIONS: Final = "/invocations"  # SageMaker's, for the bodies of several routes


class Asked(enum.StrEnum):
    """What the relay asks for on its own account, and takes out of the reply again."""

    NOTHING = "nothing"
    USAGE = "usage"  # `stream_options.include_usage`: an event more at the end
    CONTINUOUS = "continuous usage"  # that, and `continuous_usage_stats`: a usage on every event


class Cached(enum.StrEnum):
    """How the engine's count of cached prompt tokens stands to its count of the prompt. Booked is always a subset."""

    SUBSET = "part of the prompt's count"
    APART = "beside it; added up when booked"
    UNTOLD = "not told"


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One engine. Texts are for the reference page.

    Attributes:
        seen: what the facts here come from: the version that was run, read or recorded.
        apis: the APIs of it that are read.
        asked: on streams of the routes in `asked_on`.
        asked_on: ends of their paths.
        lax_options: in `stream_options` it takes pydantic's lax booleans: 0 and "no" are false.
        bare_options: what it takes an object of `stream_options` without `include_usage` for; None: it is not known.
        continuous_alone: it takes `continuous_usage_stats` without `include_usage`.
        null_usage: on completions, an event without usage has `"usage":null`.
        asked_details: `parameters.details` on TGI's own streams.
        fingerprint: without usage its finish events carry `system_fingerprint`, which must be put back.
        start: a command that starts it on `url` with all that we can use; "" for what somebody else runs.
        url: where it then listens: `upstream.url`.
        ask: path and body of a first request; "": an OpenAI chat.
        ask_headers: what somebody else's service refuses a request without; KEY is the reader's.
        is_told: `upstream.engine` must name it: asking would go to somebody else's service, or tells nothing.
        metrics_url: where its metrics are, if not under `url`: `engine_metrics.url`.
        metrics: it has Prometheus metrics that are read, under this name in `engine/names.py`; "" has none.
    """

    name: str
    title: str
    seen: str
    known_by: str
    apis: str
    asked: Asked = Asked.NOTHING
    asked_on: tuple[str, ...] = (CHAT, COMPLETIONS)
    lax_options: bool = False
    bare_options: bool | None = None
    continuous_alone: bool = False
    null_usage: bool = False
    asked_details: bool = False
    fingerprint: bool = False
    cached: Cached = Cached.SUBSET
    reasoning: str = "part of the completion's count"
    errors: str
    end: str
    exact: str
    estimated: str
    flags: str = "none"
    start: str = ""
    url: str = "http://127.0.0.1:8000"
    ask: tuple[str, str] = ("", "")
    ask_headers: tuple[str, ...] = ()
    is_told: bool = False
    metrics_url: str = ""
    metrics: str = ""


VLLM: Final = Profile(
    name="vllm",
    title="vLLM",
    seen="0.32.0, run",
    known_by='`/version` is `{"version": …}`, and `/v1/models` is not `owned_by` another engine',
    apis="chat, completions, responses, messages, embeddings, pooling, score, rerank, classify, transcriptions",
    asked=Asked.CONTINUOUS,
    asked_on=(CHAT, COMPLETIONS, INVOCATIONS),
    lax_options=True,
    bare_options=False,  # in 0.32; in old versions it asked for usage
    fingerprint=True,
    cached=Cached.SUBSET,
    errors='`{"error": {…}}`; in a stream the same as an event, then `[DONE]`, at 200',
    end="`[DONE]`; responses: `response.completed`, messages: `message_stop`",
    exact="all counts, also of chat and completions streams that are cut",
    estimated="completions of responses and messages streams that are cut: an event is a token",
    flags="`--enable-prompt-tokens-details` for cached tokens; `--enable-per-request-metrics` for its own times",
    metrics="vllm",
    start="vllm serve MODEL --host 127.0.0.1 --enable-prompt-tokens-details --enable-per-request-metrics",
)

TGI: Final = Profile(
    name="tgi",
    title="Text Generation Inference",
    seen="3.3 (db931fcf), read; replies recorded",
    known_by="`/info` has `router` and `max_total_tokens`",
    apis="`/`, `/generate`, `/generate_stream`, chat, completions, `/invocations`, `/vertex`",
    asked=Asked.USAGE,
    asked_on=(CHAT,),  # on completions everybody gets usage, and there are no `stream_options`
    asked_details=True,
    cached=Cached.UNTOLD,
    reasoning="not told",
    errors='flat `{"error": "…", "error_type": "…"}`; of streams all of them, overload too, as one event at 200',
    end="the event with `generated_text`; chat and completions: `[DONE]`. A tool call may have no finish reason",
    exact="plain replies (head, `details`); streams that end",
    estimated=(
        "completions of streams that are cut: an event is a token, and with its own API that is exact. Of a chat with "
        "tools that answers in text, TGI generates twice and reports the second alone (`partial_usage`)"
    ),
    metrics="tgi",
    start="text-generation-launcher --model-id MODEL --hostname 127.0.0.1 --port 3000",
    url="http://127.0.0.1:3000",
)

SGLANG: Final = Profile(
    name="sglang",
    title="SGLang",
    seen="0.5.23, read",
    known_by="`/v1/models` is `owned_by` `sglang`",
    apis="`/generate`, chat, completions, responses, messages, embeddings, rerank, score, classify, `/api/chat`",
    asked=Asked.CONTINUOUS,
    asked_on=(CHAT, COMPLETIONS, INVOCATIONS),
    lax_options=True,
    bare_options=False,
    continuous_alone=True,
    errors='flat `{"object": "error", …}`; in a stream `{"error": {…}}`; an abort with a status is one as well',
    end="`[DONE]`, after chunks with `sglext`",
    exact="all counts, also of streams that are cut",
    estimated="streams of its Ollama routes: their last record has no counts",
    flags="`--enable-cache-report` for cached tokens; `--enable-metrics` for its metrics",
    metrics="sglang",
    start="python -m sglang.launch_server --model-path MODEL --port 30000 --enable-metrics --enable-cache-report",
    url="http://127.0.0.1:30000",
)

TRTLLM: Final = Profile(
    name="trtllm",
    title="TensorRT-LLM (trtllm-serve)",
    seen="1.x, read",
    known_by="`/v1/models` is `owned_by` `tensorrt_llm`",
    apis="chat, completions, responses",
    asked=Asked.CONTINUOUS,
    lax_options=True,
    bare_options=True,
    null_usage=True,
    errors='`{"error": {…}}` or flat, as vLLM once',
    end="`[DONE]`; a list of prompts ends with one usage for each, which are added",
    exact="all counts, also of streams that are cut",
    estimated="completions of responses streams that are cut",
    flags="`return_perf_metrics` for its metrics",
    metrics="trtllm",
    start="trtllm-serve MODEL --host 127.0.0.1 --port 8000",
)

TRITON: Final = Profile(
    name="triton",
    title="Triton generate",
    seen="e1db8a60, documentation and source",
    known_by="`/v2` is of a server named `triton`",
    apis="`/v2/models/{model}/generate`, `…/generate_stream`",
    cached=Cached.UNTOLD,
    reasoning="not told",
    errors='`{"error": "…"}`; after the first reply of a stream at 200',
    end="the end of the body; nothing tells a cut from an end",
    exact="where the model makes its counts output tensors (vLLM's backend: `return_num_output_tokens`)",
    estimated="completions of streams otherwise: an event with text is a token. Plain replies: unknown",
    flags="counts as output tensors of the model",
    metrics="triton",
    start="tritonserver --model-repository=models --http-address=127.0.0.1 --metrics-port=8002",
    metrics_url="http://127.0.0.1:8002/metrics",
    ask=("/v2/models/MODEL/generate", '{"text_input": "Say hello.", "max_tokens": 20}'),
)

LLAMACPP: Final = Profile(
    name="llamacpp",
    title="llama.cpp server",
    seen="b1-0c1e570 (llama-cpp-python 0.3.36), run",
    known_by="its header `Server: llama.cpp`",
    apis="`/completion`, `/infill`, chat, completions, responses, messages, embeddings, rerank",
    errors='`{"error": {…}}`; in a stream the same as an event, and no `[DONE]`',
    end="`[DONE]`; its own routes: the event with `stop: true`",
    exact="its own routes, also of streams that are cut; chat and completions by `timings`, which come unasked",
    estimated=(
        "completions of chat and completions streams that are cut. Of a plain reply with several choices it reports "
        "the first alone (`partial_usage`)"
    ),
    flags="`--metrics` for its metrics",
    metrics="llamacpp",
    start="llama-server -m MODEL.gguf --host 127.0.0.1 --port 8081 --metrics",
    url="http://127.0.0.1:8081",
)

OLLAMA: Final = Profile(
    name="ollama",
    title="Ollama",
    seen="fb307609, read; replies recorded",
    known_by='`/api/version` is `{"version": …}`',
    apis="`/api/chat`, `/api/generate`, `/api/embed`, chat, completions, responses, messages, embeddings",
    cached=Cached.UNTOLD,
    reasoning="not told",
    errors='`{"error": "…"}`, after the first record as a record at 200',
    end="the record with `done: true`; OpenAI's routes: `[DONE]`",
    exact="its own routes; OpenAI's routes where the client asks for usage",
    estimated="completions of streams that are cut, and of OpenAI's routes without usage: an event is a token",
    start="ollama serve",
    url="http://127.0.0.1:11434",
)

TRANSFORMERS: Final = Profile(
    name="transformers",
    title="Transformers serve",
    seen="5.19.0, run",
    known_by='`/health` is `{"status": "ok"}` with an `x-request-id`',
    apis="chat, completions, responses, transcriptions",
    cached=Cached.UNTOLD,
    reasoning="not told",
    errors='`{"detail": "…"}`; unknown fields are refused with 422; in a stream an event that may be no JSON',
    end="the end of the body; chat: after a finish reason and usage, unasked",
    exact="all replies that end",
    estimated="completions of streams that are cut: an event is a token",
    start="transformers serve --host 127.0.0.1 --port 8000",
)

ANTHROPIC: Final = Profile(
    name="anthropic",
    title="Anthropic Messages",
    seen="replies recorded",
    known_by="configuration; its replies by their route",
    apis="messages",
    cached=Cached.APART,
    reasoning="part of the completion's count, not told apart",
    errors='`{"type": "error", "error": {…}}`; in a stream `event: error` at 200',
    end="`message_stop`",
    exact="all replies that end; compaction and fallbacks from `iterations`; the prompt of streams that are cut",
    estimated="completions of streams that are cut: an event is a token, and has several",
    url="https://api.anthropic.com",
    ask=(
        "/v1/messages",
        '{"model": "MODEL", "max_tokens": 20, "messages": [{"role": "user", "content": "Say hello."}]}',
    ),
    ask_headers=("x-api-key: KEY", "anthropic-version: 2023-06-01"),
    is_told=True,
)

OPENAI: Final = Profile(
    name="openai",
    title="OpenAI-compatible APIs",
    seen="replies recorded of OpenAI, Azure, Groq, Together, OpenRouter, Moonshot, Hugging Face's router",
    known_by="configuration; its replies by their route",
    apis="chat, completions, responses, embeddings, rerank, transcriptions",
    errors='`{"error": {…}}`, in a stream as an event at 200',
    end="`[DONE]`; responses: `response.completed`, `response.incomplete`, `response.failed`",
    exact="plain replies; streams of which the client asks for usage; Groq's and DeepSeek's in any case",
    estimated="completions of streams without usage, and of those that are cut: an event is a token",
    url="https://api.openai.com",
    ask_headers=("authorization: Bearer KEY",),
    is_told=True,
)

UNKNOWN: Final = Profile(
    name="unknown",
    title="Anything else",
    seen="nothing",
    known_by="none of the above",
    apis="all of the above, by route and shape",
    cached=Cached.SUBSET,
    errors="all of the above",
    end="as the reply's format has it",
    exact="what the reply says",
    estimated="completions of streams without a count",
)

PROFILES: Final[dict[str, Profile]] = {
    profile.name: profile
    for profile in (VLLM, TGI, SGLANG, TRTLLM, TRITON, LLAMACPP, OLLAMA, TRANSFORMERS, ANTHROPIC, OPENAI, UNKNOWN)
}


def profile_of(name: str) -> Profile:
    """Return the profile of that name; of one that is not known yet, or not at all, that of nobody."""
    return PROFILES.get(name, UNKNOWN)
