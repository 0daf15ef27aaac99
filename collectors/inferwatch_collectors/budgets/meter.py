"""Budgets in the collector: books what was spent, publishes it on the board, and says which streams must end.

The clockwork around the pure parts. Everything happens on the event loop's thread, in steps without `await`:

* `opened`, `closed`, `record`, `share` and `late` come from the booking, as things happen. What they change is written
  into memos in the same step, so the ledger's next transaction has the records and the sums that include them, or
  neither.
* `tick`, each TICK_S, looks at running `streams` of accounts that may come near their limit, publishes what changed,
  and cuts. A stream's tokens are here FLUSH_S after they were sent, so they count within 100 ms.
* once a second: new periods, audits of what is held, the relays' counts of decisions, forecasts.

What is held is let go of in the publication that shows it as spent: both are written under one hold of the lock.
Without a usable board everything is counted and nothing enforced.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from inferwatch.board import MEASURED, Board
from inferwatch.budget_rules import Digest, Match, Names, Rulebook, digest_of
from inferwatch.price_book import PriceBook
from inferwatch.record import LateCount, Outcome, RequestRecord, Share
from inferwatch.settings.budgets import Budgets
from inferwatch.tap import Open
from inferwatch_collectors import metrics as m
from inferwatch_collectors.budgets.account import PENDING_S, Account
from inferwatch_collectors.budgets.awaited import Awaited, Awaiting
from inferwatch_collectors.budgets.beginnings import Beginnings
from inferwatch_collectors.budgets.charges import Tariff
from inferwatch_collectors.budgets.enforcement import news
from inferwatch_collectors.budgets.expected import Expected
from inferwatch_collectors.budgets.exported import Exported
from inferwatch_collectors.budgets.history import Past
from inferwatch_collectors.budgets.holds import Pair
from inferwatch_collectors.budgets.lending import Lending
from inferwatch_collectors.budgets.memory import Memory, Remembered
from inferwatch_collectors.budgets.publication import COUNTED, UNCHECKED, Publication
from inferwatch_collectors.budgets.spending import Spending
from inferwatch_collectors.budgets.streams import Streams
from inferwatch_collectors.budgets.uncounted import Uncounted
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.open_requests import Link
from inferwatch_collectors.relay_recorder import LOCK

_log: Final = logging.getLogger(__name__)

# How often to call `tick`. With FLUSH_S it is less than 100 ms from a read to the board.
TICK_S: Final = 0.03

# How often relays should send their batches while a budget is enforced.
FLUSH_S: Final = 0.05

NS_PER_S: Final = 1_000_000_000

# Accounts far from their limits: what they spend is covered by what they hold.
CALM_LOOK_NS: Final = NS_PER_S // 2
CHORES_NS: Final = NS_PER_S

# An account that has nothing to remember goes after a day, and leaves its place to another one.
IDLE_S: Final = 86_400.0

# Values of labels, beside those of `publication`.
CUT: Final = "cut"
UNMEASURED: Final = "unmeasured"
HISTORY: Final = "history"


class BudgetMeter:
    """Give it what happens as it happens, and a tick each TICK_S."""

    def __init__(
        self,
        store: MetricStore,
        tariff: Tariff,
        budgets: Budgets,
        board: Board | None,
        cut: Callable[[Link, tuple[int, ...]], None],
    ) -> None:
        """`board`: None if it cannot be opened. `cut` tells a relay which of its requests must end."""
        self._store = store
        self._tariff = tariff
        self._board = board
        self._publication = Publication(board) if board is not None else None
        self._streams = Streams(tariff, self._end_of, cut)
        self._settings = budgets
        self._book = Rulebook(budgets)
        self._memory = Memory(store)
        self._exported = Exported(store)
        self.beginnings = Beginnings(store)
        self._accounts: dict[Digest, Account] = {}
        self._awaiting = Awaiting()
        self._uncounted = Uncounted()
        self._calm_look_ns = self._chores_ns = 0
        self._now_s = 0.0
        self._now_ns = 0

    # --- start and reload

    def restore(self, now_ns: int, wall_s: float) -> None:
        """Go on where an earlier life stopped, or begin. Once, after the store was restored, before anything else."""
        self._now_s, self._now_ns = wall_s, now_ns
        self._tariff.learnt |= self._memory.read_learnt()
        rules = {rule.name: rule for rule in self._book.rules}
        for remembered in list(self._memory.read()):
            rule = rules.get(remembered.present.rule)
            values = remembered.present.values
            if rule is None or len(values) != len(rule.settings.per) or not self.beginnings.same_measure(rule):
                self._memory.forget(remembered.number)
                continue
            self._take_up(Match(rule, values, digest_of(rule.name, values)), remembered, wall_s)
        self.beginnings.restore(self._book.rules)
        self._begin_counters()
        self._publish(now_ns)

    def use(self, budgets: Budgets, prices: PriceBook, now_ns: int) -> None:
        """Take up a new configuration. Accounts of budgets that are gone go; the others keep what they know."""
        self._tariff.prices = prices
        self._settings, self._book = budgets, Rulebook(budgets)
        rules = {rule.name: rule for rule in self._book.rules}
        for digest, account in list(self._accounts.items()):
            rule = rules.get(account.rule.name)
            before = account.rule
            if rule is None or rule.settings.per != before.settings.per or rule.measured != before.measured:
                self._drop(digest)
                continue
            old, state = account.spending, account.spending.state()
            if not rule.shares_as(account.rule):
                account.rule = rule
                account.share()
            account.rule = rule
            account.spending = Spending(rule, self._now_s)
            account.spending.restore(state, old.past(state.newest), old.bucket_s, self._now_s)
            account.dirty = account.past_dirty = True
        self.beginnings.use(self._book.rules)
        self._begin_counters()
        self._publish(now_ns)

    def share_with(self, lending: Lending | None) -> None:
        """Keep budgets together with other hosts from now on; None: no more."""
        if self._publication is not None:
            self._publication.lending = lending
        for account in self._accounts.values():
            account.dirty = True

    @property
    def accounts(self) -> Mapping[Digest, Account]:
        """All accounts that are known."""
        return self._accounts

    def _begin_counters(self) -> None:
        for rule in self._book.rules:
            for decision in (*(word for _, word in COUNTED), CUT):
                self._store.counter(m.BUDGET_DECISIONS, (rule.name, decision))
        if self._book.rules:
            for reason in (*(word for _, word in UNCHECKED), UNMEASURED, HISTORY, LOCK):
                self._store.counter(m.BUDGET_UNCHECKED, (reason,))

    def _take_up(self, match: Match, remembered: Remembered, wall_s: float) -> None:
        account = Account(match.rule, match.values, match.digest, remembered.number, wall_s)
        present, past = remembered.present, remembered.past
        account.spending.restore(present.spending, past.buckets, past.bucket_s, wall_s)
        account.expected = Expected(present.completion_tokens, present.prompt_per_kb)
        account.decisions = list(present.decisions)
        account.warned = present.warned
        self._accounts[match.digest] = account

    def begin(self, name: str, since: int, past: Past) -> Iterator[None]:
        """Put what was spent before a rule began into its accounts: one a step, and anything may happen between two."""
        rule = self.beginnings.rule(name, since)
        if rule is None or past.mark < since:
            return
        existing = {each.values for each in self._accounts.values() if each.rule.name == name}
        if not rule.settings.per:
            existing.add(())
        for begun in self.beginnings.accounts(rule, past, existing):
            account = self._account(Match(rule, begun.values, digest_of(name, begun.values)))
            if account is not None:
                account.begin(begun.spending, begun.past, self._now_s)
                for charge in begun.charges:
                    account.charge(charge.arrival_s, charge.amount, self._now_s)
                self._memory.write(account)
            yield
            rule = self.beginnings.rule(name, since)
            if rule is None:
                return  # another configuration has come
        self.beginnings.known(rule)

    def _drop(self, digest: Digest) -> None:
        account = self._accounts.pop(digest)
        self._memory.forget(account.index)
        self._streams.drop(account)
        if self._publication is not None:
            self._publication.retire(account)

    # --- what happens

    def opened(self, opened: Open) -> None:
        """A request was admitted, perhaps before our time (`resumed`)."""
        if not self._book.rules:
            return
        matches = self._book.matching(Names(opened.tenant, opened.user, opened.feature, opened.model))
        if not matches or opened.request_id in self._streams:
            return
        accounts = [account for match in matches if (account := self._account(match)) is not None]
        if self.beginnings:
            unsure = sum(self.beginnings.waits(match.rule.name) for match in matches)
            self._store.counter(m.BUDGET_UNCHECKED, (HISTORY,)).add(unsure)
        running = self._streams.opened(opened, accounts)
        self._now_s = max(self._now_s, running.arrival_s)
        held = {slot: (Pair(expected, worst), ticket) for slot, expected, worst, ticket in opened.reserved}
        for account in accounts:
            account.opened(opened.request_id, running.arrival_s, self._now_s)
            if held and account.slot < 0 and self._publication is not None:
                self._publication.attach(account, self._now_ns)
            hold = held.get(account.slot)
            # What arrived in a former period holds nothing of this one.
            if hold is not None and account.holds is not None:
                account.holds.opened(opened.request_id, *hold)
                if opened.request_id not in account.live:
                    account.holds.closed(opened.request_id)

    def closed(self, request_id: str) -> None:
        """A request is over and no record of it comes: it was booked before, or is told elsewhere."""
        running = self._streams.closed(request_id)
        if running is not None:
            for account in running.accounts:
                account.closed(request_id)

    def record(self, record: RequestRecord) -> None:
        """A request is booked: settle what it came to. In one step with the booking."""
        running = self._streams.closed(record.request_id)
        if running is None and not self._book.rules:
            return
        arrival_s = record.wall_ns / NS_PER_S
        self._now_s = max(self._now_s, arrival_s)
        seen: dict[str, int] = {}  # by budget; of all that it was opened for, whatever was reloaded since
        for known in running.accounts if running is not None else ():
            seen[known.rule.name] = known.closed(record.request_id)
        measured: list[Account] = []
        for match in self._book.matching(Names(record.tenant, record.user, record.feature, record.model)):
            account = self._account(match)
            if account is None:
                continue
            amount = self._tariff.of_record(match.rule.measured, record)
            booked = amount is not None
            if amount is None:
                amount = seen.get(match.rule.name, 0)
                self._uncounted.note(record, match.rule.name, amount, arrival_s)
            if match.rule.measured in MEASURED:
                account.estimate(record.request_id, arrival_s, amount, self._now_s)
                measured.append(account)
            elif amount:
                self._charge(account, arrival_s, amount, booked=booked)
            self._learn(account, record)
            self._memory.write(account)
        if measured:
            tokens = (record.prompt_tokens or 0, record.completion_tokens or 0)
            self._awaiting.note(record.request_id, Awaited(measured, arrival_s, *tokens))

    def late(self, late: LateCount) -> None:
        """What the engine had counted for a request that was booked without counts. In one step with the booking."""
        seen = self._uncounted.take(late.request_id)
        for match in self._book.matching(Names(late.tenant, late.user, late.feature, late.model)):
            amount = self._tariff.of_late(match.rule.measured, late)
            account = self._account(match) if amount is not None else None
            if account is None or amount is None:
                continue
            self._charge(account, late.wall_ns / NS_PER_S, amount)
            if before := seen.get(match.rule.name):
                self._charge(account, late.wall_ns / NS_PER_S, -before, booked=False)
            self._memory.write(account)

    def share(self, share: Share) -> None:
        """What a request was charged of the machine. In one step with its other counting."""
        if not share.request_id:
            return
        awaited = self._awaiting.take(share.request_id)
        accounts = awaited.accounts if awaited is not None else self._accounts_of(share)
        learnt: set[str] = set()
        for account in accounts:
            estimate = account.pending.get(share.request_id)
            account.measured(share.request_id)
            amount = self._tariff.of_share(account.rule.measured, share)
            booked = amount is not None
            if amount is None:  # nothing measures it: the estimate is all there is
                amount = estimate[1] if estimate is not None else 0
            elif awaited is not None and account.rule.measured not in learnt:
                learnt.add(account.rule.measured)
                self._tariff.learnt[account.rule.measured].observe(amount, awaited.prompt, awaited.completion)
            self._charge(account, share.wall_ns / NS_PER_S, amount, booked=booked)
            self._memory.write(account)
        if learnt:
            self._memory.write_learnt(self._tariff.learnt)

    def _charge(self, account: Account, arrival_s: float, amount: int, *, booked: bool = True) -> None:
        """Settle an amount. `booked`: the commit that this step is in has it in the roll-ups, too."""
        account.charge(arrival_s, amount, self._now_s)
        if self.beginnings:
            self.beginnings.charged(account.rule, account.values, arrival_s, amount, booked=booked)

    def _learn(self, account: Account, record: RequestRecord) -> None:
        completion, prompt = record.completion_tokens, record.prompt_tokens
        if record.outcome is Outcome.OK and completion is not None and prompt is not None:
            account.expected.observe(completion, record.choices, prompt, record.request_bytes)

    def _accounts_of(self, share: Share) -> list[Account]:
        """Return whom a request of an earlier life of ours belongs to."""
        names = Names(share.tenant, share.user, share.feature, share.model)
        matches = [match for match in self._book.matching(names) if match.rule.measured in MEASURED]
        return [account for match in matches if (account := self._account(match)) is not None]

    # --- the clock

    def tick(self, now_ns: int, wall_s: float, links: Iterable[Link]) -> None:
        """Do what is due; `links` are the connected relays."""
        if not self._book.rules:
            return
        self._streams.timed(now_ns - self._now_ns - round(TICK_S * NS_PER_S))
        self._now_s, self._now_ns = wall_s, now_ns
        calm_too = now_ns - self._calm_look_ns >= CALM_LOOK_NS
        if calm_too:
            self._calm_look_ns = now_ns
        if calm_too or any(not account.is_calm for account in self._accounts.values()):
            self._streams.look(self._accounts.values(), links, calm_too=calm_too)
        if now_ns - self._chores_ns >= CHORES_NS:
            self._chores_ns = now_ns
            self._chores(now_ns)
        self._publish(now_ns)
        for account in self._streams.cut_spent(self._accounts.values()):
            self._store.counter(m.BUDGET_DECISIONS, (account.rule.name, CUT)).add()

    def refresh(self) -> None:
        """Bring the gauges up to date: right before each exposition."""
        self._exported.show(self._accounts.values(), self._now_s)

    def close(self) -> None:
        """Let go of the board."""
        if self._board is not None:
            self._board.close()
            self._board = self._publication = None

    def _end_of(self, account: Account) -> int:
        """Return how much this host may spend of an account before its streams end."""
        if account.lease is None or self._publication is None or self._publication.lending is None:
            return account.rule.limit
        return self._publication.lending.end_of_streams(account, self._now_ns)

    def _chores(self, now_ns: int) -> None:
        store = self._store
        for digest, account in list(self._accounts.items()):
            account.roll(self._now_s)
            if expired := account.expire(self._now_s):
                store.counter(m.BUDGET_UNCHECKED, (UNMEASURED,)).add(expired)
            percents = account.rule.settings.warn_percent
            if warning := news(account.warned, account.spent_by_all, account.rule.limit, percents):
                account.warned = warning
                _log.warning("budget_threshold budget=%s percent=%d", account.rule.name, warning)
                self._memory.write(account)
            scarce = account.lease is not None and account.lease.is_tight(account.rule.limit, now_ns)
            if account.is_idle and not scarce and self._now_s - account.used_s > IDLE_S:
                self._retire(digest)
        self._awaiting.forget_before(self._now_s - PENDING_S)
        self._uncounted.forget_before(self._now_s - PENDING_S)
        self._exported.forecast_one(self._accounts.values(), self._now_s)
        if self._publication is not None:
            for account, decision, growth in self._publication.chores(self._accounts.values(), now_ns):
                store.counter(m.BUDGET_DECISIONS, (account.rule.name, decision)).add(growth)
                self._memory.write(account)
            for reason, growth in self._publication.unchecked():
                store.counter(m.BUDGET_UNCHECKED, (reason,)).add(growth)

    def _publish(self, now_ns: int) -> None:
        if self._publication is not None:
            rates = [(measured, learnt.rate) for measured, learnt in self._tariff.learnt.items()]
            self._publication.publish(list(self._accounts.values()), rates, now_ns)

    # --- accounts

    def _account(self, match: Match) -> Account | None:
        account = self._accounts.get(match.digest)
        if account is None:
            if len(self._accounts) >= self._settings.max_accounts:
                return None
            account = Account(match.rule, match.values, match.digest, self._memory.number(), self._now_s)
            self._accounts[match.digest] = account
        return account

    def _retire(self, digest: Digest) -> None:
        account = self._accounts[digest]
        if self._publication is None or self._publication.retire(account):
            del self._accounts[digest]
            self._memory.forget(account.index)
