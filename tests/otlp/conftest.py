"""Finished requests, and exporters that send at once."""

from collections.abc import Iterator
from typing import Any

import pytest
from otlp_records import Export, Make

from inferwatch.config import Config
from inferwatch.record import Outcome, RequestRecord, TokenClass, TokenSource
from inferwatch.settings.otlp import Otlp
from inferwatch.settings.traffic import Upstream
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.otlp.export import OtlpExport

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def record() -> Make:
    """A streamed chat of a second; keyword arguments change fields."""

    def make(**changes: Any) -> RequestRecord:
        fields: dict[str, Any] = {
            "request_id": "b00700000001",
            "wall_ns": 1_800_000_000_000_000_000,
            "tenant": "acme",
            "model": "qwen",
            "operation": "chat",
            "route": "/v1/chat/completions",
            "method": "POST",
            "stream": True,
            "outcome": Outcome.OK,
            "status": 200,
            "duration_s": 1.0,
            "sent_s": 0.001,
            "ttft_s": 0.25,
            "ttft_answer_s": 0.25,
            "first_token": TokenClass.ANSWER,
            "prompt_tokens": 7,
            "cached_tokens": 4,
            "completion_tokens": 3,
            "token_source": TokenSource.FINAL_USAGE,
            "choices": 1,
            "finish_reasons": ("stop",),
            "gap_count": 2,
            "gap_sum_s": 0.7,
            "gap_max_s": 0.6,
            "gap_max_at_s": 0.3,
            "engine_id": "chatcmpl-1",
            "engine_model": "qwen",
            "trace_id": TRACE,
            "span_id": "b7ad6b7169203331",
            "parent_span_id": "00f067aa0ba902b7",
        }
        return RequestRecord(**fields | changes)

    return make


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch) -> Iterator[Export]:
    """Start an export that sends at once; it is closed in the end."""
    made: list[OtlpExport] = []
    for name in ("OTEL_BSP_SCHEDULE_DELAY", "OTEL_BLRP_SCHEDULE_DELAY"):
        monkeypatch.setenv(name, "10")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")

    def make(store: MetricStore | None = None, **settings: Any) -> OtlpExport:
        config = Config(otlp=Otlp(**settings), upstream=Upstream(url="http://engine.internal:8000"))
        made.append(OtlpExport(lambda: config, store or MetricStore(), lambda: "vllm", instance="i1"))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.close(2.0)
