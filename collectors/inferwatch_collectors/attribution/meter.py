"""The bill and the joules of the machine, divided among requests: the clockwork around the pure parts.

Once a second, `tick`:
1. looks at every open request and takes what was told of the ended ones: work goes into the seconds it was done in;
2. bills the time since the last tick, and takes in the energy that the GPUs' counters grew by;
3. divides the seconds in which all work is known, and counts the charges and what was idle;
4. hands out a `Share` for every request of which nothing is left to divide, and one a minute for what was idle;
5. writes it all down (see `memory`).
It does this in one step without `await`, so that one commit has all of it or nothing.

A second waits for: the tap (LAG_NS), energy readings, plain replies and prompts that are still being read, a stream
that stands still (STALL_NS), relays coming back after a restart. It waits no longer than HORIZON_NS; then requests
whose work is not known are charged by their time.

Bounds: MAX_ACCOUNTS requests, MAX_ENTRIES of work, MAX_ENDED between two ticks, GPUs in `joules`; each is counted.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Final

from msgspec.structs import replace

from inferwatch.record import RequestRecord, Share
from inferwatch.settings.cost import Attribution, Cost
from inferwatch.settings.energy import Energy
from inferwatch_collectors import metrics as m
from inferwatch_collectors.attribution.accounts import Account, Ended
from inferwatch_collectors.attribution.arithmetic import Carry
from inferwatch_collectors.attribution.counting import Counting
from inferwatch_collectors.attribution.joules import Joules
from inferwatch_collectors.attribution.memory import VERSION, Memory, Remembered, State
from inferwatch_collectors.attribution.rates import Bill
from inferwatch_collectors.attribution.timeline import Timeline
from inferwatch_collectors.attribution.times import (
    HORIZON_NS,
    INTERVAL_NS,
    LAG_NS,
    MAX_GAP_NS,
    NS_PER_S,
    RETURN_NS,
    STALL_NS,
)
from inferwatch_collectors.attribution.weights import Learner, Weights
from inferwatch_collectors.cardinality import OTHER, CardinalityGuard
from inferwatch_collectors.gpu.base import EnergyReading
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.open_requests import Link

# An account is some 600 bytes, and one look at all of them takes 30 ms of the loop's second.
MAX_ACCOUNTS: Final = 20_000

# Of some 100 bytes: 50 MB, or 2,000 streams through two minutes.
MAX_ENTRIES: Final = 500_000

# Ten thousand requests a second are more than a relay can forward.
MAX_ENDED: Final = 20_000

# A sampler reads each GPU once a second.
MAX_READINGS: Final = 4096

# A tick does its work once a second, however often it is called.
TICK_NS: Final = 9 * NS_PER_S // 10

# Accounts looked at while dividing in one tick, about 20 ms: what waited for a long reply is divided bit by bit.
MAX_STEPS: Final = 20_000
MIN_INTERVALS: Final = 3

# Two clocks that moved further apart than this did not run on one host in one boot, or somebody set one of them.
SAME_BOOT_NS: Final = 5 * NS_PER_S


class Meter:
    """Divides what the machine costs. Give it readings and records as they come, and a tick a second."""

    def __init__(
        self,
        store: MetricStore,
        guard: CardinalityGuard,
        sink: Callable[[Share], None],
        *,
        cost: Cost,
        attribution: Attribution,
        energy: Energy,
    ) -> None:
        """`sink` takes each share, in the same step in which it is counted."""
        self._store = store
        self._guard = guard
        self._attribution = attribution
        self._from_power = energy.from_power
        bill = Bill.of(cost, energy)
        self._priced = bill is not None
        self._bill = bill or Bill.nothing()
        self._memory = Memory(store)
        self._counting = Counting(store, sink, energy, priced=self._priced)
        self._accounts: dict[int, Account] = {}
        self._numbers: dict[str, int] = {}
        self._ended: list[Ended] = []
        self._readings: deque[EnergyReading] = deque(maxlen=MAX_READINGS)
        self._now_ns = self._wall_ns = 0  # until then the machine is billed; CLOCK_MONOTONIC, and as Unix time
        self._restored_ns = 0
        self._returning_ns: int | None = None  # from then on, relays tell again what they know
        self._next_number = 0
        self._rejected = 0
        self._time, self._power = Carry(), Carry()
        self._joules = Joules(from_power=energy.from_power)
        self._learner = Learner(Weights.of(attribution))
        self._timeline = Timeline(attribution, 0)

    @property
    def undivided(self) -> tuple[int, int]:
        """Nano-dollars and microjoules that are neither charged nor idle yet."""
        intervals = self._timeline.intervals.values()
        return sum(each.nanodollars for each in intervals), sum(each.energy_uj for each in intervals)

    # --- what happens

    def restore(self, now_ns: int, wall_ns: int) -> None:
        """Go on where an earlier life stopped, or begin. Once, after the store was restored, before anything else."""
        remembered = self._memory.read()
        if remembered is not None:
            self._resume(remembered)
        if remembered is None or not self._active:  # nothing to divide any more: prices were taken out
            self._forget()
            self._now_ns, self._wall_ns = now_ns, wall_ns
            self._timeline = Timeline(self._attribution, now_ns // INTERVAL_NS)
            return
        passed_ns = wall_ns - self._wall_ns
        if now_ns >= self._now_ns and abs(now_ns - self._now_ns - passed_ns) <= SAME_BOOT_NS:
            self._restored_ns = now_ns
            self._returning_ns = self._now_ns - LAG_NS
            return
        self._end_former_boot()
        if passed_ns > MAX_GAP_NS:
            self._counting.unobserved(passed_ns)
            passed_ns = 0
        passed_ns = max(0, passed_ns)
        self._now_ns, self._wall_ns = now_ns - passed_ns, wall_ns - passed_ns
        self._timeline = Timeline(self._attribution, self._now_ns // INTERVAL_NS)
        self._write()

    def closed(self, record: RequestRecord) -> None:
        """Take a finished request, in the step in which it is counted and put into the journal."""
        if not self._active:
            return
        number = self._numbers.get(record.request_id)
        if number is None and record.operation == OTHER:
            return
        if len(self._ended) >= MAX_ENDED:
            self._counting.cut("accounts")
            return
        if number is None:
            now_s = self._now_ns / NS_PER_S
            labels = self._guard.labels(record.model, record.tenant, record.operation, now_s=now_s)
            ended = Ended.of(record, labels, record.wall_ns - (self._wall_ns - self._now_ns))
        else:
            account = self._accounts[number]
            ended = Ended.of(record, account.labels, account.arrival_ns)
        self._ended.append(ended)
        self._memory.ended(ended)

    def energy(self, readings: Sequence[EnergyReading]) -> None:
        """Take one sample of all GPUs."""
        self._readings.extend(readings)

    def tick(self, now_ns: int, wall_ns: int, links: Iterable[Link], *, force: bool = False) -> None:
        """Do a second's work; `links` are the connected relays. `force`: whatever time has passed, before an exit."""
        if now_ns - self._now_ns < TICK_NS and not force:
            return
        readings = list(self._readings)
        self._readings.clear()
        used = self._joules.take(readings)
        if not self._active:
            self._now_ns, self._wall_ns = now_ns, wall_ns
            self._timeline.divided_until = now_ns // INTERVAL_NS
            return
        self._counting.begin()
        weights = self._learner.weights(learned=self._attribution.weights == "learned")
        self._take_ended(now_ns, weights)
        self._look(now_ns, links, weights)
        self._accrue(now_ns, wall_ns)
        for each in used:
            nanodollars = self._power.take(each.energy_uj, self._bill.nanodollars_per_uj)
            self._timeline.add_cost(each.start_ns, each.end_ns, nanodollars, each.energy_uj)
        self._divide()
        self._hand_out()
        self._counting.cut("energy_reading", self._joules.rejected - self._rejected)
        self._rejected = self._joules.rejected
        self._store.gauge(m.LEARNED_PREFILL_WEIGHT).set(self._learner.ratio())
        self._write()

    # --- the steps of a tick

    @property
    def _active(self) -> bool:
        return self._priced or self._joules.measures

    @property
    def _measured(self) -> bool:
        """Whether the energy of the seconds that are divided now is known."""
        told_ns = self._joules.told_until_ns
        return told_ns is not None and told_ns > self._now_ns - HORIZON_NS - MAX_GAP_NS

    def _take_ended(self, now_ns: int, weights: Weights) -> None:
        ended, self._ended = self._ended, []
        for each in ended:
            if each.end_ns > now_ns:  # a clock was set
                each = replace(each, end_ns=now_ns, sent_ns=min(each.sent_ns, now_ns))  # noqa: PLW2901
            known = self._numbers.get(each.request_id)
            account = self._accounts[known] if known is not None else self._enter(Account.of_ended, each)
            if account is None:
                continue
            if account.end_ns is not None:
                continue  # given up before, and charged
            if known is None and each.worked and each.end_ns <= self._timeline.divided_ns:
                self._counting.cut("late")
            for work in account.ended(each, weights):
                self._timeline.add_work(account, work)
            if account.waits_from_ns is not None:
                self._counting.cut("unknown")
        self._memory.forget_ended()

    def _look(self, now_ns: int, links: Iterable[Link], weights: Weights) -> None:
        """See who is open, and how far the streams are."""
        for link in links:
            for entry in link.entries.values():
                if entry.labels is None:
                    continue
                exchange = entry.exchange
                number = self._numbers.get(entry.opened.request_id)
                account = None if number is None else self._accounts[number]
                if account is None:
                    if exchange is None or exchange.operation == OTHER:
                        continue
                    account = self._enter(Account.of_open, entry.opened, entry.labels, now_ns)
                    if account is None:
                        continue
                account.seen_ns = now_ns
                if exchange is not None and entry.opened.stream and account.end_ns is None:
                    for work in account.progressed(exchange.progress, weights):
                        self._timeline.add_work(account, work)

    def _enter(self, make: Callable[..., Account], *facts: object) -> Account | None:
        if len(self._accounts) >= MAX_ACCOUNTS:
            self._counting.cut("accounts")
            return None
        account = make(self._next_number, *facts)
        self._accounts[account.number] = account
        self._numbers[account.request_id] = account.number
        self._next_number += 1
        return account

    def _accrue(self, now_ns: int, wall_ns: int) -> None:
        """Bill the time since the last tick."""
        passed_ns = max(0, now_ns - self._now_ns)
        if passed_ns > MAX_GAP_NS:
            self._counting.unobserved(passed_ns)
        elif self._priced:
            nanodollars = self._time.take(passed_ns, self._bill.nanodollars_per_ns)
            self._timeline.add_cost(self._now_ns, now_ns, nanodollars, 0)
        self._now_ns, self._wall_ns = now_ns, wall_ns

    def _known_until_ns(self) -> int:
        """Return until when all work and all energy are known."""
        now_ns, divided_ns = self._now_ns, self._timeline.divided_ns
        until_ns = now_ns - LAG_NS
        for account in self._accounts.values():
            if account.end_ns is not None:
                continue
            if account.waits_from_ns is not None and (account.waits_to_ns is None or account.waits_to_ns > divided_ns):
                until_ns = min(until_ns, account.waits_from_ns)
            if account.live:
                until_ns = min(until_ns, max(account.told_ns, now_ns - STALL_NS))
        told_ns = self._joules.told_until_ns
        if told_ns is not None and told_ns > now_ns - MAX_GAP_NS:
            until_ns = min(until_ns, told_ns)
        if self._returning_ns is not None:
            if now_ns < self._restored_ns + RETURN_NS:
                return min(until_ns, self._returning_ns)
            self._returning_ns = None
        return until_ns

    def _divide(self) -> None:
        known_ns = self._known_until_ns()
        upto_ns = max(known_ns, self._now_ns - HORIZON_NS)
        steps = 0
        for count in range(1, MAX_STEPS):
            if not self._divide_one(upto_ns, known_ns, "horizon"):
                break
            steps += len(self._accounts)
            if count >= MIN_INTERVALS and steps >= MAX_STEPS:
                break
        while self._timeline.entries > MAX_ENTRIES:
            if not self._divide_one(self._now_ns, known_ns, "memory"):
                break

    def _divide_one(self, upto_ns: int, known_ns: int, cut: str) -> bool:
        divided = self._timeline.divide_oldest(self._accounts, upto_ns)
        if divided is None:
            return False
        interval = divided.interval
        if interval.end_ns > known_ns:
            self._counting.cut(cut)
        if divided.charges:
            self._learner.observe(interval.prompt_tokens, interval.decode_tokens, divided.busy_ns / NS_PER_S)
        wall_ns = self._wall_ns - (self._now_ns - interval.start_ns)
        self._counting.divided(divided, wall_ns, measured=self._measured)
        self._memory.divided(interval.index)
        return True

    def _hand_out(self) -> None:
        """Let go of the requests of which nothing is left to divide, and of those that nobody will end."""
        timeline, measured = self._timeline, self._measured
        for account in list(self._accounts.values()):
            if account.end_ns is None:
                if max(account.seen_ns, self._restored_ns) >= self._now_ns - HORIZON_NS:
                    continue
                account.abandoned()
                self._counting.cut("abandoned")
            assert account.end_ns is not None
            if account.end_ns > timeline.divided_ns:
                continue
            if account.last_index is None or account.last_index < timeline.divided_until:
                del self._accounts[account.number], self._numbers[account.request_id]
                self._counting.share(account, measured=measured)

    # --- over the end of a life

    def _resume(self, remembered: Remembered) -> None:
        state = remembered.state
        self._now_ns, self._wall_ns = state.now_ns, state.wall_ns
        self._time, self._power, self._counting.carbon = (Carry(Fraction(rest)) for rest in state.rests)
        self._counting.idle = state.idle
        self._joules = Joules(from_power=self._from_power, baselines=state.baselines)
        self._learner = Learner(Weights.of(self._attribution), state.sums)
        self._next_number = state.next_number
        self._timeline = Timeline(self._attribution, state.divided_until)
        for interval in remembered.intervals:
            self._timeline.put(interval)
        for account in remembered.accounts:
            self._accounts[account.number] = account
            self._numbers[account.request_id] = account.number
        self._ended = remembered.ended

    def _end_former_boot(self) -> None:
        """The clock of what is remembered does not run any more: divide all of it by what is known."""
        self._counting.begin()
        self._take_ended(self._now_ns, self._learner.configured)
        for account in self._accounts.values():
            if account.end_ns is None:
                account.abandoned()
                self._counting.cut("abandoned")
        last_ns = (max(self._timeline.intervals, default=0) + 1) * INTERVAL_NS
        while self._divide_one(last_ns, last_ns, "horizon"):
            pass
        for account in self._accounts.values():
            self._counting.share(account, measured=self._measured)
        self._forget()
        self._joules = Joules(from_power=self._from_power)

    def _forget(self) -> None:
        self._accounts.clear()
        self._numbers.clear()
        self._ended.clear()
        self._memory.clear()

    def _write(self) -> None:
        state = State(
            VERSION,
            self._now_ns,
            self._wall_ns,
            self._timeline.divided_until,
            self._next_number,
            (str(self._time.rest), str(self._power.rest), str(self._counting.carbon.rest)),
            self._joules.baselines,
            self._learner.sums,
            self._counting.idle,
        )
        self._memory.write(state, self._accounts.values(), self._timeline.take_changed())
