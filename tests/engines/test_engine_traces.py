"""One trace from the client's span through ours to vLLM's own, over HTTP and over gRPC.

Three processes export to one receiver: the client here with OpenTelemetry's SDK, Inferwatch, and vLLM with
`--otlp-traces-endpoint`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import semconv
from engine_cases import CHAT, COMPLETIONS, MODEL, messages
from engine_process import Engine, running_inferwatch
from engine_wire import HangUp, Reply, Request, exchange
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from otlp_receiver import Received, attributes

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

CLIENTS_SPAN = "answer a customer"
ENGINES_SPAN = "llm_request"
ARRIVE_S = 20.0  # three exporters, each with a delay of a fraction of a second
CONTEXT_TOKENS = 4096  # of the tiny model
INTERNAL, SERVER, CLIENT = 1, 2, 3


class Place(NamedTuple):
    """Inferwatch before a vLLM, and where all spans go."""

    url: str
    received: Received
    tracer: Tracer


class Case(NamedTuple):
    """A request, how the client ends it, and of how many answers vLLM makes a span."""

    path: str
    body: dict[str, Any]
    engine_spans: int
    hang_up: HangUp | None = None
    outcome: str = "ok"


def chat(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": messages("hi there"), "temperature": 0, "max_tokens": 12, **more}


ENDLESS = {"max_tokens": 3000, "ignore_eos": True}
# The first prompt leaves room for six tokens, the second one for thousands: a client that leaves when the first answer
# is complete aborts a request of which vLLM has a span.
HALF_DONE = {
    "model": MODEL,
    "prompt": [[450] * (CONTEXT_TOKENS - 6), [450, 285]],
    "max_tokens": None,
    "ignore_eos": True,
    "stream": True,
}
TWO = {"n": 2, "temperature": 1}
CASES = {
    "plain": Case(CHAT, chat(), 1),
    "streamed": Case(CHAT, chat(stream=True), 1),
    "n2": Case(CHAT, chat(**TWO), 2),
    "n2 streamed": Case(CHAT, chat(stream=True, **TWO), 2),
    "completion": Case(COMPLETIONS, {"model": MODEL, "prompt": "def f(x):", "max_tokens": 4}, 1),
    "prompts n2": Case(COMPLETIONS, {"model": MODEL, "prompt": ["a", "b"], "max_tokens": 4, **TWO}, 4),
    "aborted, half done": Case(
        COMPLETIONS, HALF_DONE, 1, HangUp(after_bytes=b'"finish_reason":"length"'), "client_abort"
    ),
    "aborted stream": Case(CHAT, chat(stream=True, **ENDLESS), 0, HangUp(after_events=8), "client_abort"),
    "aborted plain": Case(CHAT, chat(**ENDLESS), 0, HangUp(after_s=0.5), "client_abort"),
    "refused": Case(CHAT, chat(max_tokens=-1), 0, outcome="rejected"),
}


@pytest.fixture(scope="module", params=["http/protobuf", "grpc"], name="place")
def _place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if os.environ.get("INFERWATCH_TEST_VLLM"):
        pytest.skip("it exports its spans to somebody else, if to anybody")
    over_http = request.param == "http/protobuf"
    engine: Engine = request.getfixturevalue("engine" if over_http else "timed_engine")
    url, received = request.getfixturevalue("http_spans" if over_http else "grpc_spans")
    exporter = HttpExporter(endpoint=f"{url}/v1/traces") if over_http else GrpcExporter(endpoint=url)
    provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=100))
    variables = {
        "INFERWATCH__OTLP__TRACES": "true",
        "INFERWATCH__OTLP__ENDPOINT": url,
        "INFERWATCH__OTLP__PROTOCOL": request.param,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with running_inferwatch(engine.url, tmp_path_factory.mktemp("traces"), variables) as (proxy, _):
        yield Place(proxy, received, provider.get_tracer("shop"))
    provider.shutdown()


async def send(place: Place, case: Case) -> tuple[str, Reply]:
    """Send it within a span of the client's; returns the trace's id and what came back."""
    with place.tracer.start_as_current_span(CLIENTS_SPAN) as span:
        headers: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(headers)
        request = Request.post(case.path, case.body)
        reply = await exchange(place.url, request.with_headers(headers), case.hang_up)
    return f"{span.get_span_context().trace_id:032x}", reply


async def arrived(place: Place, trace_id: str, count: int) -> list[Any]:
    """Wait for so many spans of a trace."""
    due_s = time.monotonic() + ARRIVE_S
    while len(found := place.received.trace(trace_id)) < count and time.monotonic() < due_s:
        await asyncio.sleep(0.1)
    assert len(found) >= count, f"{[span.name for span in found]}, expected {count} spans"
    return found


@pytest.mark.parametrize("name", CASES)
async def test_one_trace_from_the_client_to_the_engine(place: Place, name: str) -> None:
    """The client's span is the parent of ours, ours is that of each span of the engine; what both say agrees."""
    case = CASES[name]
    trace_id, reply = await send(place, case)
    await arrived(place, trace_id, 2 + case.engine_spans)
    # vLLM sends spans in the order in which it made them: after one of a later request none of this one can come.
    later, _ = await send(place, CASES["plain"])
    await arrived(place, later, 3)

    spans = place.received.trace(trace_id)
    (client,) = [span for span in spans if span.name == CLIENTS_SPAN]
    engines = [span for span in spans if span.name == ENGINES_SPAN]
    (ours,) = [span for span in spans if span.name not in (CLIENTS_SPAN, ENGINES_SPAN)]
    operation = "chat" if case.path == CHAT else "text_completion"
    assert ours.name == f"{operation} {MODEL}"
    assert len(engines) == case.engine_spans
    assert (client.kind, ours.kind, {span.kind for span in engines} - {SERVER}) == (INTERNAL, CLIENT, set())
    assert ours.parent_span_id == client.span_id
    assert {span.parent_span_id for span in engines} <= {ours.span_id}
    assert client.start_time_unix_nano <= ours.start_time_unix_nano
    assert all(ours.start_time_unix_nano <= span.start_time_unix_nano for span in engines)

    said = attributes(ours)
    assert not semconv.faults(said)
    assert said["inferwatch.outcome"] == case.outcome
    assert ("error.type" in said) == (case.outcome != "ok")
    required = {
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "server.address",
        "server.port",
    }
    assert required <= set(said)
    theirs = [attributes(span) for span in engines]
    if case.outcome == "ok":
        assert reply.status == 200
        assert said["gen_ai.provider.name"] == "vllm"
        assert said["gen_ai.usage.output_tokens"] == sum(each["gen_ai.usage.completion_tokens"] for each in theirs)
        answers = case.body.get("n", 1)
        assert said["gen_ai.usage.input_tokens"] * answers == sum(each["gen_ai.usage.prompt_tokens"] for each in theirs)
    assert all(each["gen_ai.request.id"].startswith(said["gen_ai.response.id"]) for each in theirs)


async def test_a_trace_that_begins_with_us(place: Place) -> None:
    """Without a caller's context ours is the root, and the engine's span its child."""
    reply = await exchange(place.url, Request.post(CHAT, chat()))
    due_s = time.monotonic() + ARRIVE_S
    ours: list[Any] = []
    while not ours and time.monotonic() < due_s:
        await asyncio.sleep(0.1)
        found = [span for span in place.received.spans if span.name == f"chat {MODEL}"]
        ours = [span for span in found if attributes(span).get("gen_ai.response.id") == reply.json()["id"]]
    assert ours[0].parent_span_id == b""
    spans = await arrived(place, ours[0].trace_id.hex(), 2)
    (engines,) = [span for span in spans if span.name == ENGINES_SPAN]
    assert engines.parent_span_id == ours[0].span_id


async def test_a_caller_that_does_not_sample_is_heeded_by_all(place: Place) -> None:
    """With the flag `-00` neither we nor vLLM make a span."""
    trace_id = "5" * 32
    headers = {"traceparent": f"00-{trace_id}-{'6' * 16}-00"}
    reply = await exchange(place.url, Request.post(CHAT, chat()).with_headers(headers))
    assert reply.status == 200
    later, _ = await send(place, CASES["plain"])
    await arrived(place, later, 3)
    assert not place.received.trace(trace_id)
