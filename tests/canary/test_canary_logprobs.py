"""logprobs: what is read of replies, and what of those that are none."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferwatch_collectors.canary.logprobs import MIN_LOGPROB, UnreadableError, read

TOPS = {" Paris": -0.25, " the": -2.5, " a": -3.0}


def completions(tops: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "text": " Paris", "logprobs": {"top_logprobs": [tops]}}]}).encode()


def chat(tops: Any) -> bytes:
    content = [{"token": " Paris", "logprob": -0.25, "top_logprobs": tops}]
    return json.dumps({"choices": [{"index": 0, "message": {}, "logprobs": {"content": content}}]}).encode()


def test_both_apis_are_read() -> None:
    """Token and log-probability, as OpenAI has them."""
    rows = [{"token": token, "logprob": logprob, "bytes": []} for token, logprob in TOPS.items()]
    assert read(completions(TOPS), "completions", 3) == TOPS
    assert read(chat(rows), "chat", 3) == TOPS


def test_what_is_beyond_all_measure_is_bounded() -> None:
    """vLLM says -9999 where the probability is 0; rounding may show a little above 0."""
    assert read(completions({"a": -9999.0, "b": 1e-6}), "completions", 2) == {"a": MIN_LOGPROB, "b": 0.0}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "malformed"),
        (b"\xff", "malformed"),
        (b"[]", "malformed"),
        (b"{}", "malformed"),
        (b'{"choices": []}', "malformed"),
        (b'{"choices": [{"text": "a"}]}', "no_logprobs"),
        (b'{"choices": [{"text": "a", "logprobs": null}]}', "no_logprobs"),
        (b'{"choices": [{"logprobs": {"top_logprobs": [null]}}]}', "no_logprobs"),
        (b'{"choices": [{"logprobs": {"top_logprobs": [{"a": NaN}]}}]}', "malformed"),
        (completions({}), "no_logprobs"),
        (completions({"a": -1.0}), "no_logprobs"),  # of five that were asked for
        (completions({"a": None, "b": -1.0, "c": -2.0}), "not_a_number"),
        (completions({"a": "-1", "b": -1.0, "c": -2.0}), "not_a_number"),
        (completions({"a": True, "b": -1.0, "c": -2.0}), "not_a_number"),
        (b'{"choices": [{"logprobs": {"top_logprobs": [{"a": 1e999, "b": 0, "c": 0}]}}]}', "malformed"),
    ],
)
def test_what_cannot_be_compared_says_why(body: bytes, reason: str) -> None:
    """No number is made up for it."""
    with pytest.raises(UnreadableError) as caught:
        read(body, "completions", 5)
    assert caught.value.reason == reason


@given(st.binary() | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda each: st.lists(each) | st.dictionaries(st.sampled_from(["choices", "logprobs", "top_logprobs", "content", "token"]), each)).map(lambda each: json.dumps(each).encode()))  # fmt: skip
def test_whatever_an_engine_sends_nothing_else_is_raised(body: bytes) -> None:
    """A reason, or finite numbers of 0 and less."""
    for api in ("completions", "chat"):
        try:
            found = read(body, api, 1)
        except UnreadableError:
            continue
        assert all(MIN_LOGPROB <= each <= 0 for each in found.values())


@given(st.integers() | st.integers(10**300, 10**400) | st.floats(allow_nan=False, allow_infinity=False) | st.none())
@example(-(10**400))
def test_whatever_stands_where_a_number_should_nothing_else_is_raised(value: object) -> None:
    """JSON's integers have no end, and a float does."""
    for tops in ({"a": value}, {"a": value, "b": -1.0}):
        try:
            found = read(completions(tops), "completions", 1)
        except UnreadableError:
            continue
        assert all(MIN_LOGPROB <= each <= 0 for each in found.values())
