"""Shared budgets: several hosts, each with relays' gate, board, meter and lending, and what Redis does between them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from bank_twin import Twin
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition
from hypothesis.stateful import rule as step

from inferwatch.board import H_INITIAL, Board
from inferwatch.record import RequestRecord
from inferwatch.relay.admission import Admission, BudgetRefusal
from inferwatch.relay.reckoning import Wish
from inferwatch.settings.sharing import Redis
from inferwatch.tap import Open
from inferwatch_collectors import metrics as m
from inferwatch_collectors.budgets.bank import Answer
from inferwatch_collectors.budgets.lending import Lending, Sent

from .conftest import budgets, finished, opened, rule
from .test_budget_meter import ACME, Host

REDIS = Redis(url="redis://nowhere", initial_percent=Decimal(5), lease_s=8.0, report_interval_s=1.0)

# What a request of `opened` and `finished` costs at 100 prompt tokens, in nano-dollars.
PROMPT = 100_000
TOKEN = 10_000
# The most of one with a body of 100 bytes: docs/topics/budgets.md.
PROMPT_WORST = 612_000


class Sidecar(Host):
    """One host, and its talk with the twin of Redis."""

    def __init__(self, folder: Path, name: str, twin: Twin, redis: Redis = REDIS, **changes: Any) -> None:
        self.name = name
        self.twin = twin
        self.redis = redis
        self._folder = folder / name
        self._folder.mkdir(exist_ok=True)
        self._boards: list[Board] = []
        self._number = 0
        self.running: dict[int, tuple[Open, int]] = {}  # with the most tokens that it can have
        self.unacknowledged: list[RequestRecord] = []
        self.total = 0  # what its requests have cost
        fields = {"limit": "0.05", "reserve": "worst"} | changes
        super().__init__(self._open, budgets(rule(**fields), redis=redis))
        self._gate = self.gate()

    def _open(self) -> Board:
        self._boards.append(Board(self._folder / "board", 64, lock_wait_s=5))
        return self._boards[-1]

    def begin(self) -> None:
        super().begin()
        board = self._open()
        self.lending = Lending(self.redis, self.name, board, lambda: self.meter.accounts, self.now_ns)
        self.meter.share_with(self.lending)
        self.run = ""
        self.tick()

    def restart(self) -> None:
        """The collector is killed; relays and what is committed stay."""
        self.begin()
        for frame, _ in self.running.values():
            self.meter.opened(frame)
        for record in self.unacknowledged:
            self.meter.record(record)
        self.tick()

    def close(self) -> None:
        for board in self._boards:
            board.close()

    # --- Redis

    def next(self) -> Sent | None:
        """What it says now."""
        if self.run != self.twin.run:
            self.run = self.twin.run
            self.lending.connected(self.run)
        self.lending.watch(self.now_ns)
        return self.lending.request(self.now_ns, self.wall_s)

    def deliver(self, sent: Sent) -> Answer:
        """Redis hears it."""
        return self.twin.exchange(sent.request, sent.keys, self.run)

    def talk(self) -> None:
        """Say all that there is to say, and hear the answers."""
        for _ in range(8):
            sent = self.next()
            if sent is None:
                break
            self.lending.answered(self.deliver(sent), sent, self.now_ns)
        self.lending.watch(self.now_ns)
        self.tick(0.001)

    # --- requests

    def ask(self, tokens: int = 100, body_bytes: int = 100) -> bool:
        """A request comes; return whether it may begin."""
        admitted = self._gate.admit(ACME, Wish(body_bytes, max_tokens=tokens, stream=True))
        self._number += 1
        frame = opened(self._number, boot=self.name, at_s=self.wall_s, body_bytes=body_bytes)
        if isinstance(admitted, BudgetRefusal):
            self.meter.record(finished(frame, None, None))
            return False
        assert isinstance(admitted, Admission)
        frame = opened(
            self._number, boot=self.name, at_s=self.wall_s, reserved=admitted.reserved, body_bytes=body_bytes
        )
        self.meter.opened(frame)
        self.running[self._number] = (frame, tokens)
        return True

    def end(self, number: int | None = None, tokens: int | None = None) -> None:
        """One ends, at its worst unless told otherwise."""
        number = next(iter(self.running)) if number is None else number
        frame, most = self.running.pop(number)
        record = finished(frame, completion=most if tokens is None else tokens, prompt=100)
        self.total += record.price_nanodollars or 0
        self.unacknowledged.append(record)
        self.meter.record(record)

    @property
    def worst(self) -> int:
        """What its open requests can still cost."""
        return sum(PROMPT_WORST + most * TOKEN for _, most in self.running.values())

    @property
    def known_total(self) -> int:
        """What it knows of all hosts' spending."""
        return sum(account.spent_by_all for account in self.meter.accounts.values())


def reported(twin: Twin) -> int:
    """What Redis knows to be spent."""
    return sum(entry[1] for entries in twin.state["accounts"].values() for entry in entries.values())


def pass_time(hosts: list[Sidecar], seconds: float) -> None:
    """For all of them, and for Redis."""
    hosts[0].twin.now_ms += round(seconds * 1000)
    for host in hosts:
        host.tick(seconds)


def settle(hosts: list[Sidecar], rounds: int = 14) -> None:
    """Let them talk until nothing is frozen and everything is told."""
    for _ in range(rounds):
        for host in hosts:
            host.talk()
        pass_time(hosts, 1.0)
    for host in hosts:
        host.talk()


@contextmanager
def sidecars(count: int = 3, **changes: Any) -> Iterator[list[Sidecar]]:
    """So many hosts that share a budget of 50,000,000, settled."""
    with tempfile.TemporaryDirectory() as folder:
        twin = Twin()
        hosts = [Sidecar(Path(folder), f"h{number}", twin, **changes) for number in range(count)]
        try:
            settle(hosts)
            yield hosts
        finally:
            for host in hosts:
                host.close()


LIMIT = 50_000_000


def test_hosts_keep_one_budget_and_it_can_be_spent_to_the_end() -> None:
    """With all traffic at one host as with traffic at all: nearly all, and never more."""
    for busy in (1, 3):
        with sidecars() as hosts:
            refused = 0
            while refused < 40:
                for host in hosts[:busy]:
                    if host.ask(tokens=20):
                        host.end()
                    else:
                        refused += 1
                    host.tick()
                    host.talk()
                pass_time(hosts, 0.3)
                for host in hosts[busy:]:
                    host.talk()
            total = sum(host.total for host in hosts)
            # What is left is less than each of those that ask needs for one more, and they need not have it together.
            assert LIMIT - (busy + 1) * (PROMPT_WORST + 20 * TOKEN) < total <= LIMIT


def test_a_new_host_may_begin_at_once_and_takes_from_nobody() -> None:
    """It has its initial share before it has asked for anything, but not of accounts where nothing is left."""
    with sidecars(2) as (one, two):
        assert two.board.words[H_INITIAL] == 50_000
        assert two.ask(tokens=50)  # 5 % are 2,500,000: it costs 1,112,000 at most
        assert not two.ask(tokens=150)
        two.tick()
        two.talk()
        assert two.ask(tokens=150)  # it was noticed what is asked for
        assert one.ask(tokens=50)


def test_a_host_that_joins_late_has_no_share_of_what_is_lent_already() -> None:
    """The budget is spent: the new one's initial share would be too much."""
    with sidecars(1) as [one]:
        while one.ask(tokens=100):
            one.end()
            one.tick()
            one.talk()
        with tempfile.TemporaryDirectory() as folder:
            late = Sidecar(Path(folder), "late", one.twin)
            late.talk()
            assert not late.ask(tokens=1)
            late.close()


@pytest.mark.parametrize("when_away", ["lease", "reject", "allow"])
def test_what_is_done_while_redis_is_away(when_away: str) -> None:
    """`lease`: what was lent; `reject`: that too until it has expired; `allow`: all that was left."""
    redis = Redis(
        url="redis://nowhere",
        initial_percent=Decimal(5),
        lease_s=8.0,
        when_away=when_away,  # type: ignore[arg-type]
    )
    with sidecars(2, redis=redis) as (one, two):
        assert one.ask(tokens=50)
        one.end()
        settle([one, two], 3)

        def spend_all() -> int:
            before = one.total
            while one.ask(tokens=10):
                one.end()
                one.tick(0.001)
            return one.total - before

        pass_time([one, two], 4)
        one.lending.watch(one.now_ns)
        one.tick()
        soon = spend_all()
        pass_time([one, two], 6)
        one.lending.watch(one.now_ns)
        one.tick()
        late = spend_all()
        assert soon > 0
        assert late == 0
        assert (soon > LIMIT / 2) == (when_away == "allow")


def test_with_reject_nothing_begins_before_redis_was_heard_and_with_lease_the_initial_share_does() -> None:
    """A host that starts while Redis is away."""
    for when_away, begins in (("lease", True), ("reject", False), ("allow", True)):
        redis = Redis(url="redis://nowhere", initial_percent=Decimal(5), when_away=when_away)  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory() as folder:
            host = Sidecar(Path(folder), "alone", Twin(), redis)
            assert not host.ask(tokens=10)
            host.tick(5)
            host.lending.watch(host.now_ns)
            assert host.ask(tokens=10) == begins
            host.close()


def test_spending_of_a_host_that_is_gone_survives_a_redis_that_forgets() -> None:
    """The others say what they had heard of it."""
    with sidecars(3) as hosts:
        for host in hosts:
            assert host.ask(tokens=50)
            host.end()
            host.tick()
        settle(hosts)
        spent = sum(host.total for host in hosts)
        hosts[0].twin.forget()
        hosts[0].twin.restart()
        settle(hosts[1:])
        assert reported(hosts[0].twin) == spent
        assert all(host.known_total == spent for host in hosts[1:])


def test_what_a_dead_host_was_lent_goes_back_and_what_it_spent_does_not() -> None:
    """After `lease_s` without a word."""
    with sidecars(2) as (dead, one):
        assert dead.ask(tokens=50)
        dead.end()
        settle([dead, one], 2)
        while one.ask(tokens=100):
            one.end()
            one.tick()
            one.talk()
        before = one.total
        settle([one], 12)
        while one.ask(tokens=20):
            one.end()
            one.tick()
            one.talk()
        assert one.total > before
        assert LIMIT - PROMPT_WORST - 20 * TOKEN < one.total + dead.total <= LIMIT


def test_thresholds_and_gauges_are_of_all_hosts_together() -> None:
    """What is shown as spent is spent by all; what others spent is shown beside it."""
    with sidecars(2) as (one, two):
        assert one.ask(tokens=50)
        one.end()
        one.tick()
        settle([one, two], 2)
        two.ask(tokens=1)
        two.tick()
        two.talk()
        two.tick()
        two.meter.refresh()
        labels = ("acme", "", "", "")
        assert two.gauge(m.BUDGET_SPENT_DOLLARS, *labels) == one.total / 1e9
        assert two.gauge(m.BUDGET_ELSEWHERE, *labels, "dollars") == one.total / 1e9
        assert (two.gauge(m.BUDGET_LEASE, *labels, "dollars") or 0) > 0


def test_nobody_is_refused_while_half_of_an_expected_budget_is_idle() -> None:
    """Requests at three hosts whose worst cases are far above what they cost."""
    with sidecars(3, reserve="expected", limit="5") as hosts:
        for _ in range(60):  # what they come to becomes known
            for host in hosts:
                if host.ask(tokens=16_000):
                    host.end(tokens=10)
                host.tick()
                host.talk()
        refused = 0
        for _ in range(200):
            for host in hosts:
                for _ in range(3):
                    refused += not host.ask(tokens=16_000)
                host.tick()
                host.talk()
            for host in hosts:
                while host.running:
                    host.end(tokens=10)
            pass_time(hosts, 0.1)
        assert sum(host.total for host in hosts) < 2_500_000_000
        assert refused == 0


def test_a_host_that_stops_tells_all_and_keeps_nothing() -> None:
    """Also what it has spent since its last report; the others need not wait for its lease to end."""
    with sidecars(2) as (one, two):
        assert one.ask(tokens=200) or one.ask(tokens=50)
        one.tick()
        one.talk()
        one.end()
        one.tick()
        one.lending.part()
        one.talk()
        assert reported(one.twin) == one.total > 0
        for _ in range(20):
            two.ask(tokens=400)
            two.tick()
            two.talk()
        held = sum(account.lease.ceiling or 0 for account in two.meter.accounts.values() if account.lease)
        assert held > LIMIT * 0.9 - one.total


def test_an_account_that_others_need_is_given_up_before_its_first_request() -> None:
    """Not a cent of it may be spent then without asking, and after the period its initial share is there again."""
    with sidecars(2, period="day") as (busy, idle):
        while busy.ask(tokens=100):
            busy.end()
            busy.tick()
            busy.talk()
        settle([busy, idle], 3)
        assert not idle.ask(tokens=1)
        assert not idle.meter.accounts or idle.known_total <= LIMIT
        pass_time([busy, idle], 86_400)
        assert idle.ask(tokens=50)


class Life(RuleBasedStateMachine):
    """Three hosts and Redis: messages are lost, late and repeated; Redis restarts with all, older or no data; collectors
    are killed. Hosts are cut off for longer than their lease only with nothing running."""

    @initialize(jump=st.integers(0, 3))
    def begin(self, jump: int) -> None:
        """A budget with room for some requests; the hosts' clocks differ by seconds."""
        self.folder = tempfile.TemporaryDirectory()
        self.twin = Twin()
        redis = Redis(url="redis://nowhere", initial_percent=Decimal(5), lease_s=8.0, when_away="reject")
        self.hosts = [Sidecar(Path(self.folder.name), f"h{number}", self.twin, redis) for number in range(3)]
        for number, host in enumerate(self.hosts):
            host.wall_s += jump * number
        self.late: list[tuple[Sidecar, Sent, str]] = []
        self.old = self.twin.snapshot()
        settle(self.hosts, 5)

    def teardown(self) -> None:
        for host in self.hosts:
            host.close()
        self.folder.cleanup()

    @step(place=st.integers(0, 2), tokens=st.integers(1, 400), count=st.integers(1, 6))
    def admit(self, place: int, tokens: int, count: int) -> None:
        """Requests come; where one is refused, the next comes when there may be more."""
        host = self.hosts[place]
        for _ in range(count):
            if not host.ask(tokens):
                host.tick()
                host.talk()

    @step(at_worst=st.booleans(), count=st.integers(1, 4))
    def end(self, at_worst: bool, count: int) -> None:
        for host in self.hosts:
            for number in sorted(host.running)[:count]:
                host.end(number, None if at_worst else 1)

    @step(place=st.integers(0, 2))
    def look(self, place: int) -> None:
        self.hosts[place].tick()

    @step(place=st.integers(0, 2))
    def talk(self, place: int) -> None:
        self.hosts[place].talk()

    @step(place=st.integers(0, 2), fate=st.sampled_from(["lost", "unanswered", "late"]))
    def fail(self, place: int, fate: str) -> None:
        """There is no answer, whatever Redis has heard, or will hear some day."""
        host = self.hosts[place]
        sent = host.next()
        if sent is None:
            return
        if fate == "unanswered":
            host.deliver(sent)
        if fate == "late":
            self.late.append((host, sent, host.run))
        host.lending.failed(sent)

    @precondition(lambda self: self.late)
    @step(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        """A message arrives that nobody waits for any more, perhaps not for the first time."""
        host, sent, run = data.draw(st.sampled_from(self.late))
        if run == self.twin.run:
            self.twin.exchange(sent.request, sent.keys, run)

    @step()
    def second(self) -> None:
        """A second passes in which everybody talks once."""
        for host in self.hosts:
            host.talk()
        pass_time(self.hosts, 1.0)

    @step(place=st.integers(0, 2), seconds=st.sampled_from([2, 7, 12]))
    def cut_off(self, place: int, seconds: int) -> None:
        """One host does not reach Redis for a while; the others do."""
        host = self.hosts[place]
        while host.running:
            host.end()
        for _ in range(seconds):
            pass_time(self.hosts, 1.0)
            for other in self.hosts:
                if other is not host:
                    other.talk()
                else:
                    other.lending.watch(other.now_ns)

    @step()
    def save(self) -> None:
        self.old = self.twin.snapshot()

    @step(data=st.sampled_from(["all", "older", "none"]))
    def restart_redis(self, data: str) -> None:
        if data == "none":
            self.twin.forget()
        elif data == "older":
            self.twin.state = self.old
            self.old = self.twin.snapshot()
        self.twin.restart()
        for host in self.hosts:  # they notice, and are back within a report
            host.talk()

    @step(place=st.integers(0, 2))
    def commit(self, place: int) -> None:
        self.hosts[place].commit()
        self.hosts[place].unacknowledged.clear()

    @step(place=st.integers(0, 2))
    def kill_collector(self, place: int) -> None:
        host = self.hosts[place]
        host.restart()
        host.talk()

    @step()
    def settle(self) -> None:
        """When all has been told, everybody knows the same: what was spent, once."""
        settle(self.hosts)
        total = sum(host.total for host in self.hosts)
        live = reported(self.twin)
        assert live == total
        for host in self.hosts:
            if host.meter.accounts:
                assert host.known_total == total

    @invariant()
    def never_overspent(self) -> None:
        """Even if all that runs ends at its worst."""
        assert sum(host.total + host.worst for host in getattr(self, "hosts", [])) <= LIMIT


TestLife = Life.TestCase
TestLife.settings = hypothesis_settings(max_examples=100, stateful_step_count=60, deadline=None)
