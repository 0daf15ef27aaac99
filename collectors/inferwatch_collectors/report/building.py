"""From sums to a report. Pure: no file, no clock; prices are handed in."""

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from inferwatch.price_rates import MILLION, Rates, divide_half_even
from inferwatch_collectors.cost.break_even import tokens_per_hour
from inferwatch_collectors.ledger.usage import IDLE, NS_PER_S, SUMS, Waste
from inferwatch_collectors.report.figures import BreakEven, Cache, Effective, Idle, Line, Report, added
from inferwatch_collectors.report.query import Query
from inferwatch_collectors.report.reading import Group, Usage

_CACHED: Final = SUMS.index("cached_tokens")
_PROMPT: Final = SUMS.index("prompt_tokens")


class Book(Protocol):
    """Who knows what a token cost whom and when; see `price_book.PriceBook`."""

    def rates(self, model: str, tenant: str, wall_ns: int) -> Rates | None:
        """Return the price list at that Unix time, None if there is none."""


class Offer(Protocol):
    """A public price list to compare with; see `cost.catalogue.Comparison`."""

    @property
    def name(self) -> str: ...
    @property
    def as_of(self) -> dt.date: ...
    @property
    def rates(self) -> Rates: ...


class PriceBasis(NamedTuple):
    """What a report knows of prices."""

    book: Book | None = None  # None: no prices are configured
    offers: Sequence[Offer] = ()


def build(query: Query, usage: Usage, basis: PriceBasis) -> Report:
    """Make the report."""
    requests = [group for group in usage.groups if group.outcome != IDLE]
    total = Line.of("total", added(group.sums for group in requests))
    idle = None if query.tenant is not None else _idle(usage.groups)
    effective = None if idle is None else _effective(total, idle)
    return Report(
        start=_utc(query.start_s),
        end=_utc(query.end_s),
        tenant=query.tenant,
        total=total,
        idle=idle,
        tables={name: _table(name, query, usage, requests) for name in query.by},
        waste=tuple(_waste(requests)),
        cache=_cache(requests, basis.book),
        effective=effective,
        break_even=tuple(_break_even(total, effective, basis.offers)),
        feedback=usage.opinions,
        notes=tuple(_notes(query, usage, total, effective, basis)),
    )


def _utc(unix_s: int) -> str:
    return f"{dt.datetime.fromtimestamp(unix_s, dt.UTC):%Y-%m-%dT%H:%MZ}"


def _table(name: str, query: Query, usage: Usage, requests: Sequence[Group]) -> tuple[Line, ...]:
    if name == "user":
        lines = [Line.of(user.user, user.sums, user.tenant) for user in usage.users]
    else:
        lines = [Line.of(label, sums) for label, sums in _by(requests, _LABELS[name])]
    if name == "day":
        return tuple(lines)
    lines.sort(key=_weight, reverse=True)
    return (*lines[: query.top], *_rest(lines[query.top :]))


_LABELS: Final[dict[str, Callable[[Group], str]]] = {
    "tenant": lambda group: group.tenant,
    "feature": lambda group: group.feature,
    "model": lambda group: group.model,
    "day": lambda group: f"{dt.datetime.fromtimestamp(group.day_s, dt.UTC):%Y-%m-%d}",
}


def _by(groups: Iterable[Group], label: Callable[[Group], str]) -> Iterator[tuple[str, Sequence[int]]]:
    found: defaultdict[str, list[Sequence[int]]] = defaultdict(list)
    for group in groups:
        found[label(group)].append(group.sums)
    return ((name, added(rows)) for name, rows in found.items())


def _weight(line: Line) -> tuple[int, int, int]:
    tokens = line.prompt_tokens + line.completion_tokens
    return ((line.gpu_nanodollars or 0) + (line.price_nanodollars or 0), tokens, line.requests)


def _rest(lines: Sequence[Line]) -> Iterator[Line]:
    """Yield one line for all that are below the cut."""
    if lines:
        known = {
            name: [amount for line in lines if (amount := getattr(line, name)) is not None]
            for name in ("price_nanodollars", "gpu_nanodollars", "energy_uj")
        }
        yield Line(
            name=f"({len(lines)} more)",
            requests=sum(line.requests for line in lines),
            prompt_tokens=sum(line.prompt_tokens for line in lines),
            cached_tokens=sum(line.cached_tokens for line in lines),
            completion_tokens=sum(line.completion_tokens for line in lines),
            reasoning_tokens=sum(line.reasoning_tokens for line in lines),
            price_nanodollars=_sum(known["price_nanodollars"]),
            gpu_nanodollars=_sum(known["gpu_nanodollars"]),
            energy_uj=_sum(known["energy_uj"]),
            unpriced_requests=sum(line.unpriced_requests for line in lines),
            uncounted_requests=sum(line.uncounted_requests for line in lines),
        )


def _sum(amounts: Sequence[int]) -> int | None:
    return sum(amounts) if amounts else None


def _idle(groups: Iterable[Group]) -> Idle:
    line = Line.of(IDLE, added(group.sums for group in groups if group.outcome == IDLE))
    return Idle(gpu_nanodollars=line.gpu_nanodollars, energy_uj=line.energy_uj)


def _waste(groups: Iterable[Group]) -> Iterator[Line]:
    found = dict(_by((group for group in groups if group.waste), lambda group: group.waste))
    for reason in Waste:
        if reason.value in found:
            yield Line.of(reason.value, found[reason.value])


def _cache(groups: Iterable[Group], book: Book | None) -> Cache:
    prompt = cached = unpriced = saved = 0
    for group in groups:
        tokens = group.sums[_CACHED]
        prompt += group.sums[_PROMPT]
        cached += tokens
        rates = None if book is None else book.rates(group.model, group.tenant, group.day_s * NS_PER_S)
        if rates is None:
            unpriced += tokens
        else:
            saved += tokens * (rates.input - rates.cached_input)
    return Cache(
        prompt_tokens=prompt,
        cached_tokens=cached,
        saved_nanodollars=None if unpriced == cached else divide_half_even(saved, MILLION),
        unpriced_cached_tokens=unpriced,
    )


def _effective(total: Line, idle: Idle) -> Effective | None:
    tokens = total.prompt_tokens + total.completion_tokens
    if not tokens or (total.gpu_nanodollars is None and idle.gpu_nanodollars is None):
        return None
    busy, unused = total.gpu_nanodollars or 0, idle.gpu_nanodollars or 0
    hardware, output = busy + unused, total.completion_tokens
    return Effective(
        tokens=tokens,
        hardware_nanodollars=hardware,
        nanodollars_per_million_tokens=divide_half_even(hardware * MILLION, tokens),
        nanodollars_per_million_completion_tokens=divide_half_even(hardware * MILLION, output) if output else None,
        nanodollars_per_million_tokens_without_idle=divide_half_even(busy * MILLION, tokens),
        idle_ratio=unused / hardware if hardware and idle.gpu_nanodollars is not None else None,
    )


def _break_even(total: Line, effective: Effective | None, offers: Iterable[Offer]) -> Iterator[BreakEven]:
    if effective is None:
        return
    for offer in offers:
        there = offer.rates.cost(
            total.prompt_tokens, total.cached_tokens, total.completion_tokens, total.reasoning_tokens, total.requests
        )
        if there is None:
            continue
        yield BreakEven(
            name=offer.name,
            as_of=offer.as_of.isoformat(),
            there_nanodollars=there,
            here_nanodollars=effective.hardware_nanodollars,
            tokens=effective.tokens,
            # The bill of the span in place of an hour's: the answer is tokens in the span.
            break_even_tokens=tokens_per_hour(
                hardware_nanodollars_per_hour=effective.hardware_nanodollars,
                tokens=effective.tokens,
                comparison_nanodollars=there,
            ),
        )


def _notes(query: Query, usage: Usage, total: Line, effective: Effective | None, basis: PriceBasis) -> Iterator[str]:
    if usage.oldest_s is None:
        yield "the ledger has no requests yet"
    elif query.start_s < usage.oldest_s - usage.oldest_s % 86_400:
        yield f"sums of this kind begin at {_utc(usage.oldest_s)}; what was before is not in them"
    if basis.book is None:
        yield "no prices are configured (`prices.rules`): amounts by the price book and cache savings are not known"
    elif total.unpriced_requests:
        yield f"{total.unpriced_requests} of {total.requests} requests have no price and are not in the amounts"
    if query.tenant is not None:
        yield "idle time is nobody's: it, the effective cost and the comparison are only in the report of all tenants"
    elif effective is None and total.requests:
        yield "the cost of the hardware is not known (`cost`): there is no effective cost and no comparison"
    elif effective is not None and not basis.offers:
        yield "no price lists to compare with are configured (`prices.compare`)"
    if total.uncounted_requests:
        yield f"of {total.uncounted_requests} requests no token count is known"
    if "user" not in query.by and not query.knows_users:
        yield "users are added up by the day: this span has no whole days"
