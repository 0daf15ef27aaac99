"""What follows from how much is spent: warnings, which accounts need watching, which streams must end. Pure."""

import math
from collections.abc import Iterable, Sequence
from typing import Final

from inferwatch.settings.budgets import BudgetRule
from inferwatch_collectors.exchange import Progress

# From a token that is not known yet to the end of its stream by the next look: FLUSH_S in the relay, TICK_S here (see
# `meter`), and a hundredth to be told. Where they are late, as much more as they were late by just now.
AHEAD_NS: Final = 90_000_000

# A process that stood still for longer says nothing about the next moment; a second of tokens would be left unspent.
MAX_LATE_NS: Final = 500_000_000

# An account of which at most this part can be gone when all that runs has ended at its worst is looked at now and then:
# nothing can happen to it meanwhile.
CALM_SHARE: Final = 0.5


def percent_reached(spent: int, limit: int, warn_percent: Iterable[int]) -> int:
    """Return the highest of `warn_percent` that is reached, 0 for none."""
    return max((percent for percent in warn_percent if spent * 100 >= limit * percent), default=0)


def news(before: int, spent: int, limit: int, warn_percent: Sequence[int]) -> int:
    """Return the threshold that was reached since `before` was, 0 for none."""
    now = percent_reached(spent, limit, warn_percent)
    return now if now > before else 0


def is_calm(spent: int, held: int, limit: int) -> bool:
    """Tell whether an account may be looked at less often."""
    return spent + held <= limit * CALM_SHARE


def tokens_ahead(progress: Progress, late_ns: int = 0) -> int:
    """Return how many tokens a stream will have sent, at its own pace, before what it is doing now can end it.

    At least one: streams in step send one each within any moment, however slow they are. 0: it has not begun.
    `late_ns`: by how much looks, or what they are told, come late.
    """
    tokens, first_ns = progress.completion_tokens or 0, progress.first_ns
    if first_ns is None:  # or began before our time
        return min(tokens, 1)
    # In a shorter time than that no pace can be seen: first tokens often come in one breath.
    ahead_ns = AHEAD_NS + min(late_ns, MAX_LATE_NS)
    lasted_ns = max(ahead_ns, progress.last_ns - first_ns)
    return max(1, math.ceil((tokens - 1) * ahead_ns / lasted_ns))


def must_cut(settings: BudgetRule, spent: int, ahead: int, limit: int) -> bool:
    """Tell whether running streams of an account must end, which will have spent `ahead` more at the next look."""
    return settings.on_limit == "cut" and (spent >= limit or spent + ahead > limit)
