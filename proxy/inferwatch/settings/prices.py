"""List prices: what a token costs whoever asks for it, whatever it costs us to make.

Amounts are decimals, never floats on the way to a sum: YAML's 0.15 and "0.15" are both 15/100 exactly.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Final

import msgspec
from msgspec import Meta

# Each rule is compared with each new pair of model and tenant, and the configuration travels in one line.
MAX_RULES: Final = 1000

# One counter each, of every request: a price list, not a market.
MAX_COMPARED: Final = 50

# A nano-dollar per million tokens is the smallest step that is kept.
MAX_DECIMALS: Final = 9

# The dearest models cost some 600 dollars per million tokens of output, the cheapest cached input 0.003. What is far
# outside was meant per token, per thousand tokens, or in cents.
MAX_DOLLARS: Final = Decimal(10_000)
MIN_DOLLARS: Final = Decimal("0.0001")

MAX_NAME_CHARS: Final = 256

Dollars = Annotated[Decimal, Meta(description="Dollars per million tokens.")]


class PriceRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What requests for one model, or a family of them, cost; of one tenant, or of all."""

    model: Annotated[str, Meta(description="Model as requested; `*`, `?` and `[abc]` as in file names.")] = "*"
    tenant: Annotated[str, Meta(description="Tenant whose price it is; empty: everybody without one.")] = ""
    input: Annotated[Decimal, Meta(description="Dollars per million prompt tokens that were not cached. Required.")]
    cached_input: Annotated[
        Decimal | None, Meta(description="Dollars per million cached prompt tokens; absent: as `input`.")
    ] = None
    output: Annotated[
        Decimal, Meta(description="Dollars per million completion tokens. Required; 0 where nothing is generated.")
    ]
    reasoning: Annotated[
        Decimal | None, Meta(description="Dollars per million reasoning tokens; absent: as `output`.")
    ] = None
    per_request: Annotated[Decimal, Meta(description="Dollars for each request, beside its tokens.")] = Decimal(0)
    valid_from: Annotated[
        dt.date | None, Meta(description="First day (UTC) of requests that it is for; absent: always was.")
    ] = None
    valid_until: Annotated[
        dt.date | None,
        Meta(description="First day (UTC) that it is no longer for, so the day the next price begins."),
    ] = None


class Prices(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The cost basis `price`, and what the traffic would have cost elsewhere."""

    rules: Annotated[
        tuple[PriceRule, ...],
        Meta(
            description="Price list. A rule for the tenant wins over one for everybody, an exact model over a pattern, "
            "a longer pattern over a shorter one. Without rules the cost basis `price` is off."
        ),
    ] = ()
    compare: Annotated[
        tuple[str, ...],
        Meta(description="Entries of the catalogue: what would all traffic have cost there?"),
    ] = ()
    catalogue_file: Annotated[
        str, Meta(description="JSON file that replaces the catalogue of public prices that comes with Inferwatch.")
    ] = ""


AMOUNTS: Final = ("input", "cached_input", "output", "reasoning", "per_request")


def fault(prices: Prices) -> str:
    """Return what is wrong with `prices`, beginning with the key, or ""."""
    return next(_faults(prices), "")


def _faults(prices: Prices) -> Iterator[str]:
    if len(prices.rules) > MAX_RULES:
        yield f"prices.rules: {len(prices.rules)} rules, expected at most {MAX_RULES}"
    for index, rule in enumerate(prices.rules):
        for problem in _rule_faults(rule):
            yield f"prices.rules[{index}].{problem}"
    yield from _overlaps(prices.rules)
    if len(prices.compare) > MAX_COMPARED:
        yield f"prices.compare: {len(prices.compare)} entries, expected at most {MAX_COMPARED}"
    for index, name in enumerate(prices.compare):
        if name in prices.compare[:index]:
            yield f"prices.compare[{index}]: `{name}` is written twice"


def _rule_faults(rule: PriceRule) -> Iterator[str]:
    if not is_name(rule.model):
        yield f"model: expected 1 to {MAX_NAME_CHARS} printable characters"
    if rule.tenant and not is_name(rule.tenant):
        yield f"tenant: expected at most {MAX_NAME_CHARS} printable characters"
    for name in AMOUNTS:
        amount: Decimal | None = getattr(rule, name)
        if amount is not None and (problem := amount_fault(amount, per_token=name != "per_request")):
            yield f"{name}: {problem}"
    if rule.valid_from and rule.valid_until and rule.valid_until <= rule.valid_from:
        yield f"valid_until: {rule.valid_until} is not after `valid_from`, {rule.valid_from}"


def is_name(text: str) -> bool:
    """Tell whether `text` may be the name of a model, a tenant or a catalogue entry."""
    return 0 < len(text) <= MAX_NAME_CHARS and text.isprintable() and text == text.strip()


def amount_fault(amount: Decimal, *, per_token: bool) -> str:
    """Return what is wrong with an amount of dollars, per million tokens or per request, or ""."""
    unit = "dollars per million tokens" if per_token else "dollars per request"
    if not amount.is_finite():
        return f"expected {unit}, got {amount}"
    if amount.is_signed() and amount:
        return f"expected {unit}, 0 or more, got {amount}"
    if amount > MAX_DOLLARS:
        return f"expected at most {MAX_DOLLARS} {unit}, got {amount}"
    if per_token and 0 < amount < MIN_DOLLARS:
        return f"expected 0 or at least {MIN_DOLLARS} {unit}, got {amount}: is it per token?"
    exponent = amount.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -MAX_DECIMALS:
        return f"expected at most {MAX_DECIMALS} decimals, got {amount}"
    return ""


def _overlaps(rules: tuple[PriceRule, ...]) -> Iterator[str]:
    """Two rules for the same model and tenant on the same day: which of them would be the price?"""
    same: defaultdict[tuple[str, str], list[tuple[dt.date, dt.date, int]]] = defaultdict(list)
    for index, rule in enumerate(rules):
        period = (rule.valid_from or dt.date.min, rule.valid_until or dt.date.max, index)
        same[rule.model, rule.tenant].append(period)
    for (model, tenant), periods in same.items():
        whose = f"`{model}`" + (f" of `{tenant}`" if tenant else "")
        for (_, until, before), (start, _, after) in pairwise(sorted(periods)):
            if start < until:
                first, second = sorted((before, after))
                yield f"prices.rules[{second}]: for {whose} it overlaps in time with prices.rules[{first}]"
