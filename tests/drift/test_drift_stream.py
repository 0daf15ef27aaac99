"""stream and following: from learning to judging, with whatever comes; and back after a restart."""

import math
import random
from collections.abc import Callable

import msgspec
import pytest

from inferwatch.record import Outcome, RequestRecord
from inferwatch.settings.drift import REFERENCE_VOTES_MIN
from inferwatch_collectors.drift.betting import SHIFTS, bet
from inferwatch_collectors.drift.features import Direction, features
from inferwatch_collectors.drift.following import Followed, FollowedState, Heard
from inferwatch_collectors.drift.reference import Terms
from inferwatch_collectors.drift.signals import Pace, of_pace, of_record
from inferwatch_collectors.drift.stream import Watched
from inferwatch_collectors.drift.words import stream_of

TERMS = Terms.of(100, risk=0.01, tolerance=0.0)
BAR_WEEKS = 20.0
FEATURES = features(text=False)
Make = Callable[..., RequestRecord]


def some(make: Make, rng: random.Random, **fields: object) -> RequestRecord:
    """Return a request of ordinary traffic, but for these fields."""
    known: dict[str, object] = {
        "prompt_tokens": int(rng.lognormvariate(6, 1)),
        "completion_tokens": int(rng.lognormvariate(5, 1)),
        "ttft_s": rng.lognormvariate(-2, 0.3),
        "gap_sum_s": rng.lognormvariate(0, 0.2),
    }
    return make(**(known | fields))


def learnt(make: Make, rng: random.Random, votes: int = 6_000) -> Followed:
    """Return a stream with a reference of that."""
    followed = Followed("m", "acme", FEATURES, 0.0)
    for vote in range(votes):
        followed.vote(some(make, rng), None, 5, 0.0, vote % 168)
    assert followed.pin(TERMS, 0.0, 1_000.0)
    return followed


def until_signal(followed: Followed, make: Callable[[], RequestRecord], most: int) -> int | None:
    """Return after how many votes there is a signal."""
    for vote in range(1, most + 1):
        followed.vote(make(), None, 5, vote / 50_000, vote % 168)
        if followed.judge(BAR_WEEKS, 1_000.0 + vote):
            return vote
    return None


def test_nothing_changes_and_nothing_is_said(request_of: Make, rng: random.Random) -> None:
    """Eight thousand more requests like those of the reference are no signal."""
    followed = learnt(request_of, rng)
    assert until_signal(followed, lambda: some(request_of, rng), 8_000) is None


def test_longer_answers_are_found_and_said_in_words(request_of: Make, rng: random.Random) -> None:
    """Twice as long: within 200 votes, as lengths of answers, since the moment it began."""
    followed = learnt(request_of, rng)
    assert until_signal(followed, lambda: some(request_of, rng), 500) is None
    longer = until_signal(
        followed, lambda: some(request_of, rng, completion_tokens=int(rng.lognormvariate(5.7, 1))), 400
    )
    assert longer is not None
    assert longer < 300
    told = stream_of(followed, 1)
    assert told.state == "drifted"
    assert told.moved[0].feature == "completion_tokens"
    before, now = told.moved[0].before, told.moved[0].now
    assert before is not None
    assert now is not None
    assert now > 1.1 * before  # half of the votes that it is told from came before the change
    assert told.since < "1970-01-01T00:30Z"


def test_when_it_is_as_before_again_the_signal_ends(request_of: Make, rng: random.Random) -> None:
    """Evidence goes as it came, and the next episode is told again."""
    followed = learnt(request_of, rng)
    shorter = lambda: some(request_of, rng, completion_tokens=int(rng.lognormvariate(3.5, 1)))  # noqa: E731
    assert until_signal(followed, shorter, 300) is not None
    assert until_signal(followed, lambda: some(request_of, rng), 4_000) is None
    assert not followed.signalling
    assert until_signal(followed, shorter, 300) is not None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_what_is_no_number_is_no_vote(request_of: Make, rng: random.Random, value: float | None) -> None:
    """NaN, infinities and missing values neither move evidence nor end it."""
    followed = learnt(request_of, rng)
    watched = followed.watched
    assert watched is not None
    before = watched.held()
    for vote in range(100):
        watched.vote({"completion_tokens": value, "no such feature": 1.0}, vote / 100, 3)
    assert watched.held() == before
    watched.vote({"completion_tokens": 100.0}, 2.0, 3)
    assert 0 < watched.weeks < 10


def test_a_feature_that_hardly_any_request_had_is_off_and_says_so(request_of: Make, rng: random.Random) -> None:
    """Nobody streamed while it was learnt: pace is not judged, the rest is."""
    followed = Followed("m", "acme", FEATURES, 0.0)
    for vote in range(3_000):
        followed.vote(some(request_of, rng, ttft_s=None, gap_count=0), None, 5, 0.0, vote % 168)
    assert followed.pin(TERMS, 0.0, 1.0)
    assert set(stream_of(followed, 1).off) == {"ttft", "gap", "gap_max"}


def test_nothing_is_staked_on_a_feature_that_is_off(request_of: Make, rng: random.Random) -> None:
    """If all players of all features have a week, that is a week of evidence, whatever is off."""
    streamed, plain = (Followed("m", "acme", FEATURES, 0.0) for _ in range(2))
    for vote in range(3_000):
        streamed.vote(some(request_of, rng), None, 5, 0.0, vote % 168)
        plain.vote(some(request_of, rng, ttft_s=None, gap_count=0), None, 5, 0.0, vote % 168)
    for followed in (streamed, plain):
        assert followed.pin(TERMS, 0.0, 1.0)
        assert followed.watched is not None
        watched = followed.watched
        watched.resume({feature.name: [1.0] * pinned.bets for feature, pinned in watched.pinned()}, 0, 0.0)
        assert watched.weeks == pytest.approx(1.0)


def test_a_reference_of_too_few_requests_cannot_be_pinned(request_of: Make) -> None:
    """One request of a model makes no detector."""
    followed = Followed("m", "acme", FEATURES, 0.0)
    followed.vote(request_of(), None, 0, 0.0, 0)
    assert not followed.pin(TERMS, 0.0, 0.0)
    assert stream_of(followed, 1).state == "learning"


def test_a_restart_changes_nothing_while_judging(request_of: Make, rng: random.Random) -> None:
    """Read back, the same votes give the same evidence; bytes of the state are those of counts."""
    followed = learnt(request_of, rng)
    data = msgspec.msgpack.encode(followed.state())
    again = Followed.of_state(msgspec.msgpack.decode(data, type=FollowedState), FEATURES, TERMS, 0.0)
    for vote in range(200):
        record = some(request_of, rng)
        for each in (followed, again):
            each.vote(record, None, 5, vote / 50_000, 4)
    assert again.weeks == pytest.approx(followed.weeks)
    assert again.about == followed.about


def test_a_restart_changes_nothing_while_learning(request_of: Make, rng: random.Random) -> None:
    """What was counted is not counted anew."""
    followed = Followed("m", "acme", FEATURES, 0.0)
    for vote in range(2_000):
        followed.vote(some(request_of, rng), None, 5, 0.0, vote % 168)
    data = msgspec.msgpack.encode(followed.state())
    again = Followed.of_state(msgspec.msgpack.decode(data, type=FollowedState), FEATURES, TERMS, 0.0)
    assert again.votes == 2_000
    assert msgspec.msgpack.encode(again.state()) == data


def test_a_signal_goes_with_its_evidence(request_of: Make, rng: random.Random) -> None:
    """What was held by a version with fewer bets is dropped, and then nothing has drifted; else it goes on."""
    followed = learnt(request_of, rng)
    assert until_signal(followed, lambda: some(request_of, rng, completion_tokens=20), 300) is not None
    state = followed.state()
    assert Followed.of_state(state, FEATURES, TERMS, 0.0).signalling
    assert state.watched is not None
    state.watched.held = {name: held[:-1] for name, held in state.watched.held.items()}
    again = Followed.of_state(state, FEATURES, TERMS, 0.0)
    assert (again.weeks, again.signalling, stream_of(again, 1).state) == (0.0, False, "judging")


def test_another_set_of_features_begins_anew(request_of: Make, rng: random.Random) -> None:
    """A reference without texts does not judge texts."""
    state = learnt(request_of, rng).state()
    with pytest.raises(ValueError, match="text False"):
        Followed.of_state(state, features(text=True), TERMS, 0.0)


def test_texts_are_judged_when_they_are_heard(request_of: Make, rng: random.Random) -> None:
    """Refusals from 2 to 20 % are found, as the answers' doing."""
    followed = Followed("m", "acme", features(text=True), 0.0)

    def heard(rate: float) -> Heard:
        buckets = [rng.randrange(50) for _ in range(30)]
        values = {"refusal": float(rng.random() < rate), "prompt_chars": rng.lognormvariate(5, 1)}
        return Heard(values, {Direction.PROMPT: buckets, Direction.ANSWER: buckets})

    for vote in range(4_000):
        followed.vote(some(request_of, rng), heard(0.02), 5, 0.0, vote % 168)
    assert followed.pin(Terms.of(600, risk=0.01, tolerance=0.0), 0.0, 1.0)
    for vote in range(300):
        followed.vote(some(request_of, rng), heard(0.2), 5, vote / 50_000, 0)
    assert followed.effects()[0].feature.name == "refusal"
    assert followed.weeks > BAR_WEEKS


def test_a_refused_or_cut_request_tells_of_its_prompt_alone(request_of: Make) -> None:
    """A client that hung up says nothing of how long an answer would have been."""
    values = of_record(request_of(outcome=Outcome.CLIENT_ABORT))
    assert values["abandoned"] == 1.0
    assert "completion_tokens" not in values


def test_pace_is_what_length_and_load_do_not_explain(rng: random.Random) -> None:
    """Twice the prompt takes twice the time: no excess. Three times as slow as usual: log 3."""
    pace = Pace()
    for _ in range(600):
        prompt, load = rng.lognormvariate(6, 1), rng.randrange(1, 40)
        pace.excess(prompt * load**0.5 / 1000 * rng.lognormvariate(0, 0.1), prompt, load)
    usual = pace.excess(800 * 9**0.5 / 1000, 800, 9)
    slow = pace.excess(3 * 800 * 9**0.5 / 1000, 800, 9)
    assert usual is not None
    assert slow is not None
    assert usual == pytest.approx(0, abs=0.15)
    assert slow - usual == pytest.approx(math.log(3))
    assert pace.excess(0.0, 1, 1) is None


def test_one_long_pause_is_told_from_a_slow_answer(request_of: Make) -> None:
    """Twice as slow throughout: the longest pause is as it was, beside the mean. One pause of three seconds: it is not."""

    def tail(**fields: object) -> float:
        value = of_pace(request_of(gap_count=99, **fields), 5, Pace(), Pace())["gap_max"]
        assert value is not None
        return value

    usual = tail(gap_sum_s=1.0, gap_max_s=0.03)
    assert tail(gap_sum_s=2.0, gap_max_s=0.06) == pytest.approx(usual)
    assert tail(gap_sum_s=4.0, gap_max_s=3.0) > usual + 2
    assert "gap_max" not in of_pace(request_of(gap_count=3, gap_sum_s=0.0, gap_max_s=0.0), 5, Pace(), Pace())


def test_an_empty_answer_is_known_by_its_stream_too(request_of: Make) -> None:
    """Engines that count the token that ends it say one token."""
    assert of_record(request_of(completion_tokens=1, first_token_missing="empty"))["empty"] == 1.0
    assert of_record(request_of(completion_tokens=1))["empty"] == 0.0


def test_what_every_request_has_is_judged_in_the_smallest_reference(request_of: Make, rng: random.Random) -> None:
    """Lengths, how answers end, the pace: of 1,000 votes, a tenth of which nobody waited for. Half as many are too few,
    and the words say which it is."""
    for streamed, off in ((0.9, ()), (0.5, ("ttft", "gap", "gap_max"))):
        followed = Followed("m", "acme", FEATURES, 0.0)
        for vote in range(REFERENCE_VOTES_MIN):
            pace: dict[str, object] = {"gap_max_s": rng.lognormvariate(-3, 0.3)}
            if rng.random() >= streamed + 0.02:
                pace = {"ttft_s": None, "gap_count": 0}
            followed.vote(some(request_of, rng, **pace), None, 5, 0.0, vote % 168)
        assert followed.pin(TERMS, 0.0, 1_000.0)
        assert tuple(feature.name for feature in followed.off) == off
        why = "too few values of it in only 1000 votes"
        assert stream_of(followed, 1).why_off == ({why: off} if off else {})


def test_the_least_feature_alone_can_be_a_signal_in_the_last_of_all_streams(
    request_of: Make, rng: random.Random
) -> None:
    """520 weeks, 10,000 streams: from a bet on 0.1 standard deviations, which has 1/36 of 1/36. And it goes again."""
    bar_weeks = 520.0 * 10_000
    followed = learnt(request_of, rng)
    assert followed.watched is not None
    pinned = dict(followed.watched.pinned())
    for terms, reached in ((Terms.of(100, risk=0.01, tolerance=0.0, bar_weeks=bar_weeks), True), (TERMS, False)):
        watched = Watched(pinned, FEATURES, terms, 0.0)
        place = next(place for place, (feature, _) in enumerate(watched.pinned()) if feature.name == "gap")
        held = watched.held()["gap"]
        assert SHIFTS[0] == 0.1
        for _ in range(1_000):  # as a long time of 0.1 would; all others stay where they are
            grown = bet(held[:1], (math.exp(0.1),), (1.0,), 1e-3, watched._ceilings[place])
            held = (*grown, *held[1:])
        watched.resume({"gap": held}, 1, 0.0)
        assert (watched.weeks >= bar_weeks) == reached
        again = Watched(pinned, FEATURES, terms, 0.0)
        again.resume(watched.held(), 1, 0.0)
        assert again.weeks == watched.weeks  # what was written down is not thrown away for being much
        less = Watched(pinned, FEATURES, TERMS, 0.0)
        less.resume(watched.held(), 1, 0.0)
        assert less.weeks < bar_weeks  # a ceiling that is lower now
        votes = 0
        while watched.weeks > 1e-3 * BAR_WEEKS:
            votes += 1
            watched.resume(
                {"gap": bet(watched.held()["gap"][:1], (1.0,), (math.exp(0.005),), 0.0) + [0.0] * 17}, 1, 0.0
            )
        assert 1_000 < votes < 5_000
