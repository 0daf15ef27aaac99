"""What budgets remember in the ledger: two memos an account, in the transaction that has the records they sum up.

One holds what changes with each charge, the other the buckets of the past, which change once an hour (or bucket). Memos
are numbered, not named after accounts: an account that goes leaves its number to the next one, so there are never more
of them than accounts.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from inferwatch.board import MEASURED
from inferwatch_collectors.budgets.account import Account
from inferwatch_collectors.budgets.charges import Learnt
from inferwatch_collectors.budgets.spending import SpendingState
from inferwatch_collectors.metric_store import MetricStore

PRESENT: Final = "budget"
PAST: Final = "budget_past"
LEARNT: Final = "budget_rates"


class Present(msgspec.Struct, array_like=True, frozen=True):
    """The first memo."""

    rule: str
    values: tuple[str, ...]
    spending: SpendingState
    completion_tokens: int
    prompt_per_kb: int
    decisions: tuple[int, int, int]
    warned: int


class Past(msgspec.Struct, array_like=True, frozen=True):
    """The second memo."""

    bucket_s: int
    buckets: list[tuple[int, int]]


class Remembered(NamedTuple):
    """An account of an earlier life."""

    number: int
    present: Present
    past: Past


_encode: Final = msgspec.msgpack.Encoder().encode
_present: Final = msgspec.msgpack.Decoder(Present).decode
_past: Final = msgspec.msgpack.Decoder(Past).decode
_learnt: Final = msgspec.msgpack.Decoder(list[tuple[int, int]]).decode

NO_PAST: Final = Past(0, [])


class Memory:
    """Reads and writes the memos."""

    def __init__(self, store: MetricStore) -> None:
        self._store = store
        self._free: list[int] = []
        self._next = 0

    def read(self) -> Iterator[Remembered]:
        """Yield the accounts of an earlier life. Once, after the store was restored."""
        taken = set()
        for memo in self._store.memos(PRESENT):
            index = int(memo.labels[0])
            self._next = max(self._next, index + 1)
            try:
                present = _present(memo.data)
            except msgspec.DecodeError:
                continue  # given up, or of another version
            taken.add(index)
            try:
                past = _past(self._store.memo(PAST, memo.labels).data)
            except msgspec.DecodeError:
                past = NO_PAST
            yield Remembered(index, present, past)
        self._free = [index for index in range(self._next) if index not in taken]

    def number(self) -> int:
        """Return the number of a new account."""
        if self._free:
            return self._free.pop()
        self._next += 1
        return self._next - 1

    def write(self, account: Account) -> None:
        """Note the state of an account."""
        labels = (str(account.index),)
        state = account.spending.state()
        if account.past_dirty or account.written_newest != state.newest:
            past = Past(account.spending.bucket_s, account.spending.past(state.newest))
            self._store.memo(PAST, labels).set(_encode(past))
            account.past_dirty = False
            account.written_newest = state.newest
        admitted, rejected, would = account.decisions
        present = Present(
            account.rule.name,
            account.values,
            state,
            account.expected.completion_tokens,
            account.expected.prompt_per_kb,
            (admitted, rejected, would),
            account.warned,
        )
        self._store.memo(PRESENT, labels).set(_encode(present))

    def forget(self, index: int) -> None:
        """Give up the memos of an account."""
        self._store.memo(PRESENT, (str(index),)).set(b"")
        self._store.memo(PAST, (str(index),)).set(b"")
        self._free.append(index)

    def read_learnt(self) -> dict[str, Learnt]:
        """Return what tokens came to."""
        try:
            found = _learnt(self._store.memo(LEARNT).data)
        except msgspec.DecodeError:
            found = []
        return {measured: Learnt(*pair) for measured, pair in zip(MEASURED, found, strict=False)}

    def write_learnt(self, learnt: dict[str, Learnt]) -> None:
        """Note what tokens come to."""
        pairs = [(learnt[measured].amount, learnt[measured].tokens_percent) for measured in MEASURED]
        self._store.memo(LEARNT).set(_encode(pairs))
