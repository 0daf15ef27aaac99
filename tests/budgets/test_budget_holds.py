"""holds: what is let go of, exactly once, whoever dies and whatever is told twice."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inferwatch.board import COUNT_MASK
from inferwatch_collectors.budgets.holds import AUDIT_NS, FIRST_AUDIT_NS, NOTHING, Holds, Pair

amounts = st.integers(0, 1000).flatmap(lambda worst: st.tuples(st.integers(0, worst), st.just(worst)))


class Host:
    """A board with one account, and what is truly open on the relays."""

    def __init__(self, start: int) -> None:
        self.taken = Pair(start, start)
        self.released = Pair(start, start)
        self.number = 0

    def take(self, amount: Pair) -> int:
        self.taken = Pair(
            (self.taken.expected + amount.expected) & COUNT_MASK, (self.taken.worst + amount.worst) & COUNT_MASK
        )
        self.number += 1
        return self.taken.worst

    @property
    def held(self) -> Pair:
        return Pair(
            (self.taken.expected - self.released.expected) & COUNT_MASK,
            (self.taken.worst - self.released.worst) & COUNT_MASK,
        )


class Life(RuleBasedStateMachine):
    """Relays take, tell, die between the two; requests spend and end; the collector is killed and comes again."""

    @initialize(start=st.sampled_from([0, 5, COUNT_MASK - 300, COUNT_MASK // 2 - 50]))
    def begin(self, start: int) -> None:
        """Anywhere on the circle of counts."""
        self.host = Host(start)
        self.now_ns = 0
        self.untold: dict[str, tuple[Pair, int]] = {}  # taken, and the Open is on its way
        self.open: dict[str, tuple[Pair, int, int]] = {}  # told; with what is spent
        self.lost: list[Pair] = []  # taken by a relay that was killed before it could tell
        self.holds = Holds(self.host.taken, self.host.released, 0)

    @rule(pair=amounts)
    def take(self, pair: tuple[int, int]) -> None:
        """A relay admits a request."""
        amount = Pair(*pair)
        ticket = self.host.take(amount)
        if amount.worst:
            self.untold[str(self.host.number)] = (amount, ticket)

    @precondition(lambda self: self.untold)
    @rule(data=st.data())
    def tell(self, data: st.DataObject) -> None:
        """Its Open arrives."""
        name = data.draw(st.sampled_from(sorted(self.untold)))
        amount, ticket = self.untold.pop(name)
        self.open[name] = (amount, ticket, 0)
        self.holds.opened(name, amount, ticket)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def tell_again(self, data: st.DataObject) -> None:
        """After a reconnect it arrives once more."""
        name = data.draw(st.sampled_from(sorted(self.open)))
        amount, ticket, _ = self.open[name]
        self.holds.opened(name, amount, ticket)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), more=st.integers(0, 500))
    def spend(self, data: st.DataObject, more: int) -> None:
        """A stream is known to have spent more."""
        name = data.draw(st.sampled_from(sorted(self.open)))
        amount, ticket, spent = self.open[name]
        self.open[name] = (amount, ticket, spent + more)
        self.holds.spent(name, spent + more)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """It is booked."""
        name = data.draw(st.sampled_from(sorted(self.open)))
        del self.open[name]
        self.holds.closed(name)
        self.holds.closed(name)

    @precondition(lambda self: self.untold)
    @rule(data=st.data())
    def relay_dies(self, data: st.DataObject) -> None:
        """Nobody will ever tell of it."""
        name = data.draw(st.sampled_from(sorted(self.untold)))
        self.lost.append(self.untold.pop(name)[0])

    @rule()
    def publish(self) -> None:
        """The collector writes it on the board."""
        self.host.released = self.holds.released

    @rule()
    def collector_is_killed(self) -> None:
        """The next one finds the board, and is told of what is open; of what has ended meanwhile, nothing."""
        self.holds = Holds(self.host.taken, self.host.released, self.now_ns)
        for name, (amount, ticket, spent) in self.open.items():
            self.holds.opened(name, amount, ticket)
            self.holds.spent(name, spent)

    @rule()
    def time_passes(self) -> None:
        """All that was taken has been told, and two audits have come round: what nobody claims has expired."""
        for name, (amount, ticket) in self.untold.items():
            self.open[name] = (amount, ticket, 0)
            self.holds.opened(name, amount, ticket)
        self.untold.clear()
        self.holds.audit(self.host.taken, self.now_ns)
        for wait_ns in (FIRST_AUDIT_NS, AUDIT_NS, AUDIT_NS):
            self.now_ns += wait_ns
            self.holds.audit(self.host.taken, self.now_ns)
        self.lost.clear()
        self.host.released = self.holds.released
        assert self.host.held == self.rest()

    def rest(self) -> Pair:
        """What the open requests may still need."""
        expected = sum(max(0, amount.expected - spent) for amount, _, spent in self.open.values())
        worst = sum(max(0, amount.worst - spent) for amount, _, spent in self.open.values())
        return Pair(expected, worst)

    @invariant()
    def what_is_open_is_held(self) -> None:
        """Never less than what open requests may still need, told or not: nothing is let go of twice."""
        released = self.holds.released
        expected = (self.host.taken.expected - released.expected) & COUNT_MASK
        worst = (self.host.taken.worst - released.worst) & COUNT_MASK
        rest = self.rest()
        untold = [amount for amount, _ in self.untold.values()]
        assert expected >= rest.expected + sum(amount.expected for amount in untold)
        assert worst >= rest.worst + sum(amount.worst for amount in untold)

    @invariant()
    def no_more_is_held_than_was_taken(self) -> None:
        """The count never runs round the circle."""
        assert (self.host.taken.worst - self.holds.released.worst) & COUNT_MASK < COUNT_MASK // 2


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_what_ends_is_let_go_of_at_once() -> None:
    """Without a restart nothing waits for an audit."""
    holds = Holds(NOTHING, NOTHING, 0)
    holds.opened("a", Pair(10, 100), 100)
    holds.opened("b", Pair(20, 50), 150)
    holds.spent("a", 30)
    assert holds.released == Pair(10, 30)
    holds.closed("a")
    assert holds.released == Pair(10, 100)


def test_after_a_restart_nothing_from_before_is_let_go_of_until_relays_must_have_come_back() -> None:
    """Then just what is open is held, and what nobody claims has expired."""
    holds = Holds(Pair(300, 300), Pair(100, 100), 0)
    holds.opened("open", Pair(50, 50), 250)
    holds.opened("new", Pair(7, 7), 307)
    holds.closed("gone before us")
    assert holds.released == Pair(100, 100)
    holds.audit(Pair(307, 307), FIRST_AUDIT_NS - 1)
    assert holds.released == Pair(100, 100)
    holds.audit(Pair(307, 307), FIRST_AUDIT_NS)
    assert holds.released == Pair(250, 250)


def test_what_was_given_up_is_held_again_when_it_is_told_after_all() -> None:
    """A request that waited long for its connection."""
    holds = Holds(NOTHING, NOTHING, 0)
    taken = Pair(40, 40)
    holds.audit(taken, 0)
    holds.audit(taken, AUDIT_NS)
    assert holds.released == taken
    holds.opened("late", Pair(40, 40), 40)
    assert holds.released == NOTHING
    holds.closed("late")
    assert holds.released == taken
