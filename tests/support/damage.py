"""Damage to what is written down as MessagePack: bytes that are others, numbers that are nonsense, ends that are missing."""

import math
import random
from typing import Any, Final

import msgspec

# None right at a bound, which the next vote would take it beyond.
ODD: Final = (
    *(-1, 0, 1, 255, 2**30, 2**32, 2**63, -(2**63)),
    *(1e-9, -1e-9, 1e8, 1e10, 1e308, -1e308, math.nan, math.inf, -math.inf),
)


def changed(rng: random.Random, was: Any) -> Any:
    """Return something else in the place of a value."""
    if isinstance(was, bytes) and was:
        at = rng.randrange(len(was))
        return rng.choice((was[:at], was + was[:8], b"", was[:at] + rng.randbytes(8) + was[at + 8 :]))
    if isinstance(was, list) and was and rng.random() < 0.5:
        at = rng.randrange(len(was))
        return rng.choice((was[:at], was + was[at:], was[::-1], [rng.choice(was)] * len(was)))
    return rng.choice((*ODD, None, "", b"", [], {}, True))


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Return a memo with a byte or a number that is another one, or some; or without its end."""
    how = rng.randrange(4)
    if how == 0:
        return data[: rng.randrange(len(data))]
    if how == 1:
        flipped = bytearray(data)
        for _ in range(rng.choice((1, 1, 8))):
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    whole = msgspec.msgpack.decode(data)
    for _ in range(rng.choice((1, 1, 3))):
        # From the outside in, so that a few numbers of which there is one are met as often as many of which are alike.
        within, key = whole, rng.randrange(len(whole))
        while isinstance(within[key], dict | list) and within[key] and rng.random() < 0.9:
            within = within[key]
            key = rng.choice(list(within)) if isinstance(within, dict) else rng.randrange(len(within))
        within[key] = changed(rng, within[key])
    return msgspec.msgpack.encode(whole)
