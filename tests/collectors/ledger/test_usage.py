"""What roll-ups add up: reasons of waste, keys, and folding minutes into hours and days."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.record import Outcome, Share, TokenClass
from inferwatch_collectors.ledger.usage import (
    DAY,
    HOUR,
    LEVELS,
    MINUTE,
    MINUTE_NS,
    SUMS,
    Tally,
    folded,
    key_of,
    key_of_share,
    waste_of,
    without_user,
)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"finish_reasons": ("stop",)}, ""),
        ({"retried": True}, "retried"),
        ({"finish_reasons": ("length",)}, "truncated"),
        ({"finish_reasons": ("stop", "max_tokens"), "retried": True}, "truncated"),
        ({"finish_reasons": ("length",), "stream": True, "first_token": TokenClass.REASONING}, "no_answer"),
        ({"finish_reasons": ("length",), "reasoning_tokens": 3}, "no_answer"),
        ({"outcome": Outcome.CLIENT_ABORT, "stream": True, "response_bytes": 10}, "aborted"),
        ({"outcome": Outcome.CLIENT_ABORT, "stream": True}, "undelivered"),
        ({"outcome": Outcome.CLIENT_ABORT, "response_bytes": 10}, "undelivered"),
        ({"outcome": Outcome.UPSTREAM_ERROR}, "failed"),
        ({"outcome": Outcome.STREAM_ERROR, "finish_reasons": ("length",)}, "failed"),
        ({"outcome": Outcome.INTERRUPTED, "retried": True}, "failed"),
        ({"outcome": Outcome.REJECTED}, "rejected"),
    ],
)
def test_one_reason_of_waste(frames: Any, changes: dict[str, Any], reason: str) -> None:
    """Each request has one reason at most: what happened to the answer goes before how it came about."""
    assert waste_of(frames.record(1, **changes)) == reason


def test_a_key_names_who_and_how(frames: Any) -> None:
    """Requests differ by tenant, model, operation, user, feature, outcome and waste, and by nothing else."""
    record = frames.record(1, user="u", feature="search", retried=True)
    assert key_of(record) == ("acme", "qwen", "chat", "u", "search", "ok", "retried")
    assert without_user(key_of(record)) == ("acme", "qwen", "chat", "", "search", "ok", "retried")
    assert key_of(frames.record(2, prompt_tokens=99)) == key_of(frames.record(3))


def test_a_share_of_nobody_is_idle() -> None:
    """Idle time and a request without a row are told apart."""
    assert key_of_share(Share(wall_ns=1, model="m"))[5] == "idle"
    share = Share(request_id="r", wall_ns=1, tenant="t", model="m", user="u", feature="f")
    assert key_of_share(share) == ("t", "m", "", "u", "f", "unknown", "")


def test_unknown_is_counted_as_unknown(frames: Any) -> None:
    """What nobody reported adds nothing to a sum, and is counted beside it."""
    tally = Tally()
    tally.add(frames.record(1, prompt_tokens=None, completion_tokens=None), 1)
    tally.add(frames.record(1, cached_tokens=4, price_nanodollars=0, duration_s=0.25), 1)
    tally.add_share(Share(request_id="x", wall_ns=0), 0, 2)
    tally.add_share(Share(request_id="y", wall_ns=0, gpu_nanodollars=5, energy_uj=0), 0, 2)
    requests, shares = (dict(zip(SUMS, cell, strict=True)) for cell in tally.minutes.values())
    assert (requests["requests"], requests["uncounted"], requests["unpriced"]) == (2, 1, 1)
    assert (requests["prompt_tokens"], requests["cached_tokens"], requests["price_nanodollars"]) == (7, 4, 0)
    assert requests["duration_us"] == 750_000
    assert (shares["shares"], shares["uncosted"], shares["unmetered"]) == (2, 1, 1)
    assert (shares["gpu_nanodollars"], shares["energy_uj"]) == (5, 0)


@given(
    st.lists(st.tuples(st.integers(-3 * 86400, 3 * 86400), st.integers(1, 4), st.integers(0, 10**12)), max_size=50),
)
def test_levels_hold_the_same_sums(shares: list[tuple[int, int, int]]) -> None:
    """However times and keys fall, minutes, hours and days add up to the same; spans begin at whole UTC spans."""
    tally = Tally()
    for wall_s, key_id, nanodollars in shares:
        share = Share(request_id="r", wall_ns=wall_s * 10**9, gpu_nanodollars=nanodollars)
        tally.add_share(share, share.wall_ns, key_id)
    plain_ids = {1: 1, 2: 1, 3: 3, 4: 3}
    for level in LEVELS:
        rows = list(folded(tally.minutes, level, plain_ids))
        assert all(row[0] % level.seconds == 0 for row in rows)
        assert len({row[:2] for row in rows}) == len(rows)
        by_key: dict[int, int] = {}
        for row in rows:
            by_key[row[1]] = by_key.get(row[1], 0) + row[2 + SUMS.index("gpu_nanodollars")]
        expected: dict[int, int] = {}
        for _, key_id, nanodollars in shares:
            to = key_id if level.with_user else plain_ids[key_id]
            expected[to] = expected.get(to, 0) + nanodollars
        assert by_key == expected


def test_levels_are_nested() -> None:
    """A day is whole hours, an hour whole minutes, and only days are kept by user."""
    assert (MINUTE.seconds, HOUR.seconds, DAY.seconds) == (60, 60 * 60, 24 * 60 * 60)
    assert MINUTE.seconds * 10**9 == MINUTE_NS
    assert [level.with_user for level in LEVELS] == [False, False, False, True]
