"""text, trigrams, hearing: numbers of any text, and nothing that could be read."""

import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.record import RequestRecord
from inferwatch_collectors.dialects.base import ANSWER, REASONING, TOOL_CALL
from inferwatch_collectors.dialects.content import Piece, Source
from inferwatch_collectors.drift.features import TEXT_NAMES, Direction, features
from inferwatch_collectors.drift.following import Followed, Heard
from inferwatch_collectors.drift.hearing import Hearing, last_said, valid_arguments, valid_json
from inferwatch_collectors.drift.text import MAX_CHARS, read
from inferwatch_collectors.drift.trigrams import BUCKETS, STEP, Codebook, Words

KEY = b"sixteen bytes or more"
ENGLISH = "The cat sat on the mat and it was not at all sure what to do with the rest of that day. "
GERMAN = "Die Katze saß auf der Matte und wusste nicht, was sie mit dem Rest des Tages machen sollte. "
CODE = "def f(x):\n    return {k: v for k, v in x.items() if k != '_'}\n"


@given(st.text(max_size=5_000))
def test_any_text_makes_finite_numbers(text: str) -> None:
    """Lone surrogates, nothing at all, one character a thousand times."""
    values = read(text, "prompt")
    assert set(values) <= {f"prompt_{name}" for name, _ in TEXT_NAMES}
    assert all(value is not None and 0 <= value < 10_000 for value in values.values())
    assert values["prompt_chars"] == len(text)


def test_a_huge_text_is_looked_at_in_part() -> None:
    """A megabyte costs what two thousand characters do."""
    assert read(ENGLISH * 20_000, "p") | {"p_chars": 0.0} == read((ENGLISH * 40)[:MAX_CHARS], "p") | {"p_chars": 0.0}


def test_languages_and_code_are_told_apart() -> None:
    """By shares that can be said in words."""
    english, german, code = (read(text * 5, "p") for text in (ENGLISH, GERMAN, CODE))
    assert english["p_english"] > 0.3 > english["p_german"]  # type: ignore[operator]
    assert german["p_german"] > 0.3 > german["p_english"]  # type: ignore[operator]
    assert code["p_symbols"] > 2 * max(english["p_symbols"], german["p_symbols"])  # type: ignore[operator, type-var]
    assert read("Съешь ещё этих мягких французских булок", "p")["p_cyrillic"] > 0.7  # type: ignore[operator]
    assert read("天地玄黃宇宙洪荒", "p")["p_cjk"] == 1.0
    assert read("اَلْعَرَبِيَّةُ لغة", "p")["p_other_script"] > 0.4  # type: ignore[operator]


def test_likeness_is_higher_for_texts_like_those_learnt() -> None:
    """German is unlike an English reference, and so is code."""
    book, words = Codebook(KEY), Words()
    assert words.likeness(book.buckets(ENGLISH)) is None
    words.learn(book.buckets(ENGLISH * 10))
    words.freeze()
    english, german, code = (words.likeness(book.buckets(text)) for text in (ENGLISH, GERMAN, CODE))
    assert english is not None
    assert german is not None
    assert code is not None
    assert english > german + 0.5
    assert english > code + 0.5
    assert words.likeness(book.buckets("ab")) is None
    again = Words.of(words.state())
    assert again.likeness(book.buckets(GERMAN)) == german


def test_a_key_must_be_one() -> None:
    """Less than 16 bytes could be tried."""
    with pytest.raises(ValueError, match="key of 5 bytes"):
        Codebook(b"short")


def record_with(
    make: Callable[..., RequestRecord], prompt: str, answer: str, followed: Followed, book: Codebook
) -> None:
    """Let one request vote."""

    def over(record: RequestRecord, heard: Heard) -> None:
        followed.vote(record, heard, 1, 0.0, 0)

    hearing = Hearing(prompt, book, over)
    hearing.text(0, 0, ANSWER, answer)
    hearing.closed(make())


def test_nothing_can_be_read_from_a_reference_without_the_key(request_of: Callable[..., RequestRecord]) -> None:
    """Neither words nor trigrams are in the state; and a dictionary does not tell which buckets are which without the key.

    Whoever has the state and guesses that the texts were German or English has as good a guess with a wrong key for either.
    """
    book, followed = Codebook(KEY), Followed("m", "acme", features(text=True), 0.0)
    secret = "Zwiebelkuchen für Xaver Yilmaz, Kontonummer 48151623. "
    for number in range(600):
        record_with(request_of, secret + GERMAN * (1 + number % 5), GERMAN + secret, followed, book)
    data = msgspec.msgpack.encode(followed.state())
    for word in (*secret.split(), *GERMAN.split()):
        if len(word) > 3:
            assert word.encode() not in data
            assert word.lower().encode() not in data
    state = followed.state()
    words = Words.of(state.words[Direction.PROMPT.value])

    def edge(key: bytes) -> float:
        known = Codebook(key)
        german, english = words.likeness(known.buckets(GERMAN)), words.likeness(known.buckets(ENGLISH))
        assert german is not None
        assert english is not None
        return german - english

    others = [edge(random.Random(seed).randbytes(32)) for seed in range(60)]
    assert edge(KEY) > 5 * max(map(abs, others)) / 2
    assert abs(sum(others) / len(others)) < 0.3 * edge(KEY)


def test_a_dictionary_of_trigrams_finds_no_more_than_chance(request_of: Callable[..., RequestRecord]) -> None:
    """Which trigrams were in the texts: with the key all of them, with another key as many as are in any text."""
    book, words = Codebook(KEY), Words()
    words.learn(book.buckets(GERMAN))
    words.freeze()
    low = -STEP * max(words._scores or b"")
    trigrams = [GERMAN[at : at + 3] for at in range(len(GERMAN) - 2)]

    def found(key: bytes) -> float:
        other = Codebook(key)
        scores = [words.likeness(other.buckets(trigram)) for trigram in trigrams]
        return sum(score is not None and score > low for score in scores) / len(trigrams)

    assert found(KEY) == 1.0
    chance = len(set(trigrams)) / BUCKETS
    assert found(b"another key of thirty-two bytes..") < 4 * chance


def heard_of(make: Callable[..., RequestRecord], *pieces: tuple[int, int, str], missing: bool = False) -> Heard:
    """Return what is heard of these (choice, class, text)."""
    found: list[Heard] = []
    hearing = Hearing("Hello there", Codebook(KEY), lambda _, heard: found.append(heard))
    for choice, classes, text in pieces:
        hearing.text(0, choice, classes, text)
    if missing:
        hearing.missing()
    hearing.closed(make())
    return found[0]


def test_the_first_choice_is_heard_and_reasoning_is_not(request_of: Callable[..., RequestRecord]) -> None:
    """An answer is what the client is shown."""
    heard = heard_of(request_of, (0, REASONING, "Let me think. "), (0, ANSWER, "Yes."), (1, ANSWER, "No, not at all."))
    assert heard.values["answer_chars"] == 4


def test_an_answer_that_was_not_seen_whole_is_not_judged_as_a_whole(request_of: Callable[..., RequestRecord]) -> None:
    """Whether it is JSON, or a refusal, is unknown then, not no."""
    heard = heard_of(request_of, (0, ANSWER, '{"a": '), missing=True)
    assert heard.values["json"] is None
    assert heard.values["refusal"] is None


def test_nothing_said_is_empty_unless_a_tool_is_called(request_of: Callable[..., RequestRecord]) -> None:
    """A call is an answer."""
    assert heard_of(request_of).values["empty"] == 1.0
    assert heard_of(request_of, (0, TOOL_CALL, "{}")).values["empty"] == 0.0


@pytest.mark.parametrize(
    ("answer", "valid"),
    [
        ('{"a": 1}', 1.0),
        ("```json\n[1, 2]\n```", 1.0),
        ('{"a": 1', 0.0),
        ("[" * 100_000, 0.0),
        ("Sure! {}", None),
        ("", None),
    ],
)
def test_json_is_valid_or_not_or_not_meant(answer: str, valid: float | None) -> None:
    """Of answers that begin as JSON."""
    assert valid_json(answer) == valid


@pytest.mark.parametrize(
    ("called", "valid"),
    [
        ('{"city": "Rome"}', 1.0),
        ('{"a": 1}{"b": 2} []', 1.0),
        ('{"a": 1', 0.0),
        ('{"a": 1} and so on', 0.0),
        ("[" * 100_000, 0.0),
        ("Rome", None),
        ("", None),
    ],
)
def test_arguments_of_tools_are_valid_or_not_or_not_told_as_such(called: str, valid: float | None) -> None:
    """Of several calls one after the other."""
    assert valid_arguments(called) == valid


def test_calls_of_tools_are_looked_at_in_pieces(request_of: Callable[..., RequestRecord]) -> None:
    """As they come; not if some of it was not seen."""
    pieces = [(0, TOOL_CALL, '{"ci'), (0, TOOL_CALL, 'ty": "Ro'), (1, TOOL_CALL, "{}")]
    assert heard_of(request_of, *pieces).values["tool_json"] == 0.0
    assert heard_of(request_of, *pieces, (0, TOOL_CALL, 'me"}')).values["tool_json"] == 1.0
    assert "tool_json" not in heard_of(request_of, *pieces, missing=True).values
    assert "tool_json" not in heard_of(request_of, (0, ANSWER, "{}")).values


def test_what_the_user_said_last_is_the_prompt() -> None:
    """Not the system's instructions, not settings; a tool's result if there is nothing else."""
    system, user, setting = (Piece(s, s.value) for s in (Source.SYSTEM, Source.USER, Source.SETTING))
    assert last_said(iter([system, user, setting])) == "user"
    assert last_said(iter([system, setting])) == "system"
    assert last_said(iter([])) == ""
