"""meaning: prompts about something else are found, the same prompts are not, and another embedding model is no alarm."""

import random
from functools import cache

import msgspec
import pytest
from subjects import prompt

from inferwatch_collectors.drift.features import LIKENESS, embedding_features, features
from inferwatch_collectors.drift.following import MIN_VALUES
from inferwatch_collectors.drift.learning import EDGE_VOTES
from inferwatch_collectors.drift.meaning import OTHERS, SPREAD_VOTES, Meaning, MeaningState
from inferwatch_collectors.drift.reference import Terms
from inferwatch_collectors.embeddings.sketch import BUCKETS, Sketch, Sketcher
from inferwatch_simulator.embeddings import vector_of

FEATURES = embedding_features(8)
SKETCHER = Sketcher(b"a secret of the installation")
TERMS = Terms.of(12 * len((*FEATURES, *features(text=True))), risk=0.01, tolerance=0.0)
LEARNT = SPREAD_VOTES + EDGE_VOTES + 2_000
WEEK = 50_000
BAR_WEEKS = 200.0  # twenty weeks, of a part of a tenth of all evidence


def sketch(text: str, source: str = "e5") -> Sketch:
    numbers = SKETCHER.numbers(vector_of(text))
    assert numbers is not None
    return Sketch(source, numbers)


class Stream:
    """Prompts about cooking and gardens, until they are not."""

    def __init__(self, seed: int = 4) -> None:
        self.rng = random.Random(seed)
        self.meaning = Meaning(FEATURES, 0.0)
        self.votes = 0

    def vote(self, count: int, share: float = 0.0, source: str = "e5") -> int | None:
        """Return after how many of these votes there was evidence enough."""
        for number in range(1, count + 1):
            self.votes += 1
            subjects = ("networks",) if self.rng.random() < share else ("cooking", "gardens")
            hour = self.votes * 168 // WEEK % 168
            self.meaning.vote(sketch(prompt(self.rng, *subjects), source), self.votes / WEEK, hour, float(self.votes))
            if self.meaning.weeks >= BAR_WEEKS:
                return number
        return None

    def pin(self) -> bool:
        return self.meaning.take_up(MIN_VALUES, TERMS, self.votes / WEEK, float(self.votes))


@cache
def _learnt() -> bytes:
    stream = Stream()
    stream.vote(LEARNT)
    assert stream.pin()
    return msgspec.msgpack.encode(stream.meaning.state())


@pytest.fixture(name="stream")
def _stream() -> Stream:
    """A stream with a reference, as it is after a restart."""
    stream = Stream(5)
    stream.votes = LEARNT
    state = msgspec.msgpack.decode(_learnt(), type=MeaningState)
    stream.meaning.take_back(state, TERMS, LEARNT / WEEK)
    return stream


def test_the_same_prompts_are_no_drift(stream: Stream) -> None:
    """Two thousand more of them."""
    assert stream.vote(2_000) is None
    assert stream.meaning.weeks < 1


@pytest.mark.parametrize(("share", "most"), [(0.3, 300), (0.15, 1_500)])
def test_another_subject_is_found(stream: Stream, share: float, most: int) -> None:
    """A part of the prompts is about something else, in the same language and of the same length."""
    stream.vote(500)
    found = stream.vote(most, share)
    assert found is not None
    assert stream.meaning.watched is not None
    assert stream.meaning.watched.effects()[0].feature is LIKENESS


def test_another_model_is_another_reference(stream: Stream) -> None:
    """Not for some odd replies; for OTHERS in a row, without a word of drift."""
    number = stream.meaning.number
    for _ in range(3):
        assert stream.vote(OTHERS - 1, source="other") is None
        stream.vote(1)
        assert stream.meaning.watched is not None
    stream.vote(OTHERS - 1, source="other")
    assert stream.meaning.vote(sketch("one more", "other"), 1.0, 0, 0.0)
    assert (stream.meaning.watched, stream.meaning.weeks) == (None, 0.0)
    stream.vote(LEARNT, source="other")
    assert stream.pin()
    assert stream.meaning.number == number + 1
    assert stream.vote(500, source="other") is None


def test_no_file_has_the_sketch_of_one_prompt() -> None:
    """While mean and covariance are summed up, nothing of them is written down; and then only they are."""
    stream = Stream()
    stream.vote(SPREAD_VOTES - 1)
    assert stream.meaning.state() == MeaningState("", 0, 0, 8, b"", None, None)
    stream.vote(1)
    state = stream.meaning.state()
    assert len(state.spread) == 4 * (BUCKETS + BUCKETS * (BUCKETS + 1) // 2)
    again = Meaning(FEATURES, 0.0)
    again.take_back(state, TERMS, 0.0)
    assert again.state() == state


def test_prompts_that_are_all_the_same_are_no_fault() -> None:
    """A constant feature is learnt and judged like others, without an alarm."""
    stream = Stream()
    for votes in (LEARNT, 500):
        for _ in range(votes):
            stream.votes += 1
            stream.meaning.vote(sketch("the same words"), stream.votes / WEEK, 0, 0.0)
        if stream.meaning.watched is None:
            assert stream.pin()
    assert stream.meaning.weeks < 1


def test_a_state_that_does_not_fit_is_refused(stream: Stream) -> None:
    """Of another size than is made here."""
    state = msgspec.structs.replace(stream.meaning.state(), spread=b"\0" * 16)
    with pytest.raises(ValueError, match="4 numbers for 64 coordinates"):
        Meaning(FEATURES, 0.0).take_back(state, TERMS, 0.0)
