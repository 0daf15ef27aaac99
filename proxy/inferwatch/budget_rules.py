"""Which budgets a request belongs to: the rules of the configuration, compiled. Pure, and the same in all processes.

An account is one rule with one set of values of its `per`; its digest is its name on the board. It depends on the
rule's name and these values alone, so what was spent is still known after a limit has been changed.
"""

import hashlib
import re
from collections.abc import Sequence
from fnmatch import translate
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from inferwatch.settings.budgets import BudgetRule, Budgets, Key, Unit

# In which whole numbers amounts of a unit are kept: nano-dollars, microseconds, microjoules.
SCALE: Final[dict[Unit, int]] = {
    "dollars": 1_000_000_000,
    "tokens": 1,
    "prompt_tokens": 1,
    "completion_tokens": 1,
    "gpu_seconds": 1_000_000,
    "joules": 1_000_000,
}

MILLION: Final = 1_000_000

# 126 bits, so that each half is a positive 64-bit integer that is neither 0 nor -1: those have a meaning on the board.
DIGEST_BYTES: Final = 16
_HALF_MASK: Final = 2**63 - 1

# Combinations of names whose accounts are remembered. Clients choose names; they must not fill memory.
MAX_REMEMBERED: Final = 4096

Digest = tuple[int, int]


class Names(NamedTuple):
    """Whose request it is."""

    tenant: str
    user: str
    feature: str
    model: str


class TokenRate(NamedTuple):
    """Amounts of a unit, in its smallest steps."""

    prompt: int  # per million prompt tokens
    completion: int  # per million completion tokens
    request: int = 0

    def amount(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Return what these tokens come to, rounded up."""
        total = prompt_tokens * self.prompt + completion_tokens * self.completion
        return -(-total // MILLION) + self.request


# Units that tokens alone decide.
BY_TOKENS: Final[dict[str, TokenRate]] = {
    "tokens": TokenRate(MILLION, MILLION),
    "prompt_tokens": TokenRate(MILLION, 0),
    "completion_tokens": TokenRate(0, MILLION),
}


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A budget, ready to be asked."""

    settings: BudgetRule
    limit: int  # in the unit's smallest steps
    zone: ZoneInfo
    patterns: tuple[tuple[Key, re.Pattern[str]], ...]
    shared: bool  # with other hosts

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def measured(self) -> str:
        """What is added up: a unit, or for dollars `price` or `gpu`."""
        return self.settings.basis if self.settings.unit == "dollars" else self.settings.unit

    def fits(self, names: Names) -> bool:
        """Tell whether a request with these names is for this budget."""
        return all(pattern.match(getattr(names, key)) for key, pattern in self.patterns)

    def values(self, names: Names) -> tuple[str, ...]:
        """Return what tells its account from the rule's others."""
        return tuple([getattr(names, key) for key in self.settings.per])

    def shares_as(self, other: "Rule") -> bool:
        """Tell whether hosts add up the same under both."""
        one, two = self.settings, other.settings
        same = (self.measured, one.period, one.window_s, self.zone) == (
            other.measured,
            two.period,
            two.window_s,
            other.zone,
        )
        return self.shared == other.shared and same

    def plain(self, amount: float) -> float:
        """Return `amount`, in smallest steps, in the unit."""
        return amount / SCALE[self.settings.unit]


class Match(NamedTuple):
    """An account that a request belongs to."""

    rule: Rule
    values: tuple[str, ...]
    digest: Digest


class Rulebook:
    """All budgets."""

    def __init__(self, budgets: Budgets) -> None:
        """`budgets` as checked by `settings.budgets.fault`."""
        self.rules: Sequence[Rule] = [_compiled(rule, budgets) for rule in budgets.rules]
        self._remembered: dict[Names, tuple[Match, ...]] = {}

    def matching(self, names: Names) -> tuple[Match, ...]:
        """Return the accounts of a request, in the order of the rules."""
        known = self._remembered.get(names)
        if known is None:
            known = tuple(
                Match(rule, values, digest_of(rule.name, values))
                for rule in self.rules
                if rule.fits(names)
                for values in (rule.values(names),)
            )
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[names] = known
        return known


def digest_of(name: str, values: tuple[str, ...]) -> Digest:
    """Return what an account is called on the board."""
    data = msgspec.msgpack.encode((name, values))
    raw = hashlib.blake2b(data, digest_size=DIGEST_BYTES, person=b"inferwatch-acct").digest()
    first, second = int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little")
    return (first & _HALF_MASK) or 1, second & _HALF_MASK


def _compiled(rule: BudgetRule, budgets: Budgets) -> Rule:
    patterns: list[tuple[Key, str]] = [
        ("tenant", rule.tenant),
        ("user", rule.user),
        ("feature", rule.feature),
        ("model", rule.model),
    ]
    return Rule(
        settings=rule,
        limit=int(rule.limit * SCALE[rule.unit]),
        zone=ZoneInfo(rule.time_zone or budgets.time_zone),
        patterns=tuple((key, re.compile(translate(pattern))) for key, pattern in patterns if pattern != "*"),
        shared=rule.shared and budgets.redis.is_used,
    )
