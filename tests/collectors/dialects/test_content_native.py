"""What was said, in the formats beside OpenAI's chat and completions."""

import json
from typing import Any

import pytest
from specimens import SPECIMENS, Specimen

from inferwatch_collectors.dialects.base import ANSWER, REASONING, TOOL_CALL, Observation
from inferwatch_collectors.dialects.body import body_reader
from inferwatch_collectors.dialects.content import Source
from inferwatch_collectors.dialects.select import choose

SYSTEM, USER, ASSISTANT, TOOL, SETTING = Source
BY_NAME = {specimen.name: specimen for specimen in SPECIMENS}


class Ears:
    """Remembers what it hears, as one text for each choice and class."""

    def __init__(self) -> None:
        self.heard: dict[tuple[int, int], str] = {}

    def text(self, stamp_ns: int, choice: int, classes: int, text: str) -> None:
        assert text
        self.heard[choice, classes] = self.heard.get((choice, classes), "") + text

    def missing(self) -> None:
        """Nothing is."""

    def ended(self) -> None:
        raise AssertionError("dialects do not end answers")

    def closed(self, record: Any) -> None:
        raise AssertionError("dialects do not end requests")


def hear(specimen: Specimen) -> dict[tuple[int, int], str]:
    """Return what a listener hears of a specimen's reply."""
    selection = choose("POST", specimen.path, specimen.content_type, bool(specimen.request.get("stream")))
    seen, ears = Observation(selection.dialect.facts(b"{}", 1)), Ears()
    seen.listener = ears
    body = body_reader(selection.dialect, seen, selection.framing, "")
    assert body is not None
    for at in range(0, len(specimen.body), 7):
        body.feed(5, specimen.body[at : at + 7])
    body.finish(6)
    return ears.heard


@pytest.mark.parametrize(
    ("name", "heard"),
    [
        ("vllm responses: completed although incomplete", {(0, REASONING): "t", (0, ANSWER): "ab"}),
        ("openai responses: error, then failed", {(0, TOOL_CALL): "{"}),
        ("anthropic: pings, thinking, a cache that is read and written", {(0, REASONING): "t", (0, ANSWER): "a"}),
        ("anthropic: input that the end corrects", {(0, TOOL_CALL): "{}"}),
        ("tgi stream: details on the last event, no space, no [DONE]", {(0, ANSWER): "abc"}),
        ("tgi: plain, counts in the head alone", {(0, ANSWER): "abc"}),
        ("tgi: / is an array of one", {(0, ANSWER): "abc"}),
        ("sglang: cumulative text, a state left out", {(0, ANSWER): "abcde"}),
        ("sglang: two prompts", {(0, ANSWER): "a", (1, ANSWER): "bc"}),
        ("sglang: plain, two prompts", {(0, ANSWER): "abc", (1, ANSWER): "d"}),
        ("triton stream: text alone", {(0, ANSWER): "ab"}),
        ("triton: plain", {(0, ANSWER): "abc"}),
        ("llama.cpp stream: progress is no token", {(0, ANSWER): "ab"}),
        ("llama.cpp: plain", {(0, ANSWER): "abc"}),
        ("ollama chat: streams although nobody asked", {(0, REASONING): "t", (0, ANSWER): "ab"}),
        ("ollama chat: plain", {(0, ANSWER): "ab"}),
        ("transcription: openai's stream", {(0, ANSWER): "ab"}),
        ("transcription: tokens", {(0, ANSWER): "a"}),
        ("embeddings: plain", {}),
    ],
)
def test_an_answer_is_heard_once(name: str, heard: dict[tuple[int, int], str]) -> None:
    """Pieces add up to what the client reads; echoes, repetitions and final copies are not heard again."""
    assert hear(BY_NAME[name]) == heard


def test_sglang_s_pieces_are_heard_as_they_are() -> None:
    """With `--incremental-streaming-output` a text does not repeat the one before."""
    events = [{"text": text, "meta_info": {"completion_tokens": n}} for n, text in enumerate(("the ", "a ", "of"), 1)]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    specimen = BY_NAME["sglang: cumulative text, a state left out"]._replace(body=body)
    assert hear(specimen) == {(0, ANSWER): "the a of"}


@pytest.mark.parametrize(
    ("path", "body", "pieces"),
    [
        (
            "/v1/responses",
            {
                "instructions": "be brief",
                "input": [
                    {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                    {"type": "function_call", "arguments": '{"a":1}'},
                    {"type": "function_call_output", "output": "42"},
                ],
                "user": "u1",
            },
            [(SYSTEM, "be brief"), (USER, "hi"), (ASSISTANT, '{"a":1}'), (TOOL, "42"), (SETTING, "u1")],
        ),
        ("/v1/responses", {"input": "hi"}, [(USER, "hi")]),
        (
            "/v1/messages",
            {
                "system": [{"type": "text", "text": "be brief"}],
                "messages": [
                    {"role": "user", "content": "hi"},
                    {"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": {"a": "x"}}]},
                    {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "42"}]}]},
                ],
                "metadata": {"user_id": "u1"},
            },
            [(SYSTEM, "be brief"), (USER, "hi"), (ASSISTANT, "x"), (TOOL, "42"), (SETTING, "u1")],
        ),
        ("/generate", {"inputs": "hi", "parameters": {"stop": ["x"]}}, [(USER, "hi"), (SETTING, "x")]),
        ("/generate", {"text": ["hi", "ho"]}, [(USER, "hi"), (USER, "ho")]),
        ("/v2/models/m/generate", {"text_input": "hi"}, [(USER, "hi")]),
        ("/completion", {"prompt": "hi"}, [(USER, "hi")]),
        ("/infill", {"input_prefix": "a", "input_suffix": "b"}, [(USER, "a"), (USER, "b")]),
        (
            "/api/chat",
            {
                "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}],
                "options": {"stop": "x"},
            },
            [(SYSTEM, "s"), (USER, "hi"), (SETTING, "x")],
        ),
        ("/api/generate", {"system": "s", "prompt": "hi"}, [(SYSTEM, "s"), (USER, "hi")]),
        ("/api/embed", {"input": ["a", "b"]}, [(USER, "a"), (USER, "b")]),
        ("/v1/rerank", {"query": "q", "documents": ["a", {"text": "b"}]}, [(USER, "q"), (USER, "a"), (USER, "b")]),
        ("/v1/score", {"text_1": "a", "text_2": ["b"]}, [(USER, "a"), (USER, "b")]),
    ],
)
def test_a_request_s_texts(path: str, body: dict[str, Any], pieces: list[tuple[Source, str]]) -> None:
    """Every text of a request, by who it is from."""
    dialect = choose("POST", path, "", False).dialect
    assert [tuple(piece) for piece in dialect.prompt(json.dumps(body).encode())] == pieces


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/generate", "/completion", "/api/chat", "/rerank"])
@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b'{"input":5,"messages":[5,{"content":{}}],"system":[[]]}'])
def test_a_request_that_is_none_has_no_texts(path: str, body: bytes) -> None:
    """What cannot be read is left out."""
    assert list(choose("POST", path, "", False).dialect.prompt(body)) == []
