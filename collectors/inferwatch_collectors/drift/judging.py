"""From learning to a signal: what a stream of requests and a model that is probed have in common.

First a lesson, then a reference and the evidence against it; a signal begins when there is enough, and is over when
there is as little as chance makes all the time. Pure: time comes from the caller.
"""

from collections.abc import Sequence
from typing import Final

from inferwatch_collectors.drift.features import Feature
from inferwatch_collectors.drift.reference import Pinned, Terms
from inferwatch_collectors.drift.stream import Lesson, Watched, WatchedState

# Evidence below this part of the bar is what chance makes all the time: what has moved, moved after it was last so low.
START_SHARE: Final = 1e-3


class Judging:
    """One of them. A subclass knows what else is learnt, and calls `learn_anew` first of all."""

    lesson: Lesson | None
    begun_s: float

    def __init__(self, of: Sequence[Feature], wall_s: float) -> None:
        self.of = tuple(of)
        self.watched: Watched | None = None
        self.number = 0  # of the reference; how many were pinned
        self.since_s = wall_s  # until then nothing was unusual
        self.signalling = False
        self.learn_anew(wall_s)

    def learn_anew(self, wall_s: float) -> None:
        """Forget the reference, if there is one, and learn another one."""
        self.watched = None
        self.lesson = Lesson(self.of)
        self.begun_s = self.since_s = wall_s
        self.signalling = False
        self.judged_weeks = 0.0  # the evidence as it was last looked at

    def let_pass(self, passed_s: float) -> None:
        """Let time pass, of a clock that never goes back: a reference is ripe by that, not by the wall clock."""
        if self.lesson is not None:
            self.lesson.learnt_s += passed_s

    def clock_stepped(self, step_s: float, wall_s: float) -> bool:
        """Take it that the wall clock was set, by `step_s` to `wall_s`; return whether it is begun anew.

        What was counted by the hour of the week may be in the wrong hours, and nobody knows which: it is learnt anew.
        With a reference that has a rhythm it was judged by the wrong hours: that evidence is forgotten. Without one
        the hour does not matter.
        """
        if self.lesson is not None:
            if self.lesson.votes:
                self.learn_anew(wall_s)
                return True
            self.begun_s = self.since_s = wall_s
            return False
        self.since_s += step_s
        if self.watched is None or not self.watched.has_rhythm:
            return False
        self.watched.forget()
        self.since_s, self.signalling = wall_s, False
        self.judged_weeks = 0.0
        return True

    @property
    def weeks(self) -> float:
        """The evidence; 0 without a reference."""
        return 0.0 if self.watched is None else self.watched.weeks

    def take_up(self, least: int, terms: Terms, now_weeks: float, wall_s: float) -> bool:
        """Take what was learnt for the reference; False if no feature has `least` values."""
        pinned = {} if self.lesson is None else self.lesson.pin(least)
        if not pinned:
            return False
        self.number += 1
        self.lesson = None
        self.watched = Watched(pinned, self.of, terms, now_weeks)
        self.since_s, self.signalling = wall_s, False
        self.judged_weeks = 0.0
        return True

    def judge(self, bar_weeks: float, wall_s: float) -> bool:
        """Look at the evidence after votes; True when a signal begins."""
        weeks = self.judged_weeks = self.weeks
        if weeks < START_SHARE * bar_weeks:
            self.since_s, self.signalling = wall_s, False
        if weeks >= bar_weeks and not self.signalling:
            self.signalling = True
            return True
        return False

    def watched_state(self) -> WatchedState | None:
        """Return what is to be written down of the reference and the evidence."""
        if self.watched is None:
            return None
        pinned = {feature.name: each.state() for feature, each in self.watched.pinned()}
        return WatchedState(self.watched.votes, pinned, self.watched.held())

    def resume(self, state: WatchedState, terms: Terms, now_weeks: float) -> None:
        """Take up a reference and the evidence, for the features that are looked at now.

        Raises:
            ValueError: it does not fit together.
        """
        names = {feature.name: feature for feature in self.of}
        pinned = {
            names[name]: Pinned.of(each, names[name].kind) for name, each in state.pinned.items() if name in names
        }
        if not pinned:
            raise ValueError("a reference of nothing that is looked at")
        self.lesson = None
        self.watched = Watched(pinned, self.of, terms, now_weeks)
        self.watched.resume(state.held, state.votes, now_weeks)
