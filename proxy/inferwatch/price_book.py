"""The price book: which price is for which request. Pure: the request brings its own time, its arrival.

Which rule: of those that match the model and are for the tenant, or for everybody, and for the day (UTC) of the
request's arrival, the tenant's before everybody's, an exact model before a pattern, the pattern with more letters
before one with fewer, the earlier in the file before the later. A request whose model no rule matches is tried under
the name that the engine gave in its answer.
"""

import datetime as dt
import re
from collections.abc import Sequence
from fnmatch import translate
from typing import Final

import msgspec

from inferwatch.price_rates import Rates, has_something_to_price
from inferwatch.record import RequestRecord
from inferwatch.settings.prices import PriceRule

NS_PER_DAY: Final = 86_400 * 1_000_000_000
_EPOCH: Final = dt.date(1970, 1, 1)

# Pairs of model and tenant whose rules are remembered. Clients choose model names; they must not fill memory.
MAX_REMEMBERED: Final = 4096

_WILD: Final = frozenset("*?[")

# Why a request has no price: values of a label.
NO_PRICE: Final = "no_price"
NO_TOKENS: Final = "no_tokens"
REASONS: Final = (NO_PRICE, NO_TOKENS)


class _Rule(msgspec.Struct, frozen=True):
    tenant: str
    rates: Rates
    from_ns: int | None  # Unix time; None: always was
    until_ns: int | None
    matches: re.Pattern[str]
    rank: tuple[bool, bool, int]  # smaller is first

    def holds_at(self, wall_ns: int) -> bool:
        began = self.from_ns is None or self.from_ns <= wall_ns
        return began and (self.until_ns is None or wall_ns < self.until_ns)


class PriceBook:
    """The configured price rules, ready to be asked."""

    def __init__(self, rules: Sequence[PriceRule] = ()) -> None:
        """`rules` as checked by `settings.prices.fault`."""
        # The sort is stable: among equals the order of the file.
        self._rules = sorted((_compiled(rule) for rule in rules), key=lambda rule: rule.rank)
        self._remembered: dict[tuple[str, str], tuple[_Rule, ...]] = {}

    def __bool__(self) -> bool:
        """Tell whether any price is configured."""
        return bool(self._rules)

    def rates(self, model: str, tenant: str, wall_ns: int) -> Rates | None:
        """Return the price list for a request that arrived at `wall_ns` (Unix time), None if there is none."""
        for rule in self._candidates(model, tenant):
            if rule.holds_at(wall_ns):
                return rule.rates
        return None

    def price(self, record: RequestRecord) -> int | None:
        """Return what the request costs in nano-dollars; None if no rule is for it or its tokens are not known."""
        if not has_something_to_price(record):
            return None
        rates = self._rates_of(record)
        return None if rates is None else rates.cost_of(record)

    def why_unpriced(self, record: RequestRecord) -> str:
        """Return why `record` has no price: NO_PRICE, NO_TOKENS, or "" if there is nothing in it to be priced."""
        if not has_something_to_price(record):
            return ""
        return NO_PRICE if self._rates_of(record) is None else NO_TOKENS

    def _rates_of(self, record: RequestRecord) -> Rates | None:
        found = self.rates(record.model, record.tenant, record.wall_ns)
        if found is None and record.engine_model not in ("", record.model):
            found = self.rates(record.engine_model, record.tenant, record.wall_ns)
        return found

    def _candidates(self, model: str, tenant: str) -> tuple[_Rule, ...]:
        known = self._remembered.get((model, tenant))
        if known is None:
            known = tuple(rule for rule in self._rules if rule.tenant in ("", tenant) and rule.matches.match(model))
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[model, tenant] = known
        return known


def _compiled(rule: PriceRule) -> _Rule:
    pattern = not _WILD.isdisjoint(rule.model)
    letters = sum(char not in _WILD for char in rule.model)
    return _Rule(
        tenant=rule.tenant,
        rates=Rates.of(
            input=rule.input,
            cached_input=rule.cached_input,
            output=rule.output,
            reasoning=rule.reasoning,
            per_request=rule.per_request,
        ),
        from_ns=_midnight_ns(rule.valid_from),
        until_ns=_midnight_ns(rule.valid_until),
        matches=re.compile(translate(rule.model) if pattern else re.escape(rule.model) + r"\Z"),
        rank=(not rule.tenant, pattern, -letters),
    )


def _midnight_ns(day: dt.date | None) -> int | None:
    return None if day is None else (day - _EPOCH).days * NS_PER_DAY
