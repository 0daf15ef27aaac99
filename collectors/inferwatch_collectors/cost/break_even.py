"""From how many tokens an hour on own hardware is cheaper than a price list. Pure, integers only."""


def tokens_per_hour(
    *, hardware_nanodollars_per_hour: int, tokens: int, comparison_nanodollars: int, own_nanodollars: int = 0
) -> int | None:
    """Return the least number of tokens an hour at which the hardware costs no more than the comparison.

    The mix of cached, prompt and completion tokens is the one observed: `tokens` (prompt and completion) would have
    cost `comparison_nanodollars` there. `own_nanodollars` is what those tokens cost here beside the hardware's hours,
    where something does grow with them (energy, where it is paid by the joule); 0 where all is paid by the hour.

    With a hardware price H an hour, and tokens that cost c there and o here: n >= H / (c - o), rounded up.

    None: there was no traffic to take the mix from, or each token costs no less here, so that no number is enough.

    Raises:
        ValueError: an amount is negative.
    """
    if min(hardware_nanodollars_per_hour, tokens, comparison_nanodollars, own_nanodollars) < 0:
        raise ValueError("amounts cannot be negative")
    saved = comparison_nanodollars - own_nanodollars
    if tokens == 0 or saved <= 0:
        return None
    return -(-hardware_nanodollars_per_hour * tokens // saved)
