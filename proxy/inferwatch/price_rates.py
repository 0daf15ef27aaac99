"""Token prices as integers, and the one multiplication that everything here hangs on. Pure.

Dollars per million tokens become nano-dollars per million tokens, so a count times a rate is millionths of a
nano-dollar, exactly. They are added up exactly and divided once per request, half to even: over many requests the
roundings cancel, and no request is off by more than half a nano-dollar.
"""

from decimal import Decimal
from typing import Final, Self

import msgspec

from inferwatch.record import Outcome, RequestRecord

NANO: Final = 1_000_000_000
MILLION: Final = 1_000_000

# Operations that answer without generating: no completion count is a count of 0.
GENERATES_NOTHING: Final = frozenset({"embeddings", "rerank", "score", "classify", "pooling"})

# The operation of routes that are no work for a model.
NO_OPERATION: Final = "other"


def nanodollars(dollars: Decimal) -> int:
    """Return `dollars` in nano-dollars, exactly.

    Raises:
        ValueError: it is not finite, or has more than 9 decimals.
    """
    sign, digits, exponent = dollars.as_tuple()
    if not isinstance(exponent, int) or exponent < -9:
        raise ValueError(f"{dollars} is not a whole number of nano-dollars")
    # By digits: Decimal's own multiplication rounds to the precision of its context.
    amount: int = int("".join(map(str, digits))) * 10 ** (exponent + 9)
    return -amount if sign else amount


def divide_half_even(numerator: int, denominator: int) -> int:
    """Return the quotient rounded to the nearest integer, a half to the even one. `denominator` is above 0."""
    quotient, rest = divmod(numerator, denominator)
    up = 2 * rest > denominator or (2 * rest == denominator and quotient % 2 == 1)
    return quotient + up


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """One price list: nano-dollars per million tokens, and nano-dollars per request."""

    input: int
    cached_input: int
    output: int
    reasoning: int
    per_request: int = 0

    @classmethod
    def of(
        cls,
        *,
        input: Decimal,  # noqa: A002 - the word on every price list
        cached_input: Decimal | None,
        output: Decimal,
        reasoning: Decimal | None = None,
        per_request: Decimal = Decimal(0),
    ) -> Self:
        """Make rates of dollars. Without a price of their own, cached costs as input and reasoning as output."""
        return cls(
            input=nanodollars(input),
            cached_input=nanodollars(input if cached_input is None else cached_input),
            output=nanodollars(output),
            reasoning=nanodollars(output if reasoning is None else reasoning),
            per_request=nanodollars(per_request),
        )

    def cost(
        self, prompt: int | None, cached: int | None, completion: int | None, reasoning: int | None, requests: int = 1
    ) -> int | None:
        """Return nano-dollars for these tokens, or None: a count that has a price is not known.

        `prompt` includes `cached`, `completion` includes `reasoning`. Where the parts were not reported all of it has
        the full price. Engines have been seen to report more reasoning than completion: a part is never more than
        the whole.
        """
        total = self.per_request * requests * MILLION
        if prompt is not None:
            hit = min(cached, prompt) if cached else 0
            total += (prompt - hit) * self.input + hit * self.cached_input
        elif self.input or self.cached_input:
            return None
        if completion is not None:
            thought = min(reasoning, completion) if reasoning else 0
            total += (completion - thought) * self.output + thought * self.reasoning
        elif self.output or self.reasoning:
            return None
        return divide_half_even(total, MILLION)

    def cost_of(self, record: RequestRecord) -> int | None:
        """Return nano-dollars for one finished request, or None: a count that has a price is not known."""
        completion = record.completion_tokens
        if completion is None and record.operation in GENERATES_NOTHING:
            completion = 0
        return self.cost(record.prompt_tokens, record.cached_tokens, completion, record.reasoning_tokens)


def has_something_to_price(record: RequestRecord) -> bool:
    """Tell whether anybody would send a bill for `record`.

    Not for routes that generate nothing, and not for requests that were refused or failed before an answer: where
    those have no token count, none is missing.
    """
    if record.operation == NO_OPERATION:
        return False
    if record.prompt_tokens is not None or record.completion_tokens is not None:
        return True
    return record.outcome not in (Outcome.REJECTED, Outcome.UPSTREAM_ERROR)
