"""Many at once, on the real board, in threads and in processes: no overspending, and no refusal without need."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

import pytest

from inferwatch.board import COMPLETION_TOKENS, RELEASED_EXPECTED, RELEASED_WORST, SPENT, TAKEN_WORST, Board
from inferwatch.budget_rules import Names, digest_of
from inferwatch.relay.admission import Admission, Budgeting
from inferwatch.relay.reckoning import Wish
from inferwatch.settings.budgets import Budgets

from .conftest import PRICES, budgets, rule

OpenBoard = Callable[..., Board]
ACME = Names("acme", "", "", "qwen")
REQUESTS = 1000
LIMIT = 5 * 10**9

# 488 bytes of body and 899 tokens: at most 1,000 x 1,000 + 899 x 10,000 = 9,990,000 nano-dollars.
WISH = Wish(prompt_bytes=488, max_tokens=899)
WORST = 9_990_000


def at_once(path: Path, settings: Budgets, wish: Wish, requests: int, threads: int = 20) -> list[Admission]:
    """Let `requests` ask for room, in as many threads as start together, each with its own view; return who got in."""
    start = threading.Barrier(threads)
    admitted: list[Admission] = []

    def ask() -> None:
        board = Board(path, 64, lock_wait_s=20)
        gate = Budgeting(settings, PRICES, board)
        start.wait()
        found = [gate.admit(ACME, wish) for _ in range(requests // threads)]
        admitted.extend(each for each in found if isinstance(each, Admission))
        assert gate.unsure == 0
        board.close()

    workers = [threading.Thread(target=ask) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return admitted


@pytest.mark.parametrize("reserve", ["expected", "worst"])
def test_a_thousand_first_requests_do_not_overspend(open_board: OpenBoard, tmp_path: Path, reserve: str) -> None:
    """1,000 at once that may cost 9.99 dollars together, against 5: what gets in costs no more at its very worst."""
    board = open_board()
    admitted = at_once(tmp_path / "a.board", budgets(rule(reserve=reserve)), WISH, REQUESTS)
    assert len(admitted) == LIMIT // WORST
    assert sum(each.reserved[0][2] for each in admitted) <= LIMIT
    base = board.base(board.find(digest_of("acme", ()), make=False))
    assert board.words[base + TAKEN_WORST] == len(admitted) * WORST


PROCESS = """
import json, sys
from decimal import Decimal
from pathlib import Path
from inferwatch.board import Board
from inferwatch.budget_rules import Names
from inferwatch.price_book import PriceBook
from inferwatch.relay.admission import Admission, Budgeting
from inferwatch.relay.reckoning import Wish
from inferwatch.settings.budgets import BudgetRule, Budgets
from inferwatch.settings.prices import PriceRule
rule = BudgetRule(name="acme", tenant="acme", limit=Decimal(5), on_limit="reject")
prices = PriceBook([PriceRule(model="*", input=Decimal(1), output=Decimal(10))])
gate = Budgeting(Budgets(rules=(rule,)), prices, Board(Path(sys.argv[1]), 64, lock_wait_s=20))
sys.stdin.readline()
found = [gate.admit(Names("acme", "", "", "qwen"), Wish(488, max_tokens=899)) for _ in range(int(sys.argv[2]))]
print(json.dumps([each.reserved[0][2:] for each in found if isinstance(each, Admission)]))
"""


def test_workers_do_not_overspend_together(open_board: OpenBoard, tmp_path: Path) -> None:
    """The same in four processes: none gets in beside the others, and each take has its own position."""
    open_board()
    with ExitStack() as stack:
        command = [sys.executable, "-c", PROCESS, str(tmp_path / "a.board"), str(REQUESTS // 4)]
        workers = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(4)
        ]
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        found = [json.loads(worker.communicate()[0]) for worker in workers]
    takes = [take for each in found for take in each]
    assert sum(worst for worst, _ in takes) <= LIMIT
    assert len(takes) == LIMIT // WORST
    assert sorted(position for _, position in takes) == [WORST * (index + 1) for index in range(len(takes))]


def test_with_half_of_the_budget_idle_nobody_is_refused(open_board: OpenBoard, tmp_path: Path) -> None:
    """1,000 at once without `max_tokens`, whose worst cases are 33 times the budget, and who need a quarter of it."""
    board = open_board()
    base = board.base(board.find(digest_of("acme", ()), make=True))
    board.words[base + COMPLETION_TOKENS] = 128  # what the account's requests came to so far
    board.words[base + SPENT] = LIMIT // 5
    wish = Wish(prompt_bytes=300)
    admitted = at_once(tmp_path / "a.board", budgets(), wish, REQUESTS)
    assert len(admitted) == REQUESTS
    assert sum(each.reserved[0][2] for each in admitted) > 30 * LIMIT
    assert sum(each.reserved[0][1] for each in admitted) < LIMIT * 0.3


def test_first_requests_are_not_refused_while_their_worst_cases_fit(open_board: OpenBoard, tmp_path: Path) -> None:
    """Nothing is known of the tenant, and 1,000 at once use half of the budget at the most."""
    open_board()
    admitted = at_once(tmp_path / "a.board", budgets(rule(limit=Decimal(10))), WISH, REQUESTS)
    assert len(admitted) == REQUESTS


def _turnover(open_board: OpenBoard, path: Path) -> Iterator[int]:
    """Yield how much was spent each time after a request ended at its worst and another one came."""
    board = open_board()
    gate = Budgeting(budgets(rule(reserve="worst")), PRICES, Board(path, 64, lock_wait_s=1))
    base = board.base(board.find(digest_of("acme", ()), make=True))
    running: list[int] = []
    for _ in range(2000):
        admitted = gate.admit(ACME, WISH)
        if isinstance(admitted, Admission):
            running.append(admitted.reserved[0][2])
        elif running:
            with board.locked():
                worst = running.pop()
                board.words[base + SPENT] += worst
                board.words[base + RELEASED_WORST] += worst
                board.words[base + RELEASED_EXPECTED] += worst
        yield board.words[base + SPENT] + sum(running)


def test_ends_and_beginnings_in_turn_do_not_overspend(open_board: OpenBoard, tmp_path: Path) -> None:
    """Up to the last request that fits, with every one of them at its worst."""
    totals = list(_turnover(open_board, tmp_path / "a.board"))
    assert LIMIT - WORST < max(totals) <= LIMIT
