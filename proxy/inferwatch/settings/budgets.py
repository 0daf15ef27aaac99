"""Who may spend how much until when, and what happens at the limit."""

import functools
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

from inferwatch.settings.base import MAX_SECONDS
from inferwatch.settings.cost import Cost
from inferwatch.settings.sharing import Redis
from inferwatch.settings.sharing import faults as sharing_faults

# Each rule is compared with each new combination of names, and each that matches costs a request a microsecond.
MAX_RULES: Final = 200

# Rule names become a label, and a part of the key under which spending is remembered.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

MAX_PATTERN_CHARS: Final = 256
MAX_WARNINGS: Final = 10
MAX_WARN_PERCENT: Final = 1000

# In the smallest steps (nano-dollars, microjoules, microseconds) still well within 61 bits.
MAX_LIMIT: Final = Decimal(1_000_000_000)
MAX_TOKEN_LIMIT: Final = Decimal(10**15)
MAX_DECIMALS: Final = 6

# Redis reckons in 64-bit floats, which are exact up to 2**53: nano-dollars come to that first.
MAX_SHARED_DOLLARS: Final = Decimal(9_000_000)

MIN_WINDOW_S: Final = 60

Key = Literal["tenant", "user", "feature", "model"]
Unit = Literal["dollars", "tokens", "prompt_tokens", "completion_tokens", "gpu_seconds", "joules"]


class BudgetRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One budget. It is for requests that fit all four patterns; `per` gives each distinct value an account."""

    name: Annotated[
        str, Meta(description="Name in metrics, messages and the ledger: spending is remembered under it. Required.")
    ]
    tenant: Annotated[str, Meta(description="Tenant; `*`, `?` and `[abc]` as in file names.")] = "*"
    user: Annotated[str, Meta(description="User, by the keyed hash that reports show; a pattern.")] = "*"
    feature: Annotated[str, Meta(description="Feature; a pattern. `?*` is any, but not none.")] = "*"
    model: Annotated[str, Meta(description="Model as requested; a pattern.")] = "*"
    per: Annotated[
        tuple[Key, ...],
        Meta(
            description="Each of these has its own account and the whole limit: `tenant`, `user`, `feature`, `model`."
        ),
    ] = ()
    limit: Annotated[Decimal, Meta(description="How much, in `unit`. Required.")]
    unit: Annotated[
        Unit,
        Meta(
            description="`dollars`, `tokens` (prompt and completion), `prompt_tokens`, `completion_tokens`, "
            "`gpu_seconds` or `joules`."
        ),
    ] = "dollars"
    basis: Annotated[
        Literal["price", "gpu"],
        Meta(
            description="Of dollars; other units have none. `price`: by the price list; "
            "`gpu`: the request's part of the machine's bill."
        ),
    ] = "price"
    period: Annotated[
        Literal["hour", "day", "week", "month", "rolling"],
        Meta(description="When it begins anew; `rolling`: what was spent within the last `window_s`."),
    ] = "month"
    window_s: Annotated[
        int, Meta(ge=0, le=MAX_SECONDS, description="Length of a rolling budget's window, at least 60.")
    ] = 0
    time_zone: Annotated[
        str, Meta(description="In which days, weeks and months begin; empty: `budgets.time_zone`.")
    ] = ""
    on_limit: Annotated[
        Literal["observe", "reject", "cut"],
        Meta(
            description="`observe`: only say what would have been refused; `reject`: refuse new requests (429); `cut`: "
            "also end running streams in good form."
        ),
    ] = "observe"
    reserve: Annotated[
        Literal["expected", "worst"],
        Meta(
            description="What a request holds until it ends. `worst`: the most it can cost, so nothing is ever "
            "overspent, but answers that turn out short keep others waiting; `expected`: that only near the limit, and "
            "what such requests turned out to cost while half of the budget is left."
        ),
    ] = "expected"
    warn_percent: Annotated[
        tuple[int, ...], Meta(description="Tell when this much of the limit is spent (a gauge, and a line in the log).")
    ] = (50, 80, 100)

    shared: Annotated[
        bool, Meta(description="Kept together with other hosts, if `budgets.redis` says through which Redis.")
    ] = True

    @property
    def generates(self) -> bool:
        """Whether completion tokens count."""
        return self.unit != "prompt_tokens"


class Budgets(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits to spending."""

    rules: Annotated[
        tuple[BudgetRule, ...], Meta(description="The budgets. A request needs room in each that is for it.")
    ] = ()
    time_zone: Annotated[str, Meta(description="In which days, weeks and months begin: an IANA name.")] = "UTC"
    max_accounts: Annotated[
        int,
        Meta(
            ge=16,
            le=100_000,
            description="Accounts of all budgets together. A request that would need one more passes unchecked, and "
            "is counted. Needs a restart.",
        ),
    ] = 4096
    default_reserve_tokens: Annotated[
        int,
        Meta(
            ge=1, le=10_000_000, description="Completion tokens taken for the most of a request without `max_tokens`."
        ),
    ] = 16_384
    context_tokens: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000_000,
            description="The longest context that an engine serves: no prompt and answer together have more tokens.",
        ),
    ] = 131_072
    max_lock_wait_s: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="How long a request may wait for its turn at the accounts, should a process stand still just "
            "then. After that it passes unchecked, and is counted.",
        ),
    ] = 0.1
    redis: Redis = Redis()


def fault(budgets: Budgets, cost: Cost) -> str:
    """Return what is wrong with `budgets` beside `cost`, beginning with the key, or ""."""
    return next(_faults(budgets), "") or next(_cost_faults(budgets, cost), "")


def _cost_faults(budgets: Budgets, cost: Cost) -> Iterator[str]:
    """What is never measured would never be spent."""
    by_time = cost.hourly_dollars is not None or cost.purchase_dollars is not None
    metered = cost.dollars_per_kwh is not None and cost.assumed_watts is None
    for index, rule in enumerate(budgets.rules):
        if rule.unit == "dollars" and rule.basis == "gpu" and not by_time and cost.dollars_per_kwh is None:
            yield f"budgets.rules[{index}].basis: `gpu` needs the machine's price in `cost`"
        if rule.unit == "gpu_seconds" and (not by_time or metered):
            yield (
                f"budgets.rules[{index}].unit: `gpu_seconds` needs a price in `cost` that goes by time alone "
                "(`hourly_dollars` or `purchase_dollars`, and electricity by `assumed_watts`, if at all)"
            )


def _faults(budgets: Budgets) -> Iterator[str]:
    if len(budgets.rules) > MAX_RULES:
        yield f"budgets.rules: {len(budgets.rules)} rules, expected at most {MAX_RULES}"
    if not is_zone(budgets.time_zone):
        yield f"budgets.time_zone: there is no time zone `{budgets.time_zone}`"
    seen: set[str] = set()
    for index, rule in enumerate(budgets.rules):
        for problem in _rule_faults(rule):
            yield f"budgets.rules[{index}].{problem}"
        if rule.name in seen:
            yield f"budgets.rules[{index}].name: `{rule.name}` is written twice"
        if budgets.redis.is_used and rule.shared and rule.unit == "dollars" and rule.limit > MAX_SHARED_DOLLARS:
            yield f"budgets.rules[{index}].limit: shared by hosts it can be at most {MAX_SHARED_DOLLARS} dollars"
        seen.add(rule.name)
    for problem in sharing_faults(budgets.redis):
        yield f"budgets.redis.{problem}"


def _rule_faults(rule: BudgetRule) -> Iterator[str]:
    if not _NAME.fullmatch(rule.name):
        yield "name: expected 1 to 64 letters, digits, `-`, `_` and `.`, a letter or digit first"
    for key in ("tenant", "user", "feature", "model"):
        pattern: str = getattr(rule, key)
        if not 0 < len(pattern) <= MAX_PATTERN_CHARS or not pattern.isprintable():
            yield f"{key}: expected 1 to {MAX_PATTERN_CHARS} printable characters"
    if len(set(rule.per)) != len(rule.per):
        yield "per: a word is written twice"
    if problem := _limit_fault(rule):
        yield f"limit: {problem}"
    if rule.basis != "price" and rule.unit != "dollars":
        yield f"basis: `{rule.basis}` is for `unit: dollars`, got `{rule.unit}`"
    if (rule.period == "rolling") != bool(rule.window_s):
        yield "window_s: goes together with `period: rolling`"
    elif rule.window_s and rule.window_s < MIN_WINDOW_S:
        yield f"window_s: expected at least {MIN_WINDOW_S}, got {rule.window_s}"
    if rule.time_zone and not is_zone(rule.time_zone):
        yield f"time_zone: there is no time zone `{rule.time_zone}`"
    if len(rule.warn_percent) > MAX_WARNINGS or not all(0 < each <= MAX_WARN_PERCENT for each in rule.warn_percent):
        yield f"warn_percent: expected at most {MAX_WARNINGS} numbers from 1 to {MAX_WARN_PERCENT}"
    elif list(rule.warn_percent) != sorted(set(rule.warn_percent)):
        yield "warn_percent: expected ascending numbers"


def _limit_fault(rule: BudgetRule) -> str:
    most = MAX_TOKEN_LIMIT if rule.unit.endswith("tokens") else MAX_LIMIT
    if not rule.limit.is_finite() or not 0 < rule.limit <= most:
        return f"expected more than 0 and at most {most} {rule.unit}, got {rule.limit}"
    exponent = rule.limit.as_tuple().exponent
    decimals = 0 if rule.unit.endswith("tokens") else MAX_DECIMALS
    if isinstance(exponent, int) and exponent < -decimals and rule.limit % Decimal(1).scaleb(-decimals):
        return f"expected at most {decimals} decimals, got {rule.limit}"
    return ""


@functools.lru_cache(maxsize=64)  # asked for each rule, and opens a file
def is_zone(name: str) -> bool:
    """Tell whether `name` is a time zone that this host knows."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
