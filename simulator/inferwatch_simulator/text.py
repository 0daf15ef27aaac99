"""Tokens: a deterministic tokeniser for prompts, and answers written from the corpus.

There is no model here, so a "token" is a piece that a real tokeniser might well cut: a word or the head of a long
one with its leading blank, up to three digits, a punctuation mark, one ideograph. English comes to about four
characters per token. Joining the pieces gives back the text.

Emoji are cut as byte-level tokenisers cut them: the first tokens of one decode to nothing and the last to the whole
character. Engines send those as chunks with empty text, and counting non-empty chunks is then counting wrong.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from inferwatch_simulator.corpus import CODE, LISTS, PROSE, THOUGHTS
from inferwatch_simulator.kv_cache import BLOCK_TOKENS

VOCABULARY_SIZE = 151_936  # of a common 8-billion-parameter model; ids are spread over it by hash
EOS_ID = 151_645

# Letters come in pieces of up to seven: with their blank, English averages four characters per piece.
_PIECE = re.compile(
    r"<\|\w+?\|>"  # markers of the chat template
    r"|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"  # ideographs, kana, hangul: about one token each
    r"| ?[^\W\d_]{1,7}"
    r"| ?\d{1,3}"
    r"| ?(?:[^\w\s]|_)"
    r"|\s",
)
_WIDE = re.compile(r"[\U0001f000-\U0001faff]")  # four bytes in UTF-8: three tokens


class Piece(NamedTuple):
    """One token: its id, the text it adds (may be empty), and that text as the inside of a JSON string."""

    token_id: int
    text: str
    json: bytes


def piece_of(text: str, token_id: int | None = None) -> Piece:
    return Piece(_token_id(text) if token_id is None else token_id, text, msgspec.json.encode(text)[1:-1])


def _token_id(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "big") % VOCABULARY_SIZE


EOS = piece_of("", EOS_ID)


def split(text: str) -> list[str]:
    """Cut into pieces; joined they are the text again."""
    return _PIECE.findall(text)


def token_ids(pieces: Iterable[str]) -> list[int]:
    return [_token_id(piece) for piece in pieces]


def generated(text: str) -> list[Piece]:
    """The tokens a model would generate for this text, partial characters included."""
    pieces = []
    for part in split(text):
        if _WIDE.search(part):
            head = _token_id(part)
            pieces += [piece_of("", (head + offset) % VOCABULARY_SIZE) for offset in (1, 2)]
        pieces.append(piece_of(part))
    return pieces


class Prompt(NamedTuple):
    """A tokenised prompt. The digest stands for all of it, the block hashes for its ever longer full-block prefixes.

    `came_as_ids` tells token ids from text, which engines measure differently when it is too long.
    """

    came_as_ids: bool
    text: str
    pieces: list[str]
    block_hashes: tuple[int, ...]
    digest: bytes

    @property
    def tokens(self) -> int:
        return len(self.pieces)


def prompt_of(text: str, salt: str = "") -> Prompt:
    """Tokenise. Prompts with different salts share no prefix."""
    return _prompt(text, split(text), salt, came_as_ids=False)


def prompt_of_ids(ids: Sequence[int], salt: str = "") -> Prompt:
    """A prompt that came as token ids: each is one token, its text made up."""
    pieces = [f" t{token_id}" for token_id in ids]
    return _prompt("".join(pieces), pieces, salt, came_as_ids=True)


def _prompt(text: str, pieces: list[str], salt: str, *, came_as_ids: bool) -> Prompt:
    chain = hashlib.blake2b(salt.encode(), digest_size=8)
    hashes = []
    for start in range(0, len(pieces), BLOCK_TOKENS):
        block = pieces[start : start + BLOCK_TOKENS]
        chain.update("".join(block).encode("utf-8", "surrogatepass"))
        if len(block) == BLOCK_TOKENS:
            hashes.append(int.from_bytes(chain.digest(), "big"))
    return Prompt(came_as_ids, text, pieces, tuple(hashes), chain.digest())


class Dice:
    """A small deterministic generator. `random.Random` costs 10 µs to seed, this costs nothing."""

    __slots__ = ("_state",)

    def __init__(self, *seeds: int | bytes) -> None:
        chain = hashlib.blake2b(digest_size=8)
        for seed in seeds:
            chain.update(seed if isinstance(seed, bytes) else str(seed).encode())
            chain.update(b"\0")
        self._state = int.from_bytes(chain.digest(), "big")

    def below(self, limit: int) -> int:
        """A number in [0, limit). Multiplier and increment are Knuth's for MMIX; the upper bits are the good ones."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) & 0xFFFF_FFFF_FFFF_FFFF
        return (self._state >> 33) * limit >> 31

    def unit(self) -> float:
        """A number in [0, 1)."""
        return self.below(1 << 31) / (1 << 31)


class _Sentences(NamedTuple):
    opening: tuple[list[Piece], ...]  # at the beginning of a paragraph
    following: tuple[list[Piece], ...]


def _sentences(texts: Sequence[str]) -> _Sentences:
    return _Sentences(
        tuple(generated(text.lstrip("\n")) for text in texts),
        tuple(generated(text if text.startswith("\n") else " " + text) for text in texts),
    )


_ANSWERS = _sentences((*PROSE, *PROSE, *LISTS, *CODE))  # prose twice: lists and code are the seasoning
_THOUGHTS = _sentences(THOUGHTS)
_BREAK = generated("\n\n")
_PARAGRAPH_SENTENCES = 4


def write(dice: Dice, count: int, *, thinking: bool = False) -> list[Piece]:
    """Exactly `count` tokens of text, cut off where they end."""
    sentences = _THOUGHTS if thinking else _ANSWERS
    pieces: list[Piece] = []
    written = 0
    while len(pieces) < count:
        opening = written % _PARAGRAPH_SENTENCES == 0
        if opening and written:
            pieces += _BREAK
        choices = sentences.opening if opening else sentences.following
        pieces += choices[dice.below(len(choices))]
        written += 1
    return pieces[:count]
