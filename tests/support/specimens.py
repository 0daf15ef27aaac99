"""One reply of each wire format and trap, written down from the engines' documentation and recordings.

What each is about is in its name. `expected` is what a correct reader books of it:
(prompt, cached, completion, reasoning, source, finish reasons, first token class, outcome).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

SSE = "text/event-stream"
JSON = "application/json"
NDJSON = "application/x-ndjson"


class Expected(NamedTuple):
    """What is booked."""

    prompt: int | None
    completion: int | None
    source: str
    finish: tuple[str, ...] = ()
    first: str | None = None
    cached: int | None = None
    reasoning: int | None = None
    outcome: str = "ok"
    gaps: int = 0


class Specimen(NamedTuple):
    """A request and the reply to it."""

    name: str
    path: str
    content_type: str
    request: dict[str, Any]
    body: bytes
    expected: Expected
    headers: Mapping[str, str] = MappingProxyType({})


def _data(*events: Any, space: bool = True, done: bool = False) -> bytes:
    start = b"data: " if space else b"data:"
    lines = [start + json.dumps(event, separators=(",", ":")).encode() + b"\n\n" for event in events]
    return b"".join(lines) + (b"data: [DONE]\n\n" if done else b"")


def _named(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: %b\n%b" % (event["type"].encode(), _data(event)) for event in events)


def _lines(*records: Any) -> bytes:
    return b"".join(json.dumps(record, separators=(",", ":")).encode() + b"\n" for record in records)


def _plain(content: Any) -> bytes:
    return json.dumps(content).encode()


def _chat(delta: dict[str, Any] | None, finish: str | None = None, index: int = 0, **extra: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": index, "delta": delta, "finish_reason": finish}]
    return {"id": "c-1", "object": "chat.completion.chunk", "model": "m", "choices": choices, **extra}


def _usage(prompt: int, completion: int, **extra: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {"usage": usage | extra}


CHAT, COMPLETIONS, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
_STREAM = {"stream": True}
_TIMINGS = {"cache_n": 4, "prompt_n": 7, "prompt_ms": 20.0, "predicted_n": 3, "predicted_ms": 30.0}

# --- OpenAI's chat and completions, as engines differ in them

_OPENAI = [
    Specimen("openai: usage null on every chunk, moderation after usage", CHAT, SSE, _STREAM,
        _data(
            _chat({"role": "assistant", "content": ""}, usage=None, obfuscation="xx"), _chat({"content": "a"}, usage=None),
            _chat({"content": "b"}, usage=None), _chat({}, "stop", usage=None),
            _chat(None, **_usage(9, 2, prompt_tokens_details={"cached_tokens": 3},
                                 completion_tokens_details={"reasoning_tokens": 0})),
            {"id": "c-1", "object": "chat.completion.chunk", "moderation": {}, "choices": []}, done=True,
        ),
        Expected(9, 2, "final_usage", ("stop",), "answer", 3, 0, gaps=1)),
    Specimen("azure: the first chunk has no choices, no id, no model", "/openai/deployments/gpt/chat/completions", SSE,
        _STREAM,
        _data({"choices": [], "id": "", "model": "", "prompt_filter_results": []}, _chat({"content": "a"}),
              _chat({}, "stop", **_usage(9, 1)), done=True),
        Expected(9, 1, "final_usage", ("stop",), "answer")),
    Specimen("groq: usage in x_groq where nobody asked for it", "/openai/v1/chat/completions", SSE, _STREAM,
        _data(_chat({"role": "assistant", "content": ""}, x_groq={"id": "req"}), _chat({"content": "a"}),
              _chat({}, "stop", x_groq={"id": "req", **_usage(18, 5, queue_time=0.1)}), done=True),
        Expected(18, 5, "final_usage", ("stop",), "answer")),
    Specimen("groq: a failed tool call after reasoning is an error event at 200", CHAT, SSE, _STREAM,
        _data(_chat({"reasoning": "hm"}))
        + b'event: error\ndata: {"error":{"type":"invalid_request_error","code":"tool_use_failed","status_code":400}}\n\n',
        Expected(None, 1, "chunk_estimate", (), "reasoning", outcome="stream_error")),
    Specimen("openrouter: comments, error chunk with usage, then [DONE]", CHAT, SSE, _STREAM,
        b": OPENROUTER PROCESSING\n\n" * 3
        + _data(_chat({"content": "a"}), _chat({"content": ""}, "error", error={"code": 502, "message": "x"}, **_usage(7, 1)),
                done=True),
        Expected(7, 1, "final_usage", ("error",), "answer", outcome="stream_error")),
    Specimen("together: cached at top level of usage", CHAT, SSE, _STREAM,
        _data(_chat({"content": "1"}, usage=None), _chat({}, "eos", **_usage(41, 1, cached_tokens=0)), done=True),
        Expected(41, 1, "final_usage", ("eos",), "answer", 0)),
    Specimen("sglang chat: reasoning_content null, sglext after finish, usage last", CHAT, SSE, _STREAM,
        _data(_chat({"role": "assistant", "content": ""}), _chat({"reasoning_content": "t", "content": None}),
              _chat({"reasoning_content": None, "content": "a"}), _chat({}, "stop"))
        + b"event: sglext_ids\n" + _data(_chat(None, sglext={"x": 1}))
        + _data(_chat(None, **_usage(9, 4, reasoning_tokens=2, prompt_tokens_details=None)), done=True),
        Expected(9, 4, "final_usage", ("stop",), "reasoning", None, 2, gaps=1)),
    Specimen("trtllm: a space before the line end, deltas without text", CHAT, SSE, _STREAM,
        b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant"},"finish_reason":null}]} \n\n'
        + _data(_chat({"content": ""}), _chat({"reasoning_content": "x"}), _chat({"content": "a"}, "stop"),
                _chat(None, **_usage(9, 3, prompt_tokens_details={"cached_tokens": 0})), done=True),
        Expected(9, 3, "final_usage", ("stop",), "reasoning", 0, gaps=1)),
    Specimen("trtllm completions: one usage for each prompt of a list", COMPLETIONS, SSE,
        {"stream": True, "prompt": ["a", "b"]},
        _data(
            {"id": "x", "object": "text_completion", "choices": [{"index": 0, "text": "a", "finish_reason": "stop"}]},
            {"id": "x", "object": "text_completion", "choices": [], **_usage(3, 1)},
            {"id": "x", "object": "text_completion", "choices": [{"index": 1, "text": "b", "finish_reason": "length"}]},
            {"id": "x", "object": "text_completion", "choices": [], **_usage(5, 2)}, done=True,
        ),
        Expected(8, 3, "final_usage", ("stop", "length"), "answer")),
    Specimen("tgi completions: usage on each prompt's last chunk", COMPLETIONS, SSE,
        {"stream": True, "prompt": ["a", "b"]},
        _data(
            {"id": "", "object": "text_completion", "choices": [{"index": 0, "text": "a", "finish_reason": ""}]},
            {"id": "", "object": "text_completion", "choices": [{"index": 1, "text": "b", "finish_reason": ""}]},
            {"id": "", "choices": [{"index": 0, "text": "", "finish_reason": "length"}], **_usage(3, 2)},
            {"id": "", "choices": [{"index": 1, "text": "", "finish_reason": "length"}], **_usage(4, 2)}, done=True,
        ),
        Expected(7, 4, "final_usage", ("length", "length"), "answer")),
    Specimen("tgi chat: a tool call without a finish", CHAT, SSE, _STREAM,
        _data(*[
            {"id": "", "choices": [{"index": 0, "delta": {"role": "assistant", "content": None, "tool_calls": [
                {"index": 0, "id": "0", "function": {"name": name, "arguments": arguments}}]}, "finish_reason": None}],
             "usage": None}
            for name, arguments in (("f", "{"), (None, "}"))
        ], done=True),
        Expected(None, 2, "chunk_estimate", (), "tool_call", gaps=1)),
    Specimen("tgi chat: overload as an event at 200, with 422 in it", CHAT, SSE, _STREAM,
        _data({"error": {"message": "Model is overloaded", "http_status_code": 422}}),
        Expected(None, None, "none", outcome="rejected")),
    Specimen("tgi chat: offered tools it answers in text, and counts the second generation alone", CHAT, SSE,
        {"stream": True, "tools": [{"type": "function"}]},
        _data({**_chat({"role": "assistant", "content": "a"}), "id": ""}, {**_chat({"content": ""}, "stop"), "id": ""},
              {**_chat(None, **_usage(7, 2)), "id": ""}, done=True),
        Expected(7, 2, "partial_usage", ("stop",), "answer")),
    Specimen("tgi chat: the same in a plain reply", CHAT, JSON, {"tools": [{"type": "function"}]},
        _plain({"id": "", "object": "chat.completion", "model": "m", "choices": [
            {"index": 0, "message": {"content": "a", "tool_calls": None}, "finish_reason": "stop"}], **_usage(7, 2)}),
        Expected(7, 2, "partial_usage", ("stop",))),
    Specimen("another engine's answer in text to a request with tools is whole", CHAT, JSON,
        {"tools": [{"type": "function"}]},
        _plain({"id": "c-1", "object": "chat.completion", "model": "m", "choices": [
            {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}], **_usage(7, 2)}),
        Expected(7, 2, "final_usage", ("stop",))),
    Specimen("llama.cpp chat: timings on the last chunk, no usage", CHAT, SSE, _STREAM,
        _data(_chat({"role": "assistant", "content": None}), _chat({"content": "a"}), _chat({"content": "b"}),
              _chat({}, "stop", timings=_TIMINGS), done=True),
        Expected(11, 3, "timings", ("stop",), "answer", 4, gaps=1)),
    Specimen("llama.cpp chat: usage asked for, timings beside it", CHAT, SSE, _STREAM,
        _data(_chat({"content": "a"}), _chat({}, "stop"), _chat(None, timings=_TIMINGS, **_usage(11, 3)), done=True),
        Expected(11, 3, "final_usage", ("stop",), "answer")),
    Specimen("llama.cpp chat: n=2, a usage for each choice when it ends", CHAT, SSE, _STREAM | {"n": 2},
        _data(_chat({"content": "a"}), _chat({"content": "b"}, index=1), _chat({}, "stop", 1),
              _chat(None, timings=_TIMINGS, **_usage(11, 1)), _chat({"content": "c"}), _chat({}, "length"),
              _chat(None, timings=_TIMINGS, **_usage(11, 2)), done=True),
        Expected(11, 3, "final_usage", ("length", "stop"), "answer", gaps=1)),
    Specimen("llama.cpp chat: n=2, it breaks off behind the first choice", CHAT, SSE, _STREAM | {"n": 2},
        _data(_chat({"content": "a"}), _chat({"content": "b"}, index=1), _chat({}, "stop", 1, timings=_TIMINGS)),
        Expected(11, 4, "chunk_estimate", ("stop",), "answer", 4, outcome="stream_error")),
    Specimen("llama.cpp chat: of a plain reply with n=2 it counts the first choice", CHAT, JSON, {"n": 2},
        _plain({"id": "c-1", "object": "chat.completion", "model": "m", "timings": _TIMINGS, "choices": [
            {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"},
            {"index": 1, "message": {"content": "b"}, "finish_reason": "stop"}], **_usage(11, 1)}),
        Expected(11, 1, "partial_usage", ("stop", "stop"))),
    Specimen("llama.cpp completions: a list of prompts begins with null", COMPLETIONS, SSE, _STREAM | {"prompt": ["x", "y"]},
        b"data: null\n\n" + _data(
            {"id": "x", "choices": [{"index": 1, "text": "a", "finish_reason": None}]},
            {"id": "x", "choices": [{"index": 1, "text": "", "finish_reason": "length"}], "timings": _TIMINGS, **_usage(5, 1)},
            {"id": "x", "choices": [{"index": 0, "text": "b", "finish_reason": None}]},
            {"id": "x", "choices": [{"index": 0, "text": "", "finish_reason": "stop"}], "timings": _TIMINGS, **_usage(7, 1)},
            done=True),
        Expected(12, 2, "final_usage", ("stop", "length"), "answer")),
    Specimen("llama.cpp chat: an error in mid-stream ends it without [DONE]", CHAT, SSE, _STREAM,
        _data(_chat({"content": "a"}), {"error": {"code": 500, "message": "x", "type": "server_error"}}),
        Expected(None, 1, "chunk_estimate", (), "answer", outcome="stream_error")),
    Specimen("ollama completions: zeros on every chunk until the last", COMPLETIONS, SSE, _STREAM,
        _data({"id": "x", "choices": [{"index": 0, "text": "a", "finish_reason": None}], **_usage(0, 0)},
              {"id": "x", "choices": [{"index": 0, "text": "", "finish_reason": "stop"}], **_usage(0, 0)},
              {"id": "x", "choices": [], **_usage(17, 1)}, done=True),
        Expected(17, 1, "final_usage", ("stop",), "answer")),
    Specimen("transformers: an early role chunk, usage on the finish chunk, no [DONE]", CHAT, SSE, _STREAM,
        _data({"id": "u", "choices": [{"delta": {"role": "assistant"}, "index": 0}]},
              {"id": "u", "choices": [{"delta": {"content": "a"}, "index": 0}]},
              {"id": "u", "choices": [{"delta": {}, "finish_reason": "length", "index": 0}], **_usage(11, 1)}),
        Expected(11, 1, "final_usage", ("length",), "answer")),
    Specimen("transformers: an error that is no JSON", CHAT, SSE, _STREAM,
        _data(_chat({"content": "a"})) + b'data: {"error": "can\'t "do" that"}\n\n',
        Expected(None, 1, "chunk_estimate", (), "answer", outcome="stream_error")),
    Specimen("xai: reasoning is counted beside the completion", CHAT, SSE, _STREAM,
        _data(_chat({"reasoning_content": "a"}), _chat({"content": "b"}), _chat({}, "stop"),
              _chat(None, **_usage(32, 9, total_tokens=135, completion_tokens_details={"reasoning_tokens": 94})),
              done=True),
        Expected(32, 103, "final_usage", ("stop",), "reasoning", None, 94, gaps=1)),
    Specimen("xai: the same in a plain reply", CHAT, JSON, {},
        _plain({"id": "c-1", "object": "chat.completion", "model": "m", "choices": [
            {"index": 0, "message": {"content": "4"}, "finish_reason": "stop"}],
            **_usage(32, 9, total_tokens=135, completion_tokens_details={"reasoning_tokens": 94})}),
        Expected(32, 103, "final_usage", ("stop",), None, None, 94)),
    Specimen("trtllm completions: a list of prompts that breaks off behind the first", COMPLETIONS, SSE,
        _STREAM | {"prompt": ["a", "b"], "n": 2},
        _data(*({"id": "x", "object": "text_completion", "model": "m", "choices": choices, **_usage(*counts)}
                for choices, counts in (
                    ([{"index": 0, "text": "a", "finish_reason": "stop"}], (3, 1)),
                    ([{"index": 1, "text": "b", "finish_reason": "stop"}], (3, 1)),
                    ([], (3, 2)),
                    ([{"index": 2, "text": "c", "finish_reason": "stop"}], (50, 7)),
                    ([{"index": 3, "text": "d", "finish_reason": None}], (50, 60)),
                ))),
        Expected(53, 69, "continuous_usage", ("stop", "stop", "stop"), "answer", outcome="stream_error")),
    Specimen("trtllm completions: token ids in place of text", COMPLETIONS, SSE, _STREAM | {"detokenize": False},
        _data(*({"id": "x", "object": "text_completion", "model": "m", "choices": [
                    {"index": 0, "text": "", "token_ids": [token], "finish_reason": finish}], **_usage(3, count)}
                for token, count, finish in ((5, 1, None), (6, 2, "length"))),
              {"id": "x", "object": "text_completion", "model": "m", "choices": [], **_usage(3, 2)}, done=True),
        Expected(3, 2, "final_usage", ("length",), "answer", gaps=1)),
    Specimen("no finish: the end of the body is not the end of an answer", CHAT, SSE, _STREAM,
        _data(_chat({"content": "a"})),
        Expected(None, 1, "chunk_estimate", (), "answer", outcome="stream_error")),
]  # fmt: skip

# --- Responses and Messages


def _response(status: str, usage: Any = None, **extra: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "model": "m", "status": status, "usage": usage, **extra}


_RESPONSES_USAGE = {
    "input_tokens": 12, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 8,
    "output_tokens_details": {"reasoning_tokens": 3}, "total_tokens": 20,
}  # fmt: skip
_BEGUN = ({"type": "response.created", "response": _response("in_progress")},
          {"type": "response.in_progress", "response": _response("in_progress")})  # fmt: skip
_INCOMPLETE = _response("incomplete", _RESPONSES_USAGE, incomplete_details={"reason": "max_output_tokens"}, error=None)

_RESPONSES_STREAMS = [
    Specimen("vllm responses: completed although incomplete", RESPONSES, SSE, _STREAM,
        _named(*_BEGUN, {"type": "response.reasoning_text.delta", "delta": "t"},
               {"type": "response.output_text.delta", "delta": "a"}, {"type": "response.output_text.delta", "delta": "b"},
               {"type": "response.output_text.done", "text": "ab"}, {"type": "response.completed", "response": _INCOMPLETE}),
        Expected(12, 8, "final_usage", ("max_output_tokens",), "reasoning", 4, 3, gaps=2)),
    Specimen("openai responses: incomplete by name", RESPONSES, SSE, _STREAM,
        _named(*_BEGUN, {"type": "response.output_text.delta", "delta": "a"},
               {"type": "response.incomplete", "response": _INCOMPLETE}),
        Expected(12, 8, "final_usage", ("max_output_tokens",), "answer", 4, 3)),
    Specimen("transformers responses: no event lines", RESPONSES, SSE, {},
        _data(*_BEGUN, {"type": "response.output_text.delta", "delta": "a"},
              {"type": "response.completed", "response": _response("completed", _RESPONSES_USAGE, created_at=1.5)}),
        Expected(12, 8, "final_usage", ("completed",), "answer", 4, 3)),
    Specimen("openai responses: error, then failed", RESPONSES, SSE, _STREAM,
        _named(*_BEGUN, {"type": "response.function_call_arguments.delta", "delta": "{"},
               {"type": "error", "code": "server_error", "message": "x"},
               {"type": "response.failed", "response": _response("failed", None, error={"code": "server_error"})}),
        Expected(None, 1, "chunk_estimate", ("failed",), "tool_call", outcome="stream_error")),
    Specimen("responses: the stream breaks off without usage", RESPONSES, SSE, _STREAM,
        _named(*_BEGUN, {"type": "response.output_text.delta", "delta": "a"}),
        Expected(None, 1, "chunk_estimate", (), "answer", outcome="stream_error")),
    Specimen("responses: plain", RESPONSES, JSON, {}, _plain(_INCOMPLETE),
        Expected(12, 8, "final_usage", ("max_output_tokens",), None, 4, 3)),
    Specimen("responses: compaction of a conversation", RESPONSES + "/compact", JSON, {},
        _plain({"id": "r", "object": "response.compaction", "created_at": 1, "output": [], "usage": {
            "input_tokens": 139, "input_tokens_details": {"cached_tokens": 7}, "output_tokens": 43,
            "output_tokens_details": {"reasoning_tokens": 6}, "total_tokens": 182}}),
        Expected(139, 43, "final_usage", (), None, 7, 6)),
    Specimen("responses: in the background, nothing generated yet", RESPONSES, JSON, {"background": True},
        _plain(_response("queued")), Expected(None, None, "none")),
]  # fmt: skip


def _start(**usage: int) -> dict[str, Any]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    return {"type": "message_start", "message": message}


def _block(index: int, **delta: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": "x_delta", **delta}}


def _end(stop: str, **usage: Any) -> tuple[dict[str, Any], ...]:
    return (
        {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    )


_OPEN = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}

_MESSAGES = [
    Specimen("vllm messages: the start counts what was cached, the end does not", MESSAGES, SSE, _STREAM,
        _named(_start(input_tokens=851, output_tokens=0), _OPEN, _block(0, text="a"), _block(0, text="b"),
               *_end("end_turn", input_tokens=83, output_tokens=4, cache_creation_input_tokens=0,
                     cache_read_input_tokens=768)),
        Expected(851, 4, "final_usage", ("end_turn",), "answer", 768, gaps=1)),
    Specimen("anthropic: pings, thinking, a cache that is read and written", MESSAGES, SSE, _STREAM,
        _named(_start(input_tokens=10, cache_read_input_tokens=100, cache_creation_input_tokens=20, output_tokens=2), _OPEN,
               {"type": "ping"}, _block(0, thinking="t"), _block(0, signature="s"), _block(1, text="a"),
               *_end("end_turn", output_tokens=30)),
        Expected(130, 30, "final_usage", ("end_turn",), "reasoning", 100, gaps=1)),
    Specimen("anthropic: input that the end corrects", MESSAGES, SSE, _STREAM,
        _named(_start(input_tokens=43, output_tokens=1), _OPEN, _block(0, partial_json=""), _block(0, partial_json="{}"),
               *_end("tool_use", input_tokens=61, output_tokens=9)),
        Expected(61, 9, "final_usage", ("tool_use",), "tool_call")),
    Specimen("anthropic: compaction is in the iterations alone", MESSAGES, SSE, _STREAM,
        _named(_start(input_tokens=612, output_tokens=1), _OPEN, _block(0, text="a"),
               *_end("end_turn", input_tokens=612, output_tokens=50, iterations=[
                   {"type": "compaction", "input_tokens": 60385, "output_tokens": 700},
                   {"type": "message", "input_tokens": 612, "output_tokens": 50, "cache_read_input_tokens": 0}])),
        Expected(60997, 750, "final_usage", ("end_turn",), "answer", 0)),
    Specimen("anthropic: a spliced second start", MESSAGES, SSE, _STREAM,
        _named(_start(input_tokens=5, output_tokens=1), _OPEN, _block(0, text="a"), _start(input_tokens=7, output_tokens=1),
               _block(0, text="b"), *_end("end_turn", output_tokens=6)),
        Expected(7, 6, "final_usage", ("end_turn",), "answer", gaps=1)),
    Specimen("anthropic: overloaded at 200", MESSAGES, SSE, _STREAM,
        _named({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        Expected(None, None, "none", outcome="rejected")),
    Specimen("anthropic: overloaded in the midst", MESSAGES, SSE, _STREAM,
        _named(_start(input_tokens=5, output_tokens=1), _OPEN, _block(0, text="a"),
               {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        Expected(5, 1, "chunk_estimate", (), "answer", outcome="stream_error")),
    Specimen("anthropic: plain", MESSAGES, JSON, {},
        _plain({"id": "msg_1", "type": "message", "model": "m", "stop_reason": "max_tokens", "content": [],
                "usage": {"input_tokens": 10, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 3,
                          "output_tokens": 8}}),
        Expected(18, 8, "final_usage", ("max_tokens",), None, 3)),
]  # fmt: skip

# --- TGI


def _token(index: int, text: str, generated: str | None = None, details: Any = None) -> dict[str, Any]:
    token = {"id": index, "text": text, "logprob": -0.1, "special": False}
    return {"index": index, "token": token, "generated_text": generated, "details": details}


_DETAILS = {"finish_reason": "length", "generated_tokens": 3, "seed": None, "input_length": 7}
_HEAD = {"x-compute-type": "gpu+optimized", "x-prompt-tokens": "7", "x-generated-tokens": "3", "x-queue-time": "4",
         "x-inference-time": "20"}  # fmt: skip
_PLAIN_DETAILS = {"finish_reason": "eos_token", "generated_tokens": 3, "seed": None, "prefill": [], "tokens": []}

_TGI = [
    Specimen("tgi stream: details on the last event, no space, no [DONE]", "/generate_stream", SSE, {},
        _data(_token(1, "a"), _token(2, "b"), _token(3, "c", "abc", _DETAILS), space=False),
        Expected(7, 3, "details", ("length",), "answer", gaps=2)),
    Specimen("tgi stream: without details an event is a token", "/generate_stream", SSE, {},
        b":\n\n" + _data(_token(1, "a"), _token(2, "b"), _token(3, "c", "abc"), space=False),
        Expected(None, 3, "chunk_estimate", (), "answer", gaps=2)),
    Specimen("tgi stream: overload at 200", "/generate_stream", SSE, {},
        _data({"error": "Model is overloaded", "error_type": "overloaded"}, space=False),
        Expected(None, None, "none", outcome="rejected")),
    Specimen("tgi stream: generation fails in the midst", "/generate_stream", SSE, {},
        _data(_token(1, "a"), {"error": "Request failed during generation", "error_type": "generation"}, space=False),
        Expected(None, 1, "chunk_estimate", (), "answer", outcome="stream_error")),
    Specimen("tgi stream: it breaks off", "/generate_stream", SSE, {}, _data(_token(1, "a"), space=False),
        Expected(None, 1, "chunk_estimate", (), "answer", outcome="stream_error")),
    Specimen("tgi: plain, counts in the head alone", "/generate", JSON, {}, _plain({"generated_text": "abc"}),
        Expected(7, 3, "headers"), _HEAD),
    Specimen("tgi: plain with details, the prompt in the head", "/generate", JSON, {},
        _plain({"generated_text": "abc", "details": _PLAIN_DETAILS}),
        Expected(7, 3, "details", ("eos_token",)), _HEAD),
    Specimen("tgi: best_of generates more than it shows", "/generate", JSON, {},
        _plain({"generated_text": "abc", "details": {**_PLAIN_DETAILS, "best_of_sequences": [_PLAIN_DETAILS]}}),
        Expected(7, 6, "details", ("eos_token",)), _HEAD),
    Specimen("tgi: the prompt's tokens in the body", "/generate", JSON, {},
        _plain({"generated_text": "abc", "details": {**_PLAIN_DETAILS, "prefill": [{"id": 1}, {"id": 2}]}}),
        Expected(2, 3, "details", ("eos_token",))),
    Specimen("tgi: / is an array of one", "/", JSON, {"inputs": "x"},
        _plain([{"generated_text": "abc", "details": _PLAIN_DETAILS}]),
        Expected(7, 3, "details", ("eos_token",)), _HEAD),
    Specimen("tgi: / streams", "/", SSE, {"inputs": "x", "stream": True},
        _data(_token(1, "a"), _token(2, "b", "ab", {**_DETAILS, "generated_tokens": 2}), space=False),
        Expected(7, 2, "details", ("length",), "answer", gaps=1)),
    Specimen("tgi: a chat behind /invocations", "/invocations", SSE, _STREAM,
        _data({**_chat({"role": "assistant", "content": "a"}), "id": ""}, {**_chat({"content": ""}, "stop"), "id": ""},
              {**_chat(None, **_usage(7, 1)), "id": ""}, done=True),
        Expected(7, 1, "final_usage", ("stop",), "answer")),
]  # fmt: skip

# --- SGLang, Triton, llama.cpp, Ollama


def _meta(text: str, completion: int, finish: Any = None, index: int | None = None, **extra: Any) -> dict[str, Any]:
    meta = {
        "id": "s-1",
        "finish_reason": finish,
        "prompt_tokens": 6,
        "completion_tokens": completion,
        "cached_tokens": 2,
    }
    return {"text": text, "meta_info": meta | extra} | ({} if index is None else {"index": index})


_LENGTH = {"type": "length", "length": 5}
_SGLANG = [
    Specimen("sglang: cumulative text, a state left out", "/generate", SSE, _STREAM,
        _data(_meta("a", 1), _meta("ab", 2), _meta("abcde", 5, _LENGTH, e2e_latency=1.0), done=True),
        Expected(6, 5, "final_usage", ("length",), "answer", 2, gaps=4)),
    Specimen("sglang: cut", "/generate", SSE, _STREAM, _data(_meta("a", 1), _meta("ab", 2)),
        Expected(6, 2, "continuous_usage", (), "answer", 2, outcome="stream_error", gaps=1)),
    Specimen("sglang: two prompts", "/generate", SSE, {"stream": True, "text": ["a", "b"]},
        _data(_meta("a", 1, index=0), _meta("b", 1, index=1), _meta("a", 1, _LENGTH, 0), _meta("bc", 2, _LENGTH, 1), done=True),
        Expected(12, 3, "final_usage", ("length", "length"), "answer", 4, gaps=1)),
    Specimen("sglang: two answers to one prompt", "/generate", SSE, {"stream": True, "text": "a", "sampling_params": {"n": 2}},
        _data(_meta("a", 1, index=0), _meta("b", 1, index=1), _meta("a", 1, _LENGTH, 0), _meta("bc", 2, _LENGTH, 1), done=True),
        Expected(6, 3, "final_usage", ("length", "length"), "answer", 2, gaps=1)),
    Specimen("sglang: plain", "/generate", JSON, {"text": "a"}, _plain(_meta("abc", 3, _LENGTH)),
        Expected(6, 3, "final_usage", ("length",), None, 2)),
    Specimen("sglang: plain, two prompts", "/generate", JSON, {"text": ["a", "b"]},
        _plain([_meta("abc", 3, _LENGTH), _meta("d", 1, _LENGTH)]),
        Expected(12, 4, "final_usage", ("length", "length"), None, 4)),
    Specimen("sglang: aborted with a status", "/generate", SSE, _STREAM,
        _data(_meta("", 0, {"type": "abort", "message": "x", "status_code": 503})),
        Expected(6, 0, "final_usage", ("abort",), None, 2, outcome="stream_error")),
    Specimen("sglang: refused at 200", "/generate", SSE, _STREAM, _data({"error": {"message": "too long", "code": 400}}, done=True),
        Expected(None, None, "none", outcome="rejected")),
]  # fmt: skip

_TRITON_PATH = "/v2/models/ensemble/generate"
_TRITON = [
    Specimen("triton stream: text alone", f"{_TRITON_PATH}_stream", SSE, {},
        _data(*[{"model_name": "ensemble", "model_version": "1", "text_output": text} for text in ("a", "b", "")]),
        Expected(None, 2, "chunk_estimate", (), "answer", gaps=1)),
    Specimen("triton stream: counts as tensors, of each event", f"{_TRITON_PATH}_stream", SSE, {},
        _data(*[{"model_name": "v", "text_output": text, "num_output_tokens": tokens, "num_input_tokens": 7}
                for text, tokens in (("a", 1), ("bc", 2))]),
        Expected(7, 3, "details", (), "answer", gaps=1)),
    Specimen("triton stream: an error later", f"{_TRITON_PATH}_stream", SSE, {},
        _data({"model_name": "v", "text_output": "a"}, {"error": "it broke"}),
        Expected(None, 1, "chunk_estimate", (), "answer", outcome="stream_error")),
    Specimen("triton: plain", _TRITON_PATH, JSON, {}, _plain({"model_name": "v", "text_output": "abc"}),
        Expected(None, None, "none")),
    Specimen("triton: plain with tensors", _TRITON_PATH, JSON, {},
        _plain({"model_name": "v", "text_output": "abc", "output_token_count": [[3]][0], "input_token_count": 4}),
        Expected(4, 3, "details")),
]  # fmt: skip


def _part(content: str, predicted: int, **extra: Any) -> dict[str, Any]:
    return {"index": 0, "content": content, "tokens": [], "stop": False, "id_slot": 0, "tokens_predicted": predicted,
            "tokens_evaluated": 11, **extra}  # fmt: skip


_STOP = {"stop": True, "stop_type": "limit", "model": "m", "tokens_cached": 13, "timings": _TIMINGS, "prompt": "secret"}
_LLAMACPP = [
    Specimen("llama.cpp stream: progress is no token", "/completion", SSE, _STREAM,
        _data(_part("", 0, prompt_progress={"total": 11, "processed": 4}), _part("a", 1), _part("b", 2),
              _part("", 3, **_STOP)),
        Expected(11, 3, "final_usage", ("limit",), "answer", 4, gaps=2)),
    Specimen("llama.cpp stream: cut", "/completion", SSE, _STREAM, _data(_part("a", 1), _part("b", 2)),
        Expected(11, 2, "continuous_usage", (), "answer", outcome="stream_error", gaps=1)),
    Specimen("llama.cpp: plain", "/completion", JSON, {"prompt": "x"}, _plain(_part("abc", 3, **_STOP)),
        Expected(11, 3, "final_usage", ("limit",), None, 4)),
    Specimen("llama.cpp: a list of prompts", "/completion", JSON, {"prompt": ["x", "y"]},
        _plain([_part("abc", 3, **_STOP), _part("d", 1, **_STOP, ) | {"index": 1}]),
        Expected(22, 4, "final_usage", ("limit", "limit"), None, 8)),
    Specimen("llama.cpp: a list of prompts, two answers to each", "/completion", JSON, {"prompt": ["x", "y"], "n": 2},
        _plain([_part("a", 1, **_STOP) | {"index": i} for i in range(4)]),
        Expected(22, 4, "final_usage", ("limit",) * 4, None, 8)),
    Specimen("llama.cpp stream: a list of prompts begins with null", "/completion", SSE, _STREAM | {"prompt": ["x", "y"]},
        b"data: null\n\n" + _data(_part("a", 1) | {"index": 1}, _part("", 1, **_STOP) | {"index": 1},
                                  _part("b", 1), _part("", 1, **_STOP)),
        Expected(22, 2, "final_usage", ("limit", "limit"), "answer", 8)),
    Specimen("llama.cpp: its own format behind /completions", "/completions", SSE, _STREAM,
        _data(_part("a", 1), _part("", 2, **_STOP)),
        Expected(11, 2, "final_usage", ("limit",), "answer", 4, gaps=1)),
    Specimen("llama.cpp stream: an error", "/completion", SSE, _STREAM,
        _data(_part("a", 1), {"error": {"code": 500, "message": "x", "type": "server_error"}}),
        Expected(11, 1, "continuous_usage", (), "answer", outcome="stream_error")),
]  # fmt: skip


def _said(content: str, **extra: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "created_at": "t",
        "message": {"role": "assistant", "content": content, **extra},
        "done": False,
    }


_DONE = {"done": True, "done_reason": "stop", "total_duration": 9, "load_duration": 1, "prompt_eval_count": 17,
         "prompt_eval_duration": 2_000_000, "eval_count": 3, "eval_duration": 6_000_000}  # fmt: skip
_OLLAMA = [
    Specimen("ollama chat: streams although nobody asked", "/api/chat", NDJSON, {},
        _lines(_said("", thinking="t"), _said("a"), _said("b"), _said("") | _DONE),
        Expected(17, 3, "final_usage", ("stop",), "reasoning", gaps=2)),
    Specimen("ollama chat: a tool call", "/api/chat", NDJSON, {},
        _lines(_said("", tool_calls=[{"function": {"name": "f", "arguments": {}}}]), _said("") | _DONE),
        Expected(17, 3, "final_usage", ("stop",), "tool_call")),
    Specimen("ollama generate: zeros are left out", "/api/generate", NDJSON, {},
        _lines({"model": "m", "response": "a", "done": False},
               {"model": "m", "response": "", "done": True, "done_reason": "stop", "total_duration": 9, "eval_count": 1}),
        Expected(0, 1, "final_usage", ("stop",), "answer")),
    Specimen("ollama generate: loading a model is no generation", "/api/generate", JSON, {},
        _plain({"model": "m", "response": "", "done": True, "done_reason": "load"}),
        Expected(None, None, "none", ("load",))),
    Specimen("sglang as ollama: a last record without counts", "/api/chat", NDJSON, {},
        _lines(_said("a"), _said("b"), _said("") | {"done": True, "done_reason": "stop"}),
        Expected(None, 2, "chunk_estimate", ("stop",), "answer", gaps=1)),
    Specimen("ollama chat: an error after the first record", "/api/chat", NDJSON, {}, _lines(_said("a"), {"error": "gone"}),
        Expected(None, 1, "chunk_estimate", (), "answer", outcome="stream_error")),
    Specimen("ollama chat: it breaks off", "/api/chat", NDJSON, {}, _lines(_said("a")),
        Expected(None, 1, "chunk_estimate", (), "answer", outcome="stream_error")),
    Specimen("ollama chat: plain", "/api/chat", JSON, {"stream": False}, _plain(_said("ab") | _DONE),
        Expected(17, 3, "final_usage", ("stop",))),
    Specimen("llama.cpp's /api/chat is that of chat completions", "/api/chat", JSON, {"stream": False},
        _plain({"id": "c-1", "object": "chat.completion", "model": "m", "choices": [
            {"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}], **_usage(11, 3), "timings": _TIMINGS}),
        Expected(11, 3, "final_usage", ("stop",))),
    Specimen("llama.cpp's /api/chat, streamed", "/api/chat", SSE, _STREAM,
        _data(_chat({"role": "assistant", "content": None}), _chat({"content": "a"}), _chat({"content": "b"}),
              _chat({}, "stop", timings=_TIMINGS), done=True),
        Expected(11, 3, "timings", ("stop",), "answer", 4, gaps=1)),
    Specimen("ollama embed", "/api/embed", JSON, {}, _plain({"model": "m", "embeddings": [[0.1]], "prompt_eval_count": 5}),
        Expected(5, None, "final_usage")),
]  # fmt: skip

# --- what reads a prompt and generates nothing, and speech

_POOLING = [
    Specimen("embeddings: plain", "/v1/embeddings", JSON, {},
        _plain({"object": "list", "data": [], "model": "m", "usage": {"prompt_tokens": 9, "total_tokens": 9}}),
        Expected(9, None, "final_usage")),
    Specimen("embeddings: bytes, usage in the head", "/v1/embeddings", "application/octet-stream", {}, b"\x00" * 64,
        Expected(9, 0, "headers"),
        {"metadata": '{"model":"m","usage":{"prompt_tokens":9,"total_tokens":9,"completion_tokens":0}}'}),
    Specimen("embeddings: bytes of many, the end of the head", "/v1/embeddings", "application/octet-stream", {}, b"\x00" * 64,
        Expected(9, None, "headers"),
        {"metadata": '"shape": [128]}], "usage": {"prompt_tokens": 9, "total_tokens": 9}}'}),
    Specimen("rerank: only a total", "/v1/rerank", JSON, {}, _plain({"id": "r", "results": [], "usage": {"total_tokens": 12}}),
        Expected(12, None, "final_usage")),
    Specimen("rerank: cohere's shape", "/v2/rerank", JSON, {},
        _plain({"results": [], "meta": {"billed_units": {"search_units": 1}, "tokens": {"input_tokens": 13}}}),
        Expected(13, None, "final_usage")),
    Specimen("text-embeddings-inference: an array, the count in the head", "/embed", JSON, {}, b"[[0.1,0.2]]",
        Expected(6, None, "headers"), {"x-compute-tokens": "6"}),
    Specimen("sglang rerank: each answer has its own count", "/v1/rerank", JSON, {},
        _plain([{"score": 0.9, "index": 0, "meta_info": {"id": "x", "prompt_tokens": 56, "cached_tokens": 8}},
                {"score": 0.1, "index": 1, "meta_info": {"id": "y", "prompt_tokens": 40, "cached_tokens": 0}}]),
        Expected(96, None, "final_usage", cached=8)),
    Specimen("sglang encode: one", "/encode", JSON, {},
        _plain({"embedding": [0.1], "meta_info": {"id": "x", "finish_reason": None, "prompt_tokens": 56}}),
        Expected(56, None, "final_usage")),
    Specimen("sglang classify: several", "/classify", JSON, {},
        _plain([{"embedding": [0.1], "meta_info": {"prompt_tokens": 56}}, {"embedding": [0.2], "meta_info": {"prompt_tokens": 6}}]),
        Expected(62, None, "final_usage")),
    Specimen("score", "/v1/score", JSON, {}, _plain({"object": "list", "data": [], **_usage(7, 0)}),
        Expected(7, 0, "final_usage")),
    Specimen("classify", "/classify", JSON, {}, _plain({"object": "list", "data": [], **_usage(7, 0)}),
        Expected(7, 0, "final_usage")),
    Specimen("transcription: seconds are no tokens", "/v1/audio/transcriptions", JSON, {},
        _plain({"text": "a", "usage": {"type": "duration", "seconds": 3}}), Expected(None, None, "none")),
    Specimen("transcription: tokens", "/v1/audio/transcriptions", JSON, {},
        _plain({"text": "a", "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 3}}),
        Expected(14, 3, "final_usage")),
    Specimen("transcription: openai's stream", "/v1/audio/transcriptions", SSE, {},
        _data({"type": "transcript.text.delta", "delta": "a"}, {"type": "transcript.text.delta", "delta": "b"},
              {"type": "transcript.text.done", "text": "ab", "usage": {"input_tokens": 14, "output_tokens": 2}}),
        Expected(14, 2, "final_usage", ("stop",), "answer", gaps=1)),
    Specimen("transcription: vllm's stream", "/v1/audio/transcriptions", SSE, {},
        _data(_chat({"content": "a"}), _chat({"content": "b"}, "stop"), _chat(None, **_usage(14, 2)), done=True),
        Expected(14, 2, "final_usage", ("stop",), "answer", gaps=1)),
    Specimen("tokenize looks like usage and costs nothing", "/tokenize", JSON, {}, _plain({"count": 5, "tokens": [1]}),
        Expected(None, None, "none")),
    Specimen("count_tokens looks like usage and costs nothing", "/v1/messages/count_tokens", JSON, {},
        _plain({"input_tokens": 11}), Expected(None, None, "none")),
]  # fmt: skip

_COHERE_USAGE = {
    "billed_units": {"input_tokens": 400.0, "output_tokens": 40.0},
    "tokens": {"input_tokens": 500.0, "output_tokens": 43.0}, "cached_tokens": 16.0,
}  # fmt: skip

_COHERE = [
    Specimen("cohere chat: counts are floats, billed ones others", "/cohere/v2/chat", JSON, {},
        _plain({"id": "x", "finish_reason": "MAX_TOKENS", "usage": _COHERE_USAGE,
                "message": {"role": "assistant", "content": [{"type": "text", "text": "hi"}]}}),
        Expected(500, 43, "final_usage", ("max_tokens",), cached=16)),
    Specimen("cohere chat: a stream that thinks, plans and calls", "/cohere/v2/chat", SSE, {"stream": True},
        _data({"type": "message-start", "id": "x", "delta": {"message": {"role": "assistant"}}},
              {"type": "content-start", "delta": {"message": {"content": {"type": "thinking", "thinking": ""}}}},
              {"type": "content-delta", "delta": {"message": {"content": {"thinking": "hm"}}}},
              {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "look"}}},
              {"type": "tool-call-start", "delta": {"message": {"tool_calls": {"function": {"name": "f", "arguments": ""}}}}},
              {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL", "usage": _COHERE_USAGE}}, done=True),
        Expected(500, 43, "final_usage", ("tool_call",), "reasoning", cached=16, gaps=2)),
]  # fmt: skip

_OTHER_COUNTS = [
    Specimen("ollama chat: a tool's argument is named as a member of TGI's", "/api/chat", JSON, {"stream": False},
        _plain({"model": "m", "message": {"role": "assistant", "content": "", "tool_calls": [
                    {"function": {"name": "login", "arguments": {"token": "abc", "usage": {"prompt_tokens": 9}}}}]},
                "done_reason": "stop", "done": True, "total_duration": 123456, "load_duration": 1, "prompt_eval_count": 26,
                "prompt_eval_duration": 10, "eval_count": 290, "eval_duration": 99}),
        Expected(26, 290, "final_usage", ("stop",))),
    Specimen("deepseek: cached tokens by a name of its own", "/v1/chat/completions", JSON, {},
        _plain({"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1000, "completion_tokens": 2, "total_tokens": 1002,
                          "prompt_cache_hit_tokens": 960, "prompt_cache_miss_tokens": 40}}),
        Expected(1000, 2, "final_usage", ("stop",), cached=960)),
    Specimen("xai: reasoning beside the completion", "/v1/chat/completions", JSON, {},
        _plain({"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135,
                          "completion_tokens_details": {"reasoning_tokens": 94}}}),
        Expected(32, 103, "final_usage", ("stop",), reasoning=94)),
    Specimen("messages: thinking is told apart", "/v1/messages", JSON, {},
        _plain({"type": "message", "role": "assistant", "content": [{"type": "text", "text": "a"}],
                "stop_reason": "end_turn", "usage": {"input_tokens": 7, "output_tokens": 12,
                                                      "output_tokens_details": {"thinking_tokens": 9}}}),
        Expected(7, 12, "final_usage", ("end_turn",), reasoning=9)),
]  # fmt: skip

SPECIMENS: tuple[Specimen, ...] = (
    *_COHERE, *_OTHER_COUNTS, *_OPENAI, *_RESPONSES_STREAMS, *_MESSAGES, *_TGI, *_SGLANG, *_TRITON, *_LLAMACPP, *_OLLAMA, *_POOLING,
)  # fmt: skip
