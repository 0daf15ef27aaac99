"""Loops are cut, through a real Inferwatch: what the client sees, that the engine is let go, and what is booked.

The engine is scripted: it says the same words until it is hung up on, or so often as the prompt asks for, in the
dialect of the route; with usage on each event of a chat, as vLLM has it.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web
from stack import Stack, client, free_ports, wait_until

from inferwatch_simulator.readings import total

# Tokens: the first ends before a loop is found unless the machine stands still, the last after it.
TIGHT: Final = (100, 200, 250, 300, 350, 400, 50_000)
CUT: Final = """
upstream: {engine: vllm}
identity: {trusted_peers: [127.0.0.1/32]}
quality: {listen: true, cut_loops: true}
budgets:
  rules:
""" + "".join(
    f"  - {{name: tight-{limit}, tenant: tight-{limit}, limit: {limit}, unit: tokens, on_limit: cut, period: rolling, "
    "window_s: 86400}\n"
    for limit in TIGHT
)
UNCUT: Final = """
upstream: {engine: vllm}
quality: {listen: true}
"""
LEAD: Final = "Well, "
WORDS: Final = "and so on, "
FAR: Final = 400  # repeats: twice as many as it takes
ENDLESS: Final = 50_000
SIGNS: Final = "inferwatch_quality_signs_total"

Write = Callable[[bytes], Awaitable[None]]


def sse(event: dict[str, Any]) -> bytes:
    """One event, as compact as vLLM's; of Anthropic's with its name."""
    name = b"event: %b\n" % event["type"].encode() if "type" in event else b""
    return name + b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


class Engine:
    """Says the same words, and knows how many it said to whom, and who is still there."""

    def __init__(self) -> None:
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.said: dict[str, int] = {}
        self.busy: set[str] = set()
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        name, far = body["model"], body.get("far", ENDLESS)
        kind = "application/x-ndjson" if request.path.startswith("/api") else "text/event-stream"
        reply = web.StreamResponse(headers={"content-type": kind})
        await reply.prepare(request)
        self.busy.add(name)
        try:
            for number, text in enumerate([LEAD, *[WORDS] * far], 1):
                self.said[name] = number
                await reply.write(_piece(request.path, body, text, number))
                await asyncio.sleep(0.001)
            await reply.write(_end(request.path, body, far + 1))
        finally:
            self.busy.discard(name)
        return reply

    def _serve(self, ready: threading.Event) -> None:
        async def serve() -> None:
            app = web.Application()
            app.router.add_post("/{path:.*}", self._stream)
            app.router.add_get("/health", _well)
            runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", self._port).start()
            ready.set()
            await self._over.wait()
            await runner.cleanup()

        self._loop.run_until_complete(serve())

    @contextlib.contextmanager
    def running(self) -> Iterator["Engine"]:
        """Serve in a thread."""
        ready = threading.Event()
        thread = threading.Thread(target=self._serve, args=(ready,))
        thread.start()
        try:
            assert ready.wait(10)
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._over.set)
            thread.join()
            self._loop.close()


async def _well(_: web.Request) -> web.Response:
    return web.Response()


def _piece(path: str, body: dict[str, Any], text: str, number: int) -> bytes:
    """One token, in the words of the route."""
    if path == "/v1/messages":
        index: dict[str, Any] = {"index": 0}
        begin = (
            sse({"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 5, "output_tokens": 1}}}),
            sse({"type": "content_block_start", "content_block": {"type": "text", "text": ""}} | index),
        )
        delta = sse({"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}} | index)
        return b"".join(begin if number == 1 else ()) + delta
    if path == "/v1/responses":
        created = sse({"type": "response.created", "response": {"id": "r", "output": []}, "sequence_number": 0})
        delta = sse({"type": "response.output_text.delta", "delta": text, "sequence_number": number})
        return (created if number == 1 else b"") + delta
    if path == "/api/chat":
        return json.dumps({"model": body["model"], "message": {"content": text}, "done": False}).encode() + b"\n"
    out = b""
    for index_ in range(body.get("n", 1)):
        choice: dict[str, Any] = {"index": index_, "finish_reason": None}
        field = body.get("field", "content")
        choice |= {"delta": {field: text}} if "chat" in path else {"text": text}
        out += _chunk(path, body, [choice], number)
    return out


def _chunk(path: str, body: dict[str, Any], choices: list[Any], tokens: int) -> bytes:
    """An event of OpenAI's, with usage if it is asked for: with each, or at the end."""
    event: dict[str, Any] = {"id": "c", "object": "chat.completion.chunk" if "chat" in path else "text_completion"}
    event |= {"created": 1, "model": body["model"], "choices": choices}
    options = body.get("stream_options") or {}
    if options.get("continuous_usage_stats") or (not choices and options.get("include_usage")):
        event["usage"] = {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens}
    return sse(event)


def _end(path: str, body: dict[str, Any], tokens: int) -> bytes:
    """The end of an answer of a chat: nothing else gets there."""
    finish = [{"index": index, "delta": {}, "finish_reason": "stop"} for index in range(body.get("n", 1))]
    usage = _chunk(path, body, [], tokens) if body.get("stream_options") else b""
    return _chunk(path, body, finish, tokens) + usage + b"data: [DONE]\n\n"


@contextlib.contextmanager
def served(folder: Path, config: str) -> Iterator[tuple[Stack, Engine]]:
    """An Inferwatch in front of such an engine."""
    (folder / "config.yml").write_text(config, "utf-8")
    with Engine().running() as engine:
        stack = Stack(folder, "--config", str(folder / "config.yml"))
        stack.engine = engine.url
        try:
            stack.serve()
            yield stack, engine
        finally:
            stack.close()


@pytest.fixture(scope="module", name="site")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Engine]]:
    with served(tmp_path_factory.mktemp("loops"), CUT) as site:
        yield site


@pytest.fixture(name="session")
async def _session() -> AsyncIterator[aiohttp.ClientSession]:
    async with client() as session:
        yield session


async def ask(
    session: aiohttp.ClientSession, stack: Stack, model: str, path: str = "/v1/chat/completions", **more: Any
) -> tuple[bytes, bool]:
    """Return what a stream has said, and whether its end was one."""
    body = {"model": model, "stream": True} | more
    said = b""
    tenant = {"x-inferwatch-tenant": more.pop("tenant", "acme")}
    async with session.post(stack.url + path, json=body, headers=tenant) as reply:
        try:
            async for data in reply.content.iter_any():
                said += data
        except aiohttp.ClientPayloadError:
            return said, False
    return said, True


def events(said: bytes) -> list[Any]:
    """The data of all events; they are whole."""
    assert said.endswith(b"\n\n")
    lines = [line.removeprefix("data: ") for line in said.decode().split("\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def signs(stack: Stack, model: str) -> dict[str, int]:
    """Return what was counted of a model."""
    series = stack.scrape().samples.get(SIGNS, {})
    return {
        dict(labels)["sign"]: int(value) for labels, value in series.items() if dict(labels)["model"] == model and value
    }


def request_lines(stack: Stack, model: str) -> list[Any]:
    """Return what the log has of a model's requests."""
    return [json.loads(line) for line in stack.log.splitlines() if f'"model":"{model}"' in line]


async def booked(stack: Stack, model: str, requests: int = 1) -> Any:
    """Wait until requests are booked; return the metrics."""

    def all_booked() -> bool:
        return stack.total("inferwatch_requests_total", model=model) >= requests

    await asyncio.to_thread(wait_until, all_booked, f"{model} booked")
    return await asyncio.to_thread(stack.scrape)


async def check_cut(stack: Stack, engine: Engine, model: str) -> int:
    """See that an answer was cut, for a loop, once, and the engine let go; return the tokens that were booked."""
    scrape = await booked(stack, model)
    await asyncio.to_thread(wait_until, lambda: model not in engine.busy, "the engine is let go")
    assert engine.said[model] < ENDLESS
    assert total(scrape, "inferwatch_requests_total", model=model, outcome="stream_error") == 1
    assert total(scrape, "inferwatch_request_errors_total", model=model, error_type="loop") == 1
    assert total(scrape, "inferwatch_request_errors_total", model=model) == 1
    assert signs(stack, model) == {"loop_suspected": 1, "loop": 1, "loop_cut": 1}
    await asyncio.to_thread(wait_until, lambda: request_lines(stack, model), "its line in the log")
    assert [(line["outcome"], line["error"]) for line in request_lines(stack, model)] == [("stream_error", "loop")]
    return int(total(scrape, "inferwatch_tokens_total", model=model, type="completion"))


async def test_a_chat_ends_as_if_its_limit_were_reached(site: Any, session: aiohttp.ClientSession) -> None:
    """With vLLM's word for a loop, and the usage that the client asked for: those tokens are booked, and no others."""
    stack, engine = site
    said, is_whole = await ask(session, stack, "chat", stream_options={"include_usage": True})
    assert is_whole
    *told, last, usage, done = events(said)
    assert [choice["finish_reason"] for each in told for choice in each["choices"]] == [None] * len(told)
    assert (last["choices"][0]["finish_reason"], last["choices"][0]["stop_reason"]) == ("length", "repetition_detected")
    assert done == "[DONE]"
    assert usage["usage"]["completion_tokens"] == len(told) > 2_048 // len(WORDS)
    assert await check_cut(stack, engine, "chat") == len(told)


async def test_a_client_that_asked_for_no_usage_gets_none(site: Any, session: aiohttp.ClientSession) -> None:
    """Of a text completion; the tokens are known all the same."""
    stack, engine = site
    said, is_whole = await ask(session, stack, "text", "/v1/completions")
    assert is_whole
    *told, last, done = events(said)
    assert b"usage" not in said
    assert (last["choices"][0]["text"], last["choices"][0]["stop_reason"], done) == (
        "",
        "repetition_detected",
        "[DONE]",
    )
    assert await check_cut(stack, engine, "text") == len(told)


async def test_reasoning_without_end_is_cut_too(site: Any, session: aiohttp.ClientSession) -> None:
    """It loops at least as often as what is shown."""
    stack, engine = site
    said, is_whole = await ask(session, stack, "reasoning", field="reasoning_content")
    assert is_whole
    assert events(said)[-1] == "[DONE]"
    assert await check_cut(stack, engine, "reasoning") == len(events(said)) - 2


async def test_a_message_ends_as_anthropics_do(site: Any, session: aiohttp.ClientSession) -> None:
    """Its block, its message, and itself."""
    stack, engine = site
    said, is_whole = await ask(session, stack, "message", "/v1/messages")
    assert is_whole
    assert [each["type"] for each in events(said)[-3:]] == ["content_block_stop", "message_delta", "message_stop"]
    assert events(said)[-2]["delta"]["stop_reason"] == "max_tokens"
    assert await check_cut(stack, engine, "message") > 0


async def test_a_chat_of_ollamas_ends_with_its_last_record(site: Any, session: aiohttp.ClientSession) -> None:
    """As at the limit, and with the reason."""
    stack, engine = site
    said, is_whole = await ask(session, stack, "ollama", "/api/chat")
    assert is_whole
    last = json.loads(said.splitlines()[-1])
    assert (last["done"], last["done_reason"], last["stop_reason"]) == (True, "length", "repetition_detected")
    assert await check_cut(stack, engine, "ollama") > 0


async def test_a_long_response_breaks_off(site: Any, session: aiohttp.ClientSession) -> None:
    """Its last event needs what its first one said, which nobody keeps: as with a budget, nothing is invented."""
    stack, engine = site
    said, is_whole = await ask(session, stack, "response", "/v1/responses")
    assert not is_whole
    assert "response.completed" not in said.decode()
    assert await check_cut(stack, engine, "response") > 0


@pytest.mark.parametrize(
    ("name", "more"),
    [("several", {"n": 2}), ("form", {"response_format": {"type": "json_object"}})],
    ids=["several", "form"],
)
async def test_what_may_be_of_use_is_not_cut(
    site: Any, session: aiohttp.ClientSession, name: str, more: dict[str, Any]
) -> None:
    """One of several answers, or rows of a document."""
    stack, _ = site
    said, is_whole = await ask(session, stack, name, far=FAR, **more)
    assert is_whole
    assert events(said)[-1] == "[DONE]"
    scrape = await booked(stack, name)
    assert total(scrape, "inferwatch_requests_total", model=name, outcome="ok") == 1
    assert signs(stack, name) == {"loop_suspected": 1, "loop": 1}


async def test_a_stream_that_a_budget_ends_as_well_ends_once(site: Any, session: aiohttp.ClientSession) -> None:
    """For what comes first, and its tokens are booked once. Some of these budgets end about when the loops are found."""
    stack, engine = site
    names = [f"tight-{limit}" for limit in TIGHT]
    replies = await asyncio.gather(*(ask(session, stack, name, tenant=name, max_tokens=2_000) for name in names))
    reasons = []
    for name, (said, is_whole) in zip(names, replies, strict=True):
        assert is_whole
        *told, last, done = events(said)
        assert done == "[DONE]"
        assert all(choice["finish_reason"] is None for each in told for choice in each["choices"])
        scrape = await booked(stack, name)
        reasons.append(last["choices"][0]["stop_reason"])
        error = {"repetition_detected": "loop", "budget_exceeded": "budget"}[reasons[-1]]
        assert total(scrape, "inferwatch_request_errors_total", model=name, error_type=error) == 1
        assert total(scrape, "inferwatch_request_errors_total", model=name) == 1
        assert total(scrape, "inferwatch_tokens_total", model=name, type="completion") == len(told)
    assert reasons[-1] == "repetition_detected"
    await asyncio.to_thread(wait_until, lambda: not engine.busy, "the engine is let go")


async def test_nothing_is_cut_unasked(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    """Off is off: the loop is counted, and ends when it ends."""
    with served(tmp_path, UNCUT) as (stack, _):
        said, is_whole = await ask(session, stack, "off", far=FAR)
        assert is_whole
        *_, last, done = events(said)
        assert (last["choices"][0]["finish_reason"], done) == ("stop", "[DONE]")
        scrape = await booked(stack, "off")
        assert total(scrape, "inferwatch_requests_total", model="off", outcome="ok") == 1
        assert total(scrape, "inferwatch_tokens_total", model="off", type="completion") == FAR + 1
        assert signs(stack, "off") == {"loop_suspected": 1, "loop": 1}
