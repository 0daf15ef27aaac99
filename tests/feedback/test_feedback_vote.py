"""What is a vote, and what is none."""

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.feedback.vote import MAX_COMMENT_CHARS, Ballot, BallotError, read
from inferwatch_collectors.ledger.vote import Thumb


def body(**fields: Any) -> bytes:
    return json.dumps({"request_id": "abc-1"} | fields).encode()


def test_a_vote_has_a_thumb_or_a_score() -> None:
    """Either is enough; what was not given stays unknown."""
    assert read(body(thumb="down")) == Ballot(request_id="abc-1", thumb=Thumb.DOWN)
    assert read(body(score=0, label="wrong_language")) == Ballot(request_id="abc-1", score=0.0, label="wrong_language")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "JSON object"),
        (b"[]", "JSON object"),
        (b"\xff", "JSON object"),
        (b"[" * 100_000, "JSON object"),
        (body(), "thumb"),
        (body(thumb="sideways-4711"), "JSON object"),
        (body(thumb="up", who="me-4711"), "JSON object"),
        (body(thumb="up", request_id=""), "request_id"),
        (body(thumb="up", request_id="a b-4711"), "request_id"),
        (body(thumb="up", request_id="x" * 201), "request_id"),
        (body(score=1.1), "score"),
        (body(score=-0.1), "score"),
        (body(score=math.nan), "JSON object"),
        (body(thumb="up", label="ann-4711@example.com"), "label"),
        (body(thumb="up", label="x" * 65), "label"),
        (body(thumb="up", comment="4711" * MAX_COMMENT_CHARS), "comment"),
    ],
)
def test_what_is_no_vote_is_told_by_its_field_and_not_repeated(data: bytes, named: str) -> None:
    """Nothing that came stands in the message: it goes into logs of the caller's."""
    with pytest.raises(BallotError) as caught:
        read(data)
    assert named in str(caught.value)
    assert "4711" not in str(caught.value)


@given(st.binary(max_size=200) | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(repr).map(str.encode))
def test_whatever_comes_is_a_vote_or_a_fault_of_the_caller(data: bytes) -> None:
    """No other end."""
    with contextlib.suppress(BallotError):
        assert isinstance(read(data), Ballot)
