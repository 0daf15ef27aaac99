"""The simulated engine as its clients see it."""

import asyncio
import json
import re
import sys
from typing import Any

import aiohttp
import openai
import pytest

from inferwatch_simulator.testing import Serve, SimulatorClient

USAGE = {"include_usage": True}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def text_of(chunks: list[dict[str, Any]], index: int = 0) -> str:
    """What a stream says for one choice."""
    said = ""
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] == index:
                said += choice.get("text") or choice.get("delta", {}).get("content") or ""
    return said


async def test_same_request_same_answer(serve: Serve) -> None:
    """Two simulators of one seed agree, one of another seed does not."""
    first, second, other = await serve(), await serve(), await serve(seed=1)
    answers = [(await client.chat("hi", max_tokens=40)).json["choices"] for client in (first, second, other)]
    assert answers[0] == answers[1] != answers[2]


async def test_stream_says_what_the_plain_reply_says(serve: Serve) -> None:
    """Streaming changes how an answer comes, not what it is."""
    client = await serve()
    plain = (await client.chat("tell me", max_tokens=300)).json
    chunks = (await client.chat("tell me", max_tokens=300, stream=True, stream_options=USAGE)).chunks
    assert text_of(chunks) == plain["choices"][0]["message"]["content"]
    assert chunks[-1]["usage"]["completion_tokens"] == plain["usage"]["completion_tokens"]
    assert chunks[-2]["choices"][0]["finish_reason"] == plain["choices"][0]["finish_reason"]


async def test_choices_of_several_prompts_are_told_apart(serve: Serve) -> None:
    """Every index streams its own answer, and the usage covers all of them."""
    client = await serve()
    body: dict[str, Any] = {"n": 2, "max_tokens": 12, "ignore_eos": True}
    plain = (await client.complete(["one", "two"], **body)).json
    chunks = (await client.complete(["one", "two"], stream=True, stream_options=USAGE, **body)).chunks
    assert [text_of(chunks, index) for index in range(4)] == [choice["text"] for choice in plain["choices"]]
    assert chunks[-1]["usage"] == {"prompt_tokens": 2, "total_tokens": 50, "completion_tokens": 48}


async def test_continuous_usage_is_cumulative_per_choice(serve: Serve) -> None:
    """Each chunk counts its own choice and prompt; the last one, without choices, counts everything."""
    client = await serve()
    options = USAGE | {"continuous_usage_stats": True}
    body: dict[str, Any] = {"n": 2, "max_tokens": 5, "ignore_eos": True, "stream": True, "stream_options": options}
    chunks = (await client.complete(["a b c", "d"], **body)).chunks
    seen: dict[int, list[int]] = {}
    for chunk in chunks[:-1]:
        seen.setdefault(chunk["choices"][0]["index"], []).append(chunk["usage"]["completion_tokens"])
    assert seen == {index: [1, 2, 3, 4, 5] for index in range(4)}
    assert chunks[-1]["usage"]["completion_tokens"] == 20
    assert {chunk["usage"]["prompt_tokens"] for chunk in chunks[:-1]} == {3, 1}


async def test_fast_and_assembled_chunks_are_the_same_bytes(serve: Serve) -> None:
    """The short cut for ordinary tokens writes what the long way writes."""
    client = await serve()
    for ask in (client.chat, client.complete):
        body: dict[str, Any] = {"max_tokens": 200, "ignore_eos": True, "stream": True}
        short = await ask("hi", {"X-Request-Id": "a"}, **body)
        long = await ask("hi", {"X-Request-Id": "a"}, return_token_ids=True, **body)
        stripped = []
        for event, chunk in zip(long.events[:-1], long.chunks, strict=True):
            for holder in (chunk, *chunk["choices"]):
                for key in ("token_ids", "prompt_token_ids"):
                    if key in holder:
                        event = event.replace(json.dumps(holder[key], separators=(",", ":")), "null")
            stripped.append(event)
        created = [chunk["created"] for chunk in (*short.chunks, *long.chunks)]
        assert [one.replace(str(created[-1]), str(created[0])) for one in stripped] == short.events[:-1]


async def test_token_ids_count_every_token(serve: Serve) -> None:
    """With ids on every chunk their number is the number of completion tokens, also where the text is empty."""
    client = await serve()
    chunks = (await client.chat("x", return_token_ids=True, max_tokens=400, stream=True, ignore_eos=True)).chunks
    ids = [one for chunk in chunks for one in chunk["choices"][0].get("token_ids") or ()]
    assert len(ids) == 400


async def test_request_id_is_in_the_reply(serve: Serve) -> None:
    """As given in the header, unsanitised; else in the body; else a random one."""
    client = await serve()
    assert (await client.chat(headers={"X-Request-Id": "weird id"})).json["id"] == "chatcmpl-weird id"
    assert (await client.complete(request_id="mine")).json["id"] == "cmpl-mine"
    assert len((await client.complete()).json["id"]) == len("cmpl-") + 16


async def test_tool_call_arrives_in_pieces(serve: Serve) -> None:
    """Name first with the id, then the arguments bit by bit, and the finish reason tells of it."""
    client = await serve()
    body: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required"}
    plain = (await client.chat("weather?", **body)).json["choices"][0]
    chunks = (await client.chat("weather?", stream=True, **body)).chunks
    calls = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls") or ()]
    assert calls[0]["function"] == {"name": "weather"}
    arguments = "".join(call["function"]["arguments"] for call in calls[1:])
    assert len(calls) > 5
    assert arguments == plain["message"]["tool_calls"][0]["function"]["arguments"]
    assert "city" in json.loads(arguments)
    assert chunks[-1]["choices"][0]["finish_reason"] == plain["finish_reason"] == "tool_calls"


async def test_demanded_tool_ends_with_stop(serve: Serve) -> None:
    """A call of a named tool is not the model's own choice, and vLLM says so."""
    client = await serve()
    choice = {"type": "function", "function": {"name": "weather"}}
    reply = (await client.chat("weather?", tools=[TOOL], tool_choice=choice)).json["choices"][0]
    assert (reply["finish_reason"], reply["message"]["content"]) == ("stop", "")


async def test_hidden_reasoning_makes_a_hole_in_the_stream(serve: Serve) -> None:
    """Thoughts that are not shown have no chunks, but they are counted."""
    client = await serve(mean_output_tokens=100.0)
    body: dict[str, Any] = {"stream": True, "stream_options": USAGE, "max_tokens": 500}
    shown = (await client.chat("why?", include_reasoning=True, **body)).chunks
    hidden = (await client.chat("why?", include_reasoning=False, **body)).chunks
    assert shown[-1]["usage"] == hidden[-1]["usage"]
    thoughts = shown[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert len(shown) - len(hidden) == thoughts > 0
    assert text_of(shown) == text_of(hidden)


async def test_stop_string_is_told(serve: Serve) -> None:
    """The answer ends before it, and the reply says which it was."""
    client = await serve()
    whole = (await client.complete("x", max_tokens=200, ignore_eos=True)).json["choices"][0]["text"]
    stop = whole.split()[3]
    choice = (await client.complete("x", max_tokens=200, ignore_eos=True, stop=[stop])).json["choices"][0]
    assert choice["text"] == whole[: whole.index(stop)]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)


async def test_stream_interval_batches_tokens(serve: Serve) -> None:
    """First token alone, then so many per chunk, then the rest."""
    client = await serve(stream_interval=3)
    options = USAGE | {"continuous_usage_stats": True}
    chunks = (await client.complete("x", max_tokens=9, ignore_eos=True, stream=True, stream_options=options)).chunks
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [1, 4, 7, 9, 9]


async def test_second_turn_finds_its_prefix_in_the_cache(serve: Serve) -> None:
    """Cached tokens are told when the server was asked to, and counted by the engine."""
    client = await serve(enable_prompt_tokens_details=True)
    prompt = "the same long beginning " * 20
    await client.complete(prompt)
    usage = (await client.complete(prompt + "and a new end")).json["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 96  # of 100
    assert await client.metric("vllm:prefix_cache_hits_total") == 96


async def test_engine_counters_equal_the_sum_of_usages(serve: Serve) -> None:
    """Every token a reply told of is in the engine's counters, the prompt once per answer."""
    client = await serve()
    usages = []
    for n, stream in ((1, False), (1, True), (3, False), (2, True)):
        for ask in (client.chat, client.complete):
            body: dict[str, Any] = {"stream": True, "stream_options": USAGE} if stream else {}
            answered = await ask("hello there", n=n, max_tokens=30, **body)
            usages.append((n, answered.chunks[-1]["usage"] if stream else answered.json["usage"]))
    assert await client.metric("vllm:generation_tokens_total") == sum(usage["completion_tokens"] for _, usage in usages)
    assert await client.metric("vllm:prompt_tokens_total") == sum(n * usage["prompt_tokens"] for n, usage in usages)
    assert await client.metric("vllm:request_success_total") == sum(n for n, _ in usages)
    generated = await client.metric("vllm:generation_tokens_total")
    assert await client.metric("vllm:time_to_first_token_seconds_count") == 14
    assert await client.metric("vllm:inter_token_latency_seconds_count") == generated - 14
    assert await client.metric("vllm:request_generation_tokens_sum") == generated


@pytest.mark.parametrize("stream", [True, False])
async def test_client_that_leaves_frees_the_engine_at_once(serve: Serve, stream: bool) -> None:
    """Its sequences go, streamed or not; only the token counters have moved."""
    client = await serve(speed=1.0, decode_step_ms_base=5.0)
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 10_000, "ignore_eos": True, "stream": stream}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3), client.session.post(client.url + "/v1/chat/completions", json=body) as reply:
            await reply.read()
    await _until_idle(client)
    assert await client.metric("vllm:generation_tokens_total") > 0
    assert await client.metric("vllm:prompt_tokens_total") == 10
    assert await client.metric("vllm:request_success_total") == 0
    assert await client.metric("vllm:e2e_request_latency_seconds_count") == 0


async def _until_idle(client: SimulatorClient) -> None:
    async with asyncio.timeout(5):
        while not client.simulator.engine.scheduler.idle:
            await asyncio.sleep(0.01)


async def test_waiting_request_can_be_left(serve: Serve) -> None:
    """A client that hangs up in the queue takes its request out of it."""
    client = await serve(speed=1.0, max_num_seqs=1, decode_step_ms_base=5.0)
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 10_000, "ignore_eos": True, "stream": True}
    path = client.url + "/v1/chat/completions"
    async with client.session.post(path, json=body) as running:
        await running.content.readany()
        async with client.session.post(path, json=body) as waiting:
            assert waiting.status == 200
            assert await client.metric("vllm:num_requests_waiting") == 1
            waiting.close()
        async with asyncio.timeout(5):
            while await client.metric("vllm:num_requests_waiting"):
                await asyncio.sleep(0.01)
        assert await client.metric("vllm:num_requests_running") == 1
        running.close()
    await _until_idle(client)


async def test_full_queue_refuses(serve: Serve) -> None:
    """Beyond the limit there is a 503, before any stream begins, and it is counted."""
    client = await serve(max_num_queued_reqs=1)
    answered = await client.complete("x", n=2, stream=True)
    assert answered.status == 503
    assert answered.json["error"]["type"] == "Service Unavailable"
    assert await client.metric("vllm:admission_rejections_total", reason="max_num_queued_reqs") == 1
    assert (await client.complete("x")).status == 200


async def test_per_request_metrics_ride_on_the_last_chunk(serve: Serve) -> None:
    """With the flag the usage chunk has timings; a reply of several answers has none."""
    client = await serve(enable_per_request_metrics=True)
    body: dict[str, Any] = {"max_tokens": 5, "ignore_eos": True, "stream": True, "stream_options": USAGE}
    timings = (await client.chat(**body)).chunks[-1]["metrics"]
    assert timings["time_to_first_token_ms"] > 0
    assert "metrics" not in (await client.chat(n=2, **body)).chunks[-1]


async def test_silence_is_filled_with_comments(serve: Serve) -> None:
    """A stream that waits longer than the interval gets comments, also before its first event."""
    client = await serve(speed=1.0, decode_step_ms_base=120.0, sse_keep_alive_interval_s=0.05)
    events = (await client.complete("x", max_tokens=2, ignore_eos=True, stream=True)).events
    assert events[0] == ": keep-alive\n\n"
    assert len([event for event in events if event.startswith("data: ")]) == 3


async def test_slow_reader_gets_bigger_chunks(serve: Serve) -> None:
    """Tokens that cannot be sent are held back and merged; none is lost."""
    client = await serve(decode_step_ms_base=0.5, max_model_len=32_000)
    options = USAGE | {"continuous_usage_stats": True}
    # With log-probabilities it is more than the buffers of two sockets take.
    body: dict[str, Any] = {"prompt": "x", "max_tokens": 20_000, "ignore_eos": True, "logprobs": 5}
    body |= {"stream": True, "stream_options": options}
    async with client.session.post(client.url + "/v1/completions", json=body) as reply:
        async with asyncio.timeout(30):
            while await client.metric("vllm:generation_tokens_total") < 20_000:
                await asyncio.sleep(0.02)
        data = await reply.read()
    chunks = [json.loads(event[6:]) for event in data.decode().split("\n\n") if event.startswith("data: {")]
    assert chunks[-1]["usage"]["completion_tokens"] == 20_000
    assert len(chunks) < 20_000
    whole = (await client.complete("x", max_tokens=20_000, ignore_eos=True)).json["choices"][0]["text"]
    assert text_of(chunks) == whole


async def test_old_http_is_answered_without_chunks(serve: Serve) -> None:
    """HTTP/1.0, as some proxies speak it, gets a body that ends with the connection."""
    client = await serve()
    host, port = client.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    data = b'{"prompt":"x","max_tokens":2,"ignore_eos":true,"stream":true}'
    writer.write(b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data))
    received = await reader.read()
    writer.close()
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert body.startswith(b"data: {")
    assert body.endswith(b"data: [DONE]\n\n")


async def test_large_bodies_are_read(serve: Serve) -> None:
    """There is no limit of a megabyte, as frameworks like to set."""
    client = await serve()
    messages = [{"role": "user", "content": "hi", "attachment": "x" * 3_000_000}]
    assert (await client.post("/v1/chat/completions", {"messages": messages, "max_tokens": 1})).status == 200


async def test_preemption_is_counted_and_loses_nothing(serve: Serve) -> None:
    """With memory for one long answer and a half, two get there all the same."""
    client = await serve(kv_tokens=320, max_model_len=256)
    body: dict[str, Any] = {"max_tokens": 200, "ignore_eos": True}
    replies = await asyncio.gather(*(client.complete(f"prompt {name}", **body) for name in "ab"))
    assert [reply.json["usage"]["completion_tokens"] for reply in replies] == [200, 200]
    assert await client.metric("vllm:num_preemptions_total") > 0
    assert await client.metric("vllm:generation_tokens_total") == 400


async def test_official_client_reads_the_stream(serve: Serve) -> None:
    """What is shaped like vLLM is understood by the OpenAI library."""
    client = await serve()
    async with openai.AsyncOpenAI(base_url=client.url + "/v1", api_key="none") as official:
        stream = await official.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "hi"}],
            max_tokens=20,
            stream=True,
            stream_options=USAGE,
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].usage.completion_tokens == 20
    assert (await client.chat("hi", max_tokens=20)).json["choices"][0]["message"]["content"] == "".join(
        chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices
    )


async def test_command_serves_until_it_is_told_to_stop() -> None:
    """`run` listens, says where, and ends without complaint on SIGTERM."""
    code = (
        "from inferwatch_simulator.config import SimulatorConfig; from inferwatch_simulator.server import run; "
        "run(SimulatorConfig(port=0))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-uc", code, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            line = (await process.stdout.readline()).decode()
            url = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert url is not None, line
            async with aiohttp.ClientSession() as session, session.get(url.group() + "/health") as response:
                assert response.status == 200
            process.terminate()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_closed_simulator_refuses_connections(serve: Serve) -> None:
    """After `close` nothing listens and nothing runs."""
    client = await serve(speed=1.0)
    body = {"prompt": "x", "max_tokens": 1000, "ignore_eos": True, "stream": True}
    async with client.session.post(client.url + "/v1/completions", json=body):
        await client.simulator.close()
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.complete()
