"""Likeness: how much a text is like those of the reference, by its trigrams, without anybody being able to read them.

Characters are folded into 32 classes (26 letters, and what is no letter), three of them make one of 32,768 trigrams,
and a secret permutation throws those into BUCKETS buckets. The reference keeps how often each bucket came up, over
all its texts. Which trigram is in which bucket, only the key tells (keyed BLAKE2b): without it the counts are a list
of numbers in no order.

A text's score is the mean log probability of its trigrams under the reference.

Pure.
"""

import hashlib
from array import array
from collections.abc import Sequence
from math import log
from operator import itemgetter
from typing import Final

CLASSES: Final = 32
BUCKETS: Final = 2_048

# Logarithms of probabilities are kept in steps of this, one byte each: down to -16, which is less than any that is
# learnt. The mean of a text is off by a thousandth.
STEP: Final = 1 / 16

# So many trigrams of a text, from windows spread over it: the mean of 256 says enough, and costs 30 µs.
WINDOWS: Final = 8
WINDOW_CHARS: Final = 34

_SPACE, _DIGIT, _PUNCTUATION, _SYMBOL, _MARK = range(26, 31)
_KEY_USE: Final = b"iw-drift-words"  # blake2b's `person`: two uses of one secret give unrelated hashes


class _Folding(dict[int, str]):
    """Class of a code point, as a character. Only what came up is kept, and that is bounded by Unicode."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        if char.isspace():
            found = _SPACE
        elif char.isdigit():
            found = _DIGIT
        elif char.isalpha():
            # Letters of other scripts share the places of a to z: a text of them is unlike English all the same.
            found = code % 26 if code >= 128 else ord(char.lower()) - ord("a")
        elif char in ".,;:!?'\"-()":
            found = _PUNCTUATION
        else:
            found = _SYMBOL if code < 128 else _MARK
        self[code] = chr(found)
        return self[code]


_FOLDING: Final = _Folding()


class Codebook:
    """The secret permutation. One a process, 64 kB."""

    __slots__ = ("_buckets",)

    def __init__(self, key: bytes) -> None:
        """`key` is of 16 bytes or more.

        Raises:
            ValueError: it is too short.
        """
        if len(key) < 16:
            raise ValueError(f"key of {len(key)} bytes, expected at least 16")
        buckets = array("H")
        for trigram in range(0, CLASSES**3, 16):  # sixteen buckets from one hash
            digest = hashlib.blake2b(trigram.to_bytes(2, "big"), digest_size=32, key=key[:64], person=_KEY_USE).digest()
            buckets.extend(int.from_bytes(digest[at : at + 2], "big") % BUCKETS for at in range(0, 32, 2))
        self._buckets = buckets

    def buckets(self, text: str) -> list[int]:
        """Return the buckets of some of the text's trigrams, spread over it; none of a text shorter than three."""
        if len(text) > WINDOWS * WINDOW_CHARS:
            step = (len(text) - WINDOW_CHARS) // (WINDOWS - 1)
            text = "".join([text[at * step : at * step + WINDOW_CHARS] for at in range(WINDOWS)])
        folded = text.translate(_FOLDING).encode("latin-1")
        table = self._buckets
        return [
            table[first << 10 | second << 5 | third]
            for first, second, third in zip(folded, folded[1:], folded[2:], strict=False)
        ]


class Words:
    """What the reference's texts are like: learnt first, asked when `frozen`."""

    __slots__ = ("_scores", "counts", "texts")

    def __init__(self) -> None:
        self.counts = array("I", bytes(4 * BUCKETS))
        self.texts = 0
        self._scores: bytes | None = None  # in steps below 0

    @property
    def is_frozen(self) -> bool:
        """Whether `likeness` can be asked."""
        return self._scores is not None

    def learn(self, buckets: Sequence[int]) -> None:
        """Take a text of the reference."""
        counts = self.counts
        for bucket in buckets:
            counts[bucket] += 1
        self.texts += 1

    def freeze(self) -> None:
        """Learn no more: `likeness` can be asked from now on."""
        whole = sum(self.counts) + 0.5 * BUCKETS
        self._scores = bytes(min(255, round(-log((count + 0.5) / whole) / STEP)) for count in self.counts)
        self.counts = array("I")

    def likeness(self, buckets: Sequence[int]) -> float | None:
        """Return the mean log probability of a text; None before `freeze`, and of a text without trigrams."""
        if self._scores is None or not buckets:
            return None
        scores = self._scores
        # With one more than asked for: of one alone there is no tuple.
        got: int = sum(itemgetter(0, *buckets)(scores)) - scores[0]
        return -STEP * got / len(buckets)

    def state(self) -> tuple[int, bytes, bytes]:
        """Return it to be written down: texts, counts while it learns, scores when it is frozen."""
        return self.texts, self.counts.tobytes(), self._scores or b""

    @classmethod
    def of(cls, state: tuple[int, bytes, bytes]) -> "Words":
        """Return what was written down.

        Raises:
            ValueError: it is of another size, or of more than its texts can have.
        """
        texts, counts, scores = state
        found = cls()
        found.texts = texts
        if scores:
            found._scores, found.counts = scores, array("I")
        else:
            found.counts = array("I")
            found.counts.frombytes(counts)
        if BUCKETS not in (len(scores), len(found.counts)):
            raise ValueError(f"{len(scores)} scores, expected {BUCKETS}")
        if any(count > texts * WINDOWS * WINDOW_CHARS for count in found.counts):
            raise ValueError(f"more trigrams than {texts} texts have")
        return found
