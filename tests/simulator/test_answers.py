"""What the simulated model decides to say."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferwatch_simulator.answers import Kind, Tool, Wish, example, plan
from inferwatch_simulator.text import EOS, Dice

WEATHER = Tool("weather", {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}})


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 300), st.booleans(), st.booleans())
def test_limit_is_never_exceeded(seed: int, limit: int, ignore_eos: bool, reasoning: bool) -> None:
    """An answer has at most `max_tokens` tokens, a kind for each, and ends for `length` just when cut."""
    wish = Wish(max_tokens=limit, mean_tokens=60, ignore_eos=ignore_eos, reasoning=reasoning)
    answer = plan(wish, Dice(seed))
    assert 1 <= len(answer.pieces) <= limit
    assert len(answer.pieces) == len(answer.kinds)
    assert (answer.finish_reason == "stop") == (answer.pieces[-1] is EOS)
    if ignore_eos:
        assert (limit, "length") == (len(answer.pieces), answer.finish_reason)


def test_answers_end_by_themselves_around_the_mean() -> None:
    """Lengths spread around what was asked for, and the end mark counts as a token without text."""
    answers = [plan(Wish(max_tokens=5000, mean_tokens=100), Dice(seed)) for seed in range(300)]
    assert {"stop"} == {answer.finish_reason for answer in answers}
    assert 80 < sum(len(answer.pieces) for answer in answers) / 300 < 120
    assert all(answer.pieces[-1].text == "" for answer in answers)


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(0, 80))
def test_min_tokens_are_reached(seed: int, least: int) -> None:
    """No answer is shorter than demanded."""
    assert len(plan(Wish(max_tokens=100, mean_tokens=5, min_tokens=least), Dice(seed)).pieces) >= least


@settings(deadline=None)
@given(st.integers(0, 3000), st.sampled_from([(".",), ("the", "a"), (" is ", "\n")]))
def test_stop_string_ends_the_answer_before_it(seed: int, stop: tuple[str, ...]) -> None:
    """The text up to the first stop string is kept, the string itself is not, and the tokens still count."""
    wish = Wish(max_tokens=400, mean_tokens=200)
    whole = plan(wish, Dice(seed)).text(Kind.CONTENT)
    answer = plan(msgspec.structs.replace(wish, stop=stop), Dice(seed))
    ends = [whole.find(one) for one in stop if one in whole]
    assert answer.text(Kind.CONTENT) == (whole[: min(ends)] if ends else whole)
    assert (answer.stop_reason in stop) if ends else answer.stop_reason is None


def test_thoughts_come_first_and_are_counted() -> None:
    """Reasoning tokens precede the answer, with a marker between that is never shown."""
    answer = plan(Wish(max_tokens=500, mean_tokens=50, reasoning=True), Dice(1))
    kinds = bytes(answer.kinds)
    assert kinds == bytes([Kind.REASONING]) * answer.reasoning_tokens + bytes([Kind.HIDDEN]) + bytes([Kind.CONTENT]) * (
        len(kinds) - answer.reasoning_tokens - 1
    )
    assert answer.reasoning_tokens > 0


@settings(deadline=None)
@given(st.integers(0, 500))
def test_demanded_call_has_valid_arguments(seed: int) -> None:
    """The arguments are one JSON object with the tool's properties."""
    answer = plan(Wish(max_tokens=500, mean_tokens=50, tools=(WEATHER,), must_call=True), Dice(seed))
    assert answer.calls == (WEATHER,)
    arguments = json.loads(answer.text(Kind.TOOL_ARGUMENTS))
    assert list(arguments) == ["city", "days"]
    assert isinstance(arguments["days"], int)


def test_tools_are_used_sometimes() -> None:
    """With a free choice some answers call and some speak."""
    wish = Wish(max_tokens=500, mean_tokens=20, tools=(WEATHER,))
    called = [bool(plan(wish, Dice(seed)).calls) for seed in range(100)]
    assert 40 < sum(called) < 80


def test_call_cut_before_its_name_is_no_call() -> None:
    """A limit that strikes while the name is being written leaves nothing to show."""
    answer = plan(Wish(max_tokens=3, mean_tokens=20, tools=(WEATHER,), must_call=True), Dice(0))
    assert (answer.calls, answer.finish_reason) == ((), "length")


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "string"}, str),
        ({"type": "boolean"}, bool),
        ({"type": "number"}, float),
        ({"type": ["integer", "null"]}, int),
        ({"type": "array", "items": {"type": "integer"}}, list),
        ({"enum": ["x"]}, str),
        ({"type": "null"}, type(None)),
        ({}, dict),
    ],
)
def test_example_fits_the_schema(schema: dict[str, Any], kind: type) -> None:
    """Values have the type the schema names."""
    assert isinstance(example(schema, Dice(3)), kind)


def test_example_of_a_deep_schema_ends() -> None:
    """Nesting beyond reason is cut off."""
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(50):
        schema = {"type": "object", "properties": {"inner": schema}}
    assert json.dumps(example(schema, Dice(1))).count("inner") < 10
