"""runaway: what is cut is a loop beyond doubt, however it was streamed; what may be meant so is not."""

import itertools
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferwatch_collectors.quality.runaway import (
    MIN_BYTES,
    MIN_PLAIN_BYTES,
    REPEATS,
    Runaway,
    asks_for_a_form,
    enough,
)

LEAD = "Here is the list that you asked for, with all of the entries in it:\n"
PERIODS = [
    "and so on, ",
    "no ",
    "그리고 ",
    "и так далее, ",
    "以此类推，",
    "a line of its own, as long as lines are.\n",
    "x",
]


def pieces(text: str, sizes: list[int]) -> list[str]:
    """Cut `text` into pieces of these sizes, over and over."""
    out, at = [], 0
    for size in itertools.cycle(sizes):
        if at >= len(text):
            return out
        out.append(text[at : at + size])
        at += size
    return out


def is_cut(text: str, *sizes: int, blanks_only: bool = False) -> bool:
    """Tell whether it would be cut when its last piece has come."""
    runaway = Runaway(blanks_only=blanks_only)
    return [runaway.take(piece) for piece in pieces(text, list(sizes or (4,)))][-1]


def cut_at(text: str, size: int) -> int | None:
    """Return how much of it would be heard, None: all."""
    runaway = Runaway()
    for number, piece in enumerate(pieces(text, [size]), 1):
        if runaway.take(piece):
            return number * size
    return None


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize("size", [1, 3, 7, 40])
def test_it_is_cut_with_the_first_piece_that_is_enough(period: str, size: int) -> None:
    """In any language after as many bytes, and after no fewer repeats."""
    far = enough(period, blanks_only=False)
    begin = len(LEAD) - (LEAD[-1] == period[-1])
    at = cut_at(LEAD + period * (far // len(period) + 50), size)
    assert at is not None
    assert 0 <= at - (begin + far) <= size
    assert far >= REPEATS * len(period)
    assert far * len(period.encode()) // len(period) >= MIN_BYTES


@given(
    period=st.text("ab ,.é語", min_size=1, max_size=12),
    lead=st.text("ab ,.é語", max_size=30),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    others=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    chars=st.integers(0, 9_000),
)
@example(period="ab ", lead="", sizes=[1], others=[60], chars=2_100)
@example(period="ab ", lead="", sizes=[1], others=[60], chars=2_000)
def test_how_it_is_streamed_changes_nothing(
    period: str, lead: str, sizes: list[int], others: list[int], chars: int
) -> None:
    """The same text is cut, or is not, by its last letter. `!` ends what the lead may have begun."""
    text = lead + "!" + (period * (chars // len(period) + 1))[:chars]
    assert is_cut(text, *sizes) == is_cut(text, *others)


@given(st.text(max_size=600), st.lists(st.integers(1, 50), min_size=1, max_size=5), st.booleans())
def test_any_text_can_be_taken_and_a_short_one_is_never_cut(text: str, sizes: list[int], blanks_only: bool) -> None:
    """Whatever it repeats."""
    assert not text or not is_cut(text, *sizes, blanks_only=blanks_only)


@given(
    st.lists(st.tuples(st.sampled_from([*PERIODS, "- ", "0, "]), st.integers(1, 1_400)), min_size=1, max_size=5),
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
)
def test_what_is_cut_does_repeat_itself_that_long(parts: list[tuple[str, int]], sizes: list[int]) -> None:
    """At whatever piece it says so: the text up to there is looked at again, in the plainest way."""
    runaway, said = Runaway(), ""
    for piece in pieces("".join(period * times for period, times in parts), sizes):
        said += piece
        if runaway.take(piece):
            assert any(_ends_in(said, size) for size in range(1, 65))
            return


def _ends_in(said: str, size: int) -> bool:
    far = enough(said[-size:], blanks_only=False)
    return len(said) >= far and said[-far:-size] == said[size - far :]


@pytest.mark.parametrize(
    "text",
    [
        "push @ints, $i if vec($vec, ++$i, 1);\n" * 8,  # Perl's own manual
        "| name | value |\n" * 30,
        "Row, row, row your boat, gently down the stream.\n" * 11,
        "-" * 4_000,
        "[" + "0, " * 2_000,
        "{ " + "0x00, " * 1_000,
        "[" + "0.0, 0.0, 0.0],\n[" * 400,
    ],
    ids=["code", "table", "refrain", "ruler", "zeros", "bytes", "matrix"],
)
def test_what_is_meant_so_is_not_cut(text: str) -> None:
    """Suspicious as it may be."""
    assert not is_cut(LEAD + text)


@pytest.mark.parametrize("text", ["\n", " ", "!", "0, ", "\n    \n"])
def test_without_a_word_it_takes_pages(text: str) -> None:
    """But there is an end to it."""
    assert not is_cut(LEAD + text * ((MIN_PLAIN_BYTES - 100) // len(text)))
    assert is_cut(LEAD + text * (MIN_PLAIN_BYTES // len(text) + 1))


def test_where_a_form_is_asked_for_only_blanks_are_a_loop() -> None:
    """Rows of a document may be alike."""
    row = '{"status": "ok", "retries": 0}, '
    assert is_cut(LEAD + row * 400)
    assert not is_cut(LEAD + row * 400, blanks_only=True)
    assert not is_cut(LEAD + "and so on, " * 2_000, blanks_only=True)
    assert is_cut('{"status": ' + "\n  " * 3_000, blanks_only=True)


def test_what_goes_on_with_one_other_letter_begins_anew() -> None:
    """Also if it then says the same again."""
    half = "and so on, " * 140
    assert not is_cut(LEAD + half + "And " + half)
    assert is_cut(LEAD + half + "And " + half + half)


def test_one_loop_after_another_is_found() -> None:
    """What was followed first is forgotten."""
    assert is_cut(LEAD + "no, " * 100 + "yes, " * 600)


@pytest.mark.parametrize(
    ("body", "asks"),
    [
        ({"messages": []}, False),
        ({"messages": [], "response_format": {"type": "text"}}, False),
        ({"messages": [], "response_format": None}, False),
        ({"messages": [{"role": "user", "content": 'an answer with "response_format": please'}]}, False),
        ({"messages": [], "response_format": {"type": "json_object"}}, True),
        ({"messages": [], "guided_json": {"type": "object"}}, True),
        ({"messages": [], "structured_outputs": {"choice": ["a"]}}, True),
        ({"input": "hi", "text": {"verbosity": "low"}}, False),
        ({"input": "hi", "text": {"format": {"type": "text"}}}, False),
        ({"input": "hi", "text": {"format": {"type": "json_schema", "name": "x"}}}, True),
        ({"text": "hi", "sampling_params": {"temperature": 0}}, False),
        ({"text": "hi", "sampling_params": {"json_schema": "{}"}}, True),
        ({"inputs": "hi", "parameters": {"grammar": {"type": "regex", "value": "a"}}}, True),
        ({"prompt": "hi", "format": "json"}, True),
        ({"prompt": "hi", "format": ""}, False),
        ({"messages": [], "output_config": {"format": {"type": "json_schema"}}}, True),
        ([], True),
        ("text", True),
    ],
    ids=str,
)
def test_what_asks_for_a_form(body: object, asks: bool) -> None:
    """In the words of each API; what cannot be read may."""
    assert asks_for_a_form(json.dumps(body).encode()) == asks


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"format": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"])
def test_a_body_that_cannot_be_read_may_ask_for_anything(body: bytes) -> None:
    """So only blanks are a loop there."""
    assert asks_for_a_form(body)
