"""What engines say about their own time."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.record import TimingSource
from inferwatch_collectors.dialects.timings import MAX_S, EngineTimings, from_body, from_headers

VLLM = {
    "time_to_first_token_ms": 22.5,
    "generation_time_ms": 180,
    "queue_time_ms": 4.0,
    "mean_itl_ms": 9.0,
    "tokens_per_second": 100.0,
    "speculative_decoding": None,
}
LLAMA = {"cache_n": 0, "prompt_n": 12, "prompt_ms": 30.958, "predicted_n": 35, "predicted_ms": 661.064}
TGI = {"x-queue-time": "12", "x-inference-time": "345", "x-time-per-token": "17", "x-total-time": "360"}


def test_vllm() -> None:
    """Milliseconds become seconds; its time to first token, which leaves out the queue, is the prefill."""
    assert from_body(VLLM, None) == EngineTimings(
        TimingSource.ENGINE_BODY, queue_s=0.004, prefill_s=0.0225, decode_s=0.18
    )


def test_llama_cpp() -> None:
    """It tells prefill and decode, and nothing of the queue."""
    assert from_body(None, LLAMA) == EngineTimings(
        TimingSource.ENGINE_TIMINGS, prefill_s=0.030958, decode_s=pytest.approx(0.661064)
    )


def test_tgi() -> None:
    """Whole milliseconds in headers; prefill and decode are one."""
    assert from_headers(TGI) == EngineTimings(TimingSource.ENGINE_HEADERS, queue_s=0.012, inference_s=0.345)


@pytest.mark.parametrize(
    "value",
    [None, True, "12", [1], {}, -1, -0.5, math.inf, math.nan, MAX_S * 1e3, 10**400],
    ids=lambda value: str(value)[:12],
)
def test_a_value_that_is_no_time_is_unknown(value: Any) -> None:
    """It costs itself, not its neighbours."""
    found = from_body({**VLLM, "queue_time_ms": value}, None)
    assert found is not None
    assert (found.queue_s, found.prefill_s) == (None, 0.0225)


@pytest.mark.parametrize("metrics", [None, [], "fast", 3, {}, {"queue_time_ms": None}, {"speculative_decoding": {}}])
def test_nothing_told_is_nothing(metrics: Any) -> None:
    """Another engine's `metrics`, an empty one, or one that is no object is no timing."""
    assert from_body(metrics, None) is None


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e3", "٣", "9" * 13, "x"])
def test_a_header_that_is_no_count_of_milliseconds_is_unknown(text: str) -> None:
    """Only plain ASCII digits are taken."""
    assert from_headers({"x-inference-time": text}) is None


def test_other_headers_say_nothing() -> None:
    """Without TGI's inference time there is no telling whose queue time it is."""
    assert from_headers({"x-queue-time": "12", "content-type": "text/event-stream"}) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*VLLM, *LLAMA]), inner, max_size=6),
    max_leaves=12,
)


@given(JSON, JSON, st.dictionaries(st.sampled_from([*TGI]), st.text(max_size=15)))
def test_what_comes_out_is_sane(metrics: Any, timings: Any, headers: dict[str, str]) -> None:
    """Whatever an engine sends: no fault, and every time is finite, not negative, and short of a week."""
    for found in (from_body(metrics, timings), from_headers(headers)):
        if found is not None:
            assert all(seconds is None or 0 <= seconds < MAX_S for seconds in found[1:])
            assert any(seconds is not None for seconds in found[1:])
