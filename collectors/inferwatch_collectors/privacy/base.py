"""What an entity is: a row of the tables in `general`, `secrets_table` and `national`, and of the operator's own."""

import enum
import re
from collections.abc import Callable
from typing import Final, NamedTuple

# A word further away says little about a number: some six words before it, and three behind ("… är mitt pnr").
BEFORE_CHARS: Final = 50
BEHIND_CHARS: Final = 30

# A value that the end of a text cut in two would not be known for one: so more is looked at than is kept. The longest
# that are looked for, tokens and URLs, have some thousand characters.
MARGIN_CHARS: Final = 1024

# Thai, Japanese, Chinese and Korean, from here on, put no blanks between words, or hang endings on to them.
_UNSPACED: Final = "\u0e00"


class ScanTimeoutError(Exception):
    """A text took longer than its budget. Whoever wanted to keep it has nothing to keep."""


Check = Callable[[str], str | None]


class Tier(enum.StrEnum):
    """How much a match tells by itself."""

    CHECKED = "checked"  # a check digit, a library or a fixed prefix confirms it
    SHAPED = "shaped"  # its form is unlikely to be anything else
    CONTEXT = "context"  # it needs a word beside it, or to stand alone


def always(_: str) -> bool:
    """Whatever the form."""
    return True


def never(_: str) -> bool:
    """In no form."""
    return False


class Entity(NamedTuple):
    """One kind of personal data."""

    name: str
    pattern: str  # RE2; its first group, if it has one, is what is replaced
    check: Check  # the canonical form, None: it is none. Never raises on what `pattern` matches
    tier: Tier
    words: tuple[str, ...] = ()  # in lower case; a match needs one beside it unless it is `sure`
    sure: Callable[[str], bool] | None = None  # which written forms need no word; None: by `tier`
    sure_pattern: str = ""  # RE2: occurs in each text that has such a form, and in few others; "": not known
    # Which forms need no word where they are all there is, as the value of a form's field is.
    alone: Callable[[str], bool] = always
    joined: bool = False  # it may hang on to something by a dot, a dash or an underline, as numbers of parts do
    rescan: bool = False  # after a false match, look again behind its first run of letters and digits
    default: bool = True  # False: only if the configuration names it
    shortest: int = 1  # bytes; what its pattern matches may be shorter, and is none then
    rank: int = 0  # where two overlap, the higher one gives its name


class Finding(NamedTuple):
    """One place in a text; `start` and `end` are characters."""

    start: int
    end: int
    entity: str
    canonical: str  # written differently it is the same: blanks, dashes and upper case are gone


def squeezed(value: str) -> str:
    """Return letters and digits alone, in upper case."""
    return (value if value.isalnum() else "".join(filter(str.isalnum, value))).upper()


def taken(value: str) -> str:
    """Accept whatever the pattern matched."""
    return squeezed(value)


def word_pattern(words: tuple[str, ...]) -> str:
    """Return what finds one of `words` at the beginning of a word, as an expression of RE2; "" if there are none."""
    if not words:
        return ""
    # A word may be one of many ("taxpayer number"), and go on ("phones", "Telefonnummer").
    spaced = [re.escape(word) for word in words if word[0] < _UNSPACED]
    joined = [re.escape(word) for word in words if word[0] >= _UNSPACED]
    begins = [rf"(?:^|[^\pL\pN])(?:{'|'.join(spaced)})"] if spaced else []
    return "(?i:" + "|".join(begins + joined) + ")"
