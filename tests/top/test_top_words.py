"""Numbers and names as a terminal shows them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.top import words


@pytest.mark.parametrize(
    ("function", "value", "shown"),
    [
        (words.number, 0.0, "0"),
        (words.number, 12.25, "12.2"),
        (words.number, 9999.0, "9999"),
        (words.number, 20_000.0, "20.0 k"),
        (words.number, 3.2e6, "3.2 M"),
        (words.number, 5e9, "5.0 G"),
        (words.whole, 1234567.0, "1,234,567"),
        (words.dollars, 1.25, "$1.2500"),
        (words.dollars, 123.456, "$123.46"),
        (words.percent, 0.834, "83 %"),
        (words.seconds, 0.012, "12 ms"),
        (words.seconds, 14.26, "14.3 s"),
        (words.seconds, 600.0, "10 min"),
        (words.seconds, 10_000.0, "2.8 h"),
        (words.seconds, 200_000.0, "2.3 d"),
        (words.gibibytes, 2.0**31, "2.0"),
    ],
)
def test_figures(function: object, value: float, shown: str) -> None:
    """Few digits, and the unit that suits them."""
    assert function(value) == shown  # type: ignore[operator]


@pytest.mark.parametrize(
    "function", [words.number, words.whole, words.dollars, words.percent, words.seconds, words.gibibytes]
)
def test_unknown_is_a_dash(function: object) -> None:
    """Never 0."""
    assert function(None) == "-"  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "columns", "shown"),
    [
        ("acme", 6, "acme  "),
        ("acme", 4, "acme"),
        ("globex-corporation", 8, "globex-~"),
        ("模型一", 6, "模型一"),
        ("模型一", 5, "模型~"),
        ("模型一", 4, "模~ "),
        ("e\N{COMBINING ACUTE ACCENT}te", 4, "e\N{COMBINING ACUTE ACCENT}te "),
        ("acme", 0, ""),
    ],
)
def test_a_name_in_so_many_columns(text: str, columns: int, shown: str) -> None:
    """Ideographs take two; what is cut says so."""
    assert words.fit(text, columns) == shown


@given(st.text(max_size=30), st.integers(0, 40), st.booleans())
def test_whatever_the_name_the_width_is_right(text: str, columns: int, left: bool) -> None:
    """And no control character is left of it: a model's name comes from whoever sends a request."""
    fitted = words.fit(text, columns, left=left)
    assert words.width(fitted) == columns
    assert fitted.isprintable()


def test_a_name_cannot_steer_the_terminal() -> None:
    """Escape sequences are shown, not obeyed."""
    assert words.safe("qwen\x1b]0;owned\x07\n") == "qwen?]0;owned??"


def test_a_bar() -> None:
    """Full is full, and more than full is no longer."""
    assert [words.bar(ratio, 6) for ratio in (0.0, 0.5, 1.0, 1.7)] == ["[    ]", "[||  ]", "[||||]", "[||||]"]
