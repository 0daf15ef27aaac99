"""leases, absence and giving_up: how much a host asks for, when, and what it does without an answer."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.board import CEILING, Board
from inferwatch.relay.reckoning import Account, Need, fits
from inferwatch.settings.sharing import Redis
from inferwatch_collectors.budgets.absence import Absence
from inferwatch_collectors.budgets.giving_up import GivenUp
from inferwatch_collectors.budgets.holds import NOTHING, Pair
from inferwatch_collectors.budgets.leases import PATIENCE_NS, TIGHT_NS, WANTED_NS, Lease, Standing

OpenBoard = Callable[..., Board]
NS = 1_000_000_000
DAY_S = 86_400
LIMIT = 100_000
amounts = st.integers(0, 10_000)


def standing(spent: int = 0, held: Pair = NOTHING, *, by_expected: bool = False) -> Standing:
    return Standing(spent, held, LIMIT, by_expected=by_expected)


def wish(lease: Lease, at: Standing, now_ns: int) -> int:
    return lease.wish(at, now_ns, initial=2000, lease_s=15.0)


def lent(ceiling: int, free: int, told: int = 0, asked_ns: int = 0) -> Lease:
    """A lease after an answer."""
    lease = Lease()
    lease.ceiling, lease.free, lease.told, lease.asked_ns = ceiling, free, told, asked_ns
    return lease


@given(spent=amounts, held=st.tuples(amounts, amounts), need=st.tuples(amounts, amounts), by_expected=st.booleans())
def test_under_the_ceiling_that_is_asked_for_requests_are_let_in(
    spent: int, held: tuple[int, int], need: tuple[int, int], by_expected: bool
) -> None:
    """By the rule that relays go by."""
    holds, needs = Pair(min(held), max(held)), Pair(min(need), max(need))
    ceiling = standing(spent, holds, by_expected=by_expected).ceiling_for(needs)
    if ceiling > spent:
        account = Account(spent, Need(*holds), ceiling)
        assert fits(account, Need(*needs), by_expected=by_expected, cuttable=False)


def test_a_host_asks_for_what_it_should_need_for_a_while() -> None:
    """Its rate for twice `lease_s`, what runs once more, and two of its largest requests."""
    lease = Lease()
    lease.saw(0, NOTHING, NS)
    lease.saw(100, Pair(10, 50), 2 * NS)
    lease.free = LIMIT
    lease.told = 0
    assert wish(lease, standing(100, Pair(0, 300)), 2 * NS) == 100 + 300 + 100 * 30 + 300 + 2 * 50


def test_it_asks_for_no_less_than_its_initial_share_and_no_more_than_the_limit() -> None:
    lease = lent(0, LIMIT)
    assert wish(lease, standing(), 0) == 2000
    lease.saw(0, Pair(1, LIMIT), NS)
    assert wish(lease, standing(), NS) == LIMIT


def test_with_little_left_it_asks_for_the_next_two_seconds_alone() -> None:
    """And keeps nothing that it has no use for."""
    lease = lent(0, 10)
    assert wish(lease, standing(40), 0) == 40
    lease.saw(0, NOTHING, NS)
    lease.saw(100, NOTHING, 2 * NS)
    assert wish(lease, standing(100), 2 * NS) == 100 + 200


def test_what_was_asked_for_once_is_forgotten() -> None:
    lease = lent(0, 10)
    lease.saw(0, Pair(5, 5), NS)
    assert wish(lease, standing(), NS) == 10
    assert wish(lease, standing(), NS + WANTED_NS) == 0


def test_somebody_got_too_little_makes_it_tight_for_a_while() -> None:
    lease = lent(0, LIMIT)
    assert not lease.is_tight(LIMIT, NS)
    lease.short(NS)
    assert lease.is_tight(LIMIT, NS + TIGHT_NS - 1)
    assert not lease.is_tight(LIMIT, NS + TIGHT_NS)


@pytest.mark.parametrize(
    ("lease", "spent", "due"),
    [
        (Lease(), 0, True),  # of a new account at once
        (lent(1000, 500), 700, False),
        (lent(1000, 500), 800, True),  # three quarters are gone
        (lent(LIMIT, 0), LIMIT, False),  # there cannot be more
        (lent(1000, 0, asked_ns=NS), 1000, False),  # there was nothing a moment ago
    ],
)
def test_more_is_asked_for_before_it_is_needed(lease: Lease, spent: int, due: bool) -> None:
    assert lease.is_due(standing(spent), NS + 1, initial=2000) == due


def test_where_nothing_was_to_be_had_it_asks_again_after_a_while() -> None:
    lease = lent(1000, 0, asked_ns=NS)
    assert not lease.is_due(standing(1000), NS + PATIENCE_NS - 1, initial=0)
    assert lease.is_due(standing(1000), NS + PATIENCE_NS, initial=0)


@pytest.mark.parametrize(
    ("lease", "spent", "worth"),
    [
        (lent(2000, LIMIT, told=5), 6, True),  # it has spent
        (lent(2000, LIMIT, told=5), 5, False),
        (lent(9000, LIMIT, told=5), 5, True),  # far more than it has use for
        (lent(2000, 10, told=5), 5, True),  # others need it
        (lent(5, 10, told=5), 5, False),
    ],
)
def test_what_is_worth_telling(lease: Lease, spent: int, worth: bool) -> None:
    assert lease.is_worth_telling(standing(spent), NS, initial=2000, lease_s=15.0) == worth


def redis(**changes: Any) -> Redis:
    return Redis(url="redis://nowhere", initial_percent=Decimal(2), lease_s=15, **changes)


def test_redis_is_away_after_two_reports_without_an_answer() -> None:
    """Counted from the sending of what was answered last, or from the start."""
    absence = Absence(redis(), 0)
    assert not absence.was_heard
    assert not absence.is_on(2 * NS)
    assert absence.is_on(3 * NS)
    absence.heard(10 * NS)
    assert not absence.is_on(12 * NS)
    assert absence.is_on(13 * NS)
    assert absence.lasts_s(13 * NS) == 3


def test_a_redis_that_does_not_answer_at_the_start_is_away_at_once() -> None:
    """Requests of the first moments have the initial share, as later ones; after an answer two reports must be missed."""
    absence = Absence(redis(), 0)
    absence.missed()
    assert absence.is_on(0)
    absence.heard(NS)
    absence.missed()
    assert not absence.is_on(2 * NS)


@pytest.mark.parametrize(
    ("when_away", "after_s", "ends", "all_"),
    [
        ("lease", 100, False, False),
        ("reject", 14, False, False),
        ("reject", 15, True, False),
        ("allow", 2, False, False),
        ("allow", 3, False, True),
    ],
)
def test_what_follows_from_its_absence(when_away: str, after_s: int, ends: bool, all_: bool) -> None:
    absence = Absence(redis(when_away=when_away), 0)
    assert absence.ends_leases(NS) == (when_away == "reject")  # never heard: there is nothing to go by
    absence.heard(0)
    assert absence.ends_leases(after_s * NS) == ends
    assert absence.allows_all(after_s * NS) == all_


def test_what_is_given_up_is_told_once_and_not_for_an_account_that_speaks_for_itself(open_board: OpenBoard) -> None:
    """Its word would be older than the account's own."""
    board = open_board()
    given_up = GivenUp(board)
    names = [f"{number:016x}{number:016x}:tokens:0:{DAY_S}" for number in (1, 2, 3)]
    given_up.add([f"{{ns}}:account:{name}" for name in names])
    given_up.add(["{ns}:hosts"])
    for key, digest, end_s in given_up.asked():
        given_up.take(key, digest, end_s)
    assert [key for key, _ in given_up.due(2, {(1, 1)})] == names[1:]
    given_up.told(names[1:2])
    assert [key for key, _ in given_up.due(2, set())] == names[2:]
    slots = [board.find((number, number), make=False) for number in (1, 2, 3)]
    assert [board.words[board.base(slot) + CEILING] for slot in slots] == [1, 1, 1]
    given_up.forget(DAY_S - 1, set())
    assert board.find((2, 2), make=False) == slots[1]
    given_up.forget(DAY_S, {(1, 1)})
    assert [board.find((number, number), make=False) for number in (1, 2, 3)] == [slots[0], -1, -1]
