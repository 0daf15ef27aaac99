"""What Redis lends to whom: each rule of `bank.lua`, one by one, by its twin (`tests/services` has the real one)."""

from typing import Any

import pytest
from bank_twin import MILLION, SHORT_AGAIN_MS, Twin

from inferwatch_collectors.budgets.bank import FENCED, HELLO, OK, STALE, Answer, Ask, Grant, Request, account_of, keys

LEASE_MS = 8000
LIMIT = 1000
ACCOUNT = f"{5:032x}:tokens:0:4000000000"


class Client:
    """What one host says."""

    def __init__(self, twin: Twin, name: str, share: int = 20_000, had_share: int = 0) -> None:
        self.twin, self.name, self.share = twin, name, share
        self.seq = 0
        self.heard = 0
        self.hello = self._say(HELLO, (), had_share)
        self.incarnation = self.hello.incarnation

    def _say(self, incarnation: int, asks: tuple[Ask, ...], had_share: int = 0) -> Answer:
        request = Request(
            host=self.name,
            incarnation=incarnation,
            seq=self.seq,
            lease_ms=LEASE_MS,
            share=self.share,
            had_share=had_share,
            heard=self.heard,
            asks=asks,
        )
        answer = self.twin.exchange(request, (ACCOUNT,) * len(asks), self.twin.run)
        self.heard = answer.clock or self.heard
        return answer

    def say(self, *, seq: int | None = None, **changes: Any) -> Answer:
        self.seq = self.seq + 1 if seq is None else seq
        fields: dict[str, Any] = {"limit": LIMIT, "spent": 0, "have": 0, "want": LIMIT, "end_s": 4_000_000_000}
        fields |= {"kept_ms": 0, "known": {}} | changes
        fields.setdefault("claim", fields["spent"])
        return self._say(self.incarnation, (Ask(**fields),))

    def ask(self, **changes: Any) -> Grant:
        answer = self.say(**changes)
        assert answer.status == OK
        return answer.grants[0]

    def beat(self) -> Answer:
        self.seq += 1
        return self._say(self.incarnation, ())


@pytest.fixture(name="twin")
def _twin() -> Twin:
    """A Redis that lends: its first host has been there for as long as that takes."""
    twin = Twin()
    first = Client(twin, "first", share=0)
    pass_time(twin, 4.0, first)
    twin.state["hosts"].clear()
    return twin


def pass_time(twin: Twin, seconds: float, *clients: Client) -> None:
    """Each client is heard once a second."""
    for _ in range(int(seconds)):
        twin.now_ms += 1000
        for client in clients:
            client.beat()


def test_who_is_alone_gets_what_it_asks_for_and_else_half_of_what_there_is(twin: Twin) -> None:
    one = Client(twin, "one")
    assert one.ask(want=900) == Grant(900, 100, [])
    assert one.ask(have=900, want=100) == Grant(100, 900, [])
    two = Client(twin, "two")
    # 100 are lent to the other one, and its own share is kept free for nobody else.
    assert two.ask().ceiling == 450
    assert one.ask(have=100).ceiling == 100 + (LIMIT - 450 - 100) // 2


def test_what_is_claimed_is_never_taken_from_anybody(twin: Twin) -> None:
    """Spent and held is a fact, also above what was lent; then nobody gets more."""
    one, two = Client(twin, "one"), Client(twin, "two")
    assert one.ask(spent=700, claim=1200, have=900, want=1200).ceiling == 1200
    assert two.ask(spent=3) == Grant(3, 0, ["one", 700])


def test_a_host_that_has_not_asked_keeps_its_initial_share(twin: Twin) -> None:
    one = Client(twin, "one")
    idle = Client(twin, "idle", share=100_000)
    have = 0
    for _ in range(20):
        have = one.ask(have=have).ceiling
    assert have == 900
    assert idle.ask(have=100, want=0, limit=0).ceiling == 0  # it gives it up
    assert one.ask(have=have).ceiling == 950


def test_who_joins_has_no_share_of_what_is_lent(twin: Twin) -> None:
    """It is told of which accounts; of the others it has one at once."""
    one = Client(twin, "one")
    one.ask(want=990)
    late = Client(twin, "late")
    assert late.hello.share == 20_000
    assert late.hello.full == [ACCOUNT]
    one.ask(have=990, want=500)
    assert Client(twin, "later").hello.full == []


def test_shares_of_all_hosts_are_half_of_a_budget_at_most(twin: Twin) -> None:
    shares = [Client(twin, name, share=200_000).hello.share for name in "abcd"]
    assert shares == [200_000, 200_000, 100_000, 0]


def test_others_hear_who_got_too_little_once(twin: Twin) -> None:
    """So that they give back what they do not need."""
    one = Client(twin, "one")
    one.ask(want=900)
    two = Client(twin, "two")
    assert two.beat().short == []
    have = 0
    for _ in range(9):
        have = two.ask(have=have, want=500).ceiling
    assert have == 100
    assert one.beat().short == [ACCOUNT]
    pass_time(twin, SHORT_AGAIN_MS / 1000 + 1, one, two)
    assert one.beat().short == []
    two.ask(have=have, want=500)
    assert one.beat().short == [ACCOUNT]


def test_a_message_that_is_late_or_repeated_changes_nothing(twin: Twin) -> None:
    one = Client(twin, "one")
    one.ask(spent=5, want=50)
    one.ask(spent=7, want=90)
    for seq in (2, 1):
        assert one.say(spent=5, want=50, seq=seq).status == STALE
    assert twin.state["accounts"][ACCOUNT]["one"][1:3] == [7, 90]


def test_a_former_life_of_a_host_is_not_heard_any_more(twin: Twin) -> None:
    old = Client(twin, "one")
    old.ask(spent=5)
    new = Client(twin, "one")
    assert old.say(spent=9, seq=99).status == FENCED
    assert new.ask(spent=6).ceiling >= 6


def test_a_host_that_was_silent_for_too_long_must_say_hello(twin: Twin) -> None:
    """What it was lent went back; what it has spent counts."""
    one, silent = Client(twin, "one"), Client(twin, "silent")
    silent.ask(spent=100, want=800)
    pass_time(twin, LEASE_MS / 1000 + 1, one)
    assert one.ask().ceiling == 900
    assert silent.say(spent=700, have=800).status == FENCED
    again = Client(twin, "silent", had_share=20_000)
    assert again.ask(spent=700, have=800).ceiling == 700
    assert one.ask(have=900, want=LIMIT).ceiling == 300


@pytest.mark.parametrize("data", ["kept", "lost"])
def test_a_redis_that_was_started_anew_lends_nothing_until_all_must_have_spoken(twin: Twin, data: str) -> None:
    """Else it would lend what one has who has not been heard yet."""
    one, two = Client(twin, "one"), Client(twin, "two")
    two.ask(spent=10, want=400)
    if data == "lost":
        twin.forget()
    twin.restart()
    one = Client(twin, "one", had_share=20_000)
    assert one.ask(have=20).ceiling == 20
    pass_time(twin, 5, one)
    assert one.ask(have=20).ceiling == 20
    two = Client(twin, "two", had_share=20_000)
    assert two.ask(spent=10, have=400).ceiling == 400
    pass_time(twin, 4, one, two)
    assert 20 < one.ask(have=20).ceiling <= 600


def test_no_lease_ends_while_nobody_can_reach_redis(twin: Twin) -> None:
    """Its clock stands still: an hour later everybody has what they had."""
    one, two = Client(twin, "one"), Client(twin, "two")
    two.ask(spent=10, want=400)
    twin.now_ms += 3_600_000
    assert one.ask().ceiling < 600
    assert two.ask(spent=10, have=400, want=400).ceiling == 400


def test_a_clock_that_is_set_back_ends_nothing_and_stops_nothing(twin: Twin) -> None:
    one = Client(twin, "one")
    before = one.beat().clock
    twin.now_ms -= 1_000_000
    one.beat()
    pass_time(twin, 2, one)
    assert one.beat().clock == before + 2000


def test_what_was_forgotten_is_taken_from_those_who_know(twin: Twin) -> None:
    """Not of who speaks for itself."""
    one, two = Client(twin, "one"), Client(twin, "two")
    two.ask(spent=10, want=20)
    grant = one.ask(known={"gone": 300, "two": 7, "one": 99})
    assert grant.by_host() == {"gone": 300, "two": 10}


def test_spending_of_a_window_goes_out_of_it_with_a_dead_host(twin: Twin) -> None:
    """A whole window after its last word, not before."""
    one, gone = Client(twin, "one"), Client(twin, "gone")
    window = {"end_s": 0, "kept_ms": 60_000}
    gone.ask(spent=100, want=100, **window)
    pass_time(twin, 59, one)
    assert one.ask(**window).by_host() == {"gone": 100}
    pass_time(twin, 3, one)
    assert one.ask(**window).by_host() == {}


def test_hosts_with_different_limits_each_ask_by_their_own(twin: Twin) -> None:
    """A rolling deployment: no more is lent than the highest of them."""
    old, new = Client(twin, "old"), Client(twin, "new")
    assert old.ask(limit=1000, want=800).ceiling <= 800
    assert new.ask(limit=400, want=400).ceiling == 0
    assert MILLION == 1_000_000


def test_keys_stay_together_and_say_which_account_until_when() -> None:
    """One slot of a cluster; a host that does not know an account can still give it up."""
    named = keys("ns", (ACCOUNT,))
    assert {key.partition("}")[0] for key in named} == {"{ns"}
    assert account_of(named[-1]) == ((0, 5), 4_000_000_000)
    assert account_of(ACCOUNT) == ((0, 5), 4_000_000_000)
    assert account_of("{ns}:hosts") is None
