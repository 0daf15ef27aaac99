"""Records of requests to be priced, and rules written as people write them."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from inferwatch.record import Outcome, RequestRecord, TokenSource
from inferwatch.settings.prices import PriceRule

# 2026-06-30 23:59:59.999999999 UTC: the last moment before July.
END_OF_JUNE_NS = 1_782_863_999_999_999_999


@pytest.fixture
def record() -> Callable[..., RequestRecord]:
    """Make a finished chat of 1,000 prompt tokens (400 cached) and 200 completion tokens (50 of reasoning)."""

    def make(**changes: Any) -> RequestRecord:
        fields: dict[str, Any] = {
            "request_id": "r1",
            "wall_ns": END_OF_JUNE_NS,
            "tenant": "acme",
            "model": "qwen3-8b",
            "operation": "chat",
            "route": "chat",
            "method": "POST",
            "stream": True,
            "outcome": Outcome.OK,
            "status": 200,
            "prompt_tokens": 1000,
            "cached_tokens": 400,
            "completion_tokens": 200,
            "reasoning_tokens": 50,
            "token_source": TokenSource.FINAL_USAGE,
            "duration_s": 2.0,
        }
        return RequestRecord(**fields | changes)

    return make


@pytest.fixture
def rule() -> Callable[..., PriceRule]:
    """Make a rule of what stands in a file; input 1 and output 2 dollars unless said otherwise."""

    def make(**fields: Any) -> PriceRule:
        return msgspec.convert({"input": 1, "output": 2} | fields, PriceRule)

    return make
