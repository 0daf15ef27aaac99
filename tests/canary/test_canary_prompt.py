"""prompt: what is usual, how far from it a reply is, and what is noise."""

import random
from collections.abc import Callable

import pytest

from inferwatch_collectors.canary.prompt import CENTRE_REPLIES, NOISE_REPLIES, Prompt, distance, hashed, others

CENTRE = {1: -0.5, 2: -2.0, 3: -3.0}
SECRET = b"a secret of the installation"


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (CENTRE, 0.0),
        ({1: -0.8, 2: -2.0, 3: -3.0}, 0.1),
        ({1: -0.5, 2: -2.0, 4: -3.0}, 0.0),  # a tie at the end: one as likely came in its place
        ({1: -0.5, 2: -2.0, 4: -2.4}, 0.2),  # the new one is likelier than any that was not shown
        ({1: -0.5, 2: -3.3, 4: -3.6}, (1.3 + 0.6) / 3),  # what is gone has at most the lowest probability shown
        ({7: -0.5, 8: -2.0, 9: -3.0}, (2.5 + 1.0 + 2.5 + 1.0) / 3),
    ],
)
def test_how_far_a_reply_is(now: dict[int, float], expected: float) -> None:
    """Only what is sure: a token that is not shown has at most the lowest probability that is."""
    assert distance(CENTRE, now) == pytest.approx(expected)


def test_other_tokens_are_told_apart_from_other_probabilities() -> None:
    """More than half of them."""
    assert not others(CENTRE, {1: -9.0, 2: -9.0, 7: -0.1})
    assert others(CENTRE, {1: -0.5, 7: -0.1, 8: -0.1})


def test_what_is_usual_is_learnt_in_two_steps(reply_of: Callable[..., dict[str, float]]) -> None:
    """First the centre, then the noise; a tolerance is twice the usual noise, or the least that is of interest."""
    rng, prompt = random.Random(1), Prompt()
    for _ in range(CENTRE_REPLIES):
        assert not prompt.centre
        prompt.learn(hashed(reply_of(1, 0, rng), SECRET))
    assert len(prompt.centre) == 5
    for _ in range(NOISE_REPLIES):
        assert not prompt.ready
        prompt.learn(hashed(reply_of(1, 0, rng), SECRET))
    assert prompt.ready
    assert 0 < prompt.usual < 0.05
    assert prompt.tolerance(0.0) == 2 * prompt.usual
    assert prompt.tolerance(0.5) == 0.5
    assert distance(prompt.centre, hashed(reply_of(2, 0, rng), SECRET)) > 0.5


def test_two_odd_replies_do_not_blind_it() -> None:
    """The noise is the third largest distance."""
    prompt = Prompt()
    for _ in range(CENTRE_REPLIES):
        prompt.learn(CENTRE)
    for number in range(NOISE_REPLIES):
        prompt.learn({**CENTRE, 1: -9.0} if number < 2 else CENTRE)
    assert prompt.usual == 0.0


def test_an_engine_that_says_something_else_each_time_has_nothing_usual() -> None:
    """It is never ready, and says so."""
    prompt = Prompt()
    for number in range(CENTRE_REPLIES + NOISE_REPLIES):
        prompt.learn({3 * number: -1.0, 3 * number + 1: -2.0})
    assert not prompt.stable
    assert not prompt.ready


def test_tokens_are_kept_as_keyed_hashes() -> None:
    """Without the key nobody can try tokens against them."""
    one, other = hashed({" Paris": -0.1}, SECRET), hashed({" Paris": -0.1}, SECRET + b"!")
    assert one != other
    assert all(0 <= token < 2**64 for token in one)
    assert hashed({"\ud800": -1.0}, SECRET)  # an unpaired surrogate, as JSON can carry it
