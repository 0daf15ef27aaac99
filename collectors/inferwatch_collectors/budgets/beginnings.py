"""Rules that begin: what was spent before is read from the ledger, while requests go on being counted. Pure.

A rule is *known* under its *terms*: what it measures, of whom, for which time. That is written down with the accounts;
a rule that is found under other terms, or none, begins. From then on each of its charges has a number, and a memo, the
*mark*, has the last of them. Records, roll-ups and memos are committed together. So in any snapshot of the ledger the
roll-ups have exactly the charges up to its mark: an account begins with what they say, and the later charges.

What the ledger never has (what was seen of a request that was booked without counts) is kept apart and always added.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from inferwatch.budget_rules import Rule
from inferwatch_collectors.budgets.history import MARK, Found, Past
from inferwatch_collectors.budgets.spending import SpendingState
from inferwatch_collectors.metric_store import MetricStore

TERMS: Final = "budget_terms"

# Charges of one rule while its past is read: a minute of a busy host. Above it the reading is begun anew.
MAX_CHARGES: Final = 200_000


class Terms(msgspec.Struct, array_like=True, frozen=True):
    """What must be the same for sums to go on."""

    measured: str
    patterns: tuple[str, str, str, str]
    per: tuple[str, ...]
    period: str
    window_s: int
    zone: str

    @classmethod
    def of(cls, rule: Rule) -> "Terms":
        settings = rule.settings
        patterns = (settings.tenant, settings.user, settings.feature, settings.model)
        return cls(rule.measured, patterns, settings.per, settings.period, settings.window_s, rule.zone.key)


class Charge(NamedTuple):
    """One amount that an account was charged since its rule began."""

    number: int  # 0: it is not in the ledger
    arrival_s: float
    amount: int


class Begun(NamedTuple):
    """How an account goes on: its sums as of the ledger, and what was charged since."""

    values: tuple[str, ...]
    spending: SpendingState
    past: list[tuple[int, int]]
    charges: list[Charge]


class _Beginning:
    """One rule whose past is not known yet."""

    def __init__(self, rule: Rule, since: int) -> None:
        self.rule = rule
        self.since = since  # a snapshot with a smaller mark is too old
        self.count = 0
        self.charges: defaultdict[tuple[str, ...], list[Charge]] = defaultdict(list)
        self.done: set[tuple[str, ...]] = set()


NOTHING: Final = Found()

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Terms).decode


class Beginnings:
    """Of all rules. False if none begins."""

    def __init__(self, store: MetricStore) -> None:
        self._store = store
        self._waiting: dict[str, _Beginning] = {}
        self._number = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def restore(self, rules: Iterable[Rule]) -> None:
        """Begin what is not known. Once, after the store was restored."""
        self._number = int(self._store.memo(MARK).data or b"0")
        self.use(rules)

    def use(self, rules: Iterable[Rule]) -> None:
        """Begin those of `rules` that are not known under their terms; forget all others."""
        by_name = {rule.name: rule for rule in rules}
        for memo in self._store.memos(TERMS):
            if memo.labels[0] not in by_name and memo.data:
                memo.set(b"")
        self._waiting = {name: each for name, each in self._waiting.items() if name in by_name}
        for name, rule in by_name.items():
            waiting = self._waiting.get(name)
            if waiting is not None and Terms.of(waiting.rule) == Terms.of(rule):
                waiting.rule = rule
            elif waiting is not None or self._terms(name) != Terms.of(rule):
                self.begin(rule)

    def same_measure(self, rule: Rule) -> bool:
        """Tell whether what is remembered under this name is in its unit, as far as is known."""
        known = self._terms(rule.name)
        return known is None or known.measured == rule.measured

    def rule(self, name: str, since: int) -> Rule | None:
        """Return the rule of this name as it is configured now; None: it does not wait for just that mark any more."""
        waiting = self._waiting.get(name)
        return waiting.rule if waiting is not None and waiting.since == since else None

    def begin(self, rule: Rule) -> None:
        """Number the charges of `rule` from now on."""
        self._count_up()
        self._waiting[rule.name] = _Beginning(rule, self._number)

    def waiting(self) -> list[tuple[Rule, int]]:
        """Return the rules whose past must be read, each with the mark that a snapshot must have."""
        return [(each.rule, each.since) for each in self._waiting.values()]

    def waits(self, name: str) -> bool:
        """Tell whether what was spent of a rule is not known yet."""
        return name in self._waiting

    def charged(self, rule: Rule, values: tuple[str, ...], arrival_s: float, amount: int, *, booked: bool) -> None:
        """Note a charge, if `rule` begins. `booked`: the ledger has it, from the commit of this step on."""
        waiting = self._waiting.get(rule.name)
        if waiting is None or values in waiting.done:
            return
        if booked:
            self._count_up()
        waiting.count += 1
        if waiting.count > MAX_CHARGES:
            self.begin(waiting.rule)
            return
        waiting.charges[values].append(Charge(self._number if booked else 0, arrival_s, amount))

    def accounts(self, rule: Rule, past: Past, existing: Collection[tuple[str, ...]]) -> Iterator[Begun]:
        """Yield how each account of `rule` goes on; who takes one up does so before anything else happens.

        The fullest first: there may be more than there is space for. Of those that spent nothing of late only the
        `existing`.
        """
        waiting = self._waiting[rule.name]
        found = {**dict.fromkeys(existing, NOTHING), **past.accounts}
        present = {values: each.sum if past.start_s else sum(each.buckets.values()) for values, each in found.items()}
        for values in sorted(found, key=lambda values: -present[values]):
            if present[values] or values in existing:
                each = found[values]
                waiting.done.add(values)
                charges = [charge for charge in waiting.charges.pop(values, []) if not 0 < charge.number <= past.mark]
                state = SpendingState(past.start_s, each.sum, 0, 0, past.first_bucket)
                yield Begun(values, state, list(each.buckets.items()), charges)

    def known(self, rule: Rule) -> None:
        """All accounts of `rule` go on: its terms are written down."""
        del self._waiting[rule.name]
        self._store.memo(TERMS, (rule.name,)).set(_encode(Terms.of(rule)))

    def _terms(self, name: str) -> Terms | None:
        try:
            return _decode(self._store.memo(TERMS, (name,)).data)
        except msgspec.DecodeError:
            return None

    def _count_up(self) -> None:
        self._number += 1
        self._store.memo(MARK).set(str(self._number).encode())
