"""Traces of the real thing: what a span says of its request, what it links to, and whose spans are kept."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import semconv
from otlp_receiver import Received, attributes, http_receiver
from stack import chat, client, running, send

# Of the traces nothing is kept but what the tail takes, and one tenant's. Every answer's longest gap is a stall. No
# request is slow by chance.
CONFIG = """
identity: {{trusted_peers: [127.0.0.1/32]}}
otlp:
  traces: true
  endpoint: {endpoint}
  sample_ratio: 0.0
  tenants: [{{tenant: acme, sample_ratio: 1.0}}]
  always_slower_s: 10.0
  stall_s: 0.001
"""
PARENT = "c" * 16
OK, ERROR = 0, 2


class Asked(NamedTuple):
    """A request: its tenant, what the engine is to do, and whether its caller samples."""

    tenant: str
    fault: str = ""
    sampled: bool = True
    content: str = ""  # the name of the request
    stream: bool = True


# In this order.
REQUESTS = {
    "streamed": Asked("acme"),
    "plain": Asked("acme", stream=False),
    "of another tenant": Asked("other"),
    "of a caller that does not sample": Asked("acme", sampled=False),
    "failed": Asked("acme", "status:500", content="again"),
    "tried again": Asked("acme", content="again"),
    "failed, of another tenant": Asked("other", "status:500"),
    "failed, of a caller that does not sample": Asked("other", "error_event:2", sampled=False),
    "slow, of another tenant": Asked("other", "slow_head:10.5"),
    "the last": Asked("acme"),
}
NOT_KEPT = {"of another tenant", "of a caller that does not sample"}


@pytest.fixture(scope="module", name="spans")
def _spans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The spans that came of REQUESTS."""
    folder = tmp_path_factory.mktemp("traces")
    with http_receiver() as (url, received), pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        config = folder / "inferwatch.yml"
        config.write_text(CONFIG.format(endpoint=url))
        with running(folder, "--config", str(config), simulate_flags=("--enable-per-request-metrics",)) as stack:
            asyncio.run(ask(stack.url))
            yield found(received)


async def ask(url: str) -> None:
    """Send REQUESTS, one after the other, each in a trace of its own."""
    async with client() as session:
        for name, asked in REQUESTS.items():
            headers = {
                "x-inferwatch-tenant": asked.tenant,
                "traceparent": f"00-{trace_id(name)}-{PARENT}-{'01' if asked.sampled else '00'}",
                "tracestate": "vendor=ann@example.com,ot=th:c8",
                **({"x-sim-fault": asked.fault} if asked.fault else {}),
            }
            await send(session, url, chat(asked.content or name, stream=asked.stream, max_tokens=8), headers=headers)


def trace_id(name: str) -> str:
    return f"{list(REQUESTS).index(name) + 1:x}" * 32


def found(received: Received) -> dict[str, Any]:
    """Wait for the last, and return the span of each trace by its request's name."""
    due_s = time.monotonic() + 20
    while not received.trace(trace_id("the last")):
        assert time.monotonic() < due_s
        time.sleep(0.05)
    names = {trace_id(name): name for name in REQUESTS}
    spans = {names[span.trace_id.hex()]: span for span in received.spans}
    assert len(spans) == len(received.spans), "a request has two spans"
    return spans


def test_whose_spans_are_kept(spans: dict[str, Any]) -> None:
    """A tenant's own share; what failed and what was slow, whoever's it is and whatever its caller says."""
    assert set(spans) == set(REQUESTS) - NOT_KEPT


def test_every_span_is_a_child_of_its_callers(spans: dict[str, Any]) -> None:
    """With attributes that the conventions have, or that are marked as ours."""
    for name, span in spans.items():
        assert span.parent_span_id.hex() == PARENT
        assert span.trace_state == "ot=th:c8"
        assert semconv.faults(attributes(span)) == []
        assert attributes(span)["inferwatch.tenant"] == REQUESTS[name].tenant
        assert span.status.code == (ERROR if name.startswith("failed") else OK)
    said = attributes(spans["plain"])
    assert (said["gen_ai.request.max_tokens"], said["gen_ai.request.temperature"]) == (8, 0.0)
    assert attributes(spans["failed"])["error.type"] == "engine_5xx"
    assert attributes(spans["failed, of a caller that does not sample"])["error.type"] == "engine_event"


@pytest.mark.parametrize("name", ["streamed", "plain", "slow, of another tenant"])
def test_phases_are_the_whole_of_a_span(spans: dict[str, Any], name: str) -> None:
    """Its own words for where the time went, the engine's queue, prefill and decode among them."""
    span = spans[name]
    phases = {key: value for key, value in attributes(span).items() if key.startswith("inferwatch.phase.")}
    duration_s = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9

    assert {"inferwatch.phase.prefill_s", "inferwatch.phase.decode_s"} <= set(phases)
    assert sum(phases.values()) == pytest.approx(duration_s, abs=1e-6)


def test_events_lie_within_the_span_in_their_order(spans: dict[str, Any]) -> None:
    """The first token, then the longest gap; a plain answer has neither."""
    span = spans["streamed"]
    first, stall = span.events
    said = attributes(span)

    assert (first.name, stall.name) == ("inferwatch.first_token", "inferwatch.stall")
    assert span.start_time_unix_nano < first.time_unix_nano <= stall.time_unix_nano < span.end_time_unix_nano
    after_s = (first.time_unix_nano - span.start_time_unix_nano) / 1e9
    assert after_s == pytest.approx(said["gen_ai.response.time_to_first_chunk"], abs=1e-6)
    assert attributes(stall) == {"inferwatch.gap_s": said["inferwatch.gap_max_s"]}
    assert not spans["plain"].events


def test_a_retry_links_to_what_it_makes_good(spans: dict[str, Any]) -> None:
    """And nothing else links to anything."""
    (link,) = spans["tried again"].links

    assert (link.trace_id, link.span_id) == (spans["failed"].trace_id, spans["failed"].span_id)
    assert attributes(link) == {"inferwatch.link": "retry_of"}
    assert [name for name, span in spans.items() if span.links] == ["tried again"]
