"""engine_identity: which engine gives itself away by what."""

import json
from typing import Any

import pytest

from inferwatch.relay.engine_identity import Answer, identify

NOT_FOUND = Answer(404, {}, b'{"detail":"Not Found"}')


def ok(content: Any, **headers: str) -> Answer:
    """Return a success with that JSON."""
    lower = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Answer(200, lower, json.dumps(content).encode())


def models(owner: str) -> Answer:
    """Return a list of one model."""
    return ok({"object": "list", "data": [{"id": "m", "object": "model", "owned_by": owner}]})


async def identified(answers: dict[str, Answer]) -> tuple[str | None, list[str]]:
    """Return who an engine with these answers is taken for, and what it was asked."""
    asked = []

    async def get(path: bytes) -> Answer:
        asked.append(path.decode())
        return answers.get(path.decode(), NOT_FOUND)

    return await identify(get), asked


VERSION = ok({"version": "1.2.3"})


@pytest.mark.parametrize(
    ("answers", "name"),
    [
        ({"/version": VERSION, "/v1/models": models("vllm")}, "vllm"),
        ({"/version": VERSION, "/v1/models": Answer(401, {}, b'{"error":"Unauthorized"}')}, "vllm"),
        ({"/version": VERSION, "/v1/models": models("tensorrt_llm")}, "trtllm"),
        ({"/v1/models": models("sglang")}, "sglang"),
        ({"/version": Answer(404, {b"server": b"llama.cpp"}, b"{}")}, "llamacpp"),
        ({"/v1/models": models("llamacpp")}, "llamacpp"),
        ({"/v1/models": models("library"), "/api/version": VERSION}, "ollama"),
        ({"/api/version": VERSION}, "ollama"),
        (
            {"/v1/models": models("google"), "/info": ok({"model_id": "m", "max_total_tokens": 9, "router": "x"})},
            "tgi",
        ),
        ({"/v2": ok({"name": "triton", "version": "2.60.0"})}, "triton"),
        ({"/v1/models": models("Qwen"), "/health": ok({"status": "ok"}, x_request_id="1")}, "transformers"),
        ({"/health": ok({"status": "ok"})}, "unknown"),
        ({"/v1/models": models("openai")}, "unknown"),
        ({"/info": ok({"router": "x"})}, "unknown"),
        ({}, "unknown"),
        ({"/version": Answer(503, {}, b"")}, None),
        ({"/version": ok([]), "/v1/models": ok({"data": [5]}), "/info": Answer(200, {}, b"\xff")}, "unknown"),
        ({"/v1/models": ok({"data": {}})}, "unknown"),
        ({"/v1/models": ok({"data": [{"owned_by": ["vllm"]}]})}, "unknown"),
    ],
)
async def test_who_it_is(answers: dict[str, Answer], name: str | None) -> None:
    """By what its source says it answers, and nobody where that fits nobody."""
    assert (await identified(answers))[0] == name


async def test_the_commonest_engine_is_known_after_two() -> None:
    """A first request waits for it."""
    assert (await identified({"/version": VERSION, "/v1/models": models("vllm")}))[1] == ["/version", "/v1/models"]
