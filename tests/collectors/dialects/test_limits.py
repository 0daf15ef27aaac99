"""The bound of an answer, from the bytes of its request."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.dialects.limits import answer_limit


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        pytest.param(b'{"max_tokens": 20}', 20, id="chat and completions"),
        pytest.param(b'{"max_completion_tokens":7,"max_tokens":5}', 7, id="the larger of two"),
        pytest.param(b'{"max_output_tokens" : 9}', 9, id="responses"),
        pytest.param(b'{"parameters": {"max_new_tokens": 12}}', 12, id="TGI"),
        pytest.param(b'{"max_tokens": 0, "echo": true}', 1, id="one is made all the same"),
        pytest.param(b'{"max_tokens": null}', None, id="null"),
        pytest.param(b'{"max_tokens": -1}', None, id="negative"),
        pytest.param(b'{"max_tokens": 99999999999999}', None, id="no bound in earnest"),
        pytest.param(b'{"max_length": 5}', None, id="another key"),
        pytest.param(b'{"prompt": "\\"max_tokens\\": 5"}', None, id="in a text"),
        pytest.param(b'{"tools": [{"properties": {"max_tokens": {"type": "integer"}}}]}', None, id="in a schema"),
        pytest.param(b"", None, id="no body"),
        pytest.param(b'"max_' * 1000 + b'"max_tokens": 5', None, id="full of keys"),
    ],
)
def test_the_limit(body: bytes, limit: int | None) -> None:
    """It is the number of one of the keys; without one there is no bound."""
    assert answer_limit(body) == limit


@given(prompt=st.text(), limit=st.integers(1, 999_999_999))
def test_any_prompt(prompt: str, limit: int) -> None:
    """Whatever a prompt says, the key counts."""
    assert answer_limit(json.dumps({"prompt": prompt, "max_tokens": limit}).encode()) == limit
