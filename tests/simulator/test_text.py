"""Tokens and the prose made of them."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferwatch_simulator.corpus import CODE, LISTS, PROSE, THOUGHTS
from inferwatch_simulator.kv_cache import BLOCK_TOKENS
from inferwatch_simulator.text import Dice, generated, prompt_of, prompt_of_ids, split, write


@settings(deadline=None)
@given(st.text())
def test_pieces_joined_are_the_text(text: str) -> None:
    """The tokeniser loses nothing and makes no empty tokens."""
    pieces = split(text)
    assert text == "".join(pieces)
    assert "" not in pieces


@settings(deadline=None)
@given(st.text(), st.text())
def test_chat_marker_is_a_token_boundary(head: str, tail: str) -> None:
    """A text up to a marker is tokenised alike whatever follows, which is what prefix caching lives on."""
    assert split(head + "<|im_end|>") == split(head + "<|im_end|>" + tail)[: len(split(head + "<|im_end|>"))]


def test_english_has_about_four_characters_per_token() -> None:
    """Prompt sizes are in the range users know."""
    english = " ".join(PROSE[:20])
    assert 3.5 < len(english) / len(split(english)) < 5


@pytest.mark.parametrize("text", [*PROSE, *LISTS, *CODE, *THOUGHTS])
def test_generated_tokens_decode_to_the_text(text: str) -> None:
    """The text of all tokens is the text, and their JSON forms together are its JSON form."""
    pieces = generated(text)
    assert text == "".join(piece.text for piece in pieces)
    assert text == json.loads(b'"' + b"".join(piece.json for piece in pieces) + b'"')


def test_emoji_takes_several_tokens_the_first_of_them_empty() -> None:
    """Byte-level tokenisers spread an emoji, and the text comes with the last part."""
    assert [piece.text for piece in generated("🚀")] == ["", "", "🚀"]


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 400))
def test_writing_gives_exactly_the_tokens_asked_for(seed: int, count: int) -> None:
    """And the same seed gives the same text."""
    pieces = write(Dice(seed), count)
    assert count == len(pieces)
    assert pieces == write(Dice(seed), count)


def test_prompts_share_the_hashes_of_their_common_blocks() -> None:
    """The hashes agree block by block up to the difference, and never after it."""
    common = "one two three four " * BLOCK_TOKENS
    first, second = prompt_of(common + "apples"), prompt_of(common + "pears " * 40)
    full = len(split(common)) // BLOCK_TOKENS
    assert first.block_hashes[:full] == second.block_hashes[:full]
    assert first.digest != second.digest
    assert not set(second.block_hashes[full:]) & set(first.block_hashes)


def test_salt_separates_prompts() -> None:
    """With another salt nothing is shared."""
    text = "word " * 64
    assert not set(prompt_of(text, "a").block_hashes) & set(prompt_of(text, "b").block_hashes)


def test_token_ids_count_one_each() -> None:
    """A prompt given as ids is as long as its list."""
    assert (prompt_of_ids([5, 5, 7, 1, 2]).tokens, prompt_of_ids([5]).came_as_ids) == (5, True)


@settings(deadline=None)
@given(st.integers(), st.integers(1, 10**6))
def test_dice_stay_in_range(seed: int, limit: int) -> None:
    """Every throw is below the limit."""
    dice = Dice(seed)
    assert all(0 <= dice.below(limit) < limit for _ in range(20))
    assert all(0 <= dice.unit() < 1 for _ in range(20))
