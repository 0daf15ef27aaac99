"""What is remembered of drift and was damaged: it reads as something that makes sense, or is refused; nothing else."""

import math
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import pytest
from damage import mutated
from drift_requests import answered
from hypothesis import given, settings
from hypothesis import strategies as st

from inferwatch.record import Outcome, RequestRecord
from inferwatch.settings.drift import Drift
from inferwatch_collectors.cardinality import CardinalityGuard, Limits
from inferwatch_collectors.drift.features import Direction, features
from inferwatch_collectors.drift.following import WORD_VOTES, Followed, FollowedState, Heard
from inferwatch_collectors.drift.made import Change, Made
from inferwatch_collectors.drift.memory import NAME, Memory
from inferwatch_collectors.drift.reference import Terms
from inferwatch_collectors.drift.signals import PACE_VOTES, Pace, PaceState
from inferwatch_collectors.drift.trigrams import BUCKETS
from inferwatch_collectors.drift.watch import DriftWatch
from inferwatch_collectors.drift.words import Report, as_text, stream_of
from inferwatch_collectors.embeddings.sketch import BUCKETS as SKETCH_NUMBERS
from inferwatch_collectors.embeddings.sketch import Sketch
from inferwatch_collectors.metric_store import MetricStore

MONDAY_S: Final = 1_760_313_600.0
TERMS: Final = Terms.of(100, risk=0.01, tolerance=0.05)
NUMBERS: Final = 1
# One of each kind is as good as all fifty: read, judged and written down alike.
OF: Final = tuple(
    each
    for each in features(text=True)
    if each.name in {"prompt_tokens", "ttft", "finish_length", "prompt_likeness", "prompt_upper"}
)
RECORD: Final = RequestRecord(
    request_id="r",
    wall_ns=int(MONDAY_S * 1e9),
    tenant="acme",
    model="m",
    operation="chat",
    route="/v1/chat/completions",
    method="POST",
    stream=True,
    outcome=Outcome.OK,
    status=200,
    duration_s=1.0,
)


def vote(followed: Followed, rng: random.Random, hour: int) -> None:
    """Take a request that is longer by day."""
    shift = 2.0 if hour % 24 < 12 else 0.0
    record = msgspec.structs.replace(
        RECORD,
        prompt_tokens=int(rng.lognormvariate(4 + shift, 1)),
        completion_tokens=10,
        finish_reasons=("length" if rng.random() < 0.1 + shift / 4 else "stop",),
        ttft_s=rng.lognormvariate(shift, 0.3),
    )
    buckets = [rng.randrange(BUCKETS) for _ in range(3)]
    values = {each.name: rng.gauss(shift, 1) for each in OF if each.text}
    followed.vote(record, Heard(values, {Direction.PROMPT: buckets, Direction.ANSWER: buckets}), 5, 0.0, hour)
    assert followed.meaning is not None
    sketch = Sketch("e5", tuple(rng.gauss(shift / 10, 0.12) for _ in range(SKETCH_NUMBERS)))
    followed.meaning.vote(sketch, 0.0, hour, MONDAY_S)


def memos() -> Iterator[bytes]:
    """Yield what is written down while words are learnt, while it is counted, and while it is judged."""
    rng = random.Random(3)
    followed = Followed("m", "acme", OF, MONDAY_S, NUMBERS)
    followed.made, followed.changed = Made("1", "/w", 4096), Change(Made("0"), Made("1"), int(MONDAY_S), False)
    for number in range(WORD_VOTES + 1_500):
        if number == 100:
            yield msgspec.msgpack.encode(followed.state())
        vote(followed, rng, number % 168)
    yield msgspec.msgpack.encode(followed.state())
    assert followed.pin(TERMS, 0.0, MONDAY_S)
    assert followed.meaning is not None
    assert followed.meaning.take_up(100, TERMS, 0.0, MONDAY_S)
    assert followed.watched is not None
    assert followed.watched.has_rhythm
    for number in range(50):
        vote(followed, rng, number % 3)
    yield msgspec.msgpack.encode(followed.state(aside_s=int(MONDAY_S)))
    yield msgspec.msgpack.encode(followed.state())


MEMOS: Final = tuple(memos())


def read(*data: bytes) -> tuple[list[Followed], Memory, MetricStore]:
    """Return what is read of these memos."""
    store = MetricStore()
    for number, each in enumerate(data):
        store.memo(NAME, (str(number),)).set(each)
    memory = Memory(store, NUMBERS)
    return memory.read(OF, TERMS, 0.0, 10), memory, store


def live(followed: Followed) -> None:
    """See that it makes sense, and goes on doing so."""
    rng = random.Random(4)
    for step in range(3):
        for hour in (0, 13, 167):
            vote(followed, rng, hour)
            followed.judge(20.0, MONDAY_S)
        assert 0 <= followed.weeks < math.inf
        assert all(map(math.isfinite, followed.weeks_by_direction().values()))
        for effect in followed.effects():
            assert all(map(math.isfinite, (effect.weeks, effect.psi, effect.wasserstein, effect.before, effect.now)))
        as_text(Report(weeks_per_false_alarm=20, text=True, waits=False, streams=(stream_of(followed, 1),)))
        if step == 0 and followed.watched is None:
            followed.let_pass(30.0)
            followed.pin(TERMS, 0.0, MONDAY_S)
            if followed.meaning is not None:
                followed.meaning.take_up(100, TERMS, 0.0, MONDAY_S)
    again, memory, _ = read(msgspec.msgpack.encode(followed.state()))
    assert len(again) == 1
    assert memory.damaged == 0


def test_what_is_whole_is_read_and_goes_on() -> None:
    """In each of its stages; what is aside is taken back."""
    for data in MEMOS:
        found, memory, _ = read(MEMOS[-1], data)
        assert memory.damaged == 0
        live(found[0])
    _, memory, _ = read(*MEMOS[-2:])
    assert memory.kept(("m", "acme")) == (Made("1", "/w", 4096),)
    back = memory.take_back(("m", "acme"), Made("1"), OF, TERMS, 0.0)
    assert back is not None
    live(back)


@settings(max_examples=300)
@given(st.sampled_from(MEMOS), st.randoms(use_true_random=False))
def test_whatever_is_damaged_makes_sense_or_is_refused(data: bytes, rng: random.Random) -> None:
    """Any byte, any number, any length: what is read can be judged, told and written down again; else it is counted,
    and its place is free."""
    damaged = mutated(rng, data)
    found, memory, store = read(damaged)
    for followed in found:
        live(followed)
    if not found:
        assert not any(memo.data for memo in store.memos(NAME))
    for key in [key for key in memory._aside if memory._aside[key]]:
        back = memory.take_back(key, memory._aside[key][0].made, OF, TERMS, 0.0)
        assert back is not None
        live(back)


def count_below_zero(memo: list[Any]) -> None:
    """In the counts of some feature."""
    lesson = memo[FollowedState.__struct_fields__.index("lesson")]
    counts = next(iter(lesson[2].values()))[3]
    counts[0] = -1


def no_number(memo: list[Any]) -> None:
    """Since when there has been nothing unusual."""
    memo[FollowedState.__struct_fields__.index("since_s")] = math.nan


def neither(memo: list[Any]) -> None:
    """Nothing is learnt, and nothing is judged."""
    memo[FollowedState.__struct_fields__.index("lesson")] = None


@pytest.mark.parametrize("damage", [count_below_zero, no_number, neither])
def test_a_damaged_memo_is_told_and_counted_and_learnt_anew(
    request_of: Callable[..., RequestRecord], caplog: pytest.LogCaptureFixture, damage: Callable[[list[Any]], None]
) -> None:
    """One line, no word of what is in it; the other streams go on where they were."""

    def watch_of(store: MetricStore) -> DriftWatch:
        watch = DriftWatch(store, CardinalityGuard(Limits()), Drift(votes_per_hour=36_000), secret=b"")
        watch.resume(0.0)
        return watch

    def send(watch: DriftWatch, count: int) -> None:
        for number in range(count):
            watch.tick(float(number), MONDAY_S + number)
            for tenant in ("acme", "other co"):
                answered(watch, request_of(tenant=tenant))

    def votes(watch: DriftWatch) -> dict[str, int]:
        return {each.tenant: each.votes for each in watch.report().streams}

    store = MetricStore()
    before = watch_of(store)
    send(before, 20)
    before.finish()
    while before.unwritten:
        before.write_one()
    known = votes(before)
    fresh = MetricStore()
    for memo in store.memos(NAME):
        whole = msgspec.msgpack.decode(memo.data)
        if whole[FollowedState.__struct_fields__.index("tenant")] == "acme":
            damage(whole)
        fresh.memo(NAME, memo.labels).set(msgspec.msgpack.encode(whole))
    watch = watch_of(fresh)
    assert votes(watch) == {"other co": known["other co"]}
    assert watch.memos_damaged == 1
    assert len([line for line in caplog.messages if line.startswith("memo_damaged name=drift place=")]) == 1
    assert "acme" not in caplog.text
    send(watch, 10)
    assert votes(watch)["acme"] == 10
    assert votes(watch)["other co"] > known["other co"]


@pytest.mark.parametrize("time_s", [math.nan, math.inf, 0.0, -1.0])
def test_what_is_no_time_does_not_spoil_the_pace(time_s: float) -> None:
    """It is not learnt from, so what is written down can be read."""
    pace = Pace()
    assert pace.excess(time_s, 1.0, 1.0) is None
    assert pace.state() == Pace().state()
    pace.excess(1.0, 2.0, 3.0)
    assert Pace.of(pace.state()).state() == pace.state()


def test_a_pace_of_an_older_version_goes_on() -> None:
    """It was learnt from twice as many votes: with the next one it has its line."""
    pace, rng = Pace(), random.Random(5)
    for _ in range(PACE_VOTES - 1):
        pace.excess(rng.lognormvariate(0, 1), rng.randrange(1_000), rng.randrange(9))
    state = pace.state()
    older = Pace.of(PaceState(2 * state.votes, tuple(2 * each for each in state.moments), ()))
    assert older.excess(1.0, 5.0, 5.0) is None
    assert older.excess(1.0, 5.0, 5.0) is not None
