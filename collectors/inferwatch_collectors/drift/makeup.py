"""Of what a reference was learnt: how many requests and sessions, in which hours, in which languages and scripts.

A reference of a quiet week, of one session's hundred requests or of one language judges all others by that; whoever
pins it is shown what is in it. Counts only. What a text's language is, its frequent words say, or its script (`text`):
enough to say what most are, not to say it of one.

Pure.
"""

from array import array
from collections.abc import Mapping
from typing import Final

import msgspec

from inferwatch_collectors.drift.features import Direction
from inferwatch_collectors.drift.written import Count
from inferwatch_collectors.wall_time import HOURS_OF_WEEK

SCRIPTS: Final = ("cyrillic", "cjk", "other_script")
LANGUAGES: Final = ("english", "german", "french", "spanish", "italian", "portuguese", "dutch")
OTHER: Final = "other"  # Latin letters, and hardly a frequent word: code, lists, other languages

# Of its characters: in a text of another script a fifth is that, with Latin names, digits and markup between.
SCRIPT_SHARE: Final = 0.2
# Of its words: prose has a quarter to a half of its language's; program code has some of what English has.
LANGUAGE_SHARE: Final = 0.2


KINDS: Final = (*SCRIPTS, *LANGUAGES, OTHER)
DIRECTIONS: Final = (Direction.PROMPT, Direction.ANSWER)


def kind_of(values: Mapping[str, float | None], direction: Direction) -> str:
    """Return the script or language of a text by its values (see `text.read`), "" if there was none."""
    if values.get(f"{direction}_upper") is None:
        return ""
    shares = {name: values.get(f"{direction}_{name}") or 0.0 for name in (*SCRIPTS, *LANGUAGES)}
    for names, least in ((SCRIPTS, SCRIPT_SHARE), (LANGUAGES, LANGUAGE_SHARE)):
        most = max(names, key=shares.__getitem__)
        if shares[most] >= least:
            return most
    return OTHER


class MakeupState(msgspec.Struct, array_like=True):
    """What is written down."""

    requests: Count
    votes: Count
    sessions: Count
    hours: bytes
    texts: tuple[Count, ...]  # of prompts, of answers: of each of KINDS


class Makeup:
    """Of one reference, while it is learnt and afterwards."""

    __slots__ = ("_hours", "_texts", "requests", "sessions", "votes")

    def __init__(self, state: MakeupState | None = None) -> None:
        self.requests = 0  # that came while it was learnt; 0 with votes: an older version learnt it
        self.votes = 0
        self.sessions = 0  # of the votes, those of a session or a user: one each in half an hour
        self._hours = 0  # a bit for each hour of the week
        self._texts = array("I", bytes(4 * len(DIRECTIONS) * len(KINDS)))  # of prompts, of answers: of each of KINDS
        if state is not None:
            self.requests, self.votes, self.sessions = state.requests, state.votes, state.sessions
            self._hours = int.from_bytes(state.hours, "big") & ((1 << HOURS_OF_WEEK) - 1)
            if len(state.texts) == len(self._texts):  # another version may know other kinds
                self._texts = array("I", state.texts)

    @property
    def hours(self) -> int:
        """In how many hours of the week votes were seen."""
        return self._hours.bit_count()

    def take(self, values: Mapping[str, float | None], hour: int, *, session: bool, texts: bool) -> None:
        """Take a vote. `session`: it was a session's or a user's; `texts`: texts are looked at."""
        self.votes += 1
        self.sessions += session
        self._hours |= 1 << hour
        if texts:
            for place, direction in enumerate(DIRECTIONS):
                if kind := kind_of(values, direction):
                    self._texts[place * len(KINDS) + KINDS.index(kind)] += 1

    def shares(self, direction: Direction) -> dict[str, float]:
        """Return the share of each kind among the texts, the most frequent first; nothing without texts."""
        start = DIRECTIONS.index(direction) * len(KINDS)
        counts = self._texts[start : start + len(KINDS)]
        whole = sum(counts)
        found = sorted(zip(counts, KINDS, strict=True), key=lambda each: -each[0])
        return {kind: count / whole for count, kind in found if count}

    def state(self) -> MakeupState:
        """Return it to be written down."""
        hours = self._hours.to_bytes(HOURS_OF_WEEK // 8, "big")
        return MakeupState(self.requests, self.votes, self.sessions, hours, tuple(self._texts))
