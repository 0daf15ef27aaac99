"""Record tests/fixtures/vllm from a real vLLM. Run: .venv/bin/python tests/engines/capture.py [SERVER…]

One file per case, named KIND.VARIANT.json, with the request, the reply (one text per HTTP chunk, base64 where it is not
UTF-8) and `expected`: what the reply itself says, and how far the engine's own counters moved. A server is started for
each set of flags below; requests go one at a time, so a counter's move belongs to one request.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from engine_cases import CHAT, COMPLETIONS, KINDS, MESSAGES, MODEL, RESPONSES, USAGE_VARIANTS, Kind, messages, words
from engine_process import ROOT, running_vllm
from engine_wire import HangUp, Reply, Request, exchange

FIXTURES = ROOT / "tests/fixtures/vllm"
SERVERS: dict[str, tuple[str, ...]] = {
    "default": ("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    "details": (
        "--enable-per-request-metrics",
        "--enable-prompt-tokens-details",
        "--reasoning-parser",
        "qwen3",
        "--enable-request-id-headers",
    ),
    "slow": ("--stream-interval", "3", "--sse-keep-alive-interval", "1", "--max-num-seqs", "1"),
    "forced": ("--enable-force-include-usage",),
    "nameless": ("--fingerprint-mode", "none"),
    "dying": ("--max-num-batched-tokens", "256"),
}
# Kinds that are worth their bytes in other servers, too. The bias makes the model end its thinking after some tokens.
PLAIN = next(kind for kind in KINDS if kind.name == "chat")
COMPLETION = next(kind for kind in KINDS if kind.name == "completion")
TWO = next(kind for kind in KINDS if kind.name == "chat_n2")
REASONING = Kind("chat_reasoning", CHAT, {**PLAIN.body, "max_tokens": 24, "logit_bias": {"8193": 6}})
CACHED_TEXT = words(200, seed=5)
CACHED = Kind("chat_cached", CHAT, {**PLAIN.body, "messages": messages(CACHED_TEXT), "max_tokens": 4})
CACHED_COMPLETION = Kind("completion_cached", COMPLETIONS, {**COMPLETION.body, "prompt": CACHED_TEXT, "max_tokens": 4})
ABORTED_AFTER_EVENTS = 20
POLL_S = 0.05
SETTLE_S = 0.3  # the engine logs its statistics after the step whose tokens are already on the wire


class Recorder:
    """Sends requests to one server and writes what comes back."""

    def __init__(self, base: str, flags: Iterable[str]) -> None:
        self.base = base
        self.flags = list(flags)

    async def counters(self) -> dict[str, int]:
        """Tokens the engine has counted so far, by the names used in `expected`."""
        text = (await _metrics(self.base)).decode()
        return {
            f"engine_{kind}_tokens": sum(
                int(float(value))
                for value in re.findall(rf"^vllm:{kind}_tokens_total\{{.*\}} (\S+)$", text, re.MULTILINE)
            )
            for kind in ("prompt", "generation")
        }

    async def record(self, case: str, request: Request, hang_up: HangUp | None = None) -> Reply:
        """Send, and write `case`.json."""
        before = await self.counters()
        reply = await exchange(self.base, request, hang_up)
        await asyncio.sleep(SETTLE_S)
        after = await self.counters()
        self.write(case, request, reply, {name: after[name] - before[name] for name in after})
        return reply

    def write(self, case: str, request: Request, reply: Reply, moved: dict[str, int]) -> None:
        """Write `case`.json; `moved` is how far the engine's counters moved, where that can be told."""
        content = {
            "case": case,
            "server_flags": self.flags,
            "request": {
                "method": request.method,
                "path": request.path,
                "headers": dict(request.headers),
                "body": None if request.body is None else request.body.decode(),
            },
            "response": {
                "status": reply.status,
                "reason": reply.reason,
                "headers": reply.headers,
                "complete": reply.complete,
                **encode_chunks(reply.chunks),
            },
            "expected": {**told_by(reply), **moved},
        }
        (FIXTURES / f"{case}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        print(f"  {case}: {reply.status}, {len(reply.body):,} bytes, {content['expected']}", flush=True)

    async def record_kind(
        self, kind: Kind, prefix: str = "", plain: bool = True, variants: Iterable[str] = USAGE_VARIANTS
    ) -> None:
        """All variants of one kind, with one request id, so that their bytes can be compared."""
        for variant in ([None] if plain else []) + list(variants):
            request = Request.post(kind.path, kind.request_body(variant), request_id=kind.name)
            await self.record(f"{prefix}{kind.name}.{variant or 'plain'}", request)


def encode_chunks(chunks: list[bytes]) -> dict[str, Any]:
    """The chunks as texts where all are UTF-8, else base64."""
    try:
        return {"encoding": "utf-8", "chunks": [chunk.decode() for chunk in chunks]}
    except UnicodeDecodeError:
        return {"encoding": "base64", "chunks": [base64.b64encode(chunk).decode() for chunk in chunks]}


def told_by(reply: Reply) -> dict[str, Any]:
    """What the reply itself tells: the last usage that stands for the whole request, and why each choice ended."""
    told: dict[str, Any] = {"usage": None, "finish_reasons": {}}
    for document in _documents(reply):
        choices = document.get("choices") or []
        for choice in choices:
            if choice.get("finish_reason"):
                told["finish_reasons"][str(choice["index"])] = choice["finish_reason"]
        usage = document.get("usage") or (document.get("response") or {}).get("usage")
        # In a stream, usage on a chunk that has choices counts that choice alone.
        if usage and ("choices" not in document or not choices or reply.header("content-length")):
            told["usage"] = usage
    return told


def _documents(reply: Reply) -> list[dict[str, Any]]:
    texts = [reply.body]
    if "event-stream" in (reply.header("content-type") or ""):
        texts = re.findall(rb"^data: (\{.*\})$", reply.body, re.MULTILINE)
    documents = []
    for text in texts:
        with contextlib.suppress(ValueError):
            document = json.loads(text)
            if isinstance(document, dict):
                documents.append(document)
    return documents


async def record_default(recorder: Recorder) -> None:
    for kind in KINDS:
        await recorder.record_kind(kind)
    for path, body in (
        (RESPONSES, {"model": MODEL, "input": "hi there", "temperature": 0, "max_output_tokens": 8}),
        (
            MESSAGES,
            {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 8},
        ),
    ):
        name = path.rsplit("/", 1)[1]
        await recorder.record(f"{name}.plain", Request.post(path, body, name))
        await recorder.record(f"{name}.stream", Request.post(path, {**body, "stream": True}, name))
    for variant in USAGE_VARIANTS:
        for kind in (PLAIN, COMPLETION):
            body = {**kind.request_body(variant), "max_tokens": 2000, "ignore_eos": True}
            request = Request.post(kind.path, body, f"{kind.name}_aborted")
            await recorder.record(f"{kind.name}_aborted.{variant}", request, HangUp(after_events=ABORTED_AFTER_EVENTS))
    await record_errors(recorder)
    for path in ("/v1/models", "/version", "/health"):
        await recorder.record(f"get_{path.rsplit('/', 1)[1]}", Request("GET", path))
    await recorder.record("tokenize_prompt", Request.post("/tokenize", {"model": MODEL, "prompt": "def f(x):"}))
    await recorder.record("tokenize_chat", Request.post("/tokenize", {"model": MODEL, "messages": messages("hi")}))
    await recorder.record("get_metrics", Request("GET", "/metrics"))


async def record_errors(recorder: Recorder) -> None:
    def with_body(path: str, **changes: Any) -> Request:
        return Request.post(path, {**(PLAIN if path == CHAT else COMPLETION).body, **changes}, "error")

    cases = {
        "model_unknown": with_body(CHAT, model="nope"),
        "model_unknown_stream": with_body(COMPLETIONS, model="nope", stream=True),
        "json_broken": Request("POST", CHAT, b'{"model": "tiny", ', (("Content-Type", "application/json"),)),
        "body_empty": Request("POST", CHAT, b"", (("Content-Type", "application/json"),)),
        "body_not_object": Request("POST", CHAT, b"[1,2]", (("Content-Type", "application/json"),)),
        "field_missing": Request.post(CHAT, {"model": MODEL}),
        "field_wrong_type": with_body(CHAT, temperature="hot"),
        "prompt_too_long": with_body(COMPLETIONS, prompt=[5] * 5000),
        "prompt_too_long_stream": with_body(COMPLETIONS, prompt=[5] * 5000, stream=True),
        "stream_options_without_stream": with_body(CHAT, stream_options={"include_usage": True}),
        "n_with_greedy": with_body(CHAT, n=2),
        "messages_field_missing": Request.post(MESSAGES, {"model": MODEL}),
        "messages_model_unknown": Request.post(
            MESSAGES, {"model": "nope", "max_tokens": 3, "messages": [{"role": "user", "content": "hi"}]}
        ),
        "route_unknown": Request.post("/v1/nope", {}),
        "method_not_allowed": Request("GET", CHAT),
    }
    for name, request in cases.items():
        await recorder.record(f"error_{name}", request)


async def record_details(recorder: Recorder) -> None:
    await recorder.record_kind(REASONING)
    for kind in (CACHED, CACHED_COMPLETION):
        await exchange(recorder.base, Request.post(kind.path, kind.body))  # fills the prefix cache
        await recorder.record_kind(kind)
    await recorder.record_kind(TWO, "details_")


@contextlib.asynccontextmanager
async def _occupied(base: str) -> AsyncIterator[None]:
    """Keep the engine's only slot busy, so that the next request queues and its stream opens with comments."""
    body = {**COMPLETION.body, "prompt": [COMPLETION.body["prompt"]] * 4, "max_tokens": 3000, "ignore_eos": True}
    async with asyncio.TaskGroup() as group:
        occupier = group.create_task(exchange(base, Request.post(COMPLETIONS, body)))
        while not re.search(rb"^vllm:num_requests_waiting\{.*\} [1-9]", await _metrics(base), re.MULTILINE):
            await asyncio.sleep(POLL_S)
        yield
        occupier.cancel()


async def _metrics(base: str) -> bytes:
    return (await exchange(base, Request("GET", "/metrics"))).body


async def record_slow(recorder: Recorder) -> None:
    for kind in (PLAIN, COMPLETION):
        await recorder.record_kind(kind, "interval3_", plain=False)
        for variant in USAGE_VARIANTS:
            request = Request.post(kind.path, kind.request_body(variant), f"{kind.name}_keep_alive")
            async with _occupied(recorder.base):
                # Counters also move for the request in front: `expected` of these cases leaves them out below.
                await recorder.record(f"{kind.name}_keep_alive.{variant}", request)
            _drop_counters(FIXTURES / f"{kind.name}_keep_alive.{variant}.json")


def _drop_counters(path: Path) -> None:
    content = json.loads(path.read_text())
    content["expected"] = {key: value for key, value in content["expected"].items() if not key.startswith("engine_")}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


async def record_forced(recorder: Recorder) -> None:
    await recorder.record_kind(PLAIN, "forced_", plain=False)
    await recorder.record_kind(COMPLETION, "forced_", plain=False)


async def record_nameless(recorder: Recorder) -> None:
    await recorder.record_kind(PLAIN, "nameless_")
    await recorder.record_kind(COMPLETION, "nameless_")


async def record_dying(recorder: Recorder) -> None:
    """A stream and a plain request during which the engine dies, and one after it.

    What kills it is a fault of vLLM 0.32 on the CPU: a seeded request whose prefill is split ends the engine core.
    """
    killer = {**COMPLETION.body, "prompt": words(1000), "temperature": 1}
    running = {**PLAIN.body, "max_tokens": 3000, "ignore_eos": True}
    requests = {
        "dying_chat.bare": Request.post(CHAT, {**running, "stream": True}, "dying"),
        "dying_chat.continuous": Request.post(
            CHAT, {**running, **Kind("", CHAT, {}).request_body("continuous")}, "dying"
        ),
        "dying_chat.plain": Request.post(CHAT, running, "dying"),
    }
    async with asyncio.TaskGroup() as group:
        victims = {case: group.create_task(exchange(recorder.base, request)) for case, request in requests.items()}
        await asyncio.sleep(SETTLE_S)
        requests["dying_killer.plain"] = Request.post(COMPLETIONS, killer, "dying")
        victims["dying_killer.plain"] = group.create_task(exchange(recorder.base, requests["dying_killer.plain"]))
    for case, victim in victims.items():
        recorder.write(case, requests[case], victim.result(), {})


RECORDINGS = {
    "default": record_default,
    "details": record_details,
    "slow": record_slow,
    "forced": record_forced,
    "nameless": record_nameless,
    "dying": record_dying,
}


def main(names: list[str]) -> None:
    """Record the sets named, or all."""
    FIXTURES.mkdir(parents=True, exist_ok=True)
    for name in names or list(SERVERS):
        print(f"{name}: starting vLLM {' '.join(SERVERS[name])}", flush=True)
        with running_vllm(*SERVERS[name]) as base:
            asyncio.run(RECORDINGS[name](Recorder(base, SERVERS[name])))


if __name__ == "__main__":
    main(sys.argv[1:])
