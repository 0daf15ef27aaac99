"""What follows from how much is spent: warnings, which accounts need watching, which streams must end. Pure."""

from collections.abc import Iterable, Sequence
from typing import Final

from inferwatch.settings.budgets import BudgetRule

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


def must_cut(settings: BudgetRule, spent: int, limit: int) -> bool:
    """Tell whether running streams of an account must end."""
    return settings.on_limit == "cut" and spent >= limit
