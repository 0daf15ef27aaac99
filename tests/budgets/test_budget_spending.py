"""spending, expected, enforcement: what one account knows of itself."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.budget_rules import Rulebook
from inferwatch_collectors.budgets.enforcement import AHEAD_NS, is_calm, must_cut, news, percent_reached, tokens_ahead
from inferwatch_collectors.budgets.expected import FORGET_AT, MIN_SEEN, Expected
from inferwatch_collectors.budgets.spending import HISTORY_HOURS, WINDOW_BUCKETS, Spending
from inferwatch_collectors.exchange import Progress

from .conftest import NOW_S, budgets, rule

HOUR_S = 3600


def spending(now_s: float = NOW_S, **changes: Any) -> Spending:
    return Spending(Rulebook(budgets(rule(**changes))).rules[0], now_s)


charges = st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 3000), st.integers(1, 100)), max_size=40)


@given(charges, st.sampled_from([60, 600, 3600]))
def test_a_rolling_sum_is_never_less_than_the_window_and_little_more(
    steps: list[tuple[int, int, int]], window_s: int
) -> None:
    """All that arrived within the window counts, and nothing that is out of it by more than a bucket or two."""
    account = spending(period="rolling", window_s=window_s)
    now_s, all_of_them = float(NOW_S), []
    for wait_s, ago_s, amount in steps:
        now_s += wait_s
        account.roll(now_s)
        account.charge(now_s - ago_s, amount, now_s)
        all_of_them.append((now_s - ago_s, amount))
        within = sum(amount for at_s, amount in all_of_them if at_s > now_s - window_s)
        around = sum(amount for at_s, amount in all_of_them if at_s > now_s - window_s - 2 * account.bucket_s)
        assert within <= account.spent <= around


@given(charges, st.sampled_from(["hour", "day", "week", "month"]))
def test_a_period_has_just_what_arrived_in_it(steps: list[tuple[int, int, int]], period: str) -> None:
    """However late it is told; a day in Kolkata begins at half past an hour of UTC."""
    account = spending(period=period, time_zone="Asia/Kolkata")
    now_s, all_of_them = float(NOW_S), []
    for wait_s, ago_s, amount in steps:
        now_s += wait_s
        account.roll(now_s)
        account.charge(now_s - ago_s, amount, now_s)
        all_of_them.append((now_s - ago_s, amount))
        assert account.period is not None
        assert account.spent == sum(amount for at_s, amount in all_of_them if at_s >= account.period.start_s)


@given(charges, st.sampled_from(["hour", "day", "rolling"]), st.integers(0, 10_000))
def test_what_is_written_down_is_taken_up(steps: list[tuple[int, int, int]], period: str, down_s: int) -> None:
    """After any time away it is the same as if we had been there."""
    changes = {"period": period} | ({"window_s": 3600} if period == "rolling" else {})
    account = spending(**changes)
    now_s = float(NOW_S)
    for wait_s, ago_s, amount in steps:
        now_s += wait_s
        account.roll(now_s)
        account.charge(now_s - ago_s, amount, now_s)
    state = account.state()
    now_s += down_s
    again = spending(now_s, **changes)
    again.restore(state, account.past(state.newest), account.bucket_s, now_s)
    account.roll(now_s)
    assert (again.spent, again.period, again.buckets) == (account.spent, account.period, account.buckets)


def test_a_clock_that_is_set_back_does_not_bring_the_budget_back() -> None:
    """The period that has begun goes on."""
    account = spending(period="day")
    account.charge(NOW_S, 10, NOW_S)
    assert not account.roll(NOW_S - 86_400)
    assert account.spent == 10


def test_a_budget_whose_period_was_changed_knows_what_its_hours_tell() -> None:
    """From a month to a day: today's spending, not the month's, and not nothing."""
    month = spending(period="month")
    month.charge(NOW_S - 3 * 86_400, 100, NOW_S)
    month.charge(NOW_S - 2 * HOUR_S, 7, NOW_S)
    state = month.state()
    day = spending(period="day")
    day.restore(state, month.past(state.newest), month.bucket_s, NOW_S)
    assert day.spent == 7


def test_history_is_bounded() -> None:
    """Five weeks of hours, or a thousand buckets of the window."""
    month, rolling = spending(), spending(period="rolling", window_s=30 * 86_400)
    for hour in range(3000):
        for account in (month, rolling):
            account.roll(NOW_S + hour * HOUR_S)
            account.charge(NOW_S + hour * HOUR_S, 1, NOW_S + hour * HOUR_S)
    assert len(month.buckets) <= HISTORY_HOURS
    assert len(rolling.buckets) <= WINDOW_BUCKETS + 2


def test_when_a_rolling_budget_has_room_again() -> None:
    """When so much has left the window that less than the limit is in it."""
    account = spending(period="rolling", window_s=3600)
    account.charge(NOW_S, 60, NOW_S)
    account.roll(NOW_S + 600)
    account.charge(NOW_S + 600, 60, NOW_S + 600)
    room_s = account.room_at(100)
    assert NOW_S + 3600 <= room_s <= NOW_S + 3600 + 2 * account.bucket_s
    assert account.room_at(121) == 0
    account.roll(room_s)
    assert account.spent < 100


# --- what is expected


def test_little_is_no_ground_to_expect_anything() -> None:
    """Before MIN_SEEN requests nothing is known."""
    expected = Expected()
    for _ in range(MIN_SEEN - 1):
        expected.observe(100, 1, 100, 300)
    assert (expected.completion_tokens, expected.prompt_per_kb) == (0, 0)


@given(st.lists(st.integers(0, 100_000), min_size=MIN_SEEN, max_size=90))
def test_of_few_requests_the_largest_counts_with_room(completions: list[int]) -> None:
    """At least what was seen, at most twice that."""
    expected = Expected()
    for completion in completions:
        expected.observe(completion, 1, 100, 300)
    assert max(completions) < expected.completion_tokens <= max(2 * max(completions), 1)


def test_choices_share_a_count_and_prompts_have_a_margin() -> None:
    """The engine's count is of all choices; a prompt token for three bytes and a quarter more."""
    expected = Expected()
    for _ in range(MIN_SEEN):
        expected.observe(400, 4, 100, 300)
    assert expected.completion_tokens == 128
    assert expected.prompt_per_kb == round(1000 / 3 * 1.25)


def test_what_is_long_ago_is_forgotten() -> None:
    """An account that once wrote novels is not held to it."""
    expected = Expected()
    for _ in range(MIN_SEEN):
        expected.observe(10_000, 1, 100, 300)
    for _ in range(10 * FORGET_AT):
        expected.observe(10, 1, 100, 300)
    assert expected.completion_tokens == 16


# --- what follows


@pytest.mark.parametrize(("spent", "percent"), [(0, 0), (49, 0), (50, 50), (79, 50), (80, 80), (100, 100), (500, 100)])
def test_thresholds(spent: int, percent: int) -> None:
    """The highest that is reached; news only once."""
    assert percent_reached(spent, 100, (50, 80, 100)) == percent
    assert news(0, spent, 100, (50, 80, 100)) == percent
    assert news(percent, spent, 100, (50, 80, 100)) == 0


def test_an_account_that_cannot_come_near_its_limit_is_calm() -> None:
    """With all that it holds."""
    assert is_calm(20, 30, 100)
    assert not is_calm(20, 31, 100)


def test_a_stream_goes_on_at_its_own_pace_and_sends_one_token_at_least() -> None:
    """What comes before the next look can end it; a burst at its beginning is no pace."""

    def ahead(tokens: int | None, lasted_ns: int) -> int:
        return tokens_ahead(Progress(5, 5 + lasted_ns, None, None, tokens))

    assert [tokens_ahead(Progress(None, 5, None, None, tokens)) for tokens in (None, 0, 500)] == [0, 0, 1]
    assert ahead(1, 0) == 1
    assert ahead(101, 100 * AHEAD_NS) == 1
    assert ahead(101, 1000 * AHEAD_NS) == 1
    assert ahead(101, 10 * AHEAD_NS) == 10
    assert ahead(3, 1000) == 2


def test_streams_end_before_their_next_tokens_are_too_many() -> None:
    """Of a budget that cuts; the limit itself may be reached."""
    cuts, rejects = rule(on_limit="cut"), rule(on_limit="reject")
    assert [must_cut(cuts, spent, 10, 100) for spent in (90, 91, 100)] == [False, True, True]
    assert must_cut(cuts, 100, 0, 100)
    assert not must_cut(rejects, 200, 10, 100)
