"""What of a finished request may lie on disk until a collector takes it: how it was counted, nothing of what was said.

Only for the spool; over the socket everything goes as it came. What is kept is on a list: the members that collectors
read, words of the APIs' own, numbers that count something. Everything else may be anybody's, or encode a text (ids of
tokens, an embedding), so it is blanked or left out, and what is no JSON is not written at all. A whole body has the
length it had, so that what reads it knows that it is whole.
"""

import json
import re
import time
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from inferwatch.record import Outcome
from inferwatch.relay.lane import CUT_MARK
from inferwatch.tap import Batch, Close, Open

# What the client wrote there it wrote for somebody else.
_NOBODYS_HEADERS: Final = frozenset({"content-type", "content-encoding", "traceparent", "anthropic-version"})

# A segment of a path that is one of an API's own words; others are ids, names of models, or anything.
_WORD: Final = re.compile(r"[a-z][a-z_-]{0,31}|v\d[a-z0-9]{0,7}|")

# Members whose numbers are kept. What dialects read must be in here, or it is not booked of a spooled request; the
# tests compare all of them.
_COUNTS: Final = frozenset({
    # OpenAI's, Anthropic's, Cohere's and SGLang's usage
    "prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "cached_tokens",
    "reasoning_tokens", "thinking_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "seconds",
    "prompt_cache_hit_tokens",
    # TGI's, Triton's, llama.cpp's, Ollama's
    "generated_tokens", "input_length", "num_input_tokens", "num_output_tokens", "input_token_count",
    "output_token_count", "tokens_predicted", "tokens_evaluated", "cache_n", "prompt_n", "prompt_ms", "predicted_n",
    "predicted_ms", "total_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration",
    # vLLM's times; which choice it is; the status of an error
    "queue_time_ms", "time_to_first_token_ms", "generation_time_ms", "index", "code", "status_code",
    "http_status_code",
})  # fmt: skip
# Of those, what is kept where it is not known what they are members of: the others may be a tool's, and any number.
_FIGURES: Final = _COUNTS - {"index", "code", "status_code", "http_status_code"}
_NO_COUNTS: Final = frozenset[str]()

# Members that say how an answer ended and what kind of thing it is, by the APIs' own words.
_WORDS: Final = frozenset({
    "finish_reason", "stop_reason", "done_reason", "stop_type", "reason", "type", "object", "status", "role",
    "error_type",
})  # fmt: skip
_VALUE: Final = re.compile(
    r"|stop|length|abort|error|repetition|load|unload|eos|eos_token|end_turn|max_tokens|max_output_tokens|stop_sequence"
    r"|pause_turn|refusal|compaction|tool_use|tool_calls|function_call|content_filter|model_context_window_exceeded"
    r"|limit|word|none|queued|in_progress|completed|incomplete|failed|cancelled"
    r"|assistant|message|text|thinking|list|embedding|ping|text_completion|chat\.completion(?:\.chunk)?"
    r"|message_(?:start|delta|stop)|content_block_(?:start|delta|stop)|(?:text|thinking|input_json|signature)_delta"
    r"|response(?:\.(?:created|queued|in_progress|completed|incomplete|failed|cancelled))?"
    r"|response\.(?:output_text|refusal|audio(?:\.transcript)?|reasoning(?:_summary)?(?:_text)?|mcp_call\.arguments"
    r"|(?:function|mcp)_call_arguments|custom_tool_call_input|code_interpreter_call_code)\.delta"
    r"|transcript\.text\.(?:delta|done)"
    # Cohere's
    r"|message-(?:start|end)|content-(?:start|delta|end)|tool-plan-delta|tool-call-(?:start|delta|end)"
    r"|COMPLETE|MAX_TOKENS|TOOL_CALL|STOP_SEQUENCE|ERROR"
    # by which an engine refuses inside a 200
    r"|overloaded|validation|template_error|rate_limit_exceeded|insufficient_quota|request_too_large"
    r"|(?:overloaded|rate_limit|invalid_request|authentication|permission|not_found)_error"
)

# Members that hold others, or a text, of which it matters that it is there.
_PARTS: Final = frozenset({
    "choices", "delta", "message", "response", "content", "text", "thinking", "partial_json", "generated_text",
    "reasoning", "reasoning_content", "refusal", "tool_calls", "function", "name", "arguments", "failed_generation",
    "text_output", "token", "details", "best_of_sequences", "prefill", "special", "usage", "prompt_tokens_details",
    "completion_tokens_details", "input_tokens_details", "output_tokens_details", "iterations", "x_groq", "timings",
    "metrics", "meta", "meta_info", "tokens", "billed_units", "incomplete_details", "error", "stop",
    "prompt_progress", "done", "tool_plan",
})  # fmt: skip
# A tool's: unless it is a text, its members and its numbers are of nobody's list.
_TOOLS: Final = "arguments"
_NAMES: Final = _COUNTS | _WORDS | _PARTS

_FIELD: Final = re.compile(rb"data: ?\[DONE\]|:?")
_ERROR: Final = b'{"error"'  # one put together by hand may be no JSON, and is an error all the same
_EVENT: Final = re.compile(rb"event: ?([a-z_.]{0,40})")

# What collectors look for in the end of a plain reply, of which the beginning is missing.
_FIGURE: Final = re.compile(
    r'"(usage|timings|meta|meta_info|finish_reason|tokens_predicted|tokens_evaluated'
    r'|total_duration|(?:prompt_)?eval_(?:count|duration))"\s*:\s*(?=[{"\d])'
)
# Of those, what may stand anywhere: it is a word of the APIs' own. The others are figures where they are members of the
# whole reply; deeper they may be a tool's.
_FINISH: Final = "finish_reason"
# What decides how deep a member is: brackets, and the strings in which they are none, up to the end if one is cut.
_TOKEN: Final = re.compile(_FIGURE.pattern + r'|"[^"\\]*(?:\\(?:.|\Z)[^"\\]*)*(?:"|\Z)|[][{}]', re.DOTALL)
_decode_from: Final = json.JSONDecoder().raw_decode
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


def masked_batch(requests: Iterable[tuple[Open, Close]]) -> tuple[Batch, list[str]]:
    """Return what is written of finished requests, and the types of what went wrong, each of which cost one its words.

    For a thread: after each of them others may run.
    """
    opens: list[Open] = []
    closes: list[Close] = []
    faults: list[str] = []
    for request in requests:
        opened, closed, fault = _masked_request(*request)
        opens.append(opened)
        closes.append(closed)
        if fault:
            faults.append(fault)
        # Some 60 us of work behind the interpreter's lock. While 5,000 are masked, a timer of the loop's is late by
        # 0.5 to 1 ms at p99; without this by 5 to 15; to sleep 50 us in place of 0 makes it no better.
        time.sleep(0)
    return Batch(0, opens, [], [], closes, None), faults


def _masked_request(opened: Open, closed: Close) -> tuple[Open, Close, str]:
    """Return what is written of one, and what went wrong: then it is what nobody's words are in."""
    try:
        return masked_open(opened), masked_close(closed), ""
    except Exception as error:  # noqa: BLE001 - a fence: its usages, counts and times are booked all the same
        bare = msgspec.structs.replace(opened, path="", headers={}, body=b"")
        return bare, msgspec.structs.replace(closed, tail=b""), type(error).__name__


def masked_open(frame: Open) -> Open:
    """Return what is written of a request's head."""
    segments = [segment if _WORD.fullmatch(segment) else "-" for segment in frame.path.split("/")]
    headers = {name: value for name, value in frame.headers.items() if name in _NOBODYS_HEADERS}
    return msgspec.structs.replace(frame, path="/".join(segments), headers=headers, body=b"")


def masked_close(frame: Close) -> Close:
    """Return what is written of its end."""
    if not frame.tail:
        return frame
    whole, ended = len(frame.tail) >= frame.response_bytes, frame.outcome == Outcome.OK
    return msgspec.structs.replace(frame, tail=masked(frame.tail, whole=whole, ended=ended))


def masked(tail: bytes, *, whole: bool, ended: bool = True) -> bytes:
    """Return the end of a body without its texts; b"" where nothing of it is known to be none.

    `whole`: it is all of the body; `ended`: the body did not break off.
    """
    if whole and tail.lstrip()[:1] in (b"{", b"[") and (document := _document(tail)):
        return document
    told = tail.split(b"\n")
    lines = list(map(_line, told))
    if whole:
        return b"\n".join(line.ljust(len(was)) for line, was in zip(lines, told, strict=True))
    kept = b"\n".join(lines if lines[0] else lines[1:])  # it may begin in the midst of one
    return kept if kept.strip() else _figures(tail.rpartition(CUT_MARK)[2].decode("utf-8", "replace"), ended=ended)


def _line(line: bytes) -> bytes:
    bare = line.rstrip(b"\r")
    if _FIELD.fullmatch(bare):
        return line
    if event := _EVENT.fullmatch(bare):
        return line if _VALUE.fullmatch(event[1].decode()) else b""
    start = 6 if bare.startswith(b"data: ") else 5 if bare.startswith(b"data:") else 0
    document = _document(line[start:]) if bare[start : start + 1] in (b"{", b"[") else b""
    if not document and bare.startswith(_ERROR, start):
        document = _ERROR
    return line[:start] + document if document else b""


def _document(text: bytes) -> bytes:
    """Return a JSON document without its texts, as long as it was; b"" if it is none."""
    try:
        made = _encode(_kept(json.loads(text.decode("utf-8", "replace")), ""))
    except (ValueError, RecursionError):
        return b""
    return made.encode().ljust(len(text))


def _kept(value: Any, name: str, counts: frozenset[str] = _COUNTS) -> Any:
    """Return what may be written of the value of the member `name`; numbers of `counts` are kept."""
    if name == _TOOLS and not isinstance(value, str):
        return None
    if isinstance(value, dict):
        return {inner: _kept(member, inner, counts) for inner, member in value.items() if inner in _NAMES}
    if isinstance(value, list):
        # Numbers in a row are ids of tokens or a vector, but for tensors of counts.
        return [_kept(item, name, counts) for item in value if name in counts or isinstance(item, dict | list)]
    if isinstance(value, str):
        return " " * len(value) if name not in _WORDS else value if _VALUE.fullmatch(value) else None
    return value if name in counts or value is None or isinstance(value, bool) else None


def _figures(text: str, *, ended: bool) -> bytes:
    """Return the counts in the end of a plain reply, and how it finished, in their order.

    Inside a JSON string the quotes would be escaped, so text that talks about them does not match. How deep a member is
    shows at the end, where the whole reply is closed: of one that broke off it is not known, and no count is kept.
    """
    found: list[tuple[int, str, Any]] = []
    depth = at = 0  # as seen from the first of them
    first = _FIGURE.search(text)
    while token := _TOKEN.search(text, at) if at else first:
        at = token.end()
        if (name := token[1]) is None:
            depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
            continue
        try:
            value, end = _decode_from(text, at)
        except (ValueError, RecursionError):
            continue
        if text[end:].lstrip()[:1] in ("}", "]", ","):  # else it may go on behind a cut
            found.append((depth, name, value))
        at = end
    closing = text.rstrip()[-1:]
    top = depth + (2 if closing == "]" else 1)  # within one of several replies, or the only one
    kept = [
        _encode(_kept({name: value}, "", _NO_COUNTS if name == _FINISH else _FIGURES))[1:-1]
        for deep, name, value in found
        if name == _FINISH or (ended and deep == top)
    ]
    return (",".join(kept) + (closing if closing in ("}", "]") else "")).encode() if kept else b""
