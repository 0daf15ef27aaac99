"""What a text is like on its surface: some twenty numbers, none of which says what it is about.

Chosen for two reasons: each costs a few microseconds, and each can be said to whoever is on call ("share of frequent
German words, of prompts: 0 to 9 %"). Only the first MAX_CHARS of a text are looked at.

Pure.
"""

import zlib
from collections import Counter
from typing import Final

from inferwatch_collectors.drift.features import TEXT_NAMES

MAX_CHARS: Final = 2_048
MAX_WORDS: Final = 400  # a word of one letter and a blank each would be 1,024

# Frequent words by language. One that is English, too, counts for English alone: elsewhere it would be noise. One of
# several other languages counts for each of them.
_WORDS: Final = {
    "english": "the of and to a in is it you that he was for on are with as i his they be at one have this from or had "
    "by not but what all were we when your can said there use an each which she do how their if will",
    "german": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus "
    "er hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber",
    "french": "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont la ou "
    "avec son aux cette d'un mais comme on tout nous sa fait été même leur vous ses si être je",
    "spanish": "de la que el en y a los se del las un por con no una su para es al lo como más o pero sus le ha me si "
    "sin sobre este ya entre cuando todo esta ser son dos también fue había era muy",
    "italian": "di e il la che in a per è un una del non le si da con i sono al come ha dei nel più alla della gli lo "
    "delle anche su ma o se ci questo nella dal quando essere degli stato loro mi io",
    "portuguese": "de a o que e do da em um para é com não uma os no se na por mais as dos como mas foi ao ele das "
    "tem à seu sua ou ser quando muito há nos já está eu também só pelo pela até isso",
    "dutch": "de van het een en in is dat op te zijn met voor niet aan er die om ook als dan maar bij nog uit door "
    "naar heeft ik ze werd wordt hij kan meer was zo over had je haar",
}

_LANGUAGES: Final = tuple(_WORDS)
# English, though not among its most frequent.
_ALSO_ENGLISH: Final = frozenset(
    ("me", "no", "so", "come", "do", "an", "die", "over", "per", "den", "am", "war", "hat")
)
_ENGLISH: Final = frozenset(_WORDS["english"].split())
_LANGUAGES_OF: Final[dict[str, tuple[int, ...]]] = {
    word: tuple(
        place
        for place, name in enumerate(_LANGUAGES)
        if word in _WORDS[name].split() and (name == "english" or word not in _ENGLISH | _ALSO_ENGLISH)
    )
    for words in _WORDS.values()
    for word in words.split()
}

_PUNCTUATION: Final = frozenset(".,;:!?'\"-()¿¡«»„“”’…、。，！？：；（）")
_UPPER, _DIGIT, _PUNCT, _SYMBOL, _NEWLINE, _ACCENTED, _CYRILLIC, _CJK, _SCRIPT, _OTHER = range(10)
_SHARES: Final = 9  # all but _OTHER are features, in this order
_NAMES: Final = (
    "upper", "digits", "punctuation", "symbols", "newlines", "accented", "cyrillic", "cjk", "other_script",
)  # fmt: skip


class _Classes(dict[str, int]):
    """What sort of character one is. Only what came up is kept, and that is bounded by Unicode."""

    def __missing__(self, char: str) -> int:
        self[char] = found = _class(ord(char), char)
        return found


def _class(code: int, char: str) -> int:
    if char == "\n":
        return _NEWLINE
    if char in _PUNCTUATION:
        return _PUNCT
    if code < 128:
        if char.isupper():
            return _UPPER
        if char.isdigit():
            return _DIGIT
        return _OTHER if char.isalpha() or char.isspace() else _SYMBOL
    if not char.isalpha():
        return _OTHER
    if code < 0x250:
        return _ACCENTED
    if 0x400 <= code < 0x530:
        return _CYRILLIC
    if 0x3040 <= code < 0xA000 or 0xAC00 <= code < 0xD7B0 or 0x20000 <= code < 0x32000:
        return _CJK
    return _SCRIPT


_CLASSES: Final = _Classes()


def read(text: str, prefix: str) -> dict[str, float | None]:
    """Return the features of `features.TEXT_NAMES`, but for the likeness, under `prefix_name`."""
    found: dict[str, float | None] = {f"{prefix}_chars": float(len(text))}
    text = text[:MAX_CHARS]
    if not text:
        return found
    shares = [0] * (_OTHER + 1)
    classes = _CLASSES
    for char, count in Counter(text).items():
        shares[classes[char]] += count
    size = len(text)
    for place in range(_SHARES):
        found[f"{prefix}_{_NAMES[place]}"] = shares[place] / size
    data = text.encode("utf-8", "replace")
    found[f"{prefix}_compressed"] = len(zlib.compress(data, 1)) / len(data)
    words = text.lower().split(None, MAX_WORDS)[:MAX_WORDS]
    if words:
        count = len(words)
        found[f"{prefix}_word_chars"] = sum(map(len, words)) / count
        found[f"{prefix}_distinct_words"] = len(set(words)) / count
        known = [0] * len(_LANGUAGES)
        get = _LANGUAGES_OF.get
        for word in words:
            if (languages := get(word)) is not None:
                for place in languages:
                    known[place] += 1
        for place, name in enumerate(_LANGUAGES):
            found[f"{prefix}_{name}"] = known[place] / count
    return found


assert {name for name, _ in TEXT_NAMES} == {
    "chars", "word_chars", "distinct_words", "compressed", "likeness", *_NAMES, *_LANGUAGES,
}  # fmt: skip
