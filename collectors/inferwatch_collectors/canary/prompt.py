"""One prompt of one model: what its next token's probabilities usually are, and how far from that is noise.

Learnt in two steps, from different replies: the first CENTRE_REPLIES make the *centre*, each usual token with its
median; the next NOISE_REPLIES show how far from it replies are when nothing has changed. Kernels, batches and floating
point move log-probabilities a little, so a reply is only *far* if it is beyond twice what was usual, and beyond the
tolerance of the configuration. What is counted after that (`probed`) is how often replies are far.

Tokens are known by keyed hashes: prompts may be anybody's, and what would follow on them is content.

Pure.
"""

import hashlib
from collections.abc import Mapping
from statistics import median
from typing import Final

import msgspec

from inferwatch_collectors.drift.written import Distance, Sum

CENTRE_REPLIES: Final = 16
NOISE_REPLIES: Final = 24

# Of NOISE_REPLIES the third largest distance is the usual noise: two odd ones do not blind us.
_USUAL: Final = -3
NOISE_TIMES: Final = 2.0

_USE: Final = b"inferwatch-ctok"
_BYTES: Final = 8

Logprobs = Mapping[int, float]


def hashed(logprobs: Mapping[str, float], secret: bytes) -> dict[int, float]:
    """Return the same with tokens as keyed hashes. `secret` has 16 to 64 bytes."""
    return {
        int.from_bytes(
            hashlib.blake2b(token.encode("utf-8", "replace"), digest_size=_BYTES, key=secret, person=_USE).digest()
        ): logprob
        for token, logprob in logprobs.items()
    }


def distance(centre: Logprobs, now: Logprobs) -> float:
    """Return by how much log-probabilities differ, on average over the tokens of `centre`, in nats; both not empty.

    A token that is not among the likeliest any more has at most the lowest probability shown, and likewise one that is
    new: that much is sure, more is not assumed.
    """
    lowest, lowest_now = min(centre.values()), min(now.values())
    total = sum(abs(usual - now.get(token, min(usual, lowest_now))) for token, usual in centre.items())
    total += sum(max(0.0, each - lowest) for token, each in now.items() if token not in centre)
    return total / len(centre)


def others(centre: Logprobs, now: Logprobs) -> bool:
    """Tell whether more than half of the usual tokens are not among the likeliest any more."""
    return 2 * sum(1 for token in centre if token in now) < len(centre)


class PromptState(msgspec.Struct, array_like=True):
    """What is written down; before the centre is known, nothing is."""

    centre: dict[int, Sum]
    noise: tuple[Distance, ...]


class Prompt:
    """One of them. `centre` is empty until it is known, and for ever if no token is usual (`stable` is False then)."""

    __slots__ = ("_replies", "centre", "noise", "stable")

    def __init__(self) -> None:
        self._replies: list[Logprobs] = []
        self.centre: dict[int, float] = {}
        self.noise: list[float] = []
        self.stable = True

    @property
    def ready(self) -> bool:
        """Whether replies can be judged."""
        return len(self.noise) >= NOISE_REPLIES

    @property
    def usual(self) -> float:
        """How far replies usually are. Only when `ready`."""
        return sorted(self.noise)[_USUAL]

    def tolerance(self, least: float) -> float:
        """Return the distance up to which a reply is not far. Only when `ready`."""
        return max(least, NOISE_TIMES * self.usual)

    def learn(self, now: Logprobs) -> None:
        """Take a reply before `ready`."""
        if self.centre:
            self.noise.append(distance(self.centre, now))
        elif self.stable:
            self._replies.append(now)
            if len(self._replies) >= CENTRE_REPLIES:
                self.centre = _centre(self._replies)
                self.stable = bool(self.centre)
                self._replies = []

    def state(self) -> PromptState:
        """Return it to be written down."""
        return PromptState(self.centre, tuple(self.noise))

    @classmethod
    def of(cls, state: PromptState) -> "Prompt":
        """Return what was written down.

        Raises:
            ValueError: it does not fit together.
        """
        if state.noise and not state.centre:
            raise ValueError("distances from nothing")
        found = cls()
        found.centre, found.noise = state.centre, [*state.noise]
        return found


def _centre(replies: list[Logprobs]) -> dict[int, float]:
    """Return the median of each token that at least half of the replies have."""
    tokens = {token for reply in replies for token in reply}
    seen = {token: [reply[token] for reply in replies if token in reply] for token in tokens}
    return {token: median(values) for token, values in seen.items() if 2 * len(values) >= len(replies)}
