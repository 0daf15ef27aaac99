"""From a point on a latency graph to its trace: exemplars in a real Prometheus name traces that the receiver has."""

from pathlib import Path
from typing import Any

import pytest
from monitoring import Prometheus, closing
from otlp_receiver import attributes, http_receiver
from stack import Stack, chat, client, send, wait_until

REQUESTS = 12
HISTOGRAMS = (
    "inferwatch_request_duration_seconds_bucket",
    "inferwatch_time_to_first_token_seconds_bucket",
    "inferwatch_time_per_output_token_seconds_bucket",
    "inferwatch_request_phase_seconds_bucket",
)


@pytest.mark.timeout(180)
async def test_exemplars_in_prometheus_are_traces_in_the_receiver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every latency histogram; and of a share of the traces only those that were exported are named."""
    monkeypatch.setenv("INFERWATCH__OTLP__TRACES", "true")
    monkeypatch.setenv("INFERWATCH__OTLP__SAMPLE_RATIO", "0.5")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    with http_receiver() as (url, received):
        monkeypatch.setenv("INFERWATCH__OTLP__ENDPOINT", url)
        stack, prometheus = Stack(tmp_path), Prometheus(tmp_path)
        with closing(stack, prometheus):
            stack.start()
            prometheus.start({"here": f"127.0.0.1:{stack.admin_port}"})
            async with client() as session:
                for number in range(REQUESTS):
                    # A ratio of a half takes the ids whose lower half begins with less than 8.
                    trace_id = f"{number + 1:016x}{'1' if number % 2 else 'f'}{number:015x}"
                    headers = {"traceparent": f"00-{trace_id}-{'b' * 16}-01"}
                    status, _ = await send(session, stack.url, chat(max_tokens=3 + 5 * number), headers=headers)
                    assert status == 200
            spans = received.wait("spans", REQUESTS // 2)
            exported = {span.trace_id.hex(): attributes(span) for span in spans}
            assert len(exported) == REQUESTS // 2
            for name in HISTOGRAMS:
                found: list[dict[str, Any]] = []

                def asked(name: str = name, found: list[dict[str, Any]] = found) -> bool:
                    series = prometheus.get("/api/v1/query_exemplars", query=name, start=0, end=4e9)
                    found[:] = [exemplar for each in series for exemplar in each["exemplars"]]
                    return bool(found)

                wait_until(asked, f"exemplars of {name}")
                named = {exemplar["labels"]["trace_id"] for exemplar in found}
                assert named <= set(exported), name
            for exemplar in found:  # the span says the same of its phases; one that took no time is left out there
                said = exported[exemplar["labels"]["trace_id"]]
                phases_s = [value for name, value in said.items() if name.startswith("inferwatch.phase.")]
                assert float(exemplar["value"]) in (0.0, *phases_s)
