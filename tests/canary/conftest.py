"""A simulated model for the canary's tests: fixed log-probabilities, and noise on them."""

import random
from collections.abc import Callable

import pytest

Reply = dict[str, float]


@pytest.fixture(name="reply_of")
def _reply_of() -> Callable[..., Reply]:
    """Make a reply of the model with this seed to this prompt, moved by noise of so many nats."""

    def reply_of(seed: int, place: int, rng: random.Random, noise: float = 0.01) -> Reply:
        own = random.Random(1_000 * seed + place)
        tokens = own.sample(range(5_000), 5)
        return {f"t{token}": -0.5 - number + rng.gauss(0, noise) for number, token in enumerate(tokens)}

    return reply_of
