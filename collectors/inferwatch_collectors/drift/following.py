"""One model for one tenant, followed from its first vote: what is learnt, what it is judged by, and since when it
differs.

Learning goes in steps, each from other requests than the one before: pace and trigrams (WORD_VOTES), edges, counts.
When there are votes and time enough the reference pins itself; `pin` does it by command, `learn_anew` forgets it.

Pure: time comes from the caller.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Self

import msgspec

from inferwatch.record import RequestRecord
from inferwatch.settings.drift import REFERENCE_VOTES_MIN
from inferwatch_collectors.drift import signals
from inferwatch_collectors.drift.effects import Effect, by_evidence
from inferwatch_collectors.drift.features import Direction, Feature, embedding_features
from inferwatch_collectors.drift.judging import Judging
from inferwatch_collectors.drift.learning import EDGE_VOTES
from inferwatch_collectors.drift.made import Change, Made
from inferwatch_collectors.drift.makeup import Makeup, MakeupState
from inferwatch_collectors.drift.meaning import Meaning, MeaningState
from inferwatch_collectors.drift.reference import Terms
from inferwatch_collectors.drift.stream import Lesson, LessonState, Values, Watched, WatchedState
from inferwatch_collectors.drift.trigrams import Words
from inferwatch_collectors.drift.written import Count, UnixMoment, UnixTime
from inferwatch_collectors.memo_places import AnotherError

VERSION: Final = 1

# Trigrams and pace are learnt from so many, before anything is counted.
WORD_VOTES: Final = 512
# A pause between two requests that is longer is for nobody to be heard in: a night must not pass for silence.
PAUSE_S: Final = 3_600.0
# A feature with fewer counted values than this is off: its prices would be so careful that nothing could be found. What
# nine of ten votes have is judged in the smallest reference that may be pinned, though the first values make edges, and
# before them the line of its pace: 388.
MIN_VALUES: Final = REFERENCE_VOTES_MIN * 9 // 10 - signals.PACE_VOTES - EDGE_VOTES


class Heard(NamedTuple):
    """What was heard of a request: values of its texts, and the buckets of their trigrams."""

    values: Values
    buckets: dict[Direction, Sequence[int]]


class About(msgspec.Struct, array_like=True, frozen=True):
    """Of what a reference is."""

    engine_model: str  # as the engine calls it
    number: Count  # how many were pinned before it, plus one
    pinned_s: UnixTime
    votes: Count
    from_s: UnixTime  # of the first


class FollowedState(msgspec.Struct, array_like=True):
    """What is written down."""

    version: int
    model: str
    tenant: str
    text: bool
    begun_s: UnixTime
    number: Count
    ttft: signals.PaceState
    gap: signals.PaceState
    words: dict[str, tuple[Count, bytes, bytes]]
    lesson: LessonState | None
    about: About | None
    watched: WatchedState | None
    since_s: UnixMoment
    signalling: bool
    made: Made | None = None  # these at the end: files of older versions do not have them
    changed: Change | None = None
    aside_s: UnixTime = 0  # since when another engine answers; 0: this one does
    meaning: MeaningState | None = None
    makeup: MakeupState | None = None


class Followed(Judging):
    """One of them."""

    def __init__(self, model: str, tenant: str, of: Sequence[Feature], wall_s: float, numbers: int = 0) -> None:
        """`numbers`: that an embedding is projected to; 0: there are none."""
        self.model = model
        self.tenant = tenant
        self.seen_s = 0.0  # when it last voted; CLOCK_MONOTONIC
        self.asked_s = 0.0  # when there was last a request of it, whether it voted or not
        self.unheard_s = 0.0  # for how long requests have come of which none voted; of a pause PAUSE_S at most
        self.next_s = 0.0  # when it may vote again
        self.engine_model = ""
        self.made: Made | None = None  # of what all of this is; None: the engine was never asked
        self.changed: Change | None = None  # the last change of the engine, until a reference is pinned
        self._of_meaning = embedding_features(numbers)
        weights = [sum(feature.weight for feature in each) for each in (of, self._of_meaning)]
        self._shares = [weight / sum(weights) for weight in weights]  # of the evidence
        self.meaning = Meaning(self._of_meaning, wall_s) if self._of_meaning else None
        super().__init__(of, wall_s)

    def learn_anew(self, wall_s: float) -> None:
        """Forget the reference, if there is one, and learn another one."""
        super().learn_anew(wall_s)
        self.about: About | None = None
        self.makeup = Makeup()
        self._ttft, self._gap = signals.Pace(), signals.Pace()
        text = any(feature.text for feature in self.of)
        self._words = {each: Words() for each in (Direction.PROMPT, Direction.ANSWER)} if text else {}
        if self.meaning is not None:
            self.meaning.learn_anew(wall_s)

    def let_pass(self, passed_s: float) -> None:
        """Let time pass."""
        super().let_pass(passed_s)
        if self.meaning is not None:
            self.meaning.let_pass(passed_s)

    def clock_stepped(self, step_s: float, wall_s: float) -> bool:
        """Take it that the wall clock was set."""
        anew = super().clock_stepped(step_s, wall_s)
        return (self.meaning is not None and self.meaning.clock_stepped(step_s, wall_s)) or anew

    def asked(self, now_s: float) -> None:
        """There is a request, which may vote or not."""
        self.unheard_s += min(PAUSE_S, now_s - self.asked_s)
        self.asked_s = now_s

    def voted(self, now_s: float) -> None:
        """One of them votes."""
        self.seen_s = now_s
        self.unheard_s = 0.0

    @property
    def weeks(self) -> float:
        """The evidence, of embeddings too; 0 without a reference."""
        return sum(share * watched.weeks for share, watched in self._watched())

    def weeks_by_direction(self) -> dict[Direction, float]:
        """Return the parts of the evidence."""
        found = dict.fromkeys(Direction, 0.0)
        for share, watched in self._watched():
            for direction, weeks in watched.weeks_by_direction().items():
                found[direction] += share * weeks
        return found

    def weeks_by_feature(self) -> Iterator[tuple[Feature, float]]:
        """Yield the part of each in the evidence."""
        for share, watched in self._watched():
            for feature, weeks in watched.weeks_by_feature():
                yield feature, share * weeks

    @property
    def off(self) -> tuple[Feature, ...]:
        """The features that are not judged, of those that could be."""
        return (*(each for _, of in self._watched() for each in of.off), *self.unlearnt)

    @property
    def unlearnt(self) -> tuple[Feature, ...]:
        """Those of `off` that have no reference yet: embeddings have one of their own, which comes later."""
        return self._of_meaning if len(self._watched()) == 1 else ()

    def _watched(self) -> list[tuple[float, Watched]]:
        """What is judged, each with its share of the evidence."""
        if self.watched is None:
            return []
        meaning = None if self.meaning is None else self.meaning.watched
        own = (self._shares[0], self.watched)
        return [own] if meaning is None else [own, (self._shares[1], meaning)]

    @property
    def votes(self) -> int:
        """How many are in the reference, or on the way to it."""
        return self.about.votes if self.about is not None else 0 if self.lesson is None else self.lesson.votes

    def vote(self, record: RequestRecord, heard: Heard | None, load: int, now_weeks: float, hour: int) -> None:
        """Take a request."""
        self.engine_model = record.engine_model or self.engine_model
        values = signals.of_record(record) | signals.of_pace(record, load, self._ttft, self._gap)
        if heard is not None:
            values |= heard.values
        buckets = {} if heard is None else heard.buckets  # of what generates nothing: as if there were no text
        for direction, words in self._words.items():
            values[f"{direction}_likeness"] = self._likeness(words, buckets.get(direction, ()))
        if self.watched is not None:
            self.watched.vote(values, now_weeks, hour)
        elif self.lesson is not None and all(words.texts >= WORD_VOTES for words in self._words.values()):
            self.lesson.vote(values, hour)
            self.makeup.take(values, hour, session=bool(record.session or record.user), texts=heard is not None)

    def _likeness(self, words: Words, buckets: Sequence[int]) -> float | None:
        if words.texts >= WORD_VOTES:
            return words.likeness(buckets)
        words.learn(buckets)
        if words.texts >= WORD_VOTES:
            words.freeze()
        return None

    def pin(self, terms: Terms, now_weeks: float, wall_s: float) -> bool:
        """Take what was learnt for the reference; False if no feature has been seen often enough."""
        votes = self.votes
        if not self.take_up(MIN_VALUES, terms, now_weeks, wall_s):
            return False
        self.about = About(self.engine_model, self.number, int(wall_s), votes, int(self.begun_s))
        self.changed = None
        return True

    def takes_over(self, before: "Followed", now: Made, wall_s: float) -> Self:
        """Follow from now on, in the place of what is of another engine."""
        self.changed = None if before.made is None else Change(before.made, now, int(wall_s), self.watched is not None)
        self.made = now if self.made is None else self.made.with_(now)
        self.number = max(self.number, before.number)
        if self.meaning is not None and before.meaning is not None:
            self.meaning.number = max(self.meaning.number, before.meaning.number)
        self.seen_s, self.asked_s, self.next_s = before.seen_s, before.asked_s, before.next_s
        self.unheard_s = before.unheard_s
        return self

    def effects(self) -> list[Effect]:
        """Return how each feature is now, those with the most evidence first."""
        found = [
            effect._replace(weeks=share * effect.weeks) for share, of in self._watched() for effect in of.effects()
        ]
        return by_evidence(found)

    def state(self, aside_s: int = 0) -> FollowedState:
        """Return it to be written down. `aside_s`: since when another engine answers."""
        return FollowedState(
            VERSION,
            self.model,
            self.tenant,
            bool(self._words),
            int(self.begun_s),
            self.number,
            self._ttft.state(),
            self._gap.state(),
            {direction.value: words.state() for direction, words in self._words.items()},
            None if self.lesson is None else self.lesson.state(),
            self.about,
            self.watched_state(),
            self.since_s,
            self.signalling,
            self.made,
            self.changed,
            aside_s,
            None if self.meaning is None else self.meaning.state(),
            self.makeup.state(),
        )

    @classmethod
    def of_state(
        cls, state: FollowedState, of: Sequence[Feature], terms: Terms, now_weeks: float, numbers: int = 0
    ) -> "Followed":
        """Return what was written down. An embedding that is projected to other `numbers` is learnt anew.

        Raises:
            AnotherError: it is another version's, or of other features: a reference without texts does not judge texts.
            ValueError, KeyError: it does not fit together.
        """
        found = cls(state.model, state.tenant, of, state.begun_s, numbers)
        if state.version != VERSION or state.text != bool(found._words):
            raise AnotherError(f"version {state.version}, text {state.text}")
        if (state.lesson is None) == (state.watched is None) or (state.watched is None) != (state.about is None):
            raise ValueError("expected either a lesson or a reference")
        found.number, found.since_s = state.number, state.since_s
        found.made, found.changed = state.made, state.changed
        found.makeup = Makeup(state.makeup)
        found._ttft, found._gap = signals.Pace.of(state.ttft), signals.Pace.of(state.gap)
        for direction in found._words:
            found._words[direction] = words = Words.of(state.words[direction.value])
            if words.is_frozen != (words.texts >= WORD_VOTES):
                raise ValueError(f"likeness after {words.texts} texts, expected it after {WORD_VOTES}")
        found.lesson = None if state.lesson is None else Lesson.of(state.lesson, of)
        if state.watched is not None and state.about is not None:
            found.about = state.about
            found.resume(state.watched, terms, now_weeks)
        if found.meaning is not None and state.meaning is not None and state.meaning.count == numbers:
            found.meaning.take_back(state.meaning, terms, now_weeks)
        found.judged_weeks = found.weeks
        found.signalling = state.signalling and found.weeks > 0  # of a version with other bets there is no evidence
        return found
