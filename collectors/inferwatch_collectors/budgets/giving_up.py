"""Accounts of which this host gives up its initial share, before it has heard of a request for them.

Others have asked for all that is left of them. The host knows no more than the digest; it needs no more to say on the
board that nothing may be spent here without asking.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from inferwatch.board import CEILING, END_S, SPENT, Board
from inferwatch.budget_rules import Digest
from inferwatch_collectors.budgets.bank import Ask, account_of
from inferwatch_collectors.budgets.holds import NOTHING, held_on


class _Taken(NamedTuple):
    slot: int
    end_s: int  # of the period; 0: rolling


class GivenUp:
    """Of one host. What reads or writes the board is called under its lock."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._asked: dict[str, None] = {}  # keys that Redis has named, in order
        self._taken: dict[Digest, _Taken] = {}  # as many as there are slots at most
        self.untold: dict[str, Ask] = {}

    def add(self, keys: Iterable[str]) -> None:
        """Redis has named these."""
        self._asked.update(dict.fromkeys(keys))

    def asked(self) -> Iterator[tuple[str, Digest, int]]:
        """Yield (key, digest, end of the period) of what was named since the last call."""
        keys, self._asked = self._asked, {}
        for key in keys:
            if (found := account_of(key)) is not None:
                yield key.rpartition("account:")[2], *found

    def take(self, key: str, digest: Digest, end_s: int) -> None:
        """Let nothing more begin of this account; without a free slot relays find none either, and that is counted."""
        known = self._taken.get(digest)
        if known is not None and known.end_s == end_s:
            return
        board, words = self._board, self._board.words
        slot = board.find(digest, make=True)
        if slot < 0:
            return
        base = board.base(slot)
        claim = words[base + SPENT] + held_on(words, base).worst
        words[base + CEILING] = claim + 1
        words[base + END_S] = end_s
        self._taken[digest] = _Taken(slot, end_s)
        self.untold[key] = Ask(
            limit=0, spent=words[base + SPENT], claim=claim, have=claim, want=claim, end_s=end_s, kept_ms=0, known={}
        )

    def due(self, count: int, accounts: Collection[Digest]) -> list[tuple[str, Ask]]:
        """Return at most `count` of what is to be told; what has become an account since speaks for itself."""
        for key in [key for key in self.untold if (found := account_of(key)) is not None and found[0] in accounts]:
            del self.untold[key]
        return list(self.untold.items())[:count]

    def told(self, keys: Iterable[str]) -> None:
        """Redis knows of these."""
        for key in keys:
            self.untold.pop(key, None)

    def forget(self, wall_s: float, accounts: Collection[Digest]) -> None:
        """Give back the slots of periods that are over, as far as nobody has come since."""
        over = [digest for digest, taken in self._taken.items() if 0 < taken.end_s <= wall_s]
        if not over:
            return
        with self._board.locked() as held:
            if not held:
                return
            for digest in over:
                slot = self._taken.pop(digest).slot
                if digest not in accounts and held_on(self._board.words, self._board.base(slot)) == NOTHING:
                    self._board.free(slot)
