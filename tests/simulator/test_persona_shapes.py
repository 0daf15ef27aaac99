"""The personas' bytes against what was recorded of the engines: keys in their order, nulls, framing, heads.

The keys below are those of recordings of the engines themselves (TGI 3.3's integration snapshots, Ollama's and OpenAI's
replies, Anthropic's, a run of Transformers serve 5.19), or of their source where nothing is recorded.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from inferwatch.engines import PROFILES
from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.server import start

CHAT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 6}
STREAM = {"stream": True}
USAGE = {"stream_options": {"include_usage": True}}


class Said:
    """One reply."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        """A plain reply."""
        return json.loads(self.body)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The objects of a stream."""
        lines = [line.removeprefix(b"data:").strip() for line in self.body.split(b"\n") if line.startswith(b"data:")]
        return [json.loads(line) for line in lines if line != b"[DONE]"]


class Client:
    """Speaks to simulators that it starts."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def post(self, engine: str, path: str, body: dict[str, Any]) -> Said:
        """Send one request to a fresh engine."""
        config = SimulatorConfig(port=0, model="tiny", speed=1000.0, engine=engine)
        needed = dict(header.split(": ", 1) for header in PROFILES[engine].ask_headers)
        async with (
            await start(config) as simulator,
            self._session.post(simulator.url + path, json=body, headers=needed) as reply,
        ):
            headers = {name.lower(): value for name, value in reply.headers.items()}
            return Said(reply.status, headers, await reply.read())


@pytest.fixture(name="client")
async def _client() -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(session)


async def test_tgi_s_own_stream(client: Client) -> None:
    """`data:` without a blank, a token each, text and details in the last, no end mark; counts not in the head."""
    body = {"inputs": "hi", "parameters": {"max_new_tokens": 4, "details": True}}
    said = await client.post("tgi", "/generate_stream", body)
    assert said.body.startswith(b'data:{"index":1,"token":{"id":')
    assert [list(event) for event in said.events] == [["index", "token", "generated_text", "details"]] * 4
    assert list(said.events[0]["token"]) == ["id", "text", "logprob", "special"]
    assert [event["details"] for event in said.events[:-1]] == [None] * 3
    assert list(said.events[-1]["details"]) == ["finish_reason", "generated_tokens", "seed", "input_length"]
    assert b"[DONE]" not in said.body
    assert said.headers["x-accel-buffering"] == "no"
    assert "x-prompt-tokens" not in said.headers


async def test_tgi_s_plain_reply(client: Client) -> None:
    """An object, or an array of one behind `/`; the head has counts and times."""
    body = {"inputs": "hi", "parameters": {"max_new_tokens": 4, "details": True}}
    said = await client.post("tgi", "/generate", body)
    assert list(said.json) == ["generated_text", "details"]
    assert list(said.json["details"]) == ["finish_reason", "generated_tokens", "seed", "prefill", "tokens"]
    times = ("compute-time", "total-time", "validation-time", "queue-time", "inference-time", "time-per-token")
    counts = ("compute-type", "compute-characters", "prompt-tokens", "generated-tokens")
    assert {f"x-{name}" for name in times + counts} <= set(said.headers)
    assert isinstance((await client.post("tgi", "/", body)).json, list)
    assert list((await client.post("tgi", "/generate", {"inputs": "hi"})).json) == ["generated_text"]


async def test_tgi_s_chat_stream(client: Client) -> None:
    """An empty id and `"usage":null` everywhere, the role on each chunk, usage on an event of its own."""
    said = await client.post("tgi", "/v1/chat/completions", CHAT | STREAM | USAGE)
    chunks = said.events[:-1]
    assert {chunk["id"] for chunk in said.events} == {""}
    assert all(chunk["usage"] is None for chunk in chunks)
    assert all(chunk["choices"][0]["delta"]["role"] == "assistant" for chunk in chunks)
    assert list(chunks[0]) == ["id", "object", "created", "model", "system_fingerprint", "choices", "usage"]
    assert said.events[-1]["choices"] == []
    assert said.body.endswith(b"data: [DONE]\n\n")


async def test_tgi_s_errors(client: Client) -> None:
    """Flat; of a stream an event at 200, of a chat's with 422 in it."""
    said = await client.post("tgi", "/generate", {"inputs": ""})
    assert (said.status, list(said.json)) == (422, ["error", "error_type"])
    said = await client.post("tgi", "/generate_stream", {"inputs": ""})
    assert (said.status, list(said.events[0])) == (200, ["error", "error_type"])
    said = await client.post("tgi", "/v1/chat/completions", CHAT | STREAM | {"n": 0})
    assert said.status == 200
    assert list(said.events[0]["error"]) == ["message", "http_status_code"]


async def test_sglang_s_text_repeats_itself(client: Client) -> None:
    """Every state has the whole text, counts so far, and a finish that is an object in the last."""
    said = await client.post("sglang", "/generate", {"text": "hi", "sampling_params": {"max_new_tokens": 5}} | STREAM)
    texts = [event["text"] for event in said.events]
    assert all(later.startswith(earlier) for earlier, later in zip(texts, texts[1:], strict=False))
    assert [event["meta_info"]["completion_tokens"] for event in said.events] == list(range(1, len(texts) + 1))
    assert said.events[0]["meta_info"]["finish_reason"] is None
    assert said.events[-1]["meta_info"]["finish_reason"]["type"] in {"length", "stop"}
    assert said.body.endswith(b"data: [DONE]\n\n")


async def test_trtllm_s_role_chunk(client: Client) -> None:
    """It has a blank before its line end; a list of prompts ends with a usage for each."""
    said = await client.post("trtllm", "/v1/chat/completions", CHAT | STREAM)
    assert b'"role":"assistant"' in said.body.partition(b" \n\n")[0]
    body = {"model": "tiny", "prompt": ["a", "b"], "max_tokens": 3} | STREAM | USAGE
    usages = [event["usage"] for event in (await client.post("trtllm", "/v1/completions", body)).events[-2:]]
    assert all(usage["prompt_tokens"] == 1 for usage in usages)


async def test_llamacpp_s_last_event(client: Client) -> None:
    """Counts, the prompt once more, `timings`; no end mark on its own route, `timings` on OpenAI's."""
    said = await client.post("llamacpp", "/completion", {"prompt": "hi", "n_predict": 4} | STREAM)
    assert list(said.events[0]) == [
        "index", "content", "tokens", "stop", "id_slot", "tokens_predicted", "tokens_evaluated",
    ]  # fmt: skip
    last = said.events[-1]
    assert (last["stop"], last["prompt"], last["stop_type"] in {"limit", "eos"}) == (True, "hi", True)
    assert {"cache_n", "prompt_n", "prompt_ms", "predicted_n", "predicted_ms"} <= set(last["timings"])
    assert b"[DONE]" not in said.body
    said = await client.post("llamacpp", "/v1/chat/completions", CHAT | STREAM)
    assert "timings" in said.events[-1]
    assert said.events[-1]["choices"][0]["delta"] == {}
    assert said.headers["server"] == "llama.cpp"


async def test_ollama_s_records(client: Client) -> None:
    """NDJSON without being asked for; figures in the last record alone, in the recorded order."""
    said = await client.post("ollama", "/api/chat", {**CHAT, "options": {"num_predict": 5}})
    records = [json.loads(line) for line in said.body.splitlines()]
    assert said.headers["content-type"] == "application/x-ndjson"
    assert list(records[0]) == ["model", "created_at", "message", "done"]
    assert list(records[-1]) == [
        "model", "created_at", "message", "done", "done_reason", "total_duration", "load_duration", "prompt_eval_count",
        "prompt_eval_duration", "eval_count", "eval_duration",
    ]  # fmt: skip
    assert [record["done"] for record in records] == [False] * (len(records) - 1) + [True]
    said = await client.post("ollama", "/api/chat", {"model": "none"})
    assert (said.status, said.body) == (404, b'{"error":"model \'none\' not found"}')


async def test_transformers_serve(client: Client) -> None:
    """A role chunk of its own, usage on the finish chunk, no end mark; what it does not know it refuses."""
    said = await client.post("transformers", "/v1/chat/completions", CHAT | STREAM)
    assert said.events[0]["choices"][0]["delta"] == {"role": "assistant"}
    assert said.events[-1]["usage"]["completion_tokens"] == 6
    assert said.events[-1]["choices"]
    assert said.events[0]["model"] == "tiny@main"
    assert b"[DONE]" not in said.body
    said = await client.post("transformers", "/v1/chat/completions", CHAT | {"foo": 1})
    assert (said.status, said.json) == (422, {"detail": "Unexpected fields in the request: {'foo'}"})
    said = await client.post("transformers", "/v1/responses", {"model": "tiny", "input": "hi"})
    assert b"event:" not in said.body
    assert said.events[0]["type"] == "response.created"


async def test_anthropic_s_events(client: Client) -> None:
    """Start with a placeholder, block, ping, deltas, stop; the output's count in `message_delta`."""
    said = await client.post("anthropic", "/v1/messages", CHAT | STREAM)
    kinds = [event["type"] for event in said.events]
    assert kinds[:3] == ["message_start", "content_block_start", "ping"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[3:-3]) == {"content_block_delta"}
    assert said.events[0]["message"]["usage"]["output_tokens"] == 1
    assert said.events[-2]["usage"] == {"output_tokens": 6}
    assert said.body.startswith(b"event: message_start\ndata: {")
    said = await client.post("anthropic", "/v1/messages", {"messages": []})
    assert list(said.json) == ["type", "error", "request_id"]


async def test_openai_s_chunks(client: Client) -> None:
    """`"usage":null` until the usage; random padding on each chunk."""
    said = await client.post("openai", "/v1/chat/completions", CHAT | STREAM | USAGE)
    assert all(chunk["usage"] is None and chunk["obfuscation"] for chunk in said.events[:-1])
    assert said.events[-1]["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    assert list(said.events[0]["choices"][0]) == ["index", "delta", "logprobs", "finish_reason"]


async def test_openai_s_responses(client: Client) -> None:
    """Named events; an answer at its limit is incomplete."""
    body = {"model": "tiny", "input": "hi", "max_output_tokens": 3}
    said = await client.post("openai", "/v1/responses", body | STREAM)
    assert [event["type"] for event in said.events[:2]] == ["response.created", "response.in_progress"]
    assert said.events[-1]["type"] == "response.incomplete"
    assert said.events[-1]["response"]["usage"]["output_tokens"] == 3
    assert (await client.post("openai", "/v1/responses", body)).json["status"] == "incomplete"


async def test_triton_s_events(client: Client) -> None:
    """Text alone, unless counts are asked for; no end mark."""
    said = await client.post("triton", "/v2/models/tiny/generate_stream", {"text_input": "hi", "max_tokens": 3})
    assert [list(event) for event in said.events] == [["model_name", "model_version", "text_output"]] * 3
    assert b"[DONE]" not in said.body


async def test_tools_are_called(client: Client) -> None:
    """In each engine's words."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    body = {**CHAT, "max_tokens": 90, "tools": [tool], "tool_choice": "required"}
    said = await client.post("openai", "/v1/chat/completions", body)
    assert said.json["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "f"
    said = await client.post("openai", "/v1/chat/completions", body | STREAM)
    assert said.events[-1]["choices"][0]["finish_reason"] == "tool_calls"
