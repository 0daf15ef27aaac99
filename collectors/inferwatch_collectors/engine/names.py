"""What each engine calls what we read: data, by engine.

A quantity has alternatives, newest version first; the first of which every name is there counts. Names that stand
together in one alternative are added up. The names are those of vLLM 0.32, SGLang 0.5, TGI 3, llama.cpp since August
2026 (before, its prompt count leaves out what came from the cache and nothing tells how much that was), trtllm-serve
(at `/prometheus/metrics`) and Triton's TensorRT-LLM backend.
"""

from typing import Final

import msgspec


class Term(msgspec.Struct, frozen=True):
    """One metric of an engine, or those of its series that have the labels in `where`."""

    name: str
    where: tuple[tuple[str, str], ...] = ()


class Total(msgspec.Struct, frozen=True):
    """The sum of all series of all `terms`."""

    terms: tuple[Term, ...]


class Largest(msgspec.Struct, frozen=True):
    """The largest series of `term`."""

    term: Term


Source = Total | Largest


class EngineNames(msgspec.Struct, frozen=True, kw_only=True):
    """One engine.

    Attributes:
        sources: field of `EngineReading` -> alternatives.
        comparable: types of tokens that it counts for the requests it reports them for, and for no others.
        prompt_per_choice: with n answers to a prompt it counts the prompt n times. If not known to, anything from once
            to n times is taken as right.
    """

    engine: str
    sources: dict[str, tuple[Source, ...]]
    comparable: frozenset[str] = frozenset({"prompt", "completion"})
    prompt_per_choice: bool = False


def _total(*names: str) -> Total:
    return Total(tuple(Term(name) for name in names))


def _where(name: str, label: str, value: str) -> Total:
    return Total((Term(name, ((label, value),)),))


def _largest(name: str) -> Largest:
    return Largest(Term(name))


# Every process that uses one of Prometheus' own client libraries has it.
_STARTED: Final = _largest("process_start_time_seconds")

ENGINES: Final = (
    EngineNames(
        engine="vllm",
        prompt_per_choice=True,
        sources={
            "requests_running": (_total("vllm:num_requests_running"),),
            "requests_waiting": (_total("vllm:num_requests_waiting"),),
            "kv_cache_usage_ratio": (_largest("vllm:kv_cache_usage_perc"), _largest("vllm:gpu_cache_usage_perc")),
            "preemptions": (_total("vllm:num_preemptions_total"),),
            "prefix_cache_queries": (
                _total("vllm:prefix_cache_queries_total"),
                _total("vllm:gpu_prefix_cache_queries_total"),
            ),
            "prefix_cache_hits": (_total("vllm:prefix_cache_hits_total"), _total("vllm:gpu_prefix_cache_hits_total")),
            "prompt_tokens": (_total("vllm:prompt_tokens_total"),),
            "cached_tokens": (_total("vllm:prompt_tokens_cached_total"),),
            "completion_tokens": (_total("vllm:generation_tokens_total"),),
            "started_s": (_STARTED, _largest("vllm:generation_tokens_created")),
        },
    ),
    EngineNames(
        engine="sglang",
        sources={
            "requests_running": (_total("sglang:num_running_reqs"),),
            "requests_waiting": (
                _total("sglang:num_queue_reqs", "sglang:num_grammar_queue_reqs"),
                _total("sglang:num_queue_reqs"),
            ),
            "kv_cache_usage_ratio": (_largest("sglang:token_usage"),),
            "preemptions": (_total("sglang:num_retracted_requests_total"),),
            "prefix_cache_hits": (_total("sglang:cached_tokens_total"),),
            "prompt_tokens": (_total("sglang:prompt_tokens_total"),),
            "cached_tokens": (_total("sglang:cached_tokens_total"),),
            "completion_tokens": (_total("sglang:generation_tokens_total"),),
            "started_s": (_STARTED,),
        },
    ),
    EngineNames(
        engine="tgi",
        comparable=frozenset({"completion"}),  # the prompt is counted when it is validated, also if it is refused then
        sources={
            "requests_running": (_total("tgi_batch_current_size"),),
            "requests_waiting": (_total("tgi_queue_size"),),
            "prompt_tokens": (_total("tgi_request_input_length_sum"),),
            "completion_tokens": (_total("tgi_request_generated_tokens_sum"),),
        },
    ),
    EngineNames(
        engine="llamacpp",
        sources={
            "requests_running": (_total("llamacpp:requests_processing"),),
            "requests_waiting": (_total("llamacpp:requests_deferred"),),
            "prompt_tokens": (_total("llamacpp:prompt_tokens_total", "llamacpp:prompt_tokens_cached_total"),),
            "cached_tokens": (_total("llamacpp:prompt_tokens_cached_total"),),
            "completion_tokens": (_total("llamacpp:tokens_predicted_total"),),
        },
    ),
    EngineNames(
        engine="trtllm",
        sources={
            "requests_running": (_total("trtllm_num_requests_running"),),
            "requests_waiting": (_total("trtllm_num_requests_waiting"),),
            "kv_cache_usage_ratio": (_largest("trtllm_kv_cache_utilization"),),
            "prompt_tokens": (_total("trtllm_prompt_tokens_total"),),
            "cached_tokens": (_total("trtllm_prompt_cached_tokens_total"),),
            "completion_tokens": (_total("trtllm_generation_tokens_total"),),
            "started_s": (_STARTED,),
        },
    ),
    EngineNames(
        engine="triton",
        comparable=frozenset(),  # what it exports of tokens is of the present step only
        sources={
            "requests_running": (_where("nv_trt_llm_request_metrics", "request_type", "scheduled"),),
            "requests_waiting": (_where("nv_trt_llm_request_metrics", "request_type", "waiting"),),
            "kv_cache_usage_ratio": (
                Largest(Term("nv_trt_llm_kv_cache_block_metrics", (("kv_cache_block_type", "fraction"),))),
            ),
        },
    ),
)

# Ranks of one model instance that work on the same requests: where all of them export a number, it is one number.
# (`dp_rank` and vLLM's `engine` are instances that share the requests out; theirs are added.)
MIRRORED_RANKS: Final = frozenset({"tp_rank", "pp_rank", "moe_ep_rank"})


def _wanted() -> frozenset[str]:
    terms: set[str] = set()
    for engine in ENGINES:
        for alternatives in engine.sources.values():
            for source in alternatives:
                terms |= {term.name for term in source.terms} if isinstance(source, Total) else {source.term.name}
    return frozenset(terms)


# All names that a scrape looks for.
WANTED: Final = _wanted()

BY_ENGINE: Final = {names.engine: names for names in ENGINES}
