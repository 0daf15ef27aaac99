"""tail_cycle and refusals: what repeats itself is found soon, and what does not is left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.quality.refusals import is_refusal
from inferwatch_collectors.quality.tail_cycle import MAX_PERIOD_CHARS, TailCycle, cycle

LEAD = "Here is the list that you asked for, with all of the entries in it:\n"
WORDS = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "omicron",
    "pi",
    "rho",
    "sigma",
    "tau",
    "upsilon",
]


def streamed(text: str, size: int = 4) -> list[str]:
    """Return it as an engine would send it."""
    return [text[start : start + size] for start in range(0, len(text), size)]


@pytest.mark.parametrize("words", [1, 2, 3, 5, 8, 13, 20])
@pytest.mark.parametrize("size", [1, 4, 9])
def test_a_loop_is_known_within_64_pieces_of_its_third_repeat(words: int, size: int) -> None:
    """Whatever its period, and however the engine cuts it."""
    period = " ".join(WORDS[:words]) + ". "
    third = len(LEAD) + 3 * len(period)
    found, at = TailCycle(), 0
    for piece in streamed(LEAD + period * 200, size):
        at += len(piece)
        if found.take(piece):
            break
    assert found.period is not None
    assert (at - third) / size <= 64
    assert len(found.period) == len(period)


def test_a_whole_reply_in_one_piece_is_looked_at_too() -> None:
    """Plain replies come as one text."""
    found = TailCycle()
    assert found.take(LEAD + "no, no, no, " * 100)


def test_what_stops_repeating_is_no_loop() -> None:
    """A block of code that says a line eight times goes on; at its end it is no loop."""
    found = TailCycle()
    for piece in streamed(LEAD + "push @ints, $i if vec($vec, ++$i, 1);\n" * 8):
        found.take(piece)
    assert found.finish()
    for piece in streamed("return @ints; and then the explanation of what that has been about, in some words."):
        found.take(piece)
    assert not found.finish()


@pytest.mark.parametrize(
    ("period", "meant", "loop"),
    [
        *((ruler, 510, 660) for ruler in ("-", "=", " ", "\n", "!", "0", "| --- ", ". ", "\n\n ", "[]")),
        *((row, 1680, 2080) for row in ("0, ", "0x00, ", "1 2 ", "|         |\n", "1.5, 2.5, 3.5,\n")),
    ],
)
def test_rulers_and_rows_of_figures_are_meant_so(period: str, meant: int, loop: int) -> None:
    """Up to what real texts have; `!!!!` without an end is how engines fail."""
    assert cycle(LEAD + period * (meant // len(period))) is None
    assert cycle(LEAD + period * (loop // len(period))) is not None


@pytest.mark.parametrize("period", ["x1, ", "__init__ ", "if(a0)\n", "l l\n", "0x1f = a; ", "哈", "да "])
def test_what_begins_with_a_letter_is_a_word(period: str) -> None:
    """Whatever comes after it."""
    assert cycle(LEAD + period * (260 // len(period))) is not None


@pytest.mark.parametrize("size", [1, 4, 9])
@pytest.mark.parametrize("chars", [1_000, MAX_PERIOD_CHARS - 1, MAX_PERIOD_CHARS + 1])
def test_a_long_period_is_found_up_to_a_bound(size: int, chars: int) -> None:
    """Pages of it."""
    period = " ".join(f"{first} {second}" for first in WORDS for second in WORDS)[:chars]
    found = TailCycle()
    for piece in streamed(LEAD + period * 4, size):
        found.take(piece)
    assert found.finish() == (chars <= MAX_PERIOD_CHARS)


@given(st.lists(st.integers(1, 9), max_size=60), st.sampled_from(["ab ", "!", "so it goes, and so on and on. "]))
def test_pieces_may_be_taken_together(groups: list[int], period: str) -> None:
    """What was taken, and how many pieces that was, is all that counts; and when it was looked at."""
    single, joined, kept = TailCycle(), TailCycle(), TailCycle()
    rest = period * 200
    for group in groups:
        text, rest = rest[: 2 * group], rest[2 * group :]
        for piece in streamed(text, 2):
            single.take(piece)
        joined.take(text, len(streamed(text, 2)))
        kept.keep(text, len(streamed(text, 2)))
    assert single.finish() == joined.finish() == kept.finish()


def test_a_hole_ends_what_was_known() -> None:
    """Text that was not seen may have been anything."""
    found = TailCycle()
    found.take("so so " * 10)
    found.missing()
    found.take("so so " * 10)
    assert not found.finish()


@given(st.text(max_size=3_000), st.integers(1, 50))
def test_any_text_can_be_taken(text: str, size: int) -> None:
    """And what is said to be a period is one: the tail consists of it."""
    found = TailCycle()
    for piece in streamed(text, size):
        found.take(piece)
    if found.finish():
        assert found.period is not None
        assert text.endswith(found.period * 3)
        assert len(found.period) <= MAX_PERIOD_CHARS


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I can’t assist with that request.",
        "I cannot provide instructions for that.",
        "As an AI language model, I cannot have opinions.",
        "Unfortunately, I can't help with that.",
        "Es tut mir leid, aber dabei kann ich nicht helfen.",
        "Leider kann ich diese Anfrage nicht beantworten.",
        "Je suis désolé, mais je ne peux pas vous aider.",
        "Lo siento, pero no puedo ayudar con eso.",
        "Mi dispiace, ma non posso aiutarti.",
        "Sinto muito, mas não posso ajudar.",
        "Het spijt me, maar daar kan ik niet bij helpen.",
        "Извините, но я не могу помочь с этим.",
        "很抱歉，我无法提供这方面的帮助。",
        "申し訳ありませんが、お手伝いできません。",
        "죄송하지만 도와드릴 수 없습니다.",
    ],
)
def test_refusals_are_known_by_how_they_begin(answer: str) -> None:
    """In the languages that models are asked in most."""
    assert is_refusal(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Sure! Here is how to say sorry in ten languages.",
        "The function cannot return None, since",
        "I can help with that.",
        "Sorry is a word of Old English origin.",
        "Ich kann dir dabei helfen.",
        "Yes. If somebody asks for it, say: I'm sorry, but I can't help with that.",
        "a" * 100_000,
        "I understand" + " and" * 100_000,
    ],
)
def test_other_answers_are_not(answer: str) -> None:
    """Also where they speak of refusing, and whatever their length."""
    assert not is_refusal(answer)
