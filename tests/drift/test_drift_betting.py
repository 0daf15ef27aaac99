"""betting: nobody gains on average while nothing changes, and gains soon when it does."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.drift.betting import (
    CEILING_WEEKS,
    FLAG_STAKES,
    MAX_SCORE,
    QUANTITY_BETS,
    QUANTITY_STAKES,
    RATIOS,
    SHIFTS,
    bet,
    flag_row,
    normal_scores,
    quantity_row,
)


class Players:
    """All that bet on one feature."""

    def __init__(self, bets: int, at_weeks: float) -> None:
        self.held = [0.0] * bets
        self.at_weeks = at_weeks

    @property
    def weeks(self) -> float:
        return sum(self.held) / len(self.held)

    def bet(self, row: tuple[float, ...], prices: tuple[float, ...], now_weeks: float) -> None:
        self.held = bet(self.held, row, prices, now_weeks - self.at_weeks)
        self.at_weeks = now_weeks


scores = st.floats(-MAX_SCORE, MAX_SCORE)


@given(st.lists(st.tuples(scores, st.floats(-1, 10)), max_size=200))
def test_evidence_is_finite_and_never_negative(votes: list[tuple[float, float]]) -> None:
    """Whatever is seen and however the clock jumps, what the players hold is between 0 and the ceiling."""
    players = Players(QUANTITY_BETS, 0.0)
    for score, now_weeks in votes:
        players.bet(quantity_row(score), (1.0,) * len(players.held), now_weeks)
        assert all(0 <= have <= CEILING_WEEKS for have in players.held)


def test_evidence_of_a_fair_bet_is_the_time_that_passed() -> None:
    """A row that equals its price gains nothing but the newcomers'."""
    players = Players(3, 0.0)
    for step in range(1, 51):
        players.bet((2.0, 0.5, 1.0), (2.0, 0.5, 1.0), step / 10)
    assert players.weeks == pytest.approx(5.0)


def test_stakes_sum_to_one() -> None:
    """Then what all bets have together is as valid as what each has."""
    assert len(QUANTITY_STAKES) == QUANTITY_BETS == len(quantity_row(0.0))
    assert len(FLAG_STAKES) == len(RATIOS) == len(flag_row(0.0))
    for stakes in (QUANTITY_STAKES, FLAG_STAKES):
        assert sum(stakes) == pytest.approx(1.0)
        assert min(stakes) > 0


def test_a_clock_that_goes_back_brings_nobody_anything() -> None:
    """Time is never negative."""
    players = Players(1, 5.0)
    players.bet((1.0,), (1.0,), 3.0)
    assert players.weeks == pytest.approx(0.0, abs=1e-20)


def test_false_alarms_come_no_oftener_than_stated(rng: random.Random) -> None:
    """With exact prices, streams of 2,000 votes in a week reach 20 weeks in no more than one of twenty cases."""
    prices = tuple(sum(quantity_row(score)[bet] for score in (-1.0, 0.0, 1.0)) / 3 for bet in range(QUANTITY_BETS))
    alarms = 0
    for _ in range(100):
        players = Players(len(prices), 0.0)
        for vote in range(2_000):
            players.bet(quantity_row(rng.choice((-1.0, 0.0, 1.0))), prices, vote / 2_000)
            if players.weeks >= 20:
                alarms += 1
                break
    assert alarms <= 5


def test_a_flag_that_comes_oftener_is_found(rng: random.Random) -> None:
    """From 2 to 10 %, within some hundred votes."""
    prices = tuple(0.02 * up + 0.98 * down for up, down in zip(flag_row(1.0), flag_row(0.0), strict=True))
    players, votes = Players(len(RATIOS), 0.0), 0
    while players.weeks < 20 and votes < 5_000:
        votes += 1
        players.bet(flag_row(float(rng.random() < 0.1)), prices, votes / 50_000)
    assert votes < 500


def test_a_tenth_of_another_kind_is_found_in_half_of_the_votes_that_a_shift_takes(rng: random.Random) -> None:
    """A tenth of the votes has moved by 1.5 standard deviations."""
    seen = [_score(rng.gauss(0, 1)) for _ in range(50_000)]
    prices = tuple(sum(gets) / len(seen) for gets in zip(*map(quantity_row, seen), strict=True))
    whole, shifts = [], []
    for _ in range(10):
        players, votes = Players(QUANTITY_BETS, 0.0), 0
        found = 0
        while sum(players.held[: len(SHIFTS)]) / QUANTITY_BETS < 20:
            votes += 1
            score = _score(rng.gauss(1.5, 0.9) if rng.random() < 0.1 else rng.gauss(0, 1))
            players.bet(quantity_row(score), prices, votes / 50_000)
            if not found and players.weeks >= 20:
                found = votes
        whole.append(found)
        shifts.append(votes)
    assert sum(whole) < 0.67 * sum(shifts)


def test_what_was_never_seen_is_found_after_a_handful(rng: random.Random) -> None:
    """One of ten votes is beyond all that the reference had, as words of another language are."""
    rare = _score(MAX_SCORE)
    shares = {0.0: 0.9995, rare: 0.0005}
    prices = tuple(
        sum(share * quantity_row(score)[bet] for score, share in shares.items()) for bet in range(QUANTITY_BETS)
    )
    players, votes = Players(QUANTITY_BETS, 0.0), 0
    while players.weeks < 20 and votes < 1_000:
        votes += 1
        players.bet(quantity_row(rare if rng.random() < 0.1 else 0.0), prices, votes / 50_000)
    assert votes < 120


def _score(value: float) -> float:
    return round(8 * max(-MAX_SCORE, min(MAX_SCORE, value))) / 8


def test_normal_scores_are_those_of_a_normal_variable() -> None:
    """Ten equal bins have the scores of the middles of ten equal parts, and no more than the bound."""
    found = normal_scores((1_000,) * 10)
    assert found == tuple(sorted(found))
    assert found[0] == pytest.approx(-1.625, abs=0.07)
    assert all(abs(low + high) < 1e-9 for low, high in zip(found, reversed(found), strict=True))
    assert normal_scores((0, 10**9, 0)) == (-MAX_SCORE, 0.0, MAX_SCORE)


def test_rows_are_positive_and_bounded() -> None:
    """No row can make evidence infinite or end it for good."""
    for eighth in range(-24, 25):
        assert all(0 < get <= 100 for get in quantity_row(eighth / 8))
