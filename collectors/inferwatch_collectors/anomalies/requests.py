"""Prompts far larger than a tenant's own, several in a row: somebody sends whole books where questions used to be.

Sizes are counted in steps of a quarter octave. *Huge* is a prompt of more than four times the size that 19 in 20 of the
tenant's prompts stay below, and of at least LEAST_TOKENS. One huge prompt is no signal; each is a bet (see `evidence`)
that huge ones come oftener than

    TOLERANCE x the tenant's own share of them, after a huge one or after another (at least LEAST_CHANCE; where most
    are followed by another: that they stop TOLERANCE times as seldom)

and about five in a row are enough. Documents come in batches: what share of huge prompts was followed by another is
learnt when a batch is over (of one that became a signal, only up to there), so from who has sent batches before it
takes more. Until somebody was seen for as long as its spending must be before that is judged, huge ones are learnt and
not bet on: prompts come by the thousand in a day, but batches once in some, and they are what must be known.

Pure. About 600 bytes a tenant.
"""

from array import array
from typing import Final

import msgspec

from inferwatch_collectors.anomalies.evidence import Evidence, Signal
from inferwatch_collectors.anomalies.written import Weeks, Weight

HUGE_PROMPTS: Final = "huge_prompts"

# Quarter octaves: 0 to 7 tokens singly, up to 2**24 and above.
STEPS: Final = 92
_MAX_TOKENS: Final = (1 << 24) - 1

# In steps: the upper end of the quantile's own step, and two octaves, which is four times as much.
HUGE_STEPS: Final = 9
ORDINARY_SHARE: Final = 0.95

# Shorter ones cost little and hold up nobody, whatever the tenant is used to.
LEAST_TOKENS: Final = 2048

# Fewer prompts do not show the quantile; and it takes more until it is seen how often, and in what rows, it is far
# exceeded.
MIN_PROMPTS: Final = 500
JUDGED_PROMPTS: Final = 2000
# Above this all counts are halved: the tenant of two months ago is another one.
MAX_PROMPTS: Final = 32_768
# The quantile moves slowly; to look for it is a hundred additions.
LOOK_EVERY: Final = 256

TOLERANCE: Final = 2.0
# One in fifty may be huge without a word. It keeps a single prompt from being worth more than 45 to 1.
LEAST_CHANCE: Final = 0.02
# What is assumed before any was seen: one in a hundred; and that one does not bring the next, as if seen 4 times.
PRIOR_PROMPTS: Final = 100.0
FOLLOWING_PRIOR: Final = 4.0

# A signal ends after so many in a row that are not huge.
CALM_PROMPTS: Final = 20


class SizesState(msgspec.Struct, array_like=True):
    """What is written down: counts per step; prompts, huge ones; huge ones before, and after them huge ones."""

    counts: bytes
    prompts: Weight
    huge: Weight
    before: Weight
    again: Weight
    evidence: tuple[Weeks, Weeks, Weeks]
    signalling: bool


class Sizes:
    """One tenant's prompts."""

    __slots__ = (
        "_again",
        "_before",
        "_calm",
        "_counts",
        "_huge",
        "_least",
        "_prompts",
        "_row",
        "_row_tokens",
        "_until_look",
        "evidence",
        "signalling",
    )

    def __init__(self) -> None:
        self._counts = array("H", bytes(2 * STEPS))  # at most MAX_PROMPTS each
        self._prompts = 0.0
        self._huge = 0.0
        self._before = 0.0
        self._again = 0.0
        self._row = self._row_tokens = 0
        self._calm = 0
        self._least = _MAX_TOKENS + 1  # the smallest huge prompt
        self._until_look = MIN_PROMPTS
        self.evidence = Evidence()
        self.signalling = False

    @property
    def judged(self) -> bool:
        """Whether there is enough history."""
        return self._prompts >= JUDGED_PROMPTS

    def take(self, tokens: int, weeks: float, bar_weeks: float, *, known: bool = True) -> Signal | None:
        """Take a prompt, `weeks` after the one before. Return a signal that begins with it.

        `known`: its tenant was seen for long enough.
        """
        tokens = min(tokens, _MAX_TOKENS)
        self._counts[step_of(tokens)] += 1
        self._prompts += 1
        self._until_look -= 1
        if not self._until_look:
            self._look()
        if self._least > _MAX_TOKENS:
            return None
        if tokens < self._least:
            self.evidence.lose(weeks)
            if self._row or self._calm:
                self._ordinary()
            return None
        return self._take_huge(tokens, weeks, bar_weeks, known=known)

    def _take_huge(self, tokens: int, weeks: float, bar_weeks: float, *, known: bool) -> Signal | None:
        self._row += 1
        self._row_tokens += tokens
        self._calm = CALM_PROMPTS
        if not (known and self.judged):
            return None
        chance = (self._huge + 1) / (self._prompts + PRIOR_PROMPTS)
        most = TOLERANCE * chance
        if self._row > 1:
            again = (self._again + FOLLOWING_PRIOR * chance) / (self._before + FOLLOWING_PRIOR)
            most = max(most, min(TOLERANCE * again, 1 - (1 - again) / TOLERANCE))
        self.evidence.bet(1 / min(1.0, max(LEAST_CHANCE, most)), weeks)
        if self.signalling or self.evidence.weeks < bar_weeks:
            return None
        self.signalling = True
        self._learn()
        facts = f"prompts={self._row} prompt_tokens={self._row_tokens} each_at_least={self._least}"
        return Signal(HUGE_PROMPTS, self.evidence.weeks, facts)

    def _ordinary(self) -> None:
        """A prompt that is not huge, after some that were: the row is over, and in the end the signal."""
        if self._row and not self.signalling:
            self._learn()
        self._row = self._row_tokens = 0
        self._calm -= 1
        if not self._calm and self.signalling:
            self.signalling = False
            self.evidence.clear()

    def _learn(self) -> None:
        self._huge += self._row
        self._before += self._row
        self._again += self._row - 1

    def _look(self) -> None:
        """Say anew what is huge."""
        self._until_look = LOOK_EVERY
        if self._prompts >= MAX_PROMPTS:
            self._counts = array("H", [count >> 1 for count in self._counts])
            self._huge, self._before, self._again = self._huge / 2, self._before / 2, self._again / 2
            self._prompts = float(sum(self._counts))
        below, step = 0, 0
        while step < STEPS - 1 and (below := below + self._counts[step]) < ORDINARY_SHARE * self._prompts:
            step += 1
        self._least = max(LEAST_TOKENS, smallest_of(step + HUGE_STEPS))

    def state(self) -> SizesState:
        """Return it to be written down."""
        evidence = (self.evidence.low, self.evidence.middle, self.evidence.high)
        counts = self._counts.tobytes()
        return SizesState(counts, self._prompts, self._huge, self._before, self._again, evidence, self.signalling)

    @classmethod
    def of(cls, state: SizesState) -> "Sizes":
        """Return what was written down.

        Raises:
            ValueError: it was written by another version, or is damaged.
        """
        found = cls()
        if len(state.counts) != 2 * STEPS:
            raise ValueError(f"sizes of {len(state.counts)} bytes")
        found._counts = array("H", state.counts)
        if not sum(found._counts) == state.prompts <= MAX_PROMPTS + LOOK_EVERY:
            raise ValueError(f"{sum(found._counts)} prompts of all sizes, expected {state.prompts}")
        found._prompts, found._huge = state.prompts, state.huge
        found._before, found._again = state.before, state.again
        found.evidence = Evidence(*state.evidence)
        found.signalling = state.signalling
        found._calm = CALM_PROMPTS if state.signalling else 0
        if state.prompts >= MIN_PROMPTS:
            found._look()
        else:
            found._until_look = max(1, MIN_PROMPTS - int(state.prompts))
        return found


def step_of(tokens: int) -> int:
    """Return the step of a size of 0 to 2**24 - 1 tokens."""
    if tokens < 8:
        return tokens
    shift = tokens.bit_length() - 3
    return 4 * shift + (tokens >> shift & 3) + 4


def smallest_of(step: int) -> int:
    """Return the smallest size of a step, at most 2**24 - 1."""
    if step < 8:
        return step
    shift, quarter = divmod(step - 4, 4)
    return min(4 + quarter << shift, _MAX_TOKENS)
