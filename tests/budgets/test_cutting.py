"""cutting: a stream that is ended by us ends as the engine's own streams do."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.record import ErrorType
from inferwatch.relay.cutting import MAX_SEEN_BYTES, REASONS, Cutting, final_events

CHAT = "/v1/chat/completions"
SPENT = REASONS[ErrorType.BUDGET]


def chunk(text: str, index: int = 0, finish: str | None = None, usage: dict[str, Any] | None = None) -> bytes:
    event: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "qwen"}
    event["choices"] = [{"index": index, "delta": {"content": text}, "finish_reason": finish}]
    if usage is not None:
        event["usage"] = usage
    return b"data: %b\n\n" % msgspec.json.encode(event)


def events(data: bytes) -> list[Any]:
    """All events of `data`, which is nothing but whole events."""
    assert data.endswith(b"\n\n")
    lines = [line for line in data.split(b"\n") if line.startswith(b"data: ")]
    return [line[6:] if line == b"data: [DONE]" else msgspec.json.decode(line[6:]) for line in lines]


def test_a_chat_ends_with_a_finish_reason_and_the_end_mark() -> None:
    """`length`, which every client knows; `stop_reason` says why; id, time and model are those of the stream."""
    final, done = events(final_events(CHAT, chunk("Hello"), SPENT, choices=1, usage=False) or b"")
    assert done == b"[DONE]"
    assert {name: final[name] for name in ("id", "object", "created", "model")} == {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 5,
        "model": "qwen",
    }
    assert final["choices"] == [
        {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length", "stop_reason": "budget_exceeded"}
    ]


def test_a_loop_is_called_by_vllms_own_word() -> None:
    """What its own detection writes, for whoever looks for it."""
    cutting = Cutting(CHAT, chunk("no, "), ErrorType.LOOP, choices=1, usage=False)
    final, _ = events(cutting.end_here() or b"")
    assert final["choices"][0]["finish_reason"] == "length"
    assert final["choices"][0]["stop_reason"] == "repetition_detected"
    record = b'{"model":"m","created_at":"t","response":"no, ","done":false}\n'
    last = msgspec.json.decode(
        Cutting("/api/generate", record, ErrorType.LOOP, choices=1, usage=True).end_here() or b""
    )
    assert (last["done_reason"], last["stop_reason"]) == ("length", "repetition_detected")


def test_a_completion_ends_with_an_empty_text() -> None:
    """The other of OpenAI's shapes."""
    tail = b'data: {"id":"cmpl-1","object":"text_completion","created":5,"model":"m","choices":[{"index":0,"text":"a"}]}\n\n'
    final, _ = events(final_events("/v1/completions", tail, SPENT, choices=1, usage=False) or b"")
    assert final["choices"][0]["text"] == ""
    assert final["choices"][0]["finish_reason"] == "length"


def test_each_choice_that_has_not_finished_is_finished() -> None:
    """A choice must not finish twice."""
    tail = chunk("a", 0) + chunk("b", 1, finish="stop") + chunk("c", 2)
    *final, done = events(final_events(CHAT, tail, SPENT, choices=3, usage=False) or b"")
    assert [each["choices"][0]["index"] for each in final] == [0, 2]
    assert done == b"[DONE]"


@pytest.mark.parametrize(("asked", "told"), [(True, True), (False, False)])
def test_a_client_that_asked_for_usage_gets_it(asked: bool, told: bool) -> None:
    """What was generated so far, from the last event; nobody else gets any."""
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    found = events(final_events(CHAT, chunk("Hello", usage=usage), SPENT, choices=1, usage=asked) or b"")
    usages = [each["usage"] for each in found if isinstance(each, dict) and not each["choices"]]
    assert usages == ([usage] if told else [])


def test_an_anthropic_stream_ends_its_block_its_message_and_itself() -> None:
    """In this order; `max_tokens` is that API's word for it."""
    tail = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"a"}}\n\n'
    found = final_events("/v1/messages", tail, SPENT, choices=1, usage=False) or b""
    assert [line for line in found.split(b"\n") if line.startswith(b"event")] == [
        b"event: content_block_stop",
        b"event: message_delta",
        b"event: message_stop",
    ]
    stop, delta, _ = events(found)
    assert stop["index"] == 2
    assert delta["delta"]["stop_reason"] == "max_tokens"


def test_an_anthropic_stream_that_has_said_why_is_not_told_again() -> None:
    """Only its end is missing."""
    tail = b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}\n\n'
    assert events(final_events("/v1/messages", tail, SPENT, choices=1, usage=False) or b"") == [
        {"type": "message_stop"}
    ]


@pytest.mark.parametrize(
    ("path", "tail"),
    [
        (CHAT, b""),
        (CHAT, b": ping\n\n"),
        (CHAT, b'data: {"id":"chatc'),
        (CHAT, b'data: {"error":{"message":"x"}}\n\n'),
        ("/generate_stream", b'data: {"index":1,"token":{"id":1}}\n\n'),
        ("/v1/responses", b'data: {"type":"response.output_text.delta"}\n\n'),
    ],
)
def test_nothing_is_invented_where_nothing_is_known(path: str, tail: bytes) -> None:
    """The reply then breaks off, and a client sees that too."""
    assert final_events(path, tail, SPENT, choices=1, usage=False) is None


@given(st.data(), st.integers(1, 6), st.sampled_from([b"\n\n", b"\r\n\r\n"]))
def test_the_cut_is_between_events_wherever_reads_are_split(data: st.DataObject, count: int, mark: bytes) -> None:
    """What a client sees is whole events, the first ones of the engine's, and then the end."""
    sent = [chunk(f"t{number}") for number in range(count)]
    wire = b"".join(sent).replace(b"\n\n", mark)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    begin = data.draw(st.integers(0, len(wire)))
    reads = [wire[start:end] for start, end in zip([begin, *cuts], [*cuts, len(wire)], strict=False) if start < end]
    cutting = Cutting(CHAT, wire[:begin], ErrorType.BUDGET, choices=1, usage=False)
    shown, ended = wire[:begin], False
    for read in reads:
        if read and wire.startswith(shown + read):
            more, ended = cutting.feed(read)
            shown += more
            if ended:
                break
    if ended:
        whole = shown.replace(b"\r\n", b"\n")
        found = events(whole)
        assert found[-1] == b"[DONE]"
        assert found[-2]["choices"][0]["finish_reason"] == "length"
        assert whole.startswith(b"".join(sent[: len(found) - 2]))


def test_between_two_events_it_ends_at_once() -> None:
    """Within one, or before the first, it has to go on; of a dialect that is not known nothing is said."""
    whole = chunk("a")
    assert events(Cutting(CHAT, whole, ErrorType.BUDGET, choices=1, usage=False).end_here() or b"")[-1] == b"[DONE]"
    assert Cutting(CHAT, whole.replace(b"\n", b"\r\n"), ErrorType.BUDGET, choices=1, usage=False).end_here() is not None
    assert Cutting(CHAT, whole + whole[:9], ErrorType.BUDGET, choices=1, usage=False).end_here() is None
    assert Cutting(CHAT, b"", ErrorType.BUDGET, choices=1, usage=False).end_here() is None
    assert Cutting("/generate_stream", whole, ErrorType.BUDGET, choices=1, usage=False).end_here() is None


@pytest.mark.parametrize(("path", "good"), [(CHAT, True), ("/generate_stream", False)])
def test_whether_it_ended_well_is_told(path: str, good: bool) -> None:
    """Whoever writes the end of the transfer must know: a reply without last words has to break off."""
    cutting = Cutting(path, b"", ErrorType.BUDGET, choices=1, usage=False)
    _, ended = cutting.feed(chunk("a"))
    assert ended
    assert cutting.in_good_form == good


def test_an_event_without_an_end_is_not_kept() -> None:
    """Memory is bounded whatever the engine sends; the client gets it all the same."""
    cutting = Cutting(CHAT, b"", ErrorType.BUDGET, choices=1, usage=False)
    block = b"x" * 50_000
    assert all(cutting.feed(block) == (block, False) for _ in range(10))
    assert len(cutting._seen) <= MAX_SEEN_BYTES


@given(st.binary(max_size=400), st.sampled_from([CHAT, "/v1/completions", "/v1/messages", "/x"]))
def test_no_tail_is_too_strange(tail: bytes, path: str) -> None:
    """Whatever came last, the end is whole events or nothing."""
    found = final_events(path, tail, SPENT, choices=2, usage=True)
    assert not found or found.endswith(b"\n\n")


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda each: st.lists(each) | st.dictionaries(
    st.sampled_from(["choices", "index", "usage", "object", "message", "type", "finish_reason"]), each), max_leaves=12))  # fmt: skip
def test_no_event_is_too_strange(event: Any) -> None:
    """JSON of any shape in a `data:` line."""
    tail = b"data: %b\n\n" % msgspec.json.encode(event)
    for path in (CHAT, "/v1/messages"):
        found = final_events(path, tail, SPENT, choices=2, usage=True)
        assert not found or found.endswith(b"\n\n")


def _sse(event: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(event)


def test_a_response_ends_incomplete() -> None:
    """With the event that OpenAI sends at `max_output_tokens`, of the response that had begun."""
    tail = _sse({"type": "response.created", "response": {"id": "resp_1", "output": []}, "sequence_number": 0})
    tail += _sse({"type": "response.output_text.delta", "delta": "a", "sequence_number": 4})
    (final,) = events(final_events("/v1/responses", tail, SPENT, choices=1, usage=True) or b"")
    assert (final["type"], final["sequence_number"]) == ("response.incomplete", 5)
    assert final["response"]["id"] == "resp_1"
    assert final["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert (
        final_events("/v1/responses", tail + _sse({"type": "response.completed"}), SPENT, choices=1, usage=True) == b""
    )


def test_ollama_s_stream_ends_with_a_record() -> None:
    """Cut at the end of a line, with `done` and what the API has for it."""
    record = {"model": "m", "created_at": "t", "message": {"role": "assistant", "content": "a"}, "done": False}
    line = msgspec.json.encode(record) + b"\n"
    cutting = Cutting("/api/chat", line, ErrorType.BUDGET, choices=1, usage=True)
    assert cutting.feed(line[:9]) == (line[:9], False)
    out, ended = cutting.feed(line[9:] + line)
    assert ended
    assert out.startswith(line[9:])
    last = msgspec.json.decode(out[len(line) - 9 :])
    assert (last["done"], last["done_reason"], last["message"]["content"]) == (True, "length", "")
    done = msgspec.json.encode(record | {"done": True}) + b"\n"
    assert final_events("/api/chat", done, SPENT, choices=1, usage=True) == b""
    assert final_events("/api/generate", b'{"status":"x"}\n', SPENT, choices=1, usage=True) is None


def test_native_streams_end_in_their_own_words() -> None:
    """SGLang's finish, llama.cpp's stop; of others nothing is invented."""
    meta = {"text": "ab", "meta_info": {"completion_tokens": 2, "finish_reason": None}}
    final, done = events(final_events("/generate", _sse(meta), SPENT, choices=1, usage=True) or b"")
    assert (final["text"], final["meta_info"]["finish_reason"], done) == (
        "ab",
        {"type": "length", "length": 2},
        b"[DONE]",
    )
    part = {"index": 0, "content": "b", "tokens_predicted": 2, "tokens_evaluated": 3, "stop": False}
    (final,) = events(final_events("/completion", _sse(part), SPENT, choices=1, usage=True) or b"")
    assert (final["content"], final["stop"], final["stop_type"], final["tokens_predicted"]) == ("", True, "limit", 2)
    assert final_events("/completion", _sse(part | {"stop": True}), SPENT, choices=1, usage=True) == b""
    assert final_events("/v1/audio/transcriptions", _sse({"x": 1}), SPENT, choices=1, usage=True) is None
