"""What a request asked for, in each API's words, as OpenTelemetry's attributes."""

import json
from typing import Any

import pytest
import semconv
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.tap import Open
from inferwatch_collectors.otlp import asked as of_asked
from inferwatch_collectors.otlp.asked import Asked, read


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"messages": [], "temperature": 0, "top_p": 0.9, "seed": 7, "max_tokens": 5},
         {"temperature": 0.0, "top_p": 0.9, "seed": 7, "max_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"max_tokens": 6}),
        ({"input": "hi", "max_output_tokens": 9, "text": {"format": {"type": "text"}}}, {"max_tokens": 9}),
        ({"inputs": "hi", "parameters": {"max_new_tokens": 4, "top_k": 3}}, {"max_tokens": 4, "top_k": 3.0}),
        ({"prompt": "hi", "options": {"num_predict": 4, "frequency_penalty": 1}},
         {"max_tokens": 4, "frequency_penalty": 1.0}),
        ({"prompt": "hi", "n_predict": 8, "presence_penalty": -1}, {"max_tokens": 8, "presence_penalty": -1.0}),
        ({"temperature": None, "stop": ["zzz"], "user": "ann"}, {}),
    ],
    ids=["chat", "newer name", "responses", "tgi", "ollama", "llama.cpp", "nothing"],
)  # fmt: skip
def test_each_apis_words(body: dict[str, Any], found: dict[str, Any]) -> None:
    """Names are those of the conventions; stop sequences and users are not among them."""
    said = read(json.dumps(body).encode())

    assert said == {f"gen_ai.request.{name}": value for name, value in found.items()}
    assert semconv.faults(said) == []


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ({"type": "json_schema", "json_schema": {}}, "json"),
        ({"type": "text"}, "text"),
        ({"type": "x"}, None),
        ("y", None),
    ],
)
def test_the_form_of_the_answer(form: object, kind: str | None) -> None:
    """In OpenTelemetry's words, where it has one."""
    assert read(json.dumps({"response_format": form}).encode()).get("gen_ai.output.type") == kind


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"seed": 99999999999999999999}', b'{"temperature": "hot"}', b'{"parameters": 1}']
)
def test_a_body_that_says_something_else(body: bytes) -> None:
    """Has no attributes; nor has a number that OTLP could not carry, which would cost the whole batch."""
    assert read(body) == {}


@given(st.binary() | st.recursive(st.none() | st.integers() | st.text(), lambda deeper: st.dictionaries(
    st.sampled_from(["seed", "options", "max_tokens", "response_format", "top_k"]), deeper)).map(
        lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_body_is_a_fault(body: bytes) -> None:
    """Whatever it is."""
    assert semconv.faults(read(body)) == []


def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many open requests the oldest are forgotten, and counted; what is taken is let go of."""
    monkeypatch.setattr(of_asked, "MAX_OPEN", 2)
    asked = Asked()
    for number in range(3):
        body = b'{"seed": 1}'
        fields: dict[str, Any] = {
            "id": 1, "request_id": f"r{number}", "wall_ns": 0, "arrival_ns": 0, "sent_ns": 0, "method": "POST",
            "path": "/", "tenant": "acme", "model": "m", "stream": True, "asked_usage": False, "choices": 1,
            "headers": {}, "body": body, "body_bytes": len(body),
        }  # fmt: skip
        asked.opened(Open(**fields))

    assert [asked.take(f"r{number}") for number in range(3)] == [
        {},
        {"gen_ai.request.seed": 1},
        {"gen_ai.request.seed": 1},
    ]
    assert asked.cut == 1
    assert asked.take("r1") == {}
