"""admission: who may begin: the rule of `reckoning` on a board."""

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from inferwatch.board import (
    ADMITTED,
    COMPLETION_TOKENS,
    END_S,
    H_BEAT_NS,
    H_FULL,
    H_UNSURE,
    REJECTED,
    ROOM_S,
    SPENT,
    TAKEN_EXPECTED,
    TAKEN_WORST,
    WOULD_REJECT,
    Board,
)
from inferwatch.budget_rules import Names, TokenRate, digest_of
from inferwatch.price_book import PriceBook
from inferwatch.relay import admission
from inferwatch.relay.admission import Admission, Budgeting, BudgetRefusal
from inferwatch.relay.reckoning import Wish
from inferwatch.settings.budgets import Budgets

from .conftest import PRICES, budgets, rule

OpenBoard = Callable[..., Board]
ACME = Names("acme", "", "", "qwen")


# --- on the board


def gate(board: Board, settings: Budgets | None = None, prices: PriceBook = PRICES) -> Budgeting:
    return Budgeting(settings or budgets(), prices, board)


def put(board: Board, words: dict[int, int], name: str = "acme", values: tuple[str, ...] = ()) -> int:
    base = board.base(board.find(digest_of(name, values), make=True))
    for word, value in words.items():
        board.words[base + word] = value
    return base


def test_a_request_takes_what_it_can_cost(open_board: OpenBoard) -> None:
    """A token for each byte and 512 more, and max_tokens: at 1 and 10 dollars a million."""
    admitted = gate(open_board()).admit(ACME, Wish(prompt_bytes=488, max_tokens=100))
    assert isinstance(admitted, Admission)
    [(_, expected, worst, position)] = admitted.reserved
    assert worst == expected == position == 1000 * 1_000 + 100 * 10_000


@pytest.mark.parametrize(
    ("wish", "tokens"),
    [
        (Wish(0, max_tokens=0), 16_384),  # not given: the default
        (Wish(0, max_tokens=50), 50),
        (Wish(0, max_tokens=999_999_999), 131_072),  # hostile: no longer than the context
        (Wish(0, max_tokens=50, choices=4), 200),
        (Wish(0, max_tokens=50, choices=0), 50),  # unknown
        (Wish(0, max_tokens=50, generates=False), 0),
    ],
)
def test_completions_are_bounded(open_board: OpenBoard, wish: Wish, tokens: int) -> None:
    """By what the client says, a default, and the context; for each choice."""
    settings = budgets(rule(unit="completion_tokens", limit=10**9))
    admitted = gate(open_board(), settings).admit(ACME, wish)
    assert isinstance(admitted, Admission)
    assert sum(worst for _, _, worst, _ in admitted.reserved) == tokens


def test_prompt_and_answer_share_the_context(open_board: OpenBoard) -> None:
    """A prompt that fills it leaves nothing to answer; dear answers count more than prompts."""
    settings = budgets(rule(unit="tokens", limit=10**9), context_tokens=1000)
    admitted = gate(open_board(), settings).admit(ACME, Wish(prompt_bytes=100_000, max_tokens=999))
    assert isinstance(admitted, Admission)
    assert admitted.reserved[0][2] == 1000


def test_expected_is_what_the_account_has_shown(open_board: OpenBoard) -> None:
    """The collector says what its requests come to; never more than the worst."""
    board = open_board()
    put(board, {COMPLETION_TOKENS: 64})
    small = gate(board).admit(ACME, Wish(prompt_bytes=299, max_tokens=10))
    large = gate(board).admit(ACME, Wish(prompt_bytes=299))
    assert isinstance(small, Admission)
    assert isinstance(large, Admission)
    assert small.reserved[0][1] == 100 * 1_000 + 10 * 10_000
    assert large.reserved[0][1] == 100 * 1_000 + 64 * 10_000
    assert large.reserved[0][2] == 811 * 1_000 + 16_384 * 10_000


def test_a_spent_budget_says_so_and_when_it_begins_anew(open_board: OpenBoard) -> None:
    """The client is told which budget, how much it was, and when to come again; there is no use before."""
    board = open_board()
    end_s = int(time.time()) + 1000
    put(board, {SPENT: 5 * 10**9, END_S: end_s})
    refusal = gate(board).admit(ACME, Wish(10))
    assert isinstance(refusal, BudgetRefusal)
    assert refusal.spent
    assert 990 <= refusal.retry_after_s <= 1000
    assert "budget `acme` is spent: 5 dollars for this month" in refusal.message
    assert time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end_s)) in refusal.message


def test_a_rolling_budget_says_when_there_is_room(open_board: OpenBoard) -> None:
    """By what the collector reckons will fall out of the window."""
    board = open_board()
    put(board, {SPENT: 5 * 10**9, ROOM_S: int(time.time()) + 50})
    settings = budgets(rule(period="rolling", window_s=3600))
    refusal = gate(board, settings).admit(ACME, Wish(10))
    assert isinstance(refusal, BudgetRefusal)
    assert 45 <= refusal.retry_after_s <= 50
    assert "the last 3600 s" in refusal.message


def test_what_is_only_held_is_free_again_soon(open_board: OpenBoard) -> None:
    """Then the client is asked to try again, not sent away for a month."""
    board = open_board()
    put(board, {SPENT: 4 * 10**9, END_S: int(time.time()) + 1000})
    limit = gate(board)
    assert isinstance(limit.admit(ACME, Wish(0, max_tokens=90_000)), Admission)
    refusal = limit.admit(ACME, Wish(0, max_tokens=90_000))
    assert isinstance(refusal, BudgetRefusal)
    assert not refusal.spent
    assert refusal.retry_after_s == 1
    assert "1 of 5 dollars for this month are left" in refusal.message


def test_where_only_holds_are_in_the_way_there_may_be_room_soon(open_board: OpenBoard) -> None:
    """Who will ask again for the same request is counted when it has asked for the last time."""
    board = open_board()
    base = put(board, {SPENT: 4 * 10**9})
    limit = gate(board)
    limit.admit(ACME, Wish(0, max_tokens=90_000))
    refusals = [limit.admit(ACME, Wish(0, max_tokens=90_000), last=last) for last in (False, True)]
    assert [(refusal.soon, refusal.spent) for refusal in refusals if isinstance(refusal, BudgetRefusal)] == [
        (True, False)
    ] * 2
    assert board.words[base + REJECTED] == 1
    too_much = limit.admit(ACME, Wish(0, max_tokens=110_000), last=False)
    assert isinstance(too_much, BudgetRefusal)
    assert not too_much.soon
    assert board.words[base + REJECTED] == 2


def test_of_several_budgets_each_must_have_room_soon(open_board: OpenBoard) -> None:
    """One that is spent is not worth waiting for."""
    board = open_board()
    rules = budgets(rule(name="held"), rule(name="spent"))
    put(board, {SPENT: 5 * 10**9}, "spent")
    put(board, {TAKEN_EXPECTED: 5 * 10**9, TAKEN_WORST: 5 * 10**9}, "held")
    refusal = gate(board, rules).admit(ACME, Wish(0, max_tokens=100), last=False)
    assert isinstance(refusal, BudgetRefusal)
    assert not refusal.soon


def test_a_period_that_is_over_is_over(open_board: OpenBoard) -> None:
    """Also when the collector has not come round to say so."""
    board = open_board()
    put(board, {SPENT: 5 * 10**9, END_S: int(time.time()) - 1})
    assert isinstance(gate(board).admit(ACME, Wish(10)), Admission)


def test_observed_budgets_refuse_nobody_and_count(open_board: OpenBoard) -> None:
    """A dry run: what would have been refused goes through, holds what it needs, and is counted."""
    board = open_board()
    base = put(board, {SPENT: 5 * 10**9})
    admitted = gate(board, budgets(rule(on_limit="observe"))).admit(ACME, Wish(10))
    assert isinstance(admitted, Admission)
    assert admitted.reserved
    assert (board.words[base + WOULD_REJECT], board.words[base + ADMITTED], board.words[base + REJECTED]) == (1, 0, 0)


def test_a_request_needs_room_in_all_of_its_budgets_or_takes_nothing(open_board: OpenBoard) -> None:
    """What one refuses, the others do not hold; the refusal is that which lasts longest."""
    board = open_board()
    now_s = int(time.time())
    rules = (rule(name="month"), rule(name="day", period="day"), rule(name="free"))
    put(board, {SPENT: 5 * 10**9, END_S: now_s + 5000}, "month")
    put(board, {SPENT: 5 * 10**9, END_S: now_s + 50}, "day")
    free = put(board, {}, "free")
    refusal = gate(board, budgets(*rules)).admit(ACME, Wish(10))
    assert isinstance(refusal, BudgetRefusal)
    assert refusal.budget == "month"
    assert not any(board.words[free + offset] for offset in range(2, 16))


def test_each_value_of_per_has_the_whole_limit(open_board: OpenBoard) -> None:
    """One user's spending is not another's, and the message names whose it is."""
    board = open_board()
    settings = budgets(rule(tenant="*", per=("tenant", "user")))
    put(board, {SPENT: 5 * 10**9}, values=("acme", "u1"))
    limit = gate(board, settings)
    refusal = limit.admit(Names("acme", "u1", "", "qwen"), Wish(10))
    assert isinstance(refusal, BudgetRefusal)
    assert "of tenant acme, user u1" in refusal.message
    assert isinstance(limit.admit(Names("acme", "u2", "", "qwen"), Wish(10)), Admission)


@pytest.mark.parametrize(
    "changes",
    [{"tenant": "other"}, {"model": "llama-*"}, {"feature": "?*"}, {"user": "u1"}],
    ids=lambda each: next(iter(each)),
)
def test_budgets_of_others_do_not_matter(open_board: OpenBoard, changes: dict[str, Any]) -> None:
    """Nothing is held where no budget is for the request."""
    assert gate(open_board(), budgets(rule(**changes))).admit(ACME, Wish(10)) == Admission()


def test_without_a_price_nothing_is_held_and_spending_decides(open_board: OpenBoard) -> None:
    """A model that has no price costs nothing in the price list's dollars."""
    board = open_board()
    limit = gate(board, prices=PriceBook())
    assert limit.admit(ACME, Wish(10)) == Admission()
    put(board, {SPENT: 5 * 10**9})
    assert isinstance(limit.admit(ACME, Wish(10)), BudgetRefusal)


def test_measured_units_are_held_by_what_tokens_came_to(open_board: OpenBoard) -> None:
    """The collector has learnt it; before, nothing is held."""
    board = open_board()
    limit = gate(board, budgets(rule(unit="joules", limit=1000)))
    assert limit.admit(ACME, Wish(0, max_tokens=10)) == Admission()
    board.set_rate("joules", TokenRate(0, 2_000_000))  # 2 uJ a token
    admitted = limit.admit(ACME, Wish(0, max_tokens=10))
    assert isinstance(admitted, Admission)
    assert admitted.reserved[0][2] == 20


# --- faults of ours refuse nobody


def test_without_the_lock_requests_pass_and_nobody_waits_again(open_board: OpenBoard) -> None:
    """A process that stands still with the lock stops one request for a moment, and the next ones not at all."""
    holder, board = open_board(), open_board(lock_wait_s=0.001)
    put(board, {SPENT: 5 * 10**9})
    limit = gate(board)
    holder.lock()
    assert limit.admit(ACME, Wish(10)) == Admission()
    holder.unlock()
    assert limit.admit(ACME, Wish(10)) == Admission()
    assert limit.unsure == 2


def test_without_a_slot_requests_pass_and_are_counted(open_board: OpenBoard) -> None:
    """More users than there are accounts for."""
    board = open_board(max_accounts=16)
    limit = gate(board, budgets(rule(per=("user",))))
    found = [limit.admit(Names("acme", str(number), "", "qwen"), Wish(10)) for number in range(40)]
    assert all(isinstance(each, Admission) for each in found)
    assert board.words[H_FULL] == 40 - 32


def test_a_silent_collector_leaves_what_is_known_to_be_spent(open_board: OpenBoard) -> None:
    """Nobody lets go of what is held any more, so it cannot count; a spent budget is spent all the same."""
    board = open_board()
    limit = gate(board)
    while isinstance(limit.admit(ACME, Wish(0)), Admission):
        pass
    board.beat(time.monotonic_ns() - admission.SILENT_NS - 1)
    assert isinstance(limit.admit(ACME, Wish(0)), Admission)
    assert board.words[H_UNSURE] == 1
    put(board, {SPENT: 5 * 10**9})
    assert isinstance(limit.admit(ACME, Wish(0)), BudgetRefusal)
    assert board.words[H_BEAT_NS]


def test_a_new_configuration_holds_for_the_next_request(open_board: OpenBoard) -> None:
    """A limit that was raised lets the tenant in again; what was spent stays."""
    board = open_board()
    put(board, {SPENT: 5 * 10**9})
    limit = gate(board)
    assert isinstance(limit.admit(ACME, Wish(0)), BudgetRefusal)
    limit.use(budgets(rule(limit=Decimal(50))), PRICES)
    assert isinstance(limit.admit(ACME, Wish(0)), Admission)
