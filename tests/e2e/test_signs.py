"""Signs that an answer was of no use, through a real Inferwatch: each counted where it is due, and nothing else; and
whatever is sent that is no sensible request is no alarm and no fault.

The engine is scripted: it does what the prompt begins with, as vLLM would write it.
"""

import asyncio
import contextlib
import io
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest
from aiohttp import web
from stack import Stack, client, free_ports, status, wait_until

SIGNS: Final = "inferwatch_quality_signs_total"
CONFIG: Final = """
quality: {listen: true, stall_s: 0.3}
drift: {text: true, votes_per_hour: 360000, reference_requests_min: 1000}
"""
SAYS: Final = {
    "fine": ("Sure, ", "here ", "it is."),
    "repetition": ("again ", "again ", "again "),
    "truncated": ("It ", "goes ", "on"),
    "refuse in English": ("I'm sorry, ", "but I can't help with that."),
    "refuse in German": ("Es tut mir leid, ", "dabei kann ich nicht helfen."),
    "refuse in Chinese": ("很抱歉，", "我无法提供帮助。"),
    "loop": ("Well, ", *["and so on, "] * 60),
    "stall": ("One ", "moment"),
    "empty": (),
}
FINISH: Final = {"repetition": "repetition", "truncated": "length"}


def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, "stop_reason": None}
    return b"data: " + json.dumps(chunk | {"choices": [choice]}).encode() + b"\n\n"


async def answered(request: web.Request) -> web.StreamResponse:
    """Answer as the prompt says."""
    body = json.loads(await request.read())
    said = body["messages"][-1]["content"] if body["messages"] else "fine"
    what = next((each for each in (*SAYS, "fail", "hang", "open") if said.startswith(each)), "fine")
    texts = SAYS.get(what, SAYS["loop" if what == "open" else "fine"])
    if what == "fail":
        return web.json_response({"error": {"message": "no", "type": "InternalServerError", "code": 500}}, status=500)
    if what == "hang":
        await asyncio.sleep(30)
    usage = {"prompt_tokens": 5, "completion_tokens": len(texts) + 1, "total_tokens": len(texts) + 6}
    finish = FINISH.get(what, "stop")
    if not body.get("stream"):
        message = {"role": "assistant", "content": "".join(texts)}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return web.json_response(
            {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
        )
    reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await reply.prepare(request)
    await reply.write(event({"role": "assistant", "content": ""}))
    for text in texts:
        await reply.write(event({"content": text}))
        await asyncio.sleep(0.5 if what == "stall" else 0.001)
    if what == "open":
        await asyncio.sleep(30)
    await reply.write(event({}, finish))
    end = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": usage}
    await reply.write(b"data: " + json.dumps(end).encode() + b"\n\ndata: [DONE]\n\n")
    return reply


async def well(request: web.Request) -> web.Response:
    """Say that all is well."""
    return web.Response()


@contextlib.contextmanager
def engine() -> Iterator[str]:
    """Serve the scripted engine in a thread; give its address."""
    [port] = free_ports(1)
    ready, loop = threading.Event(), asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", answered)
        app.router.add_get("/health", well)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        ready.set()
        await over.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


@pytest.fixture(scope="module", name="stack")
def _stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("signs")
    (folder / "config.yml").write_text(CONFIG, "utf-8")
    with engine() as url:
        stack = Stack(folder, "--config", str(folder / "config.yml"))
        stack.engine = url
        try:
            stack.serve()
            yield stack
        finally:
            stack.close()


@pytest.fixture(name="ask")
async def _ask(stack: Stack) -> AsyncIterator[Any]:
    async with client() as session:

        async def ask(model: str, prompt: str, *, give_up_s: float = 10.0, **more: Any) -> None:
            """Ask for something and read all of it, or hang up."""
            body = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": True} | more
            with contextlib.suppress(TimeoutError):
                async with (
                    asyncio.timeout(give_up_s),
                    session.post(f"{stack.url}/v1/chat/completions", json=body) as reply,
                ):
                    await reply.read()

        yield ask


def signs(stack: Stack, model: str) -> dict[str, int]:
    """Return what was counted of a model."""
    series = stack.scrape().samples.get(SIGNS, {})
    return {
        dict(labels)["sign"]: int(value) for labels, value in series.items() if dict(labels)["model"] == model and value
    }


CASES: Final[dict[str, tuple[tuple[str, ...], dict[str, Any], dict[str, int]]]] = {
    "fine": (("fine",), {}, {}),
    "vllms-own-repetition": (("repetition",), {}, {"repetition": 1}),
    "truncated": (("truncated",), {}, {"truncated": 1}),
    "empty-stream": (("empty",), {}, {"empty": 1}),
    "empty-plain": (("empty",), {"stream": False}, {"empty": 1}),
    "refusals": (tuple(name for name in SAYS if name.startswith("refuse")), {}, {"refusal": 3}),
    "loop": (("loop",), {}, {"loop_suspected": 1, "loop": 1}),
    "loop-plain": (("loop",), {"stream": False}, {"loop_suspected": 1, "loop": 1}),
    "stall": (("stall",), {}, {"stalled": 1}),
    "unheard": (("hang",), {"give_up_s": 0.5}, {"unheard": 1}),
    "abandoned": (("open",), {"give_up_s": 1.0}, {"abandoned": 1, "loop_suspected": 1, "loop": 1}),
    "retry": (("fail", "fail"), {}, {"retry": 1}),
    "regeneration": (("fine", "fine"), {}, {"regeneration": 1}),
    "another-prompt": (("fine 1", "fine 2"), {}, {}),
}


@pytest.mark.parametrize("name", CASES)
async def test_each_sign_is_counted_where_it_is_due(stack: Stack, ask: Any, name: str) -> None:
    """And no other is. Who asks again throws other dice."""
    prompts, more, expected = CASES[name]
    for number, prompt in enumerate(prompts):
        await ask(name, prompt, temperature=number / 2, **more)
    booked = lambda: stack.total("inferwatch_requests_total", model=name) >= len(prompts)  # noqa: E731
    await asyncio.to_thread(wait_until, booked, f"{name} booked")
    assert await asyncio.to_thread(signs, stack, name) == expected
    assert await asyncio.to_thread(stack.total, "inferwatch_quality_heard_total", model=name) == len(prompts)


async def test_a_loop_is_told_while_it_streams(stack: Stack, ask: Any) -> None:
    """Somebody may still stop it."""
    asking = asyncio.create_task(ask("live", "open"))
    try:
        await asyncio.to_thread(
            wait_until, lambda: stack.total(SIGNS, model="live", sign="loop_suspected") == 1, "the suspicion"
        )
        assert not asking.done()
        assert await asyncio.to_thread(stack.total, "inferwatch_requests_total", model="live") == 0
    finally:
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking


BODIES: Final[dict[str, bytes]] = {
    "no-messages": b'{"model": "odd", "messages": []}',
    "no-text": b'{"model": "odd", "messages": [{"role": "user", "content": ""}]}',
    "huge": json.dumps({"model": "odd", "messages": [{"role": "user", "content": "fine " * 400_000}]}).encode(),
    "one-word": json.dumps({"model": "odd", "messages": [{"role": "user", "content": "x" * 300_000}]}).encode(),
    "lone-surrogate": b'{"model": "odd", "messages": [{"role": "user", "content": "\\ud800\\udfff\\udc00"}]}',
    "null-bytes": b'{"model": "odd", "messages": [{"role": "user", "content": "\\u0000\\u0000"}]}',
    "deep": b'{"model": "odd", "messages": [], "a": ' + b"[" * 2_000 + b"]" * 2_000 + b"}",
    "no-numbers": b'{"model": "odd", "messages": [], "temperature": NaN, "top_p": Infinity, "seed": 1e999}',
    "huge-number": b'{"model": "odd", "messages": [], "seed": ' + b"9" * 4_000 + b"}",
}


async def test_what_makes_no_sense_is_no_fault_and_no_alarm(stack: Stack) -> None:
    """Huge, empty or broken texts, numbers that are none, names of models that come once: each is booked, none is a fault
    of ours; who is not judged says so, in a metric."""
    async with client() as session:
        for body in BODIES.values():
            async with session.post(f"{stack.url}/v1/chat/completions", data=io.BytesIO(body)) as reply:
                await reply.read()
        for number in range(30):
            body = json.dumps({"model": f"once-{number}", "messages": []}).encode()
            async with session.post(f"{stack.url}/v1/chat/completions", data=io.BytesIO(body)) as reply:
                await reply.read()
    booked = lambda: stack.total("inferwatch_requests_total", model="once-29") == 1  # noqa: E731
    await asyncio.to_thread(wait_until, booked, "the last one booked")
    scrape = await asyncio.to_thread(stack.scrape)
    faults = {
        name: value
        for name, series in scrape.samples.items()
        if name in {"inferwatch_collector_observer_errors_total", "inferwatch_relay_observer_errors_total"}
        for value in series.values()
    }
    assert not any(faults.values()), faults
    judging = {dict(labels)["model"]: value for labels, value in scrape.samples["inferwatch_drift_judging"].items()}
    assert judging["once-0"] == judging["once-29"] == judging["odd"] == 0
    assert not any(scrape.samples.get("inferwatch_drift_detected", {}).values())
    assert await asyncio.to_thread(status, f"{stack.admin}/readyz") == 200
