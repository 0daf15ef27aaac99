"""From each engine's names to ours."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.engine.names import ENGINES, WANTED
from inferwatch_collectors.engine.normalise import EngineReading, read
from inferwatch_collectors.engine.parse import ParseError

EXPECTED: dict[str, dict[str, Any]] = {
    "vllm": {
        "requests_running": 0, "requests_waiting": 0, "kv_cache_usage_ratio": 0, "preemptions": 0,
        "prefix_cache_queries": 63, "prefix_cache_hits": 0, "prompt_tokens": 63, "cached_tokens": 0,
        "completion_tokens": 60, "started_s": 1795243925.74,
    },
    "sglang": {
        "requests_running": 7, "requests_waiting": 4, "kv_cache_usage_ratio": 0.5, "preemptions": 2,
        "prefix_cache_hits": 1024, "prompt_tokens": 8_129_000, "cached_tokens": 1024, "completion_tokens": 7_557_600,
    },
    "tgi": {
        "requests_running": 12, "requests_waiting": 4, "prompt_tokens": 18_000, "completion_tokens": 9_123,
    },
    "llamacpp": {
        "requests_running": 2, "requests_waiting": 1, "prompt_tokens": 18_000, "cached_tokens": 311,
        "completion_tokens": 4_096,
    },
    "trtllm": {
        "requests_running": 3, "requests_waiting": 0, "kv_cache_usage_ratio": 0.125, "prompt_tokens": 1_800,
        "cached_tokens": 450, "completion_tokens": 30, "started_s": 1795243925.74,
    },
    "triton": {"requests_running": 7, "requests_waiting": 1, "kv_cache_usage_ratio": 0.75},
}  # fmt: skip


@pytest.mark.parametrize("engine", EXPECTED)
def test_each_engine(engine: str, text: Callable[[str], bytes]) -> None:
    """Every engine is recognised, and what it does not tell is unknown."""
    reading = read(text(engine))
    assert reading == EngineReading(engine=engine, **EXPECTED[engine])


def test_every_engine_has_a_text() -> None:
    """No engine is in the table without a text to test it with."""
    assert EXPECTED.keys() == {names.engine for names in ENGINES}


def test_fields_are_fields() -> None:
    """The table names fields that a reading has."""
    fields = set(EngineReading.__struct_fields__)
    assert all(names.sources.keys() <= fields for names in ENGINES)


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        (b"vllm:gpu_cache_usage_perc 0.5\n", "kv_cache_usage_ratio", 0.5),
        (b"vllm:gpu_prefix_cache_hits_total 7\n", "prefix_cache_hits", 7),
        (b'vllm:generation_tokens_total{engine="0"} 7\nvllm:generation_tokens_created{engine="0"} 99.5\n', "started_s", 99.5),
        (b"sglang:num_queue_reqs 3\n", "requests_waiting", 3),
        (b'vllm:num_requests_running{engine="0"} 3\nvllm:num_requests_running{engine="1"} 4\n', "requests_running", 7),
        (b'vllm:kv_cache_usage_perc{engine="0"} 0.3\nvllm:kv_cache_usage_perc{engine="1"} 0.4\n', "kv_cache_usage_ratio", 0.4),
        # A count before August 2026 leaves out what came from the cache, and nothing tells how much that was.
        (b"llamacpp:prompt_tokens_total 3\nllamacpp:tokens_predicted_total 4\n", "prompt_tokens", None),
        (b"vllm:num_requests_running 1\nvllm:kv_cache_usage_perc NaN\n", "kv_cache_usage_ratio", None),
        (b"vllm:num_requests_running 1\nvllm:kv_cache_usage_perc 37.5\n", "kv_cache_usage_ratio", None),
        (b"vllm:num_requests_running 1\nvllm:prompt_tokens_total -4\n", "prompt_tokens", None),
        (b"vllm:num_requests_running 1\nvllm:prompt_tokens_total +Inf\n", "prompt_tokens", None),
        (b'vllm:num_requests_running 1\nvllm:prompt_tokens_total{engine="0"} NaN\nvllm:prompt_tokens_total{engine="1"} 1\n',
         "prompt_tokens", None),
        (b"vllm:num_requests_running 1\nvllm:prompt_tokens_total 9.007199254740992e+15\n", "prompt_tokens", 2**53),
    ],
)  # fmt: skip
def test_versions_instances_and_garbage(body: bytes, field: str, value: object) -> None:
    """Older names count, instances are added (the fullest cache counts), and what is no quantity is unknown."""
    reading = read(body)
    assert reading is not None
    assert getattr(reading, field) == value


@pytest.mark.parametrize(
    "body", [b"", b'[{"iter":1}]\n', b"process_start_time_seconds 17\n", b"http_requests_total 1\n"]
)
def test_no_engine(body: bytes) -> None:
    """Text without a name that we know is nobody's; a start time alone makes no engine."""
    assert read(body) is None


@pytest.mark.parametrize(
    ("body", "idle"),
    [
        (b"vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n", True),
        (b"vllm:num_requests_running 1\nvllm:num_requests_waiting 0\n", False),
        (b"vllm:num_requests_running 0\nvllm:num_requests_waiting 1\n", False),
        (b"vllm:prompt_tokens_total 1\n", True),
    ],
)
def test_idle(body: bytes, idle: bool) -> None:
    """Idle is who says so, or does not say."""
    reading = read(body)
    assert reading is not None
    assert reading.idle is idle


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(WANTED)), st.floats(), st.sampled_from(["", '{tp_rank="1"}', '{engine="1"}'])),
        max_size=30,
    )
)
def test_any_values(samples: list[tuple[str, float, str]]) -> None:
    """Whatever values the known names have, a reading holds quantities or nothing."""
    body = "".join(f"{name}{labels} {value}\n" for name, value, labels in samples).replace("inf", "Inf")
    try:
        reading = read(body.encode())
    except ParseError:  # the same series twice
        return
    if reading is not None:
        values = [getattr(reading, field) for field in EngineReading.__struct_fields__ if field != "engine"]
        assert all(value is None or 0 <= value < float("inf") for value in values)
