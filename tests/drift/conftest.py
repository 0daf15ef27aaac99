"""Requests and streams, as the drift tests need them."""

import random
from collections.abc import Callable

import pytest

from inferwatch.record import Outcome, RequestRecord

MONDAY_S = 1_760_313_600.0  # 2025-10-13T00:00Z
NS_PER_S = 1_000_000_000


@pytest.fixture(name="request_of")
def _request_of() -> Callable[..., RequestRecord]:
    """Make a record with these fields."""

    def request_of(**fields: object) -> RequestRecord:
        known: dict[str, object] = {
            "request_id": "r",
            "wall_ns": int(MONDAY_S * NS_PER_S),
            "tenant": "acme",
            "model": "m",
            "operation": "chat",
            "route": "/v1/chat/completions",
            "method": "POST",
            "stream": True,
            "outcome": Outcome.OK,
            "status": 200,
            "prompt_tokens": 500,
            "completion_tokens": 100,
            "finish_reasons": ("stop",),
            "duration_s": 1.0,
            "ttft_s": 0.2,
            "gap_count": 99,
            "gap_sum_s": 0.8,
            "request_bytes": 2000,
            "engine_model": "org/m",
        }
        return RequestRecord(**(known | fields))  # type: ignore[arg-type]

    return request_of


@pytest.fixture(name="rng")
def _rng() -> random.Random:
    return random.Random(8)
