"""admission at a shared budget: what this host was lent stands in for the limit, and what the client is told."""

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from inferwatch.board import (
    CEILING,
    ELSEWHERE,
    END_S,
    H_INITIAL,
    SPENT,
    WANTED_EXPECTED,
    WANTED_WORST,
    Board,
)
from inferwatch.budget_rules import Names, digest_of
from inferwatch.relay import admission
from inferwatch.relay.admission import Admission, Budgeting, BudgetRefusal
from inferwatch.relay.reckoning import Wish
from inferwatch.settings.sharing import Redis

from .conftest import PRICES, budgets, rule

OpenBoard = Callable[..., Board]
ACME = Names("acme", "", "", "qwen")
REDIS = Redis(url="redis://nowhere")
LIMIT = 1000


def gate(board: Board, **changes: Any) -> Budgeting:
    """Completion tokens, at their worst."""
    fields = {"unit": "completion_tokens", "limit": Decimal(LIMIT), "reserve": "worst"} | changes
    return Budgeting(budgets(rule(**fields), redis=REDIS), PRICES, board)


def put(board: Board, words: dict[int, int]) -> int:
    """What the collector has written of the account; returns where."""
    base = board.base(board.find(digest_of("acme", ()), make=True))
    for word, value in words.items():
        board.words[base + word] = value
    return base


def lets_in(limit: Budgeting, tokens: int) -> bool:
    return isinstance(limit.admit(ACME, Wish(0, max_tokens=tokens)), Admission)


def test_what_is_lent_is_the_limit_here(open_board: OpenBoard) -> None:
    """With what is spent and held; the word is one more than the ceiling, for 0 is none."""
    board = open_board()
    put(board, {CEILING: 101, SPENT: 40})
    limit = gate(board)
    assert not lets_in(limit, 61)
    assert lets_in(limit, 60)
    assert not lets_in(limit, 1)


def test_a_ceiling_of_nothing_lets_nothing_in(open_board: OpenBoard) -> None:
    board = open_board()
    put(board, {CEILING: 1})
    board.words[H_INITIAL] = 500_000
    assert not lets_in(gate(board), 1)


def test_without_a_ceiling_the_initial_share_counts(open_board: OpenBoard) -> None:
    """Before Redis was heard there is none."""
    board = open_board()
    limit = gate(board)
    assert not lets_in(limit, 1)
    board.words[H_INITIAL] = 20_000
    assert not lets_in(limit, 21)
    assert lets_in(limit, 20)


def test_a_ceiling_is_of_one_period(open_board: OpenBoard) -> None:
    """In the next one the initial share counts, also if the collector has not said so yet."""
    board = open_board()
    put(board, {CEILING: 1, SPENT: 900, ELSEWHERE: 100, END_S: int(time.time()) - 1})
    board.words[H_INITIAL] = 20_000
    assert lets_in(gate(board), 20)


def test_a_budget_of_this_host_alone_has_no_ceiling(open_board: OpenBoard) -> None:
    """`shared: false`, or no Redis."""
    board = open_board()
    put(board, {CEILING: 1})
    assert lets_in(gate(board, shared=False), LIMIT)
    alone = Budgeting(budgets(rule(unit="completion_tokens", limit=Decimal(2 * LIMIT))), PRICES, board)
    assert lets_in(alone, LIMIT)


def test_a_limit_that_was_lowered_counts_at_once(open_board: OpenBoard) -> None:
    board = open_board()
    put(board, {CEILING: 501})
    lowered = gate(board, limit=Decimal(100))
    assert lets_in(lowered, 60)
    assert not lets_in(lowered, 60)


def test_the_largest_need_is_left_for_the_collector(open_board: OpenBoard) -> None:
    """Refused or not: it asks for so much the next time."""
    board = open_board()
    base = put(board, {CEILING: 101})
    limit = gate(board)
    for tokens in (7, 300, 50):
        lets_in(limit, tokens)
    assert (board.words[base + WANTED_EXPECTED], board.words[base + WANTED_WORST]) == (300, 300)
    base = put(board, {WANTED_EXPECTED: 0, WANTED_WORST: 0})
    lets_in(gate(board, shared=False), 40)
    assert board.words[base + WANTED_WORST] == 0


@pytest.mark.parametrize(
    ("words", "spent", "message"),
    [
        ({CEILING: 101, SPENT: 100}, False, "budget `acme`: 900 of 1000 completion_tokens for this month are left"),
        ({CEILING: 101, SPENT: 100, ELSEWHERE: 650}, False, "budget `acme`: 250 of 1000"),
        ({CEILING: 101, SPENT: 100, ELSEWHERE: 900}, True, "budget `acme` is spent: 1000 completion_tokens"),
    ],
)
def test_a_client_is_sent_away_only_if_all_hosts_have_spent_it(
    open_board: OpenBoard, words: dict[int, int], spent: bool, message: str
) -> None:
    """Else it is told to try again soon: more may be lent by then."""
    board = open_board()
    put(board, words | {END_S: int(time.time()) + 1000})
    refusal = gate(board).admit(ACME, Wish(0, max_tokens=50))
    assert isinstance(refusal, BudgetRefusal)
    assert refusal.spent == spent
    assert (refusal.retry_after_s > 1) == spent
    assert message in refusal.message


def test_a_silent_collector_leaves_what_all_are_known_to_have_spent(open_board: OpenBoard) -> None:
    """Nobody asks for more then, and a fault of ours refuses nobody."""
    board = open_board()
    put(board, {CEILING: 1, SPENT: 100, ELSEWHERE: 500})
    board.beat(time.monotonic_ns() - admission.SILENT_NS - 1)
    assert lets_in(gate(board), 10)
    put(board, {ELSEWHERE: 900})
    assert not lets_in(gate(board), 10)
