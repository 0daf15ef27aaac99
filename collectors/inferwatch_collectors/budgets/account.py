"""One account: what it has spent, what its open requests are spending and hold, and what is said of it."""

from typing import Final

from inferwatch.budget_rules import Digest, Rule
from inferwatch_collectors.budgets.expected import Expected
from inferwatch_collectors.budgets.forecast import Forecast
from inferwatch_collectors.budgets.holds import NOTHING, Holds
from inferwatch_collectors.budgets.leases import Lease, Standing
from inferwatch_collectors.budgets.spending import Spending, SpendingState

# A measurement that has not come by then will not: the attribution waits for two minutes at most.
PENDING_S: Final = 600.0

# Estimates kept for measurements that have not come: a busy quarter of an hour.
MAX_PENDING: Final = 100_000


class Account:
    """The state of one account. Amounts are in its rule's smallest steps; times are Unix seconds."""

    __slots__ = (
        "_live_sum",
        "_pending_sum",
        "ahead",
        "decisions",
        "digest",
        "dirty",
        "expected",
        "forecast",
        "forecast_s",
        "holds",
        "index",
        "is_calm",
        "lease",
        "live",
        "past_dirty",
        "pending",
        "reserved",
        "rule",
        "slot",
        "spending",
        "used_s",
        "values",
        "warned",
        "written_newest",
    )

    def __init__(self, rule: Rule, values: tuple[str, ...], digest: Digest, index: int, now_s: float) -> None:
        self.rule = rule
        self.values = values
        self.digest = digest
        self.index = index  # of its memos
        self.slot = -1  # on the board; -1: not there (yet)
        self.spending = Spending(rule, now_s)
        self.expected = Expected()
        self.holds: Holds | None = None  # None: not on the board
        self.live: dict[str, tuple[float, int]] = {}  # open requests: when they arrived, what they have spent so far
        # Ended ones that will be measured: when they arrived, and the estimate until then.
        self.pending: dict[str, tuple[float, int]] = {}
        self._live_sum = self._pending_sum = 0
        self.ahead = 0  # what its streams spend until the next look; of budgets that cut
        self.lease = Lease() if rule.shared else None  # of the present period; None: it is this host's alone
        self.reserved = NOTHING  # held on the board at the last look
        self.decisions = [0, 0, 0]  # of the board's counts, what was counted: admitted, rejected, would_reject
        self.warned = 0  # percent
        self.is_calm = True
        self.dirty = self.past_dirty = True
        self.used_s = now_s
        self.written_newest = 0
        self.forecast: Forecast | None = None
        self.forecast_s = 0.0

    def begin(self, state: SpendingState, past: list[tuple[int, int]], now_s: float) -> None:
        """Have spent what was read from the ledger, in place of what was known."""
        self.spending = Spending(self.rule, now_s)
        self.spending.restore(state, past, self.spending.bucket_s, now_s)
        self.dirty = self.past_dirty = True

    @property
    def spent(self) -> int:
        """All that is known to be spent in the present period or window, by open requests too."""
        return max(0, self.spending.spent + self._live_sum + self._pending_sum)

    @property
    def elsewhere(self) -> int:
        """What other hosts are known to have spent in the present period or window."""
        return self.lease.elsewhere if self.lease is not None else 0

    @property
    def spent_by_all(self) -> int:
        """What all hosts are known to have spent."""
        return self.spent + self.elsewhere

    @property
    def standing(self) -> Standing:
        """How it stands at this host, by the last look at the board."""
        by_expected = self.rule.settings.reserve == "expected"
        return Standing(self.spent, self.reserved, self.rule.limit, by_expected=by_expected)

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost with it but what it expects."""
        return not (self.live or self.pending or self.spending.spent or any(self.spending.buckets.values()))

    def opened(self, request_id: str, arrival_s: float, now_s: float) -> None:
        """A request runs."""
        self.roll(now_s)
        self.used_s = now_s
        if self.spending.is_present(arrival_s, now_s):
            self.live.setdefault(request_id, (arrival_s, 0))
        self.dirty = True

    def progressed(self, request_id: str, amount: int) -> None:
        """An open request has spent `amount` so far."""
        known = self.live.get(request_id)
        if known is None or known[1] >= amount:
            return
        self.live[request_id] = (known[0], amount)
        self._live_sum += amount - known[1]
        if self.holds is not None:
            self.holds.spent(request_id, amount)
        self.dirty = True

    def closed(self, request_id: str) -> int:
        """A request has ended; return what it was known to have spent. Its charge is told apart, in the same step."""
        known = self.live.pop(request_id, None)
        if known is not None:
            self._live_sum -= known[1]
        if self.holds is not None:
            self.holds.closed(request_id)
        self.dirty = True
        return known[1] if known is not None else 0

    def charge(self, arrival_s: float, amount: int, now_s: float) -> None:
        """Settle what a request came to."""
        self.roll(now_s)
        newest = self.spending.newest
        self.spending.charge(arrival_s, amount, now_s)
        if int(min(arrival_s, now_s) // self.spending.bucket_s) != newest:
            self.past_dirty = True
        self.dirty = True

    def estimate(self, request_id: str, arrival_s: float, amount: int, now_s: float) -> None:
        """An ended request is taken to have come to `amount` until it is measured."""
        self.roll(now_s)
        if self.spending.is_present(arrival_s, now_s) and len(self.pending) < MAX_PENDING:
            self.pending[request_id] = (arrival_s, amount)
            self._pending_sum += amount
        self.dirty = True

    def measured(self, request_id: str) -> None:
        """The measurement has come, or will not."""
        known = self.pending.pop(request_id, None)
        if known is not None:
            self._pending_sum -= known[1]
            self.dirty = True

    def roll(self, now_s: float) -> bool:
        """Go on to `now_s`; return whether a new period has begun. What arrived before it is no longer its own."""
        before = self.spending.spent
        begins = self.spending.roll(now_s)
        if begins:
            self.warned = 0
            self.forecast = None
            self.share()
            for request_id in [each for each, (arrival_s, _) in self.live.items() if self._is_past(arrival_s, now_s)]:
                self.closed(request_id)
            for request_id in [each for each, (at_s, _) in self.pending.items() if self._is_past(at_s, now_s)]:
                self.measured(request_id)
        if begins or self.spending.spent != before:
            self.dirty = self.past_dirty = True
        return begins

    def share(self) -> None:
        """Begin anew with what is lent: in a new period, or under a rule that adds up other things."""
        self.lease = Lease() if self.rule.shared else None

    def expire(self, now_s: float) -> int:
        """Drop estimates that no measurement followed; return how many."""
        late = [each for each, (arrival_s, _) in self.pending.items() if now_s - arrival_s > PENDING_S]
        for request_id in late:
            self.measured(request_id)
        return len(late)

    def _is_past(self, arrival_s: float, now_s: float) -> bool:
        return not self.spending.is_present(arrival_s, now_s)
