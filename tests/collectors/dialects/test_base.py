"""The accumulator, and the dialect that reads nothing."""

import pytest

from inferwatch.record import TokenClass
from inferwatch_collectors.dialects.base import (
    ANSWER,
    MAX_CHOICES,
    REASONING,
    TOOL_CALL,
    UNKNOWN_NS,
    Observation,
    RequestFacts,
)
from inferwatch_collectors.dialects.unknown import UNKNOWN
from inferwatch_collectors.dialects.usage import Totals


@pytest.mark.parametrize(
    ("classes", "first"),
    [
        (REASONING, TokenClass.REASONING),
        (ANSWER, TokenClass.ANSWER),
        (TOOL_CALL, TokenClass.TOOL_CALL),
        (ANSWER | TOOL_CALL, TokenClass.ANSWER),
        (REASONING | ANSWER | TOOL_CALL, TokenClass.REASONING),
    ],
)
def test_the_first_token_has_the_class_that_is_made_first(classes: int, first: TokenClass) -> None:
    """Of several classes in one event, reasoning precedes the answer and the answer a tool call."""
    seen = Observation(RequestFacts())
    seen.token_seen(5, classes)
    seen.token_seen(9, REASONING)
    assert (seen.first_ns, seen.first_class) == (5, first)


def test_a_first_token_after_a_hole_is_unknown() -> None:
    """It may have been in the hole; the same holds for the first of the answer alone."""
    early, late = Observation(RequestFacts()), Observation(RequestFacts())
    early.bytes_missing()
    early.token_seen(5, ANSWER)
    assert (early.first_ns, early.answer_ns, early.first_token_missed) == (UNKNOWN_NS, UNKNOWN_NS, True)
    late.token_seen(5, REASONING)
    late.bytes_missing()
    late.token_seen(9, ANSWER)
    assert (late.first_ns, late.answer_ns, late.first_token_missed) == (5, UNKNOWN_NS, False)


def test_choices_are_bounded() -> None:
    """Beyond the limit there is no new choice, and the known ones stay."""
    seen = Observation(RequestFacts())
    for index in range(MAX_CHOICES):
        assert seen.choice(index) is not None
    assert seen.cuts == frozenset()
    assert seen.choice(MAX_CHOICES) is None
    assert seen.cuts == {"choices"}
    assert seen.choice(0) is seen.choices[0]


def test_the_unknown_dialect_reads_nothing() -> None:
    """Time and bytes only: operation "other", no counts."""
    seen = Observation(UNKNOWN.facts(b'{"n":2}', 0))
    UNKNOWN.read_event(seen, 1, b"error", b'{"error":1}')
    UNKNOWN.read_reply(seen, b'{"usage":{"prompt_tokens":1,"completion_tokens":1}}')
    UNKNOWN.read_reply_tail(seen, b'"finish_reason":"stop"')
    assert (UNKNOWN.operation, UNKNOWN.reads, UNKNOWN.generates) == ("other", False, False)
    assert UNKNOWN.read_usage(b'{"prompt_tokens":1}') is None
    assert (UNKNOWN.totals(seen, 1), seen.events, seen.error) == (Totals(), 0, False)
