"""gatekeeping: a gate while there are budgets, and none that could refuse anybody by a fault of ours."""

import logging
from pathlib import Path
from typing import Any

import pytest
from harness import configured

from inferwatch.board import Board
from inferwatch.budget_rules import Names
from inferwatch.relay.admission import Admission, BudgetRefusal
from inferwatch.relay.gatekeeping import Gatekeeper
from inferwatch.relay.reckoning import Wish

NAMES = Names("acme", "", "", "m")
WISH = Wish(100, max_tokens=100)


def rules(limit: int, **more: Any) -> Any:
    rule = {"name": "acme", "limit": limit, "unit": "tokens", "on_limit": "reject", "reserve": "worst"}
    return configured(budgets={"rules": [rule], **more})


def test_there_is_a_gate_while_there_are_budgets(tmp_path: Path) -> None:
    """Without any the board is not even made; a reload brings new limits, and takes the gate away with the last rule."""
    path = tmp_path / "a.board"
    keeper = Gatekeeper(path)
    assert keeper.use(configured()) is None
    assert not path.exists()

    gate = keeper.use(rules(1000))
    assert gate is not None
    assert isinstance(gate.admit(NAMES, WISH), Admission)
    assert isinstance(gate.admit(NAMES, WISH), BudgetRefusal)  # 712 of 1,000 are taken
    assert keeper.use(rules(2000)) is gate
    assert isinstance(gate.admit(NAMES, WISH), Admission)
    assert keeper.use(configured()) is None
    again = keeper.use(rules(2000))
    assert again is not None
    assert isinstance(again.admit(NAMES, WISH), BudgetRefusal)  # what was taken is not forgotten


@pytest.mark.parametrize("accounts", [32, 0])
def test_without_a_board_nobody_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture, accounts: int) -> None:
    """One of another size, or a folder in its place: the log says so, and requests pass."""
    path = tmp_path / "a.board"
    if accounts:
        Board(path, accounts, lock_wait_s=0.1).close()
    else:
        path.mkdir()
    with caplog.at_level(logging.ERROR):
        assert Gatekeeper(path).use(rules(1000)) is None
    assert "budgets_not_enforced" in caplog.text
    assert Gatekeeper(None).use(rules(1000)) is None


def test_who_passes_without_the_lock_is_counted(tmp_path: Path) -> None:
    """Somebody stands still with it: requests pass."""
    path = tmp_path / "a.board"
    keeper = Gatekeeper(path)
    gate = keeper.use(rules(1, max_lock_wait_s=0.01))
    assert gate is not None
    other = Board(path, 4096, lock_wait_s=0.1)
    with other.locked():
        assert isinstance(gate.admit(NAMES, WISH), Admission)
        assert isinstance(gate.admit(NAMES, WISH), Admission)
    other.close()
    assert keeper.unsure == 2
