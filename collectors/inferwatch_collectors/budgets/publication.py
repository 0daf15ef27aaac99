"""The collector's hand on the board: accounts onto it, and what relays have counted off it.

What is spent and what is let go of is written under one hold of the lock, so that nobody sees an amount twice or not at
all between the two. If the lock is not to be had, it is tried again with the next tick: all that is written are sums.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from inferwatch.board import (
    ADMITTED,
    CEILING,
    COMPLETION_TOKENS,
    END_S,
    H_FULL,
    H_UNSURE,
    KNOWN,
    PROMPT_PER_KB,
    REJECTED,
    RELEASED_EXPECTED,
    RELEASED_WORST,
    ROOM_S,
    SPENT,
    TAKEN_EXPECTED,
    TAKEN_WORST,
    WOULD_REJECT,
    Board,
)
from inferwatch.budget_rules import TokenRate
from inferwatch_collectors.budgets.account import Account
from inferwatch_collectors.budgets.enforcement import is_calm
from inferwatch_collectors.budgets.holds import NOTHING, Holds, Pair, held_on
from inferwatch_collectors.budgets.lending import Lending

# Slots written under one hold of the lock: some 0.2 ms, which a request may have to wait.
AT_ONCE: Final = 64

# Words of a slot in which relays count, and what; values of the label `decision`.
COUNTED: Final = ((ADMITTED, "admitted"), (REJECTED, "rejected"), (WOULD_REJECT, "would_reject"))

# Words of the header in which relays count, and the values of the label `reason`.
UNCHECKED: Final = ((H_FULL, "accounts"), (H_UNSURE, "collector_silent"))


class Publication:
    """Of all accounts, on one board."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._told = [board.words[word] for word, _ in UNCHECKED]
        self.lending: Lending | None = None  # of budgets that are shared with other hosts

    def attach(self, account: Account, now_ns: int) -> None:
        """Find or make the slot of an account; without the lock, or space, it stays without one."""
        with self._board.locked() as held:
            if held:
                self._attach(account, now_ns)

    def publish(self, accounts: Sequence[Account], rates: Iterable[tuple[str, TokenRate]], now_ns: int) -> None:
        """Write down what changed, and that we live."""
        due = [account for account in accounts if account.dirty]
        for start in range(0, max(len(due), 1), AT_ONCE):
            with self._board.locked() as held:
                if not held:
                    return
                if start == 0:
                    self._board.beat(now_ns)
                    for measured, rate in rates:
                        self._board.set_rate(measured, rate)
                for account in due[start : start + AT_ONCE]:
                    self._write(account, now_ns)

    def chores(self, accounts: Iterable[Account], now_ns: int) -> list[tuple[Account, str, int]]:
        """Audit what is held, and return what relays have decided since the last call: (account, decision, how often).

        `Account.decisions` is brought up to date with it.
        """
        counted: list[tuple[Account, str, int]] = []
        with self._board.locked() as held:
            if not held:
                return counted
            words = self._board.words
            for account in accounts:
                if account.slot < 0 or account.holds is None:
                    continue
                base = self._board.base(account.slot)
                account.holds.audit(Pair(words[base + TAKEN_EXPECTED], words[base + TAKEN_WORST]), now_ns)
                for place, (word, decision) in enumerate(COUNTED):
                    now, before = words[base + word], account.decisions[place]
                    if now != before:
                        # Below what was counted: the board was made anew.
                        counted.append((account, decision, now - before if now > before else now))
                        account.decisions[place] = now
                told = Pair(words[base + RELEASED_EXPECTED], words[base + RELEASED_WORST])
                if told != account.holds.released or account.reserved != held_on(words, base):
                    account.dirty = True
        return counted

    def unchecked(self) -> list[tuple[str, int]]:
        """Return what relays let pass unchecked since the last call: (reason, how often)."""
        found = []
        for place, (word, reason) in enumerate(UNCHECKED):
            now = self._board.words[word]
            found.append((reason, max(0, now - self._told[place])))
            self._told[place] = now
        return found

    def retire(self, account: Account) -> bool:
        """Give up the slot of an account; False if something of it is still held, or the lock is not to be had."""
        if account.slot < 0:
            return True
        with self._board.locked() as held:
            if not held or held_on(self._board.words, self._board.base(account.slot)) != NOTHING:
                return False
            self._board.free(account.slot)
            account.slot = -1
        return True

    # --- under the lock

    def _attach(self, account: Account, now_ns: int) -> None:
        if account.slot >= 0:
            return
        board, words = self._board, self._board.words
        slot = board.find(account.digest, make=True)
        if slot < 0:
            words[H_FULL] += 1
            return
        base = board.base(slot)
        if words[base + KNOWN]:  # to an earlier life of ours
            taken = Pair(words[base + TAKEN_EXPECTED], words[base + TAKEN_WORST])
            released = Pair(words[base + RELEASED_EXPECTED], words[base + RELEASED_WORST])
        else:  # all that was taken here we have been told, or shall be
            taken = released = NOTHING
            words[base + KNOWN] = 1
        account.slot = slot
        account.holds = Holds(taken, released, now_ns)
        period, ceiling = account.spending.period, words[base + CEILING]
        # What was lent before us, or given up before anything was spent here, is gone by still.
        if account.lease is not None and ceiling and words[base + END_S] == (period.end_s if period else 0):
            account.lease.ceiling = ceiling - 1

    def _write(self, account: Account, now_ns: int) -> None:
        self._attach(account, now_ns)
        if account.slot < 0 or account.holds is None:
            return
        words, base = self._board.words, self._board.base(account.slot)
        period, limit = account.spending.period, account.rule.limit
        words[base + SPENT] = account.spent
        words[base + RELEASED_EXPECTED], words[base + RELEASED_WORST] = account.holds.released
        words[base + END_S] = period.end_s if period is not None else 0
        left = limit - account.elsewhere
        words[base + ROOM_S] = account.spending.room_at(left) if account.spent >= left else 0
        words[base + COMPLETION_TOKENS] = account.expected.completion_tokens
        words[base + PROMPT_PER_KB] = account.expected.prompt_per_kb
        account.reserved = held_on(words, base)
        if account.lease is not None and account.lease.ceiling is not None:
            limit = min(limit, account.lease.ceiling)
        account.is_calm = is_calm(account.spent, account.reserved.worst, limit)
        if self.lending is not None:
            self.lending.write(account, base, now_ns)
        account.dirty = False
