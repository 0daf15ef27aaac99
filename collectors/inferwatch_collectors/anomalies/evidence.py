"""Evidence that grows while something keeps happening that should not, in weeks of false alarms that it is worth.

An e-detector (Shin, Ramdas and Rinaldo, "E-detectors", NEJSDS 2022), of the Shiryaev-Roberts kind:

* Each observation is a bet. `ratio` is what was seen, in units of the most that was to be expected. Whoever stakes the
  part s of all it has on "more than that" has `1 + s * (ratio - 1)` times as much afterwards. If the expected ratio,
  given all that was before, is at most 1, then no way of betting gains on average, whatever the distribution.
* At every moment a new player comes in with as much as time has passed: so many weeks. What they have together is on
  average at most the weeks since the start. Hence an alarm at "the players have W weeks" comes, if nothing is unusual,
  on average no sooner than after W weeks (ARL >= W), at whatever moment one looks and however often.
* Small stakes find small excesses, large ones find large excesses soon; the mean of several is as valid as each.

Pure. What holds of it in practice is only as good as the "most that was to be expected": see the modules that bet.
"""

from typing import Final, NamedTuple

# The part of everything that each player stakes. With an excess of 2 the last gains 0.64 nats a step, the first 0.10;
# at 1.2 the last two gain about the same, and below that the first is the only one that noise does not ruin.
STAKES: Final = (0.1, 0.3, 0.9)

_LOW: Final = STAKES[0]
_MIDDLE: Final = STAKES[1]
_HIGH: Final = STAKES[2]

# A signal at more than this would be one false alarm in 20,000 years; no evidence needs to grow beyond.
CEILING_WEEKS: Final = 1e6

WEEK_S: Final = 7 * 24 * 3600


class Evidence:
    """What the players have. Starts at 0 weeks."""

    __slots__ = ("high", "low", "middle")

    def __init__(self, low: float = 0.0, middle: float = 0.0, high: float = 0.0) -> None:
        self.low = low
        self.middle = middle
        self.high = high

    @property
    def weeks(self) -> float:
        """One false alarm in so many weeks is the price of a signal now."""
        return (self.low + self.middle + self.high) / 3

    def bet(self, ratio: float, weeks: float) -> None:
        """Take an observation: `ratio` (0 or more) to the most that was expected, `weeks` after the one before."""
        gain = ratio - 1.0
        low = (self.low + weeks) * (1.0 + _LOW * gain)
        middle = (self.middle + weeks) * (1.0 + _MIDDLE * gain)
        high = (self.high + weeks) * (1.0 + _HIGH * gain)
        self.low = min(CEILING_WEEKS, low)
        self.middle = min(CEILING_WEEKS, middle)
        self.high = min(CEILING_WEEKS, high)

    def lose(self, weeks: float) -> None:
        """Take an observation of ratio 0, which most are where events are watched for: `bet`, but cheaper."""
        self.low = (self.low + weeks) * (1.0 - _LOW)
        self.middle = (self.middle + weeks) * (1.0 - _MIDDLE)
        self.high = (self.high + weeks) * (1.0 - _HIGH)

    def clear(self) -> None:
        """Begin anew. To throw evidence away never makes a false alarm likelier."""
        self.low = self.middle = self.high = 0.0


class Signal(NamedTuple):
    """Something unusual begins. `facts` is for people to read: counts and ids, never content or who the user is."""

    kind: str
    weeks: float  # what evidence there is
    facts: str
