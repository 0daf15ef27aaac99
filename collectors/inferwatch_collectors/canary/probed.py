"""One model that is probed: its prompts, the reference, and the evidence that it is another model now.

The same test as for requests (`drift.betting`, `drift.reference`): how often replies are far from usual, and how often
most of their tokens are others, are two features of yes and no, counted while the reference is learnt and bet on
afterwards. A reply counts when its prompt knows what is usual, so that no reply is judged by itself.

Pure: time comes from the caller.
"""

from collections import deque
from math import inf
from statistics import median
from typing import Final

import msgspec

from inferwatch_collectors.canary.prompt import Logprobs, Prompt, PromptState, distance, others
from inferwatch_collectors.drift.betting import RATIOS
from inferwatch_collectors.drift.features import Direction, Feature, Kind
from inferwatch_collectors.drift.judging import Judging
from inferwatch_collectors.drift.reference import Terms
from inferwatch_collectors.drift.stream import Lesson, LessonState, WatchedState
from inferwatch_collectors.drift.written import Count, UnixMoment, UnixTime
from inferwatch_collectors.memo_places import AnotherError

VERSION: Final = 1

FAR: Final = Feature("canary_far", Direction.ANSWER, Kind.FLAG, "probabilities farther from usual than noise makes")
OTHERS: Final = Feature("canary_others", Direction.ANSWER, Kind.FLAG, "most of the likeliest tokens are others")
FEATURES: Final = (FAR, OTHERS)
BETS: Final = len(FEATURES) * len(RATIOS)

# The chance that the reference, a sample, is farther off than prices allow for; as `drift.reference_risk`.
REFERENCE_RISK: Final = 0.01
TERMS: Final = Terms.of(BETS, risk=REFERENCE_RISK, tolerance=0.0)

# With fewer counted replies prices are so careful that a change takes twice as long to be found.
MIN_COUNTED: Final = 200

# Of how many replies the distance shown is the median: a few rounds of the prompts.
RECENT: Final = 32


class About(msgspec.Struct, array_like=True, frozen=True):
    """Of what a reference is."""

    number: Count  # how many were pinned before it, plus one
    pinned_s: UnixTime
    from_s: UnixTime  # of the first reply
    replies: Count
    around: dict[str, str]  # what engine, model and driver said of themselves then


class ProbedState(msgspec.Struct, array_like=True):
    """What is written down."""

    version: int
    model: str
    asked: str
    begun_s: UnixTime
    number: Count
    replies: Count
    prompts: tuple[PromptState, ...]
    lesson: LessonState | None
    about: About | None
    watched: WatchedState | None
    since_s: UnixMoment
    signalling: bool


class Probed(Judging):
    """One of them."""

    def __init__(self, model: str, asked: str, prompts: int, wall_s: float) -> None:
        """`asked` stands for what is asked: a reference is good for that alone."""
        self.model = model
        self.asked = asked
        self.answered_s = -inf  # when it last did, in this life; CLOCK_MONOTONIC
        self.recent: deque[float] = deque(maxlen=RECENT)
        self._size = prompts
        super().__init__(FEATURES, wall_s)

    def learn_anew(self, wall_s: float) -> None:
        """Forget the reference, if there is one, and learn another one."""
        super().learn_anew(wall_s)
        self.about: About | None = None
        self.replies = 0
        self.prompts = [Prompt() for _ in range(self._size)]
        self.recent.clear()

    @property
    def stable(self) -> bool:
        """Whether any prompt has tokens that are usual, or may still."""
        return any(prompt.stable for prompt in self.prompts)

    @property
    def usual(self) -> float | None:
        """How far replies usually are from the reference, in nats; None while that is not known."""
        known = [prompt.usual for prompt in self.prompts if prompt.ready]
        return median(known) if known else None

    @property
    def distance(self) -> float | None:
        """How far the last replies are, in nats; None before there are any."""
        return median(self.recent) if self.recent else None

    def take(self, place: int, now: Logprobs, *, least: float, now_weeks: float, hour: int) -> None:
        """Take the reply to prompt number `place`. `least`: see `Prompt.tolerance`."""
        prompt = self.prompts[place]
        if self.watched is None:
            self.replies += 1
        if not prompt.ready:
            if self.watched is None:
                prompt.learn(now)
            return
        far = distance(prompt.centre, now)
        self.recent.append(far)
        values = {FAR.name: float(far > prompt.tolerance(least)), OTHERS.name: float(others(prompt.centre, now))}
        if self.watched is not None:
            self.watched.vote(values, now_weeks, hour)
        elif self.lesson is not None:
            self.lesson.vote(values, hour)

    def pin(self, around: dict[str, str], now_weeks: float, wall_s: float) -> bool:
        """Take what was learnt for the reference; False if too few replies were counted."""
        if not self.take_up(MIN_COUNTED, TERMS, now_weeks, wall_s):
            return False
        self.about = About(self.number, int(wall_s), int(self.begun_s), self.replies, around)
        return True

    def state(self) -> ProbedState:
        """Return it to be written down."""
        return ProbedState(
            VERSION,
            self.model,
            self.asked,
            int(self.begun_s),
            self.number,
            self.replies,
            tuple(prompt.state() for prompt in self.prompts),
            None if self.lesson is None else self.lesson.state(),
            self.about,
            self.watched_state(),
            self.since_s,
            self.signalling,
        )

    @classmethod
    def of_state(cls, state: ProbedState, asked: str, prompts: int, now_weeks: float) -> "Probed":
        """Return what was written down of so many prompts.

        Raises:
            AnotherError: it is another version's, or other things were asked.
            ValueError: it does not fit together.
        """
        if state.version != VERSION or state.asked != asked:
            raise AnotherError("a reference of something else")
        if len(state.prompts) != prompts:
            raise ValueError(f"{len(state.prompts)} prompts, expected {prompts}")
        if (state.lesson is None) == (state.watched is None) or (state.watched is None) != (state.about is None):
            raise ValueError("expected either a lesson or a reference")
        found = cls(state.model, asked, prompts, state.begun_s)
        found.number, found.replies = state.number, state.replies
        found.since_s, found.signalling = state.since_s, state.signalling
        found.prompts = [Prompt.of(each) for each in state.prompts]
        found.lesson = None if state.lesson is None else Lesson.of(state.lesson, FEATURES)
        if state.watched is not None and state.about is not None:
            if not state.watched.pinned.keys() <= {feature.name for feature in FEATURES}:
                raise ValueError("features of something else")
            found.about = state.about
            found.resume(state.watched, TERMS, now_weeks)
        return found
