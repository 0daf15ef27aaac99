"""settings.budgets and budget_rules: what may be written, and what it means."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch import budget_rules
from inferwatch.budget_rules import Names, Rulebook, TokenRate, digest_of
from inferwatch.settings.budgets import MAX_RULES, Budgets, fault
from inferwatch.settings.cost import Cost

from .conftest import budgets, rule

RENTED = Cost(hourly_dollars=Decimal(2))
METERED = Cost(hourly_dollars=Decimal(2), dollars_per_kwh=Decimal("0.3"))


@pytest.mark.parametrize(
    ("settings", "cost", "problem"),
    [
        (budgets(), Cost(), ""),
        (budgets(rule(period="rolling", window_s=60)), Cost(), ""),
        (budgets(rule(time_zone="Europe/Berlin")), Cost(), ""),
        (budgets(rule(name="a b")), Cost(), "budgets.rules[0].name: expected 1 to 64 letters"),
        (budgets(rule(), rule()), Cost(), "budgets.rules[1].name: `acme` is written twice"),
        (budgets(rule(limit=0)), Cost(), "budgets.rules[0].limit: expected more than 0"),
        (budgets(rule(limit="NaN")), Cost(), "budgets.rules[0].limit: expected more than 0"),
        (budgets(rule(limit="1e10")), Cost(), "budgets.rules[0].limit: expected more than 0 and at most"),
        (budgets(rule(limit="0.0000001")), Cost(), "budgets.rules[0].limit: expected at most 6 decimals"),
        (budgets(rule(unit="tokens", limit="1.5")), Cost(), "budgets.rules[0].limit: expected at most 0 decimals"),
        (budgets(rule(tenant="")), Cost(), "budgets.rules[0].tenant: expected 1 to"),
        (budgets(rule(per=("user", "user"))), Cost(), "budgets.rules[0].per: a word is written twice"),
        (budgets(rule(unit="tokens", basis="gpu")), Cost(), "budgets.rules[0].basis: `gpu` is for `unit: dollars`"),
        (budgets(rule(period="rolling")), Cost(), "budgets.rules[0].window_s: goes together"),
        (budgets(rule(window_s=60)), Cost(), "budgets.rules[0].window_s: goes together"),
        (budgets(rule(period="rolling", window_s=59)), Cost(), "budgets.rules[0].window_s: expected at least 60"),
        (budgets(rule(time_zone="Mars/North")), Cost(), "budgets.rules[0].time_zone: there is no time zone"),
        (budgets(time_zone="../etc"), Cost(), "budgets.time_zone: there is no time zone"),
        (budgets(rule(warn_percent=(80, 50))), Cost(), "budgets.rules[0].warn_percent: expected ascending"),
        (budgets(rule(warn_percent=(0,))), Cost(), "budgets.rules[0].warn_percent: expected at most"),
        (budgets(rule(basis="gpu")), Cost(), "budgets.rules[0].basis: `gpu` needs the machine's price"),
        (budgets(rule(basis="gpu")), METERED, ""),
        (budgets(rule(unit="gpu_seconds")), Cost(), "budgets.rules[0].unit: `gpu_seconds` needs a price"),
        (budgets(rule(unit="gpu_seconds")), METERED, "budgets.rules[0].unit: `gpu_seconds` needs a price"),
        (budgets(rule(unit="gpu_seconds")), RENTED, ""),
        (Budgets(rules=(rule(),) * (MAX_RULES + 1)), Cost(), f"budgets.rules: {MAX_RULES + 1} rules"),
    ],
)
def test_what_is_wrong_is_named(settings: Budgets, cost: Cost, problem: str) -> None:
    """By its key; what would never be measured is wrong too."""
    found = fault(settings, cost)
    assert found.startswith(problem)
    assert bool(found) == bool(problem)


@pytest.mark.parametrize(
    ("changes", "names", "fits"),
    [
        ({}, Names("acme", "", "", ""), True),
        ({}, Names("other", "", "", ""), False),
        ({"tenant": "a*"}, Names("acme", "u", "f", "m"), True),
        ({"tenant": "a"}, Names("acme", "", "", ""), False),
        ({"feature": "?*"}, Names("acme", "", "", "m"), False),
        ({"feature": "?*"}, Names("acme", "", "chat", "m"), True),
        ({"user": "u[12]", "model": "qwen-*"}, Names("acme", "u2", "", "qwen-7b"), True),
        ({"user": "u[12]", "model": "qwen-*"}, Names("acme", "u3", "", "qwen-7b"), False),
        ({"model": "a.b"}, Names("acme", "", "", "axb"), False),
    ],
)
def test_all_four_patterns_must_fit(changes: dict[str, Any], names: Names, fits: bool) -> None:
    """As in file names."""
    assert bool(Rulebook(budgets(rule(**changes))).matching(names)) == fits


def test_an_account_depends_on_the_name_and_its_values_alone() -> None:
    """A limit or a period that was changed does not lose what was spent; two accounts are never one."""
    names = Names("acme", "u", "f", "m")
    before = Rulebook(budgets(rule(per=("user",)))).matching(names)[0].digest
    after = Rulebook(budgets(rule(per=("user",), limit=9, period="day"))).matching(names)[0].digest
    assert before == after
    assert len({digest_of("a", ("b", "c")), digest_of("a", ("bc",)), digest_of("a", ("b",)), digest_of("ab", ())}) == 4


@given(st.text(max_size=5), st.lists(st.text(max_size=3), max_size=3))
def test_digests_are_words_that_mean_nothing_else_on_the_board(name: str, values: list[str]) -> None:
    """The first half is positive, the second not negative."""
    first, second = digest_of(name, tuple(values))
    assert 0 < first < 2**63
    assert 0 <= second < 2**63


def test_clients_that_invent_names_do_not_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many combinations are remembered."""
    monkeypatch.setattr(budget_rules, "MAX_REMEMBERED", 3)
    book = Rulebook(budgets(rule(tenant="*", per=("model",))))
    found = {book.matching(Names("acme", "", "", str(number)))[0].digest for number in range(20)}
    assert len(found) == 20
    assert len(book._remembered) <= 3


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**13), st.integers(0, 10**13))
def test_amounts_are_rounded_up(prompt: int, completion: int, price: int, dear: int) -> None:
    """Less than a step is a step: many small holds never hold nothing."""
    exact = prompt * price + completion * dear
    assert 0 <= TokenRate(price, dear).amount(prompt, completion) * 1_000_000 - exact < 1_000_000
