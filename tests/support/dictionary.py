"""A dictionary attack: who has what was kept, and guesses what was said, tries whether the guess is in it.

A guess is tried as it stands there, and under hashes: those that everybody knows, and the code's own. Of the latter each
is keyed; without the key one tries none, zeros, or what stands to reason. The same attack with the key must succeed, or
it says nothing.
"""

import base64
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from math import sqrt
from operator import mul

import planted

from inferwatch_collectors.drift import trigrams
from inferwatch_collectors.drift.trigrams import BUCKETS, Codebook
from inferwatch_collectors.embeddings.sketch import Sketcher

# Whoever has no key may try these: nothing at all, as many zeros, and what somebody might have left there.
GUESSED_KEYS = (b"", b"\0" * 16, b"\0" * 32, b"inferwatch" * 2, b"changeme" * 2)

# How the code hashes: `person` and size of the digest.
_OWN = (
    *((b"inferwatch-ctok", 8), (b"iw-same-prompt", 16), (b"iw-drift-words", 32), (b"user", 8), (b"session", 8)),
    *((b"", 8), (b"", 16), (b"", 32), (b"inferwatch-acct", 16)),
)

# A digest is looked for by its beginning. So many bytes, or characters, are nowhere by chance.
RAW_BYTES, TEXT_BYTES = 8, 15


def _keys(secret: bytes) -> set[bytes]:
    """Return the keys that the code makes of one secret."""
    return {
        secret[:64],
        hashlib.blake2b(secret).digest(),
        hashlib.blake2b(secret, digest_size=32, person=b"inferwatch-key").digest(),
    }


def digests(guess: bytes, secrets: Collection[bytes]) -> Iterator[bytes]:
    """Yield every hash of a guess that one would try."""
    for name in ("md5", "sha1", "sha256", "sha512", "sha3_256", "blake2b", "blake2s"):
        yield hashlib.new(name, guess, usedforsecurity=False).digest()
    for key in {key for secret in secrets for key in _keys(secret)}:
        for person, size in _OWN:
            yield hashlib.blake2b(guess, digest_size=size, key=key, person=person).digest()


def _forms(digest: bytes) -> Iterator[bytes]:
    yield digest[:RAW_BYTES]
    yield digest[:RAW_BYTES][::-1]
    hexed = digest.hex()
    for text in (
        hexed,
        hexed.upper(),
        base64.b64encode(digest).decode(),
        base64.urlsafe_b64encode(digest).decode(),
        base64.b32encode(digest).decode(),
        base64.b32encode(digest).decode().lower(),
        str(int.from_bytes(digest[:8], "big")),
        str(int.from_bytes(digest[:8], "little")),
    ):
        if len(text) >= TEXT_BYTES:
            yield text[:TEXT_BYTES].encode()


def hashed_in(exports: Mapping[str, bytes], guesses: Collection[str], secrets: Collection[bytes]) -> set[str]:
    """Return the guesses of which a hash is in an export."""
    tried: dict[bytes, str] = {}
    for guess in guesses:
        for digest in digests(guess.encode(), secrets):
            tried.update(dict.fromkeys(_forms(digest), guess))
    found = set()
    for data in exports.values():
        for size in (RAW_BYTES, TEXT_BYTES):
            windows = {data[at : at + size] for at in range(len(data) - size + 1)}
            found |= {tried[each] for each in windows & tried.keys()}
    return found


def said_in(exports: Mapping[str, bytes], guesses: Collection[str]) -> set[str]:
    """Return the guesses that stand in an export as they are, in base64, escaped or encoded for a URL."""
    return {
        guess for guess in guesses for form in planted.forms(guess) for data in exports.values() if form in data
    }  # fmt: skip


def indexes(text: str) -> list[int]:
    """Return the trigrams of a text, each once, as the code numbers them."""
    folded = text.translate(trigrams._FOLDING).encode("latin-1")
    return sorted({a << 10 | b << 5 | c for a, b, c in zip(folded, folded[1:], folded[2:], strict=False)})


def places(trigram: int, secrets: Collection[bytes]) -> Iterator[int]:
    """Yield the buckets in which one would look for a trigram."""
    data = trigram.to_bytes(2, "big")
    yield trigram % BUCKETS
    yield trigram // (trigrams.CLASSES**3 // BUCKETS)
    for digest in digests(data, secrets):
        yield int.from_bytes(digest[:2], "big") % BUCKETS
        yield int.from_bytes(digest[:4], "little") % BUCKETS
        yield int.from_bytes(digest, "big") % BUCKETS


def excess(scores: Sequence[int], buckets: Sequence[int]) -> float:
    """Return by how many standard errors what lies in these buckets is more frequent than what lies in any.

    `scores` are logarithms below 0, so the frequent ones are low.
    """
    mean = sum(scores) / len(scores)
    spread = sqrt(sum((score - mean) ** 2 for score in scores) / len(scores))
    own = sum(scores[bucket] for bucket in buckets) / len(buckets)
    return (mean - own) / (spread / sqrt(len(buckets)))


def best_without_a_key(scores: Sequence[int], text: str) -> float:
    """Return the best that any guess at how trigrams were thrown into buckets makes of a text."""
    tries = zip(*(tuple(places(each, GUESSED_KEYS)) for each in indexes(text)), strict=True)
    books = [Codebook(key) for key in GUESSED_KEYS if len(key) >= 16]
    return max(
        *(excess(scores, buckets) for buckets in tries),
        *(excess(scores, with_key(book, text)) for book in books),
    )


def with_key(book: Codebook, text: str) -> list[int]:
    """Return the buckets of a text's trigrams, each trigram once."""
    return [book._buckets[each] for each in indexes(text)]


def sketched(secret: bytes, vector: Sequence[float]) -> Sequence[float]:
    """Return what is kept of an embedding under a key."""
    found = Sketcher(secret).numbers(vector)
    assert found is not None
    return found


def alike(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the cosine of the angle between two vectors: 1 in the same direction; chance makes 0.125 of 64 numbers."""
    length = sqrt(sum(map(mul, one, one)) * sum(map(mul, other, other)))
    return sum(map(mul, one, other)) / length
