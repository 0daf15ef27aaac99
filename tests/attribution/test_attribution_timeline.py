"""The division of a second: what is idle, and who pays how much of the rest."""

from decimal import Decimal
from typing import Any

import pytest

from inferwatch.settings.cost import Attribution
from inferwatch_collectors.attribution.accounts import Account, Work
from inferwatch_collectors.attribution.timeline import Divided, Interval, Timeline
from inferwatch_collectors.attribution.weights import UNIT

S = 10**9
NANODOLLARS = 1_000_000
DEFAULT = Attribution()


def account(number: int, sent_s: float, end_s: float | None, *, waits: bool = False) -> Account:
    sent_ns = int(sent_s * S)
    end_ns = None if end_s is None else int(end_s * S)
    found = Account(number, f"r{number}", 0, "acme", "qwen", ("qwen", "acme", "chat"), sent_ns, sent_ns, sent_ns, None)
    found.end_ns = end_ns
    if waits:
        found.waits_from_ns, found.waits_to_ns = sent_ns, end_ns
    return found


def divided(*told: tuple[Account, float], attribution: Attribution = DEFAULT, amount: int = NANODOLLARS) -> Divided:
    """Divide the second from 10 s on, in which each account did so much weighted work over its time in it."""
    timeline = Timeline(attribution, 10)
    timeline.add_cost(10 * S, 11 * S, amount, 7 * amount)
    for each, weight in told:
        end_ns = 11 * S if each.end_ns is None else min(11 * S, each.end_ns)
        timeline.add_work(each, Work(max(10 * S, each.sent_ns), end_ns, int(weight * UNIT)))
    found = timeline.divide_oldest({each.number: each for each, _ in told}, 11 * S)
    assert found is not None
    assert sum(charge.nanodollars for charge in found.charges) + found.idle_nanodollars == amount
    assert sum(charge.energy_uj for charge in found.charges) + found.idle_energy_uj == 7 * amount
    return found


def charges(found: Divided) -> dict[int, int]:
    return {charge.account.number: charge.nanodollars for charge in found.charges}


def test_by_weight() -> None:
    """Three times the work, three times the price, of money and energy alike."""
    found = divided((account(1, 10, 11), 30), (account(2, 10, 11), 10))
    assert charges(found) == {1: 750_000, 2: 250_000}
    assert [charge.energy_uj for charge in found.charges] == [5_250_000, 1_750_000]
    assert found.idle_nanodollars == 0


def test_nobody_there_is_idle() -> None:
    """All of it."""
    assert divided().idle_nanodollars == NANODOLLARS


def test_busy_is_the_time_in_which_anybody_was_there() -> None:
    """0.2 to 0.5 s and 0.4 to 0.6 s are 0.4 s: 40 % are charged, 60 % are idle."""
    found = divided((account(1, 10.2, 10.5), 10), (account(2, 10.4, 10.6), 10))
    assert charges(found) == {1: 200_000, 2: 200_000}
    assert found.idle_nanodollars == 600_000
    assert found.busy_ns == 4 * S // 10


def test_capacity_is_what_the_work_fell_short_of() -> None:
    """2,100 of 3,000 weighted tokens a second: 30 % are idle, however long anybody was there."""
    attribution = Attribution(idle="capacity", peak_tokens_per_second=Decimal(3_000))
    found = divided((account(1, 10, 11), 2_100), attribution=attribution)
    assert charges(found) == {1: 700_000}
    assert found.idle_nanodollars == 300_000


def test_more_than_the_peak_is_the_peak() -> None:
    """A peak set too low makes nothing dearer than the bill."""
    attribution = Attribution(idle="capacity", peak_tokens_per_second=Decimal(100))
    found = divided((account(1, 10, 11), 150), (account(2, 10, 11), 50), attribution=attribution)
    assert charges(found) == {1: 750_000, 2: 250_000}
    assert found.idle_nanodollars == 0


def test_unknown_work_weighs_its_time_at_the_mean_of_the_others() -> None:
    """Two known ones did 100 each in a second; one without counts was there for half of it: it weighs 50."""
    found = divided((account(1, 10, 11), 100), (account(2, 10, 11), 100), (account(3, 10.5, 11, waits=True), 0))
    assert charges(found) == {1: 400_000, 2: 400_000, 3: 200_000}


def test_unknown_work_under_a_capacity() -> None:
    """It fills the capacity with what it weighs: 100 + 100 + 50 of 1,000."""
    attribution = Attribution(idle="capacity", peak_tokens_per_second=Decimal(1_000))
    found = divided(
        (account(1, 10, 11), 100), (account(2, 10, 11), 100), (account(3, 10.5, 11, waits=True), 0),
        attribution=attribution,
    )  # fmt: skip
    assert charges(found) == {1: 100_000, 2: 100_000, 3: 50_000}
    assert found.idle_nanodollars == 750_000


@pytest.mark.parametrize("idle", ["busy", "capacity"])
def test_where_nothing_is_known_time_alone_counts(idle: Any) -> None:
    """Then a capacity says nothing either."""
    attribution = Attribution(idle=idle, peak_tokens_per_second=Decimal(1_000))
    found = divided(
        (account(1, 10, 10.5, waits=True), 0), (account(2, 10, 10.25, waits=True), 0), attribution=attribution
    )
    assert sum(charges(found).values()) == found.idle_nanodollars == 500_000
    assert charges(found)[1] == pytest.approx(2 * charges(found)[2], abs=1)


def test_a_request_that_did_nothing_pays_nothing() -> None:
    """A stream that stands still beside one that works; alone it leaves the second idle."""
    assert charges(divided((account(1, 10, None), 0), (account(2, 10, None), 5))) == {2: NANODOLLARS}
    assert divided((account(1, 10, None), 0)).idle_nanodollars == NANODOLLARS


def work(start_s: float, end_s: float, *, live: bool = False) -> Work:
    return Work(int(start_s * S), int(end_s * S), 100, live=live)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (work(18, 22), {20: 25, 21: 25}),  # half of it was charged by its time
        (work(18, 22, live=True), {20: 50, 21: 50}),
        (work(17, 18), {}),
        (work(17, 18, live=True), {20: 100}),
        (work(20, 20), {20: 100}),
    ],
)
def test_work_told_late(told: Work, expected: dict[int, int]) -> None:
    """Seconds before the 20th are divided: see `add_work`."""
    timeline = Timeline(Attribution(), 20)
    timeline.add_work(account(1, 10, 30), told)
    assert {index: each.work[1] for index, each in timeline.intervals.items()} == expected


def test_cost_told_late_falls_to_the_oldest_second_left() -> None:
    """Energy of divided seconds is not lost."""
    timeline = Timeline(Attribution(), 20)
    timeline.add_cost(18 * S, 19 * S, 5, 50)
    timeline.add_cost(19 * S, 21 * S, 0, 10)
    assert [(each.index, each.nanodollars, each.energy_uj) for each in timeline.intervals.values()] == [(20, 5, 60)]


def test_seconds_are_divided_in_order_and_only_when_they_are_over() -> None:
    """An interval that ends after the limit stays."""
    timeline = Timeline(Attribution(), 10)
    timeline.add_cost(10 * S, 13 * S, 30, 0)
    indices = []
    while (found := timeline.divide_oldest({}, 12 * S + S // 2)) is not None:
        indices.append(found.interval.index)
    assert indices == [10, 11]
    assert timeline.divided_until == 12
    assert list(timeline.intervals) == [12]


def test_nothing_to_divide_moves_the_limit_and_never_back() -> None:
    """Without cost there is nothing, and what comes later for that time is late."""
    timeline = Timeline(Attribution(), 10)
    assert timeline.divide_oldest({}, 15 * S) is None
    assert timeline.divide_oldest({}, 12 * S) is None
    assert timeline.divided_until == 15


def test_entries_are_counted() -> None:
    """Over division and what is put back from memory."""
    timeline = Timeline(Attribution(), 10)
    timeline.add_work(account(1, 10, 13), work(10, 13))
    timeline.add_work(account(1, 10, 13), work(10, 11))
    timeline.add_work(account(2, 10, 13), work(10, 11))
    assert timeline.entries == 4
    timeline.divide_oldest({}, 11 * S)
    assert timeline.entries == 2
    timeline.put(Interval(50, work={1: 5, 2: 5, 3: 5}))
    assert timeline.entries == 5
