"""Replies of many services, recorded by other projects: the usage in each is what is booked, whatever the split.

The recordings are not part of this repository. They are looked for in `INFERWATCH_TEST_CASSETTES`, and in
`shared/data/cassettes` beside it; `manifest.json` there says what a correct reader reports of each.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from inferwatch.record import RequestRecord, TokenSource
from inferwatch.tap import Close, Head, Open
from inferwatch_collectors.exchange import Exchange

ROOT = Path(__file__).parents[3]

# Where a recording does not say what was asked.
_PATHS = {
    "anthropic": "/v1/messages",
    "openai-responses": "/v1/responses",
    "tgi": "/generate",
    "ollama": "/api/chat",
}

# Where we do not agree with the manifest: vLLM without `--enable-prompt-tokens-details` does not tell what was cached,
# and unknown is not 0.
_DISAGREED: dict[tuple[str, int], dict[str, int]] = {
    ("vllm__vllm_messages_nonstream.json", 0): {"input": 11, "output": 4},
}


class Recorded(NamedTuple):
    """One reply: what was asked for, and what came."""

    name: str
    path: str
    status: int
    content_type: str
    request: dict[str, Any]
    body: bytes
    expected: dict[str, Any] | None


def _folder() -> Path | None:
    named = os.environ.get("INFERWATCH_TEST_CASSETTES")
    candidates = [Path(named)] if named else [up / "shared/data/cassettes" for up in ROOT.parents]
    return next((path for path in candidates if (path / "manifest.json").is_file()), None)


def recordings() -> Iterator[Recorded]:
    """Yield every reply of every recording there is."""
    folder = _folder()
    if folder is None:
        return
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["entries"]:
        content = json.loads((folder / entry["file"]).read_text())
        expected = entry["expected_usage"]
        for position, reply in enumerate(_replies(entry, content)):
            wanted = _DISAGREED.get((entry["file"], position), expected[position])
            yield reply._replace(name=f"{entry['file']}[{position}]", expected=wanted)


def _replies(entry: dict[str, Any], content: dict[str, Any]) -> Iterator[Recorded]:
    path = _PATHS.get(entry["provider"], "/v1/chat/completions")
    match content["format"]:
        case "vcr-normalised/1":
            for interaction in content["interactions"]:
                asked, came = interaction["request"], interaction["response"]
                body = came["body"].encode()
                request = asked.get("body")
                yield Recorded(
                    "",
                    urlsplit(asked.get("uri", path)).path,
                    int(str(came["status"]).split()[0]),
                    came["headers"].get("content-type", _sniffed(body)),
                    request if isinstance(request, dict) else {},
                    body,
                    None,
                )
        case "sse-chunks/1":
            chunks = [chunk.get("_raw") or json.dumps(chunk) for chunk in content["chunks"]]
            events = "".join(f"data: {chunk}\n\n" for chunk in chunks).encode()
            yield Recorded("", path, 200, "text/event-stream", {"stream": True}, events, None)
        case "sse-text/1":
            yield Recorded("", path, 200, "text/event-stream", {"stream": True}, content["body"].encode(), None)
        case "json-body/1" | "tgi-snapshot/1":
            body = content["body"]
            first = body[0] if isinstance(body, list) else body
            if "choices" in first:
                path = "/v1/chat/completions"
            elif first.get("object") == "rerank":
                path = "/v1/rerank"
            if isinstance(body, list) and "generated_text" not in first:
                events = "".join(f"data:{json.dumps(chunk)}\n\n" for chunk in body).encode()
                yield Recorded("", path, 200, "text/event-stream", {"stream": True}, events, None)
            else:
                yield Recorded("", path, 200, "application/json", {}, json.dumps(body).encode(), None)
        case other:
            raise AssertionError(f"a recording of format {other!r}")


def _sniffed(body: bytes) -> str:
    return "text/event-stream" if body.startswith((b"data:", b"event:", b":")) else "application/json"


RECORDINGS = list(recordings())


def play(recorded: Recorded, reads: list[bytes]) -> RequestRecord:
    """Return the record of a recorded request whose reply came in these reads, all at one moment."""
    body = json.dumps(recorded.request).encode()
    exchange = Exchange(
        Open(
            id=1, request_id="r", wall_ns=1, arrival_ns=1, sent_ns=2, method="POST", path=recorded.path, tenant="t",
            model="", stream=bool(recorded.request.get("stream")), asked_usage=False, choices=0, headers={}, body=body,
            body_bytes=len(body),
        )
    )  # fmt: skip
    exchange.head(Head(1, 3, recorded.status, {"content-type": recorded.content_type}))
    for data in reads:
        exchange.read(5, data)
    size = len(recorded.body)
    return exchange.close(
        Close(id=1, stamp_ns=9, outcome="ok", error="", status=recorded.status, response_bytes=size, head_ns=3)
    )


def check(recorded: Recorded, record: RequestRecord) -> None:
    """Compare what was booked with what the manifest expects."""
    expected = recorded.expected
    if expected is None:
        assert record.token_source in {TokenSource.NONE, TokenSource.CHUNK_ESTIMATE}
        assert record.prompt_tokens is None
        return
    assert (record.prompt_tokens, record.completion_tokens) == (expected["input"], expected["output"])
    assert record.cached_tokens == expected.get("cached")
    assert record.reasoning_tokens == expected.get("reasoning")


@pytest.mark.timeout(600)  # the longest is read 60,000 times, which takes ten seconds where nothing else runs
@pytest.mark.parametrize("recorded", RECORDINGS, ids=[recorded.name for recorded in RECORDINGS])
def test_a_recorded_reply_is_booked_as_it_says(recorded: Recorded) -> None:
    """In one piece, byte by byte, and split at every position it is the same record, with the usage in it."""
    body = recorded.body
    whole = play(recorded, [body])
    check(recorded, whole)
    assert play(recorded, [body[at : at + 1] for at in range(len(body))]) == whole
    for start in range(1, len(body)):
        assert play(recorded, [body[:start], body[start:]]) == whole
