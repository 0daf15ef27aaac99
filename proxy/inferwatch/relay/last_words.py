"""How streams end that are not OpenAI's chat and completions: the last events of a cut, made from the last that came.

As in `cutting`: what the engine sends when the limit of tokens is reached, in the words of its API, and None where
nothing fitting can be said. TGI's last event has the whole text, and a response its id, which are gone by then in a
long stream: those break off.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

NDJSON_ROUTES: Final = ("/api/chat", "/api/generate")

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_encode: Final = msgspec.json.encode


def native_end(path: str, events: list[dict[str, Any]], reason: str) -> bytes | None:
    """Return what ends a stream of `path` behind `events`; b"" if it has ended."""
    last = events[-1]
    if path.endswith("/responses"):
        return _responses(events)
    if path.endswith(NDJSON_ROUTES):
        return _ollama(last, reason)
    if "meta_info" in last:
        return _sglang(last)
    if "tokens_predicted" in last:
        return _llamacpp(last)
    return None


def records(tail: bytes) -> Iterable[dict[str, Any]]:
    """Yield the records of NDJSON in `tail`, which may begin and end anywhere."""
    for line in tail.split(b"\n"):
        try:
            yield _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue


def _responses(events: list[dict[str, Any]]) -> bytes | None:
    """`response.incomplete`, as OpenAI ends one at `max_output_tokens`. Clients need its id and output."""
    ends = ("response.completed", "response.incomplete", "response.failed")
    if any(event.get("type") in ends for event in events):
        return b""
    begun: dict[str, Any] | None = next(
        (event["response"] for event in events if isinstance(event.get("response"), dict)), None
    )
    if begun is None:
        return None
    number = events[-1].get("sequence_number")
    incomplete = {"incomplete_details": {"reason": "max_output_tokens"}, "output": begun.get("output", [])}
    response = begun | {"status": "incomplete"} | incomplete
    event = {
        "type": "response.incomplete",
        "response": response,
        "sequence_number": number + 1 if type(number) is int else 0,
    }
    return b"event: response.incomplete\ndata: %b\n\n" % _encode(event)


def _ollama(last: Mapping[str, Any], reason: str) -> bytes | None:
    """The record with `done`, of the kind of those before; counts are not known here, and left out."""
    if last.get("done"):
        return b""
    end = {name: last[name] for name in ("model", "created_at") if name in last}
    if "message" in last:
        end["message"] = {"role": "assistant", "content": ""}
    elif "response" in last:
        end["response"] = ""
    else:
        return None
    return _encode(end | {"done": True, "done_reason": "length", "stop_reason": reason}) + b"\n"


def _sglang(last: Mapping[str, Any]) -> bytes | None:
    meta = last["meta_info"]
    if not isinstance(meta, dict):
        return None
    if meta.get("finish_reason"):
        return b"data: [DONE]\n\n"
    finish = {"type": "length", "length": meta.get("completion_tokens")}
    return b"data: %b\n\ndata: [DONE]\n\n" % _encode({**last, "meta_info": {**meta, "finish_reason": finish}})


def _llamacpp(last: Mapping[str, Any]) -> bytes:
    if last.get("stop"):
        return b""
    return b"data: %b\n\n" % _encode({**last, "content": "", "tokens": [], "stop": True, "stop_type": "limit"})
