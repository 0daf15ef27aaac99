"""Label values are bounded, whoever chooses them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.cardinality import (
    MAX_INTERNAL_VALUES,
    MAX_OPERATIONS,
    MAX_VALUE_CHARS,
    OTHER,
    UNKNOWN,
    CardinalityGuard,
    Limits,
    RequestLabels,
    sanitize,
)


def a_guard(**limits: Any) -> tuple[CardinalityGuard, list[str]]:
    folded: list[str] = []
    return CardinalityGuard(Limits(**limits), folded.append), folded


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("modèle-é", "modèle-é"),
        ('quoted "name" \\', 'quoted "name" \\'),
        ("a\nb\x00c\x1b[31m", "abc[31m"),
        ("right\u202eto\u200bleft", "righttoleft"),
        ("lone \ud800 surrogate", "lone  surrogate"),
        ("  padded ", "padded"),
        ("", UNKNOWN),
        (" \n", UNKNOWN),
        ("x" * 500, "x" * MAX_VALUE_CHARS),
        ("\n" * 10_000_000, UNKNOWN),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_values_are_made_fit(value: str, expected: str) -> None:
    """Printable characters only, bounded, never empty, always encodable."""
    assert sanitize(value) == expected


@given(st.text(st.characters(), max_size=300))
def test_any_text_becomes_a_label(value: str) -> None:
    """Whatever comes in can be written as UTF-8 in one line, and making it fit twice changes nothing."""
    fit = sanitize(value)
    assert 0 < len(fit) <= MAX_VALUE_CHARS
    assert fit.encode().decode() == fit
    assert len(fit.splitlines()) == 1
    assert sanitize(fit) == fit


def test_values_above_the_limit_become_other() -> None:
    """First come, first served; who was admitted stays; each folding is counted, by label."""
    guard, folded = a_guard(models=2, tenants=3)
    names = [guard.labels(f"model-{n}", "t", "chat", now_s=0, count=True).model for n in range(4)]
    assert names == ["model-0", "model-1", OTHER, OTHER]
    assert guard.labels("model-1", "t", "chat", now_s=1, count=True).model == "model-1"
    assert folded == ["model", "model"]


def test_looking_up_is_not_counted() -> None:
    """A request is looked up when it opens and counted when it has finished: once."""
    guard, folded = a_guard(models=1)
    guard.labels("a", "t", "chat", now_s=0)
    guard.labels("b", "t", "chat", now_s=0)
    assert folded == []


def test_pinned_names_are_never_folded_and_use_no_slot() -> None:
    """Known models get their own series however many unknown names come first."""
    guard, folded = a_guard(models=1)
    guard.pin("model", ["known-1", "known-2"])
    models = [guard.labels(name, "t", "chat", now_s=0, count=True).model for name in ("x", "y", "known-1", "known-2")]
    assert models == ["x", OTHER, "known-1", "known-2"]
    assert folded == ["model"]


def test_pinning_frees_the_slot_of_a_name_already_in_use() -> None:
    """The engine may tell its models after the first request for one of them."""
    guard, _ = a_guard(models=1)
    guard.labels("late", "t", "chat", now_s=0)
    guard.pin("model", ["late"])
    assert guard.labels("next", "t", "chat", now_s=0).model == "next"


def test_a_client_that_calls_itself_other_is_other() -> None:
    """The reserved words need no slot, and nobody can take one with them."""
    guard, folded = a_guard(models=1, tenants=1)
    assert guard.labels(OTHER, "", "chat", now_s=0, count=True) == (OTHER, UNKNOWN, "chat")
    assert guard.labels("a", "b", "chat", now_s=0, count=True) == ("a", "b", "chat")
    assert folded == []


def test_combinations_have_a_limit_of_their_own() -> None:
    """Above it the tenant becomes other if the model is known, else both do."""
    guard, folded = a_guard(combinations=2)
    guard.pin("model", ["known"])
    guard.labels("known", "a", "chat", now_s=0)
    guard.labels("known", "b", "chat", now_s=0)
    assert guard.labels("known", "c", "chat", now_s=0, count=True) == ("known", OTHER, "chat")
    assert guard.labels("stranger", "c", "chat", now_s=0, count=True) == (OTHER, OTHER, "chat")
    assert guard.labels("known", "a", "chat", now_s=0, count=True) == ("known", "a", "chat")
    assert folded == ["combination", "combination"]


def test_a_folded_combination_takes_no_slots() -> None:
    """Names that are not exported do not keep out names that could be."""
    guard, _ = a_guard(models=2, combinations=1)
    guard.labels("a", "t", "chat", now_s=0)
    for n in range(50):
        guard.labels(f"flood-{n}", "t", "chat", now_s=0)
    guard.limits = Limits(models=2, combinations=10)
    assert guard.labels("b", "t", "chat", now_s=0).model == "b"


@given(st.lists(st.tuples(*[st.integers(0, 60)] * 3), max_size=150))
def test_the_product_is_bounded_whatever_comes(requests: list[tuple[int, int, int]]) -> None:
    """Combinations stay below the limit plus one fallback per operation; values below theirs plus the reserved two."""
    guard, _ = a_guard(models=5, tenants=7, combinations=12)
    seen = {guard.labels(f"m{a}", f"t{b}", f"o{c}", now_s=0) for a, b, c in requests}
    assert guard.combinations == len(seen) <= 12 + MAX_OPERATIONS + 2
    assert len({labels.model for labels in seen}) <= 5 + 1
    assert len({labels.tenant for labels in seen}) <= 7 + 1


def test_idle_combinations_are_retired() -> None:
    """After `idle_s` without use, and not before; the slots of their values are free again."""
    guard, _ = a_guard(models=1, idle_s=100)
    guard.labels("a", "t", "chat", now_s=0)
    guard.labels("a", "t", "chat", now_s=50)
    assert not guard.retire(now_s=150).combinations
    retired = guard.retire(now_s=151)
    assert retired == ({("a", "t", "chat")}, {"a"}, {"t"})
    assert guard.labels("b", "t", "chat", now_s=151).model == "b"


def test_a_value_still_in_use_elsewhere_is_not_retired() -> None:
    """The model goes on with another tenant: only the tenant is free."""
    guard, _ = a_guard(idle_s=100)
    guard.labels("a", "idle", "chat", now_s=0)
    guard.labels("a", "busy", "chat", now_s=90)
    assert guard.retire(now_s=120) == ({("a", "idle", "chat")}, frozenset(), {"idle"})


def test_use_that_is_noted_later_counts() -> None:
    """Labels whose use was noted are as good as asked for; a use of labels that are gone brings nothing back."""
    guard = CardinalityGuard(Limits(idle_s=100))
    labels = guard.labels("a", "t", "chat", now_s=0)
    guard.used(labels, now_s=50)
    guard.used(labels, now_s=20)
    assert not guard.retire(now_s=150).combinations
    assert guard.retire(now_s=151).combinations == {labels}
    guard.used(labels, now_s=152)
    assert guard.combinations == 0


def test_requests_in_flight_keep_their_series() -> None:
    """A stream may be longer than the idle time."""
    guard, _ = a_guard(idle_s=100)
    labels = guard.labels("a", "t", "chat", now_s=0)
    assert not guard.retire(now_s=1000, busy={labels}).combinations
    assert guard.retire(now_s=1000).combinations == {labels}


def test_known_combinations_are_never_retired() -> None:
    """A configured tenant of a known model keeps its totals over a quiet week-end."""
    guard, _ = a_guard(idle_s=100)
    guard.pin("model", ["a"])
    guard.pin("tenant", ["t"])
    guard.pin("operation", ["chat"])
    guard.labels("a", "t", "chat", now_s=0)
    assert not guard.retire(now_s=1e9).combinations


def test_retiring_can_be_switched_off() -> None:
    """`idle_s` of None keeps everything."""
    guard, _ = a_guard(idle_s=None)
    guard.labels("a", "t", "chat", now_s=0)
    assert not guard.retire(now_s=1e9).combinations


def test_readmitted_combinations_fill_slots_and_can_be_retired() -> None:
    """Restored series are series: a restart does not double what is let through, nor keep the old for ever."""
    guard, _ = a_guard(models=1, idle_s=100)
    old = RequestLabels("old", "t", "chat")
    guard.readmit([old], now_s=0)
    assert guard.labels("new", "t", "chat", now_s=1).model == OTHER
    assert guard.labels("old", "t", "chat", now_s=1).model == "old"
    assert old in guard.retire(now_s=500).combinations


def test_words_of_our_own_are_bounded_too() -> None:
    """A bug that makes words up at run time becomes `other`, and is counted."""
    guard, folded = a_guard()
    words = [guard.internal("stage", f"stage-{n}") for n in range(MAX_INTERNAL_VALUES + 2)]
    assert words[-3:] == [f"stage-{MAX_INTERNAL_VALUES - 1}", OTHER, OTHER]
    assert guard.internal("stage", "stage-0") == "stage-0"
    assert folded == ["stage", "stage"]
