"""What a request comes to in the units of budgets. Pure; whole numbers of the unit's smallest steps.

Tokens and prices follow from counts, also while a stream runs. The machine's money, GPU time and energy are known only
when the attribution has divided the seconds in which the request worked; until then its tokens are charged at what
tokens came to lately (`Learnt`), and the estimate is replaced by the measurement.
"""

from typing import Final

from inferwatch.board import MEASURED
from inferwatch.budget_rules import BY_TOKENS, MILLION, TokenRate
from inferwatch.price_book import PriceBook
from inferwatch.record import LateCount, RequestRecord, Share
from inferwatch.settings.cost import Cost
from inferwatch.settings.energy import Energy
from inferwatch_collectors.attribution.rates import NS_PER_HOUR, Bill

# A prompt token is read with many others at a time: the default of `attribution.prefill_weight`.
PROMPT_WEIGHT_PERCENT: Final = 25

# Half is forgotten after so many weighted tokens: some minutes of a busy GPU.
FORGET_TOKENS: Final = 1_000_000

US_PER_HOUR: Final = 3_600_000_000


def nanodollars_per_gpu_hour(cost: Cost, energy: Energy) -> int | None:
    """Return what an hour of one GPU costs where the bill goes by time alone; None: it does not, or there is none."""
    bill = Bill.of(cost, energy)
    if bill is None or bill.nanodollars_per_uj or not bill.nanodollars_per_ns:
        return None
    return round(bill.nanodollars_per_ns * NS_PER_HOUR / cost.gpus) or None


class Learnt:
    """What tokens came to lately in a unit that only the machine's meters know."""

    __slots__ = ("amount", "tokens_percent")

    def __init__(self, amount: int = 0, tokens_percent: int = 0) -> None:
        self.amount = amount
        self.tokens_percent = tokens_percent  # weighted, times 100

    def observe(self, amount: int, prompt_tokens: int, completion_tokens: int) -> None:
        """Take one measured request."""
        self.amount += amount
        self.tokens_percent += prompt_tokens * PROMPT_WEIGHT_PERCENT + completion_tokens * 100
        if self.tokens_percent > FORGET_TOKENS * 100:
            self.amount //= 2
            self.tokens_percent //= 2

    @property
    def rate(self) -> TokenRate:
        """What tokens come to; zeros: not known."""
        if not self.tokens_percent:
            return TokenRate(0, 0)
        return TokenRate(
            self.amount * PROMPT_WEIGHT_PERCENT * MILLION // self.tokens_percent,
            self.amount * 100 * MILLION // self.tokens_percent,
        )


class Tariff:
    """What everything costs."""

    def __init__(self, prices: PriceBook, nanodollars_per_gpu_hour: int | None = None) -> None:
        """`nanodollars_per_gpu_hour`: where the machine's bill goes by time alone, so that money tells the time."""
        self.prices = prices
        self.learnt = {measured: Learnt() for measured in MEASURED}
        self._per_gpu_hour = nanodollars_per_gpu_hour

    def of_tokens(
        self,
        measured: str,
        model: str,
        tenant: str,
        wall_ns: int,
        prompt: int | None,
        cached: int | None,
        completion: int | None,
    ) -> int:
        """Return what these tokens come to so far; a count that is not known yet adds nothing."""
        if measured == "price":
            rates = self.prices.rates(model, tenant, wall_ns)
            if rates is None:
                return 0
            return rates.cost(prompt or 0, cached, completion or 0, None) or 0
        rate = BY_TOKENS.get(measured) or self.learnt[measured].rate
        return rate.amount(prompt or 0, completion or 0)

    def of_record(self, measured: str, record: RequestRecord) -> int | None:
        """Return what a finished request came to; an estimate for what is measured later. None: not known."""
        if measured == "price":
            return record.price_nanodollars
        if record.prompt_tokens is None and record.completion_tokens is None:
            return None
        return self.of_tokens(
            *(measured, record.model, record.tenant, record.wall_ns),
            *(record.prompt_tokens, record.cached_tokens, record.completion_tokens),
        )

    def of_late(self, measured: str, late: LateCount) -> int | None:
        """Return what a late count comes to; None: nothing, or it is measured by other means."""
        if measured == "price":
            return late.price_nanodollars
        rate = BY_TOKENS.get(measured)
        return None if rate is None else rate.amount(late.prompt_tokens or 0, late.completion_tokens or 0)

    def of_share(self, measured: str, share: Share) -> int | None:
        """Return what was measured of a request; None: nothing measures that."""
        if measured == "joules":
            return share.energy_uj
        if measured == "gpu" or share.gpu_nanodollars is None:
            return share.gpu_nanodollars
        return share.gpu_nanodollars * US_PER_HOUR // self._per_gpu_hour if self._per_gpu_hour else None
