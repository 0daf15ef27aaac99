"""What a token weighs when work is divided, as configured or as learned from the host's own traffic.

Learning: each second gives busy time t, prompt tokens P (cached ones counted in part) and completion tokens D. The
least-squares fit of t = a P + b D says how much time a token of either kind takes, and a / b what a prompt token weighs
in completion tokens. Seconds of one mix alone cannot tell a from b; a small term that pulls a towards the configured
ratio times b decides then. Five decayed sums are all that is kept, and older traffic fades.

How rough it is: an engine is busy for a whole second also with one stream, so at low load a completion token looks
dearer than it is under load. That is true of the time it takes there, and at low load little is divided.
"""

from typing import Final, NamedTuple

import msgspec

from inferwatch.settings.cost import Attribution

# A weight of 1 in whole numbers; the configuration allows six decimals.
UNIT: Final = 1_000_000

# Half of what was seen is forgotten after about two hours of busy seconds: a night's batch job fades by morning.
DECAY: Final = 0.9999

# Five busy minutes: fewer are chance.
MIN_INTERVALS: Final = 300

# How hard the fit is pulled to the configured ratio, against the weight of the data itself.
PULL: Final = 0.001

# A prompt token dearer than ten completion tokens, or a thousand times cheaper than one, is a fit gone wrong.
MIN_RATIO: Final = 0.001
MAX_RATIO: Final = 10.0


class Weights(NamedTuple):
    """Weights of one token, in millionths."""

    prefill: int
    cached: int
    decode: int

    @classmethod
    def of(cls, attribution: Attribution) -> "Weights":
        """Return those of the configuration."""
        return cls(
            int(attribution.prefill_weight * UNIT),
            int(attribution.cached_weight * UNIT),
            int(attribution.decode_weight * UNIT),
        )

    def prompt(self, prompt_tokens: int, cached_tokens: int) -> int:
        """Return what a prompt weighs, of whose tokens some came from a cache."""
        cached_tokens = min(cached_tokens, prompt_tokens)
        return (prompt_tokens - cached_tokens) * self.prefill + cached_tokens * self.cached

    def scaled(self, ratio: float) -> "Weights":
        """Return these with a prefill weight of `ratio` decode weights; cached tokens keep their part of it."""
        prefill = max(1, round(self.decode * ratio))
        return Weights(prefill, self.cached * prefill // self.prefill, self.decode)


class Sums(msgspec.Struct, array_like=True):
    """What learning keeps."""

    intervals: int = 0
    prompt_prompt: float = 0.0
    prompt_decode: float = 0.0
    decode_decode: float = 0.0
    prompt_busy: float = 0.0
    decode_busy: float = 0.0


class Learner:
    """Keeps the sums, and gives the ratio."""

    def __init__(self, configured: Weights, sums: Sums | None = None) -> None:
        self.configured = configured
        self.sums = sums or Sums()

    def observe(self, prompt_tokens: float, decode_tokens: float, busy_s: float) -> None:
        """Take one interval in which something was done."""
        sums = self.sums
        sums.intervals += 1
        sums.prompt_prompt = sums.prompt_prompt * DECAY + prompt_tokens * prompt_tokens
        sums.prompt_decode = sums.prompt_decode * DECAY + prompt_tokens * decode_tokens
        sums.decode_decode = sums.decode_decode * DECAY + decode_tokens * decode_tokens
        sums.prompt_busy = sums.prompt_busy * DECAY + prompt_tokens * busy_s
        sums.decode_busy = sums.decode_busy * DECAY + decode_tokens * busy_s

    def ratio(self) -> float | None:
        """Return the time of a prompt token in completion tokens, None while that is not known."""
        sums = self.sums
        if sums.intervals < MIN_INTERVALS or sums.prompt_prompt <= 0 or sums.decode_decode <= 0:
            return None
        prior = self.configured.prefill / self.configured.decode
        # Normal equations of the fit with the pull PULL * (a - prior * b)^2 * sum(P^2).
        pull = PULL * sums.prompt_prompt
        prompt_prompt = sums.prompt_prompt + pull
        cross = sums.prompt_decode - pull * prior
        decode_decode = sums.decode_decode + pull * prior * prior
        per_prompt = sums.prompt_busy * decode_decode - sums.decode_busy * cross
        per_decode = sums.decode_busy * prompt_prompt - sums.prompt_busy * cross
        if per_prompt <= 0 or per_decode <= 0:
            return prior
        return min(max(per_prompt / per_decode, MIN_RATIO), MAX_RATIO)

    def weights(self, *, learned: bool) -> Weights:
        """Return the weights to use."""
        ratio = self.ratio() if learned else None
        return self.configured if ratio is None else self.configured.scaled(ratio)
