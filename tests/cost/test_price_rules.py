"""`prices` in the configuration: what is refused, and by which name."""

from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch import config
from inferwatch.config import ConfigError
from inferwatch.settings.prices import Prices, amount_fault, fault

GOOD = "input: 1, output: 2"

# what stands in `prices` -> the whole error
MISTAKES = [
    ("rules: [{input: 1}]", "prices.rules[0]: object missing required field `output`"),
    (
        "rules: [{input: 1, output: -0.5}]",
        "prices.rules[0].output: expected dollars per million tokens, 0 or more, got -0.5",
    ),
    ("rules: [{input: .nan, output: 2}]", "prices.rules[0].input: expected dollars per million tokens, got NaN"),
    ("rules: [{input: .inf, output: 2}]", "prices.rules[0].input: expected dollars per million tokens, got Infinity"),
    ("rules: [{input: 1, output: $2}]", "prices.rules[0].output: expected a plain number, such as 0.15"),
    ("rules: [{input: 1, output: 2 USD}]", "prices.rules[0].output: expected a plain number, such as 0.15"),
    ('rules: [{input: "1,50", output: 2}]', "prices.rules[0].input: expected a plain number, such as 0.15"),
    (
        "rules: [{input: 0.00000015, output: 2}]",
        "prices.rules[0].input: expected 0 or at least 0.0001 dollars per million tokens, got 1.5E-7: is it per token?",
    ),
    (
        "rules: [{input: 1, output: 15000}]",
        "prices.rules[0].output: expected at most 10000 dollars per million tokens, got 15000",
    ),
    (
        "rules: [{input: 1, output: 2, per_request: -1}]",
        "prices.rules[0].per_request: expected dollars per request, 0 or more, got -1",
    ),
    (
        'rules: [{input: "1.0000000001", output: 2}]',
        "prices.rules[0].input: expected at most 9 decimals, got 1.0000000001",
    ),
    (
        f"rules: [{{{GOOD}}}, {{{GOOD}, model: a, cached_input: -1}}]",
        "prices.rules[1].cached_input: expected dollars per million tokens, 0 or more, got -1",
    ),
    (
        f"rules: [{{{GOOD}, reasoning: -1}}]",
        "prices.rules[0].reasoning: expected dollars per million tokens, 0 or more, got -1",
    ),
    (f'rules: [{{{GOOD}, model: ""}}]', "prices.rules[0].model: expected 1 to 256 printable characters"),
    (f'rules: [{{{GOOD}, model: "qwen "}}]', "prices.rules[0].model: expected 1 to 256 printable characters"),
    (f'rules: [{{{GOOD}, tenant: "a\\nb"}}]', "prices.rules[0].tenant: expected at most 256 printable characters"),
    (f"rules: [{{{GOOD}, price: 1}}]", "prices.rules[0]: object contains unknown field `price`"),
    (f"rules: [{{{GOOD}, currency: EUR}}]", "prices.rules[0]: object contains unknown field `currency`"),
    (f"rules: [{{{GOOD}, valid_from: 2026-13-01}}]", "--config FILE: not YAML: month must be in 1..12"),
    (f"rules: [{{{GOOD}, valid_from: 2026}}]", "prices.rules[0].valid_from: expected `date | null`, got `int`"),
    (
        f"rules: [{{{GOOD}, valid_from: 2026-07-01, valid_until: 2026-07-01}}]",
        "prices.rules[0].valid_until: 2026-07-01 is not after `valid_from`, 2026-07-01",
    ),
    (
        f"rules: [{{{GOOD}}}, {{{GOOD}, model: a}}, {{{GOOD}}}]",
        "prices.rules[2]: for `*` it overlaps in time with prices.rules[0]",
    ),
    (
        f"rules: [{{{GOOD}, tenant: acme, valid_until: 2026-07-02}}, {{{GOOD}, tenant: acme, valid_from: 2026-07-01}}]",
        "prices.rules[1]: for `*` of `acme` it overlaps in time with prices.rules[0]",
    ),
    ("compare: [groq/a, groq/b, groq/a]", "prices.compare[2]: `groq/a` is written twice"),
    ("catalogues: x", "prices: object contains unknown field `catalogues`"),
]


def written(folder: Path, text: str) -> str:
    path = folder / "inferwatch.yml"
    path.write_text(f"prices: {{{text}}}\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(("text", "expected"), MISTAKES)
def test_a_mistake_is_named_by_its_key(tmp_path: Path, text: str, expected: str) -> None:
    """Rule by rule, counted from 0."""
    path = written(tmp_path, text)

    with pytest.raises(ConfigError) as caught:
        config.load(path, environ={})

    assert str(caught.value).replace(path, "FILE") == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rules: []",
        f"rules: [{{{GOOD}, tenant: a}}, {{{GOOD}, tenant: b}}, {{{GOOD}}}, {{{GOOD}, model: qwen}}]",
        f"rules: [{{{GOOD}, valid_from: 2026-07-01}}, {{{GOOD}, valid_until: 2026-07-01}}]",
        "rules: [{input: 0, output: 0, per_request: 0.01}]",
        "rules: [{input: 0.0001, output: 10000}]",
    ],
)
def test_what_is_not_a_mistake_is_taken(tmp_path: Path, text: str) -> None:
    """Periods may touch, and the same model may have a price for each tenant."""
    assert config.load(written(tmp_path, text), environ={})


def test_amounts_are_taken_as_they_are_written(tmp_path: Path) -> None:
    """A number and a text, in YAML: neither has the error of a float."""
    loaded = config.load(written(tmp_path, 'rules: [{input: 0.1, output: "0.1", cached_input: 0.003625}]'), environ={})

    assert loaded.prices.rules[0].input == loaded.prices.rules[0].output == Decimal("0.1")
    assert loaded.prices.rules[0].cached_input == Decimal("0.003625")


def test_prices_reach_the_collector_as_they_were_written(tmp_path: Path) -> None:
    """Through the control channel, which speaks JSON."""
    loaded = config.load(
        written(tmp_path, "rules: [{input: 0.1, output: 2.000000001, valid_from: 2026-07-01}]"), environ={}
    )

    message = msgspec.json.decode(msgspec.json.encode({"config": msgspec.to_builtins(loaded)}))

    assert msgspec.convert(message["config"]["prices"], Prices) == loaded.prices


def test_the_entries_to_compare_with_can_be_given_in_the_environment() -> None:
    """A list of words, with commas."""
    loaded = config.load(environ={"INFERWATCH__PRICES__COMPARE": "groq/gpt-oss-120b, openai/gpt-5"})

    assert loaded.prices.compare == ("groq/gpt-oss-120b", "openai/gpt-5")


def test_lists_are_bounded() -> None:
    """Each entry to compare with is a counter, each rule is asked for each new model."""
    too_many = Prices(compare=tuple(f"p/{number}" for number in range(51)))

    assert fault(too_many) == "prices.compare: 51 entries, expected at most 50"


@given(st.decimals(), st.booleans())
def test_no_decimal_breaks_the_check(amount: Decimal, per_token: bool) -> None:
    """NaNs that signal, zeros that are negative, and exponents of any size."""
    problem = amount_fault(amount, per_token=per_token)

    assert problem or 0 <= amount <= 10_000
