"""Budgets, boards, and a collector's meter without a collector."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from inferwatch.board import Board
from inferwatch.price_book import PriceBook
from inferwatch.record import Outcome, RequestRecord, TokenSource
from inferwatch.settings.budgets import BudgetRule, Budgets
from inferwatch.settings.prices import PriceRule
from inferwatch.tap import Open

# 2026-03-10 12:00 UTC, a Tuesday.
NOW_S = 1_773_144_000
NS = 1_000_000_000

# A dollar for a million prompt tokens, ten for a million completion tokens: 1,000 and 10,000 nano-dollars each.
PRICES = PriceBook([PriceRule(model="*", input=Decimal(1), output=Decimal(10))])


def rule(**changes: Any) -> BudgetRule:
    """A budget of 5 dollars a month for tenant acme, enforced."""
    fields: dict[str, Any] = {"name": "acme", "tenant": "acme", "limit": Decimal(5), "on_limit": "reject"}
    fields |= changes
    fields["limit"] = Decimal(fields["limit"])
    return BudgetRule(**fields)


def budgets(*rules: BudgetRule, **changes: Any) -> Budgets:
    return Budgets(rules=rules or (rule(),), **changes)


def opened(number: int, *, boot: str = "b007", at_s: float = NOW_S, **changes: Any) -> Open:
    """The frame of request `number`, which arrived at the Unix time `at_s`."""
    fields: dict[str, Any] = {
        "id": number,
        "request_id": f"{boot}{number:08x}",
        "wall_ns": round(at_s * NS),
        "arrival_ns": number,
        "sent_ns": number,
        "method": "POST",
        "path": "/v1/chat/completions",
        "tenant": "acme",
        "model": "qwen",
        "stream": True,
        "asked_usage": True,
        "choices": 1,
        "headers": {},
        "body": b"",
        "body_bytes": 300,
    }
    return Open(**fields | changes)


def finished(frame: Open, completion: int | None, prompt: int | None = 100, **changes: Any) -> RequestRecord:
    """The record of a request; its price by PRICES."""
    price = None if prompt is None or completion is None else prompt * 1_000 + completion * 10_000
    fields: dict[str, Any] = {
        "request_id": frame.request_id,
        "wall_ns": frame.wall_ns,
        "tenant": frame.tenant,
        "model": frame.model,
        "user": frame.user,
        "feature": frame.feature,
        "operation": "chat",
        "route": "/v1/chat/completions",
        "method": "POST",
        "stream": frame.stream,
        "outcome": Outcome.OK,
        "status": 200,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "token_source": TokenSource.FINAL_USAGE,
        "choices": 1,
        "duration_s": 1.0,
        "request_bytes": frame.body_bytes,
        "price_nanodollars": price,
    }
    return RequestRecord(**fields | changes)


@pytest.fixture
def open_board(tmp_path: Path) -> Iterator[Callable[..., Board]]:
    """Opens the same board again and again, as each process would."""
    opened_boards: list[Board] = []

    def make(max_accounts: int = 64, lock_wait_s: float = 5.0) -> Board:
        board = Board(tmp_path / "a.board", max_accounts, lock_wait_s=lock_wait_s)
        opened_boards.append(board)
        return board

    yield make
    for board in opened_boards:
        board.close()
