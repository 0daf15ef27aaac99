"""How long Redis has not answered, and what follows from that. Pure."""

from typing import Final

from inferwatch.settings.sharing import Redis

NS_PER_S: Final = 1_000_000_000

# Redis is away when so many reports in a row had no answer.
MISSED_REPORTS: Final = 2


class Absence:
    """Of Redis, as one host sees it. Times are CLOCK_MONOTONIC nanoseconds."""

    def __init__(self, settings: Redis, now_ns: int) -> None:
        self._settings = settings
        self._started_ns = now_ns
        self._heard_ns: int | None = None
        self._missed = False  # a try failed

    def missed(self) -> None:
        """A request was not answered. Before the first answer that is enough: there is nothing to go by meanwhile."""
        self._missed = True

    def heard(self, sent_ns: int) -> None:
        """A request that was sent then was answered: what is lent counts from then, or later."""
        self._heard_ns = sent_ns

    @property
    def was_heard(self) -> bool:
        """Whether there ever was an answer."""
        return self._heard_ns is not None

    def lasts_s(self, now_ns: int) -> float:
        """Return for how long there has been no answer."""
        since_ns = self._started_ns if self._heard_ns is None else self._heard_ns
        return max(0, now_ns - since_ns) / NS_PER_S

    def is_on(self, now_ns: int) -> bool:
        """Tell whether Redis is away."""
        settings = self._settings
        if self._heard_ns is None and self._missed:
            return True
        return self.lasts_s(now_ns) > MISSED_REPORTS * settings.report_interval_s + settings.timeout_s

    def allows_all(self, now_ns: int) -> bool:
        """Tell whether each host may go on as if it were alone."""
        return self._settings.when_away == "allow" and self.is_on(now_ns)

    def ends_leases(self, now_ns: int) -> bool:
        """Tell whether what is lent is no longer to be used: Redis may have given it to others."""
        if self._settings.when_away != "reject":
            return False
        return self._heard_ns is None or self.lasts_s(now_ns) >= self._settings.lease_s
