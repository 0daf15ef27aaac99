"""What a real vLLM answered, read again: the counts must be the engine's own, whatever the split and the cut."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inferwatch.record import ErrorType, Outcome, RequestRecord, TokenClass, TokenSource
from inferwatch.tap import Close, Head, Open
from inferwatch_collectors.exchange import Exchange

FOLDER = Path(__file__).parents[2] / "fixtures" / "vllm"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))

# Those during which vLLM's own counters were read, and nobody hung up.
COUNTED = [
    name
    for name in NAMES
    if "_aborted" not in name
    and "engine_prompt_tokens" in json.loads((FOLDER / f"{name}.json").read_text())["expected"]
]

READ_PATHS = {"/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"}

# `expected` lists finish reasons by choice; these APIs have one answer and a stop reason of their own.
OWN_FINISH = {"/v1/messages": "max_tokens", "/v1/responses": "max_output_tokens"}


def load(name: str) -> dict[str, Any]:
    """Return one recording."""
    recording: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return recording


def request_of(recording: dict[str, Any]) -> dict[str, Any]:
    """Return the request's JSON object, empty if it was none."""
    try:
        body = json.loads(recording["request"]["body"] or "{}")
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def chunks_of(recording: dict[str, Any]) -> list[bytes]:
    """Return the reply's body as it came, chunk by chunk."""
    return [chunk.encode(recording["response"]["encoding"]) for chunk in recording["response"]["chunks"]]


def play(
    recording: dict[str, Any], reads: Iterable[tuple[int, bytes]], outcome: Outcome = Outcome.OK
) -> tuple[RequestRecord, list[tuple[float, int]]]:
    """Return the record, and the gaps, of a recorded request whose reply came in these reads."""
    request, response = recording["request"], recording["response"]
    body = (request["body"] or "").encode()
    asked = request_of(recording)
    exchange = Exchange(
        Open(
            id=1, request_id="r", wall_ns=1, arrival_ns=1_000, sent_ns=2_000, method=request["method"],
            path=request["path"], tenant="t", model=str(asked.get("model", "")), stream=bool(asked.get("stream")),
            asked_usage=False, choices=0, headers={}, body=body, body_bytes=len(body),
        )
    )  # fmt: skip
    exchange.head(Head(1, 3_000, response["status"], {name.lower(): value for name, value in response["headers"]}))
    size, last_ns = 0, 3_000
    gaps: list[tuple[float, int]] = []
    for stamp_ns, data in reads:
        exchange.read(stamp_ns, data)
        gaps += exchange.drain_gaps()
        size, last_ns = size + len(data), stamp_ns
    close = Close(
        id=1,
        stamp_ns=last_ns + 1,
        outcome=outcome,
        error="",
        status=response["status"],
        head_ns=3_000,
        response_bytes=size,
    )
    return exchange.close(close), gaps


def one_by_one(recording: dict[str, Any]) -> list[tuple[int, bytes]]:
    """Return a read for each chunk, a millisecond apart."""
    return [(1_000_000 * (i + 1), chunk) for i, chunk in enumerate(chunks_of(recording))]


def verdict(name: str, recording: dict[str, Any], outcome: Outcome) -> tuple[Outcome, ErrorType]:
    """Return how the request ended: `dying_` streams end with an error event and [DONE], the engine under them died."""
    status = recording["response"]["status"]
    if status >= 400:
        engine = (Outcome.UPSTREAM_ERROR, ErrorType.ENGINE_5XX)
        return engine if status >= 500 else (Outcome.REJECTED, ErrorType.ENGINE_4XX)
    return (Outcome.STREAM_ERROR, ErrorType.ENGINE_EVENT) if name.startswith("dying_") else (outcome, ErrorType.NONE)


def test_there_are_recordings() -> None:
    """Without them this file would test nothing."""
    assert len(NAMES) > 100


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_reply(name: str) -> None:
    """Usage, source, finish reasons and outcome are what the reply says."""
    recording = load(name)
    response, expected = recording["response"], recording["expected"]
    outcome = Outcome.OK if response["complete"] else Outcome.CLIENT_ABORT
    record, _ = play(recording, one_by_one(recording), outcome)
    usage = expected["usage"] if recording["request"]["path"] in READ_PATHS else None
    assert (record.outcome, record.error) == verdict(name, recording, outcome)
    if usage is None:
        assert record.token_source in {TokenSource.NONE, TokenSource.CHUNK_ESTIMATE, TokenSource.CONTINUOUS_USAGE}
    else:
        assert record.token_source is TokenSource.FINAL_USAGE
        into, out = ("prompt", "completion") if "prompt_tokens" in usage else ("input", "output")
        assert (record.prompt_tokens, record.completion_tokens) == (usage[f"{into}_tokens"], usage[f"{out}_tokens"])
        assert record.cached_tokens == (usage.get(f"{into}_tokens_details") or {}).get("cached_tokens")
        assert record.reasoning_tokens == (usage.get(f"{out}_tokens_details") or {}).get("reasoning_tokens")
    if (path := recording["request"]["path"]) in OWN_FINISH and response["status"] == 200:
        assert record.finish_reasons == (OWN_FINISH[path],)
    elif path in READ_PATHS:
        assert record.finish_reasons == tuple(reason for _, reason in sorted(expected["finish_reasons"].items()))


@pytest.mark.parametrize("name", COUNTED)
def test_booked_tokens_are_the_engine_s_own(name: str) -> None:
    """Booked from usage is what vLLM's counters moved by; they count a prompt once for each of its n choices."""
    recording = load(name)
    record, _ = play(recording, one_by_one(recording))
    if record.token_source is TokenSource.FINAL_USAGE:
        n = request_of(recording).get("n", 1)
        assert (record.prompt_tokens or 0) * n == recording["expected"]["engine_prompt_tokens"]
        assert record.completion_tokens == recording["expected"]["engine_generation_tokens"]
    elif record.token_source is TokenSource.CHUNK_ESTIMATE:
        assert record.prompt_tokens is None
        assert 0 < (record.completion_tokens or 0) <= recording["expected"]["engine_generation_tokens"]


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".continuous")])
def test_a_stream_cut_anywhere_books_what_had_come(name: str) -> None:
    """The completion is the sum of each choice's last count, the prompt that of the prompts begun."""
    recording = load(name)
    reads = one_by_one(recording)
    n = request_of(recording).get("n", 1)
    of_choice: dict[int, int] = {}
    of_prompt: dict[int, int] = {}
    for cut in range(1, len(reads)):
        chunk = reads[cut - 1][1].partition(b"data: ")[2]
        event = json.loads(chunk) if chunk.startswith(b"{") else {}
        if event.get("choices"):
            index = event["choices"][0]["index"]
            of_choice[index] = event["usage"]["completion_tokens"]
            of_prompt[index // n] = event["usage"]["prompt_tokens"]
        if of_choice:
            record, _ = play(recording, reads[:cut], Outcome.CLIENT_ABORT)
            assert (record.prompt_tokens, record.completion_tokens) == (
                sum(of_prompt.values()),
                sum(of_choice.values()),
            )
            assert record.outcome is (Outcome.STREAM_ERROR if "error" in event else Outcome.CLIENT_ABORT)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith((".bare", ".usage", ".continuous"))])
def test_the_split_of_a_recorded_stream_does_not_matter(name: str) -> None:
    """All in one read, or in pieces of 64 bytes with the same stamp, it is the same record."""
    recording = load(name)
    data = b"".join(chunks_of(recording))
    whole, gaps = play(recording, [(1_000_000, data)])
    step = max(64, len(data) // 500)
    pieces, same_gaps = play(recording, [(1_000_000, data[i : i + step]) for i in range(0, len(data), step)])
    assert pieces == whole
    assert same_gaps == gaps


@pytest.mark.parametrize("kind", sorted({name.rpartition(".")[0] for name in NAMES if name.endswith(".continuous")}))
def test_the_variants_of_a_kind_agree(kind: str) -> None:
    """With or without usage in the stream, plain or streamed: one request has one set of facts."""
    records = {
        variant: play(load(f"{kind}.{variant}"), one_by_one(load(f"{kind}.{variant}")))[0]
        for variant in ("bare", "usage", "continuous", "plain")
        if f"{kind}.{variant}" in NAMES
    }
    assert len(records) >= 3
    continuous = records.pop("continuous")
    for variant, record in records.items():
        assert record.finish_reasons == continuous.finish_reasons
        if record.outcome is not Outcome.UPSTREAM_ERROR:
            assert (record.engine_id, record.engine_model) == (continuous.engine_id, continuous.engine_model)
        if variant != "plain":
            assert record.first_token is continuous.first_token
        if variant != "bare" and not kind.startswith("dying_") and "_aborted" not in kind:
            assert (record.prompt_tokens, record.completion_tokens) == (
                continuous.prompt_tokens, continuous.completion_tokens,
            )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "token_class"),
    [
        ("chat.bare", TokenClass.ANSWER),
        ("chat_reasoning.continuous", TokenClass.REASONING),
        ("chat_tools_named.usage", TokenClass.TOOL_CALL),
        ("chat_tools_auto_called.continuous", TokenClass.ANSWER),
        ("completion_n2.bare", TokenClass.ANSWER),
        ("completion_echo_only.continuous", None),
        ("chat_keep_alive.bare", TokenClass.ANSWER),
    ],
)
def test_the_first_token_of_a_recorded_stream(name: str, token_class: TokenClass | None) -> None:
    """The role chunk, comments and an echoed prompt are no first token."""
    recording = load(name)
    record, _ = play(recording, one_by_one(recording))
    assert record.first_token is token_class
    assert record.first_token_missing == ("" if token_class else "empty")
    if token_class is not None:
        role_chunk = recording["request"]["path"].endswith("chat/completions")
        assert record.ttft_s is not None
        assert record.ttft_s >= (0.002 if role_chunk else 0.001) - 1e-6


def test_buffered_tool_tokens_are_gaps_of_the_chunk_that_brings_them() -> None:
    """A tool parser holds tokens back; the next count tells how many, and each has its share of the gap."""
    recording = load("chat_tools_auto_called.continuous")
    record, gaps = play(recording, one_by_one(recording))
    assert record.completion_tokens == 54
    assert record.gap_count == sum(tokens for _, tokens in gaps) == 53
    assert [gap_s for gap_s, tokens in gaps if tokens == 15] == pytest.approx([0.001 / 15])


@pytest.mark.parametrize("name", ["chat.continuous", "completion_prompts_n2.continuous", "chat_reasoning.continuous"])
def test_lost_copies_are_made_good_by_the_relay(name: str) -> None:
    """With all copies lost, the usage and the end that the relay kept book the same tokens and finishes."""
    recording = load(name)
    chunks = chunks_of(recording)
    usages: dict[int, bytes] = {}
    for chunk in chunks:
        data = chunk.removeprefix(b"data: ")
        if data.startswith(b"{"):
            event = json.loads(data)
            usages[event["choices"][0]["index"] if event["choices"] else -1] = json.dumps(event["usage"]).encode()
    whole, _ = play(recording, one_by_one(recording))
    size = sum(map(len, chunks))
    for kept in (usages, {index: raw for index, raw in usages.items() if index >= 0}):
        exchange = Exchange(
            Open(
                id=1, request_id="r", wall_ns=1, arrival_ns=1_000, sent_ns=2_000, method="POST",
                path=recording["request"]["path"], tenant="t", model="tiny", stream=True, asked_usage=False,
                choices=len(recording["expected"]["finish_reasons"]), headers={},
                body=recording["request"]["body"].encode(), body_bytes=1,
            )
        )  # fmt: skip
        exchange.head(Head(1, 3_000, 200, {"content-type": "text/event-stream"}))
        exchange.read(4_000, b"")
        close = Close(
            id=1, stamp_ns=9_000, outcome="ok", error="", status=200, response_bytes=size, dropped_bytes=size,
            usages=kept, tail=b"".join(chunks)[-8_000:],
        )  # fmt: skip
        record = exchange.close(close)
        assert (record.prompt_tokens, record.completion_tokens) == (whole.prompt_tokens, whole.completion_tokens)
        assert record.finish_reasons == whole.finish_reasons
        assert (record.token_source, record.outcome) == (TokenSource.FINAL_USAGE, Outcome.OK)
        assert (record.ttft_s, record.first_token_missing) == (None, "tap_gap")


def test_records_can_be_stored() -> None:
    """A record of a real request survives its own serialisation."""
    recording = load("chat_reasoning.continuous")
    record, _ = play(recording, one_by_one(recording))
    assert msgspec.json.decode(msgspec.json.encode(record), type=RequestRecord) == record
