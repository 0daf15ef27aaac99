"""End a stream in good form: at the end of an event, with the last words of its dialect.

A budget is spent, or the answer has become a loop. Either way:

A client must be able to tell a cut from a broken connection, and its parser must not be surprised. So the final events
are those that the engine itself sends when `max_tokens` is reached: `finish_reason: "length"`, the one value that every
client of the API knows to mean "there would have been more", with vLLM's free field `stop_reason` saying why
(`budget_exceeded`, or vLLM's own word for a loop, `repetition_detected`); for Anthropic's API
`stop_reason: "max_tokens"`. A client that asked for usage gets the usage of what was generated.

Other APIs are in `last_words`. Of a dialect that is not known, or before the first event, nothing is invented:
`final_events` returns None, and the reply breaks off, which a client sees as well.

Pure; the state of a cut that waits for the end of an event is in `Cutting`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from inferwatch.record import ErrorType
from inferwatch.relay.last_words import NDJSON_ROUTES, native_end, records

# What a client is told, where its API has a word to spare for it.
REASONS: Final = {ErrorType.BUDGET: "budget_exceeded", ErrorType.LOOP: "repetition_detected"}

# Between events stands an empty line, with either kind of line end.
_BOUNDARIES: Final = (b"\n\n", b"\r\n\r\n")

# And between records of NDJSON.
_LINE_END: Final = (b"\n",)

# Of a mark that is cut in two by a read, all but the last byte.
MAX_MARK_BYTES: Final = 3

# An event that does not end is passed on, but not kept.
MAX_SEEN_BYTES: Final = 64 * 1024

_DONE: Final = b"data: [DONE]\n\n"

_decode = msgspec.json.Decoder(dict[str, Any]).decode

# A request for more choices than this gets its end mark, but no word for each.
MAX_CHOICES: Final = 1024


class Cutting:
    """A stream that is to end: here if it is between two events, else with the event under way.

    What has not begun ends with its first event: before that nothing can be said in its dialect.
    """

    __slots__ = ("_boundaries", "_carry", "_choices", "_path", "_seen", "_usage", "error", "in_good_form")

    def __init__(self, path: str, tail: bytes, error: ErrorType, *, choices: int, usage: bool) -> None:
        """`path` without query; `tail`: what the engine sent last; `error`: why, one of REASONS.

        `usage`: the client itself asked for usage.
        """
        self.error = error
        self._path = path
        self._boundaries = _LINE_END if path.endswith(NDJSON_ROUTES) else _BOUNDARIES
        self._choices = choices
        self._usage = usage
        self._seen = tail  # the id, the model and the usage are in it
        self._carry = b""
        self.in_good_form = True  # False after the end: nothing fitting could be said, so the reply must break off

    def end_here(self) -> bytes | None:
        """Return the events that end the stream behind what was shown; None: it is not between two."""
        if not self._seen.endswith(self._boundaries):
            return None
        return self._end(self._seen)

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Take what would be shown next. Returns what to show instead, and whether the reply ends with it."""
        known = self._carry + data
        ends = [at + len(mark) for mark in self._boundaries if (at := known.find(mark)) >= 0]
        if not ends:
            self._seen = (self._seen + data)[-MAX_SEEN_BYTES:]
            self._carry = known[-MAX_MARK_BYTES:]
            return data, False
        event = data[: min(ends) - len(self._carry)]
        end = self._end(self._seen + event)
        self.in_good_form = end is not None
        return event + (end or b""), True

    def _end(self, tail: bytes) -> bytes | None:
        return final_events(self._path, tail, REASONS[self.error], choices=self._choices, usage=self._usage)


def final_events(path: str, tail: bytes, reason: str, *, choices: int, usage: bool) -> bytes | None:
    """Return the events that end a stream, made from its last events in `tail`; None: nothing fitting can be said.

    `reason` is for the client, one of REASONS' words.
    """
    events = list(records(tail) if path.endswith(NDJSON_ROUTES) else _events(tail))
    if not events:
        return None
    if path.endswith("/messages"):
        return _anthropic(events)
    if path.endswith(("/chat/completions", "/completions")):
        return _openai(events, choices, reason, usage=usage)
    return native_end(path, events, reason)


def _events(tail: bytes) -> Iterable[dict[str, Any]]:
    """Yield what stands in the `data:` lines of `tail`, which may begin and end anywhere."""
    for line in tail.splitlines():
        if line.startswith(b"data:"):
            try:
                yield _decode(line[5:])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue  # [DONE], or half of a line


def _openai(events: list[dict[str, Any]], choices: int, reason: str, *, usage: bool) -> bytes | None:
    last = events[-1]
    if not isinstance(last.get("object"), str):
        return None
    common = {name: last[name] for name in ("id", "object", "created", "model") if name in last}
    finished = {choice.get("index") for event in events for choice in _choices(event) if choice.get("finish_reason")}
    is_chat = common["object"].startswith("chat.")
    out = []
    for index in range(min(max(choices, 1), MAX_CHOICES)):
        if index not in finished:
            said: dict[str, Any] = {"index": index}
            said["delta" if is_chat else "text"] = {} if is_chat else ""
            said |= {"logprobs": None, "finish_reason": "length", "stop_reason": reason}
            out.append(_event(common | {"choices": [said]}))
    counts = _usage(events)
    if usage and counts is not None:
        out.append(_event(common | {"choices": [], "usage": counts}))
    return b"".join(out) + _DONE


def _choices(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = event.get("choices")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _usage(events: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the latest usage; with several choices each event counts its own, and the sum is not known here."""
    told = [event["usage"] for event in events if isinstance(event.get("usage"), dict)]
    indices = {choice.get("index") for event in events for choice in _choices(event)}
    return told[-1] if told and len(indices) <= 1 else None


def _anthropic(events: list[dict[str, Any]]) -> bytes | None:
    if any(event.get("type") == "message_stop" for event in events):
        return b""
    out = []
    if not any(event.get("type") == "message_delta" for event in events):
        block = next((event for event in reversed(events) if "index" in event), None)
        if block is not None and block.get("type") in ("content_block_start", "content_block_delta"):
            out.append(_named("content_block_stop", {"index": block["index"]}))
        delta = {"stop_reason": "max_tokens", "stop_sequence": None}
        out.append(_named("message_delta", {"delta": delta, "usage": _anthropic_usage(events)}))
    return b"".join(out) + _named("message_stop", {})


def _anthropic_usage(events: list[dict[str, Any]]) -> dict[str, Any]:
    usage: dict[str, Any] = {}
    for event in events:
        message = event.get("message")
        for place in (message if isinstance(message, dict) else {}, event):
            if isinstance(place.get("usage"), dict):
                usage |= place["usage"]
    # The field must be there; how many tokens it were is not known when no event has said so.
    return usage or {"output_tokens": 0}


def _event(content: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(content)


def _named(kind: str, content: dict[str, Any]) -> bytes:
    return b"event: %b\n" % kind.encode() + _event({"type": kind} | content)
