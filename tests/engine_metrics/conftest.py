"""Records as booking makes them, and the engines' texts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inferwatch.record import Outcome, RequestRecord, TokenSource
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.metrics import TABLE

TEXTS = Path(__file__).parent.parent / "fixtures" / "engine_metrics"


def make_record(request_id: str = "r", **changes: Any) -> RequestRecord:
    """A finished answer to a prompt of 10 tokens with 5 tokens, as the engine reported them."""
    fields: dict[str, Any] = {
        "request_id": request_id,
        "wall_ns": 1_700_000_000_000_000_000,
        "tenant": "acme",
        "model": "qwen",
        "operation": "chat",
        "route": "/v1/chat/completions",
        "method": "POST",
        "stream": True,
        "outcome": Outcome.OK,
        "status": 200,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "token_source": TokenSource.FINAL_USAGE,
        "choices": 1,
        "duration_s": 0.5,
        "request_bytes": 100,
    }
    return RequestRecord(**fields | changes)


@pytest.fixture
def record() -> Callable[..., RequestRecord]:
    return make_record


@pytest.fixture
def text() -> Callable[[str], bytes]:
    """The metrics of one engine, by its name."""
    return lambda engine: (TEXTS / f"{engine}.txt").read_bytes()


@pytest.fixture
def store() -> MetricStore:
    return MetricStore(TABLE)
