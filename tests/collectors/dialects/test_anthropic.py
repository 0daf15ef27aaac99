"""Anthropic Messages: what the specimens of all formats do not show."""

import json
from typing import Any

import pytest

from inferwatch_collectors.dialects.anthropic import ANTHROPIC_MESSAGES
from inferwatch_collectors.dialects.base import Observation, RequestFacts
from inferwatch_collectors.dialects.usage import Totals

THOUGHT = {"output_tokens_details": {"thinking_tokens": 900}}


def booked(*events: dict[str, Any]) -> Totals:
    """Return the counts of a stream."""
    seen = Observation(RequestFacts())
    for event in events:
        ANTHROPIC_MESSAGES.read_event(seen, 1, b"", json.dumps(event).encode())
    return ANTHROPIC_MESSAGES.totals(seen, 1)


@pytest.mark.parametrize(
    ("usage", "completion", "reasoning"),
    [
        ({"input_tokens": 9, "output_tokens": 1000, **THOUGHT}, 1000, 900),
        ({"input_tokens": 9, "output_tokens": 1000, "output_tokens_details": None}, 1000, None),
        ({"input_tokens": 9, "output_tokens": 1000, "output_tokens_details": {"thinking_tokens": 0}}, 1000, 0),
        (
            {"output_tokens": 1000, "iterations": [{"output_tokens": 1000, **THOUGHT}, {"output_tokens": 50}]},
            1050,
            900,
        ),
    ],
)
def test_thinking_is_reasoning(usage: dict[str, Any], completion: int, reasoning: int | None) -> None:
    """As a part of the output; of several passes their sum."""
    seen = Observation(RequestFacts())
    ANTHROPIC_MESSAGES.read_reply(seen, json.dumps({"type": "message", "model": "m", "usage": usage}).encode())
    totals = ANTHROPIC_MESSAGES.totals(seen, 1)
    assert (totals.completion, totals.reasoning) == (completion, reasoning)


def test_thinking_in_a_stream() -> None:
    """It stands at the end, beside the output."""
    totals = booked(
        {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1000, **THOUGHT}},
    )
    assert (totals.prompt, totals.completion, totals.reasoning) == (9, 1000, 900)
