"""hourly: sums in 16 bits are the sums; and where those do not suffice, nearly, which no reference shows."""

import math
import random
from array import array
from bisect import bisect_left
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferwatch_collectors.drift import hourly
from inferwatch_collectors.drift.betting import STEPS
from inferwatch_collectors.drift.features import Direction, Feature, Kind
from inferwatch_collectors.drift.learning import EDGE_VOTES, Learning, fit
from inferwatch_collectors.drift.profile import HOURS, HOURS_OF_WEEK
from inferwatch_collectors.drift.reference import Pinned
from inferwatch_collectors.drift.stream import Lesson, LessonState

PROMPT, ANSWER, PACE = (
    Feature("prompt", Direction.PROMPT, Kind.QUANTITY, "a quantity"),
    Feature("answer", Direction.ANSWER, Kind.FLAG, "a flag"),
    Feature("pace", Direction.PACE, Kind.QUANTITY, "what not every request has", partial=True),
)
# Of a value that was added in a row, however often: so many units.
FEW: float = 8.0


def exactly(learning: Learning, taken: list[tuple[float, int]]) -> Pinned:
    """Return the reference by sums that are exact."""
    sums, votes = [0] * HOURS_OF_WEEK, [0] * HOURS_OF_WEEK
    counts = [0] * len(learning.scores)
    for value, hour in taken:
        place = bisect_left(learning.edges, value)
        counts[place] += 1
        sums[hour] += round(learning.scores[place] * STEPS)
        votes[hour] += 1
    return fit(learning.kind, tuple(learning.edges), learning.scores, counts, [each / STEPS for each in sums], votes)


def both(values: Callable[[int], float], hours: int, per_hour: int) -> tuple[Pinned, Pinned]:
    """Return the reference of so many votes in each of so many hours, and that by exact sums."""
    learning = Learning.of_values(array("f", [values(place % hours) for place in range(EDGE_VOTES)]), partial=True)
    taken = [(values(hour), hour) for hour in range(hours) for _ in range(per_hour)]
    for value, hour in taken:
        learning.take(value, hour)
    pinned = learning.pin([])
    assert pinned is not None
    return pinned, exactly(learning, taken)


@given(st.lists(st.tuples(st.integers(0, HOURS_OF_WEEK - 1), st.integers(-128, 127)), max_size=250))
def test_within_16_bits_they_are_the_sums(added: list[tuple[int, int]]) -> None:
    """Whatever is added, in whatever order."""
    sums, exact = hourly.nothing("h"), [0] * HOURS_OF_WEEK
    for turn, (hour, value) in enumerate(added):
        hourly.add(sums, hour, value, turn)
        exact[hour] += value
    assert hourly.whole(sums) == exact
    assert hourly.of("h", sums.tobytes()) == sums


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from((-3.0, -0.5, 0.0, 0.1, 2.0)) | st.floats(-10, 10), st.integers(0, HOURS_OF_WEEK - 1)),
        min_size=EDGE_VOTES + 1,
        max_size=EDGE_VOTES + 500,
    )
)
def test_within_16_bits_the_reference_is_that_of_exact_sums(votes: list[tuple[float, int]]) -> None:
    """To the last bit: bins, counts, profile and core."""
    lesson = Lesson([PACE])
    for value, hour in votes:
        lesson.vote({"pace": value}, hour)
    learning = Learning.of_values(array("f", [value for value, _ in votes[:EDGE_VOTES]]))
    assert lesson.pin(1)[PACE].state() == exactly(learning, votes[EDGE_VOTES:]).state()


@pytest.mark.parametrize("value", [-24, -17, -1, 1, 5, 8, 24, 127, -128])
@pytest.mark.parametrize("code", ["h", "H"])
def test_the_same_in_a_row_is_off_by_a_few_units(code: hourly.Code, value: int) -> None:
    """Halved or not; and what other hours have is halved with it, and not lost."""
    sums = hourly.nothing(code)
    value = abs(value) if code == "H" else value
    for turn in range(1, 4_097):
        hourly.add(sums, 0, value, turn)
    for turn in range(4_097, 40_001):
        hourly.add(sums, 167, value, turn)
    unit = 1 << sums[HOURS_OF_WEEK]
    assert (unit > 1) == (abs(value) * (40_000 - 4_096) > (65_535 if code == "H" else 32_768))
    found = hourly.whole(sums)
    assert abs(found[0] - 4_096 * value) <= FEW * unit
    assert abs(found[167] - (40_000 - 4_096) * value) <= FEW * unit
    assert not any(each > unit for each in found[1:167])


@pytest.mark.parametrize(("per_hour", "hours"), [(10, HOURS_OF_WEEK), (300, HOURS_OF_WEEK), (30_000, HOURS)])
@pytest.mark.parametrize("shift", [1.0, -2.0])
def test_the_profile_is_that_of_exact_sums(rng: random.Random, per_hour: int, hours: int, shift: float) -> None:
    """The same at 10 and 300 votes an hour; at 30,000 within a step of the profile, a hundredth of a standard
    deviation, whatever sign the sums have."""
    means = [shift + math.sin(math.tau * hour / HOURS) for hour in range(hours)]
    found, exact = both(lambda hour: rng.gauss(means[hour], 1), hours, per_hour)
    if per_hour < 30_000:
        assert found.state() == exact.state()
        return
    assert found.has_profile
    assert exact.has_profile
    assert max(abs(a - b) for a, b in zip(found.profile.steps, exact.profile.steps, strict=True)) <= 1
    assert found.error == pytest.approx(exact.error, rel=1e-3)
    assert found.core == pytest.approx(exact.core, abs=1e-3)


@pytest.mark.parametrize("per_hour", [300, 3_000])
def test_what_is_constant_has_no_profile(per_hour: int) -> None:
    """Though each vote adds the same, and its sums are the first to be halved."""
    found, exact = both(lambda _: 3.0, HOURS_OF_WEEK, per_hour)
    assert not found.has_profile
    assert found.state() == exact.state()


def test_what_was_halved_is_read_back() -> None:
    """And goes on where it was."""
    sums = hourly.nothing("h")
    for turn in range(5_000):
        hourly.add(sums, 3, 24, turn)
    again = hourly.of("h", sums.tobytes())
    for each in (sums, again):
        hourly.add(each, 3, 24, 5_000)
    assert again == sums
    assert sums[HOURS_OF_WEEK] == 2


def test_an_older_version_wrote_32_bits(rng: random.Random) -> None:
    """A lesson as it was written down then: it goes on, also where a sum does not fit into 16 bits; what had no edges
    begins anew."""
    sums = [rng.randrange(-2_000, 2_000) for _ in range(HOURS_OF_WEEK)]
    large = [40 * each for each in sums]
    votes = [4_000] * HOURS_OF_WEEK
    old = msgspec.msgpack.encode([
        672_000,
        votes,
        {
            "prompt": ["quantity", [], [], [], bytes(4 * HOURS_OF_WEEK), b""],
            "answer": ["flag", [0.5], [0, 8], [160_000, 8_000], array("i", map(abs, sums)).tobytes(), b""],
            "pace": [
                *("quantity", [1.0, 2.0], [-8, 0, 8], [50_000, 68_000, 50_000]),
                *(array("i", large).tobytes(), array("I", votes).tobytes()),
            ],
        },
    ])  # fmt: skip
    lesson = Lesson.of(msgspec.msgpack.decode(old, type=LessonState), (PROMPT, ANSWER, PACE))
    again = Lesson.of(msgspec.msgpack.decode(msgspec.msgpack.encode(lesson.state()), type=LessonState), (ANSWER, PACE))
    for each in (lesson, again):
        found = each.pin(1)
        assert found.keys() == {ANSWER, PACE}
        by_hour = [abs(each) / STEPS for each in sums]
        assert found[ANSWER].state() == fit(Kind.FLAG, (0.5,), (0.0, 1.0), (160_000, 8_000), by_hour, votes).state()
        by_hour = [each / STEPS for each in large]
        exact = fit(Kind.QUANTITY, (1.0, 2.0), (-1.0, 0.0, 1.0), (50_000, 68_000, 50_000), by_hour, votes)
        assert found[PACE].profile.steps == exact.profile.steps
    lesson.vote({"prompt": 1.0}, 0)
    assert "prompt" not in lesson.state().learning


def test_values_are_not_written_down() -> None:
    """Before they have made the edges nothing of a feature is."""
    lesson = Lesson((PROMPT, ANSWER))
    for _ in range(EDGE_VOTES - 1):
        lesson.vote({"prompt": 1.5, "answer": 0.0}, 0)
    assert lesson.state().learning.keys() == {"answer"}
    lesson.vote({"prompt": 1.5, "answer": 0.0}, 0)
    assert lesson.state().learning.keys() == {"prompt", "answer"}


@pytest.mark.parametrize("size", [0, 2, 335, 336, 340, 671, 676])
def test_sums_of_another_size_are_refused(size: int) -> None:
    """They are no sums of a week."""
    with pytest.raises(ValueError, match="bytes"):
        hourly.of("h", bytes(size))


def test_sums_that_are_more_than_can_be_are_refused() -> None:
    """Halved ones may be off by some units."""
    sums = hourly.nothing("h")
    sums[5] = -24
    hourly.check(sums, [24] * HOURS_OF_WEEK)
    with pytest.raises(ValueError, match="more"):
        hourly.check(sums, [24] * 5 + [23] * (HOURS_OF_WEEK - 5))
    sums[5], sums[HOURS_OF_WEEK] = -30_000, 3
    hourly.check(sums, [8 * 29_999] * HOURS_OF_WEEK)
    with pytest.raises(ValueError, match="more"):
        hourly.check(sums, [8 * 29_900] * HOURS_OF_WEEK)


@pytest.mark.parametrize("halvings", [-1, 16, 17])
def test_sums_that_were_halved_too_often_are_refused(halvings: int) -> None:
    """Or less than never."""
    with pytest.raises(ValueError, match="hours"):
        hourly.of("h", array("h", [0] * HOURS_OF_WEEK + [halvings]).tobytes())
