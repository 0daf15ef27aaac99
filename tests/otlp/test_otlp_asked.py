"""What a request asked for, in each API's words, as OpenTelemetry's attributes."""

import json
from typing import Any

import pytest
import semconv
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.relay import usage_request
from inferwatch.tap import Open
from inferwatch_collectors.otlp import asked as of_asked
from inferwatch_collectors.otlp.asked import Asked, read


def opened(body: bytes, request_id: str = "r1", **changes: Any) -> Open:
    """A request as the relay announces it."""
    known = usage_request.read(body)
    fields: dict[str, Any] = {
        "id": 1, "request_id": request_id, "wall_ns": 0, "arrival_ns": 0, "sent_ns": 0, "method": "POST", "path": "/",
        "tenant": "acme", "model": "m", "stream": True, "asked_usage": False, "choices": 1, "headers": {},
        "body": body, "body_bytes": len(body), "max_tokens": known[0].max_tokens if known else 0,
    }  # fmt: skip
    return Open(**fields | changes)


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
        ({"text": "hi", "sampling_params": {"max_new_tokens": 4, "temperature": 0.5, "sampling_seed": 3}},
         {"max_tokens": 4, "temperature": 0.5, "seed": 3}),
        ({"prompt": "hi", "n_predict": -1, "top_k": -1, "seed": -1}, {"seed": -1}),
        ({"prompt": "hi", "temperature": 1, "options": {"temperature": 0, "num_predict": -2, "top_p": 1}},
         {"temperature": 1.0, "top_p": 1.0}),
        ({"temperature": "hot", "top_p": 0.5, "response_format": 7, "options": [], "seed": 7, "max_tokens": 5},
         {"top_p": 0.5, "seed": 7, "max_tokens": 5}),
        ({"temperature": None, "stop": ["zzz"], "user": "ann"}, {}),
    ],
    ids=["chat", "newer name", "responses", "tgi", "ollama", "llama.cpp", "sglang", "no limit", "two places", "wrong types", "nothing"],
)  # fmt: skip
def test_each_apis_words(body: dict[str, Any], found: dict[str, Any]) -> None:
    """Names are those of the conventions; stop sequences and users are not among them. One that is wrong costs itself."""
    asked = Asked()
    asked.opened(opened(json.dumps(body).encode()))

    said = asked.take("r1")

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
    "body",
    [b"", b"{", b"[]", b"[" * 100_000, b'{"seed": 99999999999999999999}', b'{"temperature": "hot"}', b'{"top_p": NaN}',
     b'{"parameters": 1}'],
)  # fmt: skip
def test_a_body_that_says_something_else(body: bytes) -> None:
    """Has no attributes; nor has a number that OTLP could not carry, which would cost the whole batch."""
    assert read(body) == {}


@given(st.binary() | st.recursive(st.none() | st.integers() | st.text(), lambda deeper: st.dictionaries(
    st.sampled_from(["seed", "options", "max_tokens", "response_format", "top_k"]), deeper)).map(
        lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_body_is_a_fault(body: bytes) -> None:
    """Whatever it is."""
    assert semconv.faults(read(body)) == []


def test_of_a_body_that_is_cut_the_limit_is_known() -> None:
    """The relay saw all of it."""
    asked = Asked()
    asked.opened(opened(b'{"seed": 1, "prompt": "', body_bytes=100, max_tokens=9))

    assert asked.take("r1") == {"gen_ai.request.max_tokens": 9}


@pytest.mark.parametrize("place", ["", "parameters", "sampling_params", "options"])
def test_what_clients_send_for_no_limit_is_no_fault(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """It is left out, and the body is not decoded a second time for it, prompt and all."""
    monkeypatch.setattr(of_asked, "load_object", None)
    numbers = {"top_k": -1, "top_p": 0.5}

    assert read(json.dumps({place: numbers} if place else numbers).encode()) == {"gen_ai.request.top_p": 0.5}


def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many open requests the oldest are forgotten, and counted; what is taken is let go of."""
    monkeypatch.setattr(of_asked, "MAX_OPEN", 2)
    asked = Asked()
    for number in range(3):
        asked.opened(opened(b'{"seed": 1}', f"r{number}"))

    assert [asked.take(f"r{number}") for number in range(3)] == [
        {},
        {"gen_ai.request.seed": 1},
        {"gen_ai.request.seed": 1},
    ]
    assert asked.cut == 1
    assert asked.take("r1") == {}
