"""watch and holding: a reference is of one version and configuration of the engine, and judges no other."""

import random
from collections.abc import Callable

import msgspec
import pytest
from drift_requests import answered

from inferwatch.record import RequestRecord
from inferwatch.settings.drift import Drift
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import CardinalityGuard, Limits
from inferwatch_collectors.drift import memory
from inferwatch_collectors.drift.following import FollowedState
from inferwatch_collectors.drift.holding import ASK_S, LATE_S, MANY, MAX_HELD, STUCK_S, TRIES, Holding, Vote
from inferwatch_collectors.drift.made import Made
from inferwatch_collectors.drift.watch import DriftWatch
from inferwatch_collectors.drift.words import Stream, as_text
from inferwatch_collectors.engine.said import Said, Served
from inferwatch_collectors.metric_store import MetricStore

Make = Callable[..., RequestRecord]
MONDAY_S = 1_760_313_600.0
KEY = ("m", "acme")
QUICK = Drift(votes_per_hour=36_000, reference_requests_min=2_000, reference_hours=1)
A, B, C, D = (Said(f"0.{number}.0") for number in (10, 11, 12, 13))
NONE = Said()


class Site:
    """A watch, and an engine that is asked when the watch wants it: it answers at once, or `silent`."""

    def __init__(self, make: Make, said: Said | None, store: MetricStore | None = None, now_s: float = 0.0) -> None:
        self.make = make
        self.said = said  # what it says; None: it does not answer
        self.store = store or MetricStore()
        self.wanted = True
        self.watch = DriftWatch(
            self.store, CardinalityGuard(Limits()), QUICK, secret=b"", ask=lambda: setattr(self, "wanted", True)
        )
        self.now_s = now_s
        self.rng = random.Random(1)
        self.watch.resume(now_s)
        self.tick(0.0)

    def tick(self, step_s: float) -> None:
        self.now_s += step_s
        self.watch.tick(self.now_s, MONDAY_S + self.now_s)
        if self.wanted:
            self.wanted = False
            mark = self.watch.asking()
            if self.said is None:
                self.watch.silent()
            else:
                self.watch.told(mark, self.said)

    def send(self, count: int, longer: float = 0.0, step_s: float = 0.1, **fields: object) -> None:
        """Let so many requests finish; answers are exp(longer) times as long."""
        for _ in range(count):
            self.tick(step_s)
            known: dict[str, object] = {
                "completion_tokens": int(self.rng.lognormvariate(5 + longer, 1)),
                "wall_ns": int((MONDAY_S + self.now_s) * 1e9),
            }
            answered(self.watch, self.make(**(known | fields)))

    def learn(self) -> None:
        """Send what a reference is pinned from."""
        self.send(2_500)
        self.send(60, step_s=60)
        assert self.stream.state == "judging"

    def lives_on(self, said: Said | None) -> "Site":
        """Return the site after a restart of the collector, with an engine that says `said`."""
        store = MetricStore()
        self.store.touch_all()
        store.restore(self.store.take_dirty())
        return Site(self.make, said, store, self.now_s)

    @property
    def stream(self) -> Stream:
        (stream,) = self.watch.report().streams
        return stream

    def gauge(self, metric: m.Metric, *labels: str) -> float | None:
        self.watch.refresh()
        return self.store.gauge(metric, labels).value

    def changes(self, result: str) -> float:
        return self.store.counter(m.DRIFT_ENGINE_CHANGES, (*KEY, result)).value

    def signals(self) -> float:
        return self.store.counter(m.DRIFT_SIGNALS, KEY).value


def judged(site: Site) -> int:
    (followed,) = site.watch.streams
    return 0 if followed.watched is None else followed.watched.votes


def test_an_upgrade_is_learnt_anew_and_never_judged_by_the_old_reference(
    request_of: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Twice as long answers of the next version are no drift: not one of them is counted, in the reference or against
    it. Whoever is on call reads what happened."""
    site = Site(request_of, A)
    site.learn()
    site.send(600)
    (before,) = site.watch.streams
    votes, evidence = judged(site), before.weeks
    assert site.gauge(m.DRIFT_JUDGING, *KEY) == 1
    site.said = B
    site.send(100, longer=0.7, step_s=0.01)  # within a second: the engine has not been asked again
    assert before.watched is not None
    assert before.watched.votes - votes <= ASK_S * 10  # those of A that still waited
    assert before.weeks <= evidence + 0.01
    site.send(1_000, longer=0.7)
    assert before.weeks <= evidence + 0.01
    assert site.stream.state == "learning"
    assert site.stream.votes <= 1_000
    assert "engine changed from version 0.10.0 to version 0.11.0; learning anew, since 2025-" in site.stream.changed
    assert site.stream.changed in as_text(site.watch.report())
    assert "drift_engine_changed model=m tenant=acme engine changed from version 0.10.0" in caplog.text
    assert (site.changes("learning"), site.changes("used_again"), site.signals()) == (1, 0, 0)
    assert site.gauge(m.DRIFT_JUDGING, *KEY) == 0
    assert site.gauge(m.DRIFT_EVIDENCE, *KEY, "answer") is None
    assert site.store.gauge(m.DRIFT_PSI, (*KEY, "completion_tokens")).value is None
    site.learn()
    assert site.stream.changed == ""
    assert site.stream.engine == "version 0.11.0"
    assert site.stream.kept == ("version 0.10.0",)


def test_who_goes_back_is_judged_by_the_reference_of_then(request_of: Make) -> None:
    """With the evidence of then; and what was learnt of the other one is kept for its return."""
    site = Site(request_of, A)
    site.learn()
    site.said = B
    site.send(700)
    learnt = site.stream.votes
    assert learnt > 500
    site.said = A
    site.send(100)
    assert site.stream.state == "judging"
    assert site.stream.engine == "version 0.10.0"
    assert "to version 0.10.0; the reference of then is used again" in site.stream.changed
    assert site.changes("used_again") == 1
    site.send(600, longer=0.7)
    assert site.stream.state == "drifted"
    assert site.signals() == 1
    site.said = B
    site.send(100)
    assert learnt < site.stream.votes <= learnt + 100


def test_an_engine_that_tells_no_version_is_judged_as_if_nobody_asked(request_of: Make) -> None:
    """Each vote counts at once."""
    for said in (NONE, None):
        site = Site(request_of, said)
        for _ in range(TRIES):
            site.wanted = True
            site.tick(0.0)
        site.send(10)
        assert site.stream.votes == 10
        assert site.stream.engine == ""
        assert site.watch.votes_dropped == 0


def test_two_versions_in_turn_are_never_mixed(request_of: Make) -> None:
    """Behind a balancer each answer may be the other one's: what cannot be told apart is dropped and counted, and each
    comes back to its own."""
    site = Site(request_of, A)
    site.learn()
    votes = judged(site)
    for turn in range(20):
        site.said = B if turn % 2 == 0 else A
        site.send(1, longer=0.7, step_s=ASK_S + 1)
    assert judged(site) <= votes + 2
    assert site.watch.votes_dropped >= 18
    site.send(100)
    assert site.stream.engine == "version 0.10.0"
    assert site.signals() == 0
    assert site.watch.references_cut == 0


def test_a_restart_of_the_same_version_keeps_the_reference(request_of: Make) -> None:
    """What was not confirmed before it is dropped, and the engine is asked at once."""
    site = Site(request_of, A)
    site.learn()
    site.send(20, step_s=0.01)
    votes, dropped = judged(site), site.watch.votes_dropped
    site.wanted = False
    site.watch.doubt()
    assert site.wanted
    assert site.watch.votes_dropped > dropped
    site.tick(0.1)
    site.send(int(ASK_S / 0.1) + 60)
    assert judged(site) > votes
    assert site.stream.changed == ""
    assert site.changes("learning") == 0


def test_an_answer_to_what_was_asked_before_a_doubt_confirms_nothing(request_of: Make) -> None:
    """It may have come from the process that is gone."""
    site = Site(request_of, A)
    site.learn()
    site.send(int(ASK_S / 0.1))
    votes = judged(site)
    mark = site.watch.asking()
    site.watch.doubt()
    site.wanted = False
    answered(site.watch, request_of(wall_ns=int((MONDAY_S + site.now_s) * 1e9)))
    site.watch.told(mark, A)
    assert judged(site) == votes
    quiet = Site(request_of, NONE)
    mark = quiet.watch.asking()
    quiet.watch.doubt()
    quiet.watch.told(mark, NONE)
    quiet.wanted = False
    quiet.send(3)
    assert quiet.watch.report().streams[0].votes == 0
    quiet.wanted = True
    quiet.tick(0.1)
    assert quiet.stream.votes == 3


def test_our_own_restart_goes_on_with_the_version_in_the_file(request_of: Make) -> None:
    """The same version: judged on. Another one since: what its predecessor answered, and is told late, is dropped."""
    site = Site(request_of, A)
    site.learn()
    same = site.lives_on(A)
    same.send(100)
    assert same.stream.state == "judging"
    assert judged(same) > 0
    other = site.lives_on(None)
    other.send(5, wall_ns=int((MONDAY_S + site.now_s - 10) * 1e9))
    other.said, other.wanted = B, True
    other.tick(0.1)
    other.send(7, step_s=0.01, wall_ns=int((MONDAY_S + site.now_s - 10) * 1e9))
    assert other.watch.votes_dropped == 12
    other.send(300)
    assert other.stream.state == "learning"
    assert 0 < other.stream.votes <= 300
    back = other.lives_on(A)
    assert back.stream.kept == ()
    assert back.stream.state == "judging"
    assert "used again" in back.stream.changed


def test_a_reference_of_before_versions_were_asked_takes_the_first_one_told(request_of: Make) -> None:
    """A week of learning is not thrown away because Inferwatch was upgraded."""
    site = Site(request_of, NONE)
    site.learn()
    (memo,) = [each for each in site.store.memos(memory.NAME) if each.data]
    state = msgspec.msgpack.decode(memo.data)
    memo.set(
        msgspec.msgpack.encode(state[: 1 + FollowedState.__struct_fields__.index("signalling")])
    )  # as an older version wrote it
    now = site.lives_on(B)
    assert (now.stream.state, now.stream.engine, now.stream.changed) == ("judging", "version 0.11.0", "")
    now.said = A
    now.send(100)
    assert now.stream.state == "learning"


def test_an_engine_that_does_not_say_any_more_is_not_judged_and_that_shows(request_of: Make) -> None:
    """No silent disablement, and no guess; when it says the same again, what waited is counted."""
    site = Site(request_of, A)
    site.learn()
    votes = judged(site)
    site.send(int(2 * ASK_S / 0.1))
    site.said = None
    site.send(30, step_s=5.0)
    assert site.gauge(m.DRIFT_JUDGING, *KEY) == 0
    assert site.gauge(m.DRIFT_EVIDENCE, *KEY, "answer") is None
    assert "OFF: the engine does not say what version it is" in as_text(site.watch.report())
    site.said = A
    site.send(20, step_s=1.0)
    assert site.gauge(m.DRIFT_JUDGING, *KEY) == 1
    assert judged(site) > votes + 100


def test_no_more_is_kept_than_so_much_and_lessons_go_first(request_of: Make) -> None:
    """Three attempts at an upgrade do not push out the reference that one goes back to."""
    site = Site(request_of, A)
    site.learn()
    for said in (B, C, D):
        site.said = said
        site.send(200)
    assert site.stream.kept == ("version 0.12.0", "version 0.10.0")
    assert site.watch.references_cut == 1
    assert len([memo for memo in site.store.memos(memory.NAME) if memo.data]) == 1 + memory.KEPT
    site.said = A
    site.send(100)
    assert site.stream.state == "judging"


def test_who_goes_silent_after_an_upgrade_keeps_the_reference_of_before(request_of: Make) -> None:
    """Learning anew, it does not make room for a name that came once."""
    site = Site(request_of, A)
    site.learn()
    site.said = B
    site.send(100)
    site.watch.streams.max_streams = 1
    site.send(60, step_s=100, model="once")
    assert site.stream.model == "m"
    assert site.watch.streams_cut > 0


@pytest.mark.parametrize(
    ("now", "another"),
    [
        (Made("1", "/w", 4096), False),
        (Made("1"), False),  # the page of models is not shown at the moment
        (Made("2", "/w", 4096), True),
        (Made("", "/w", 4096), True),
        (Made("1", "/other", 4096), True),
        (Made("1", "/w", 8192), True),
    ],
)
def test_what_makes_another_engine(now: Made, another: bool) -> None:
    """Version, weights, context."""
    assert Made("1", "/w", 4096).is_another(now) is another


def test_other_weights_under_the_same_name_are_another_reference(request_of: Make) -> None:
    """Of that model alone."""
    site = Site(request_of, Said("1", (Served("m", "/w/one", 4096), Served("n", "/w/n"))))
    for _ in range(100):
        site.send(1)
        site.send(1, model="n")
    site.said = Said("1", (Served("m", "/w/two", 4096), Served("n", "/w/n")))
    site.send(100)
    streams = {each.model: each for each in site.watch.report().streams}
    assert "from version 1, weights /w/one, context of 4096 tokens to version 1, weights /w/two" in streams["m"].changed
    assert streams["n"].changed == ""
    assert streams["n"].votes > 50


def test_votes_wait_within_bounds(request_of: Make) -> None:
    """Many of them have the engine asked sooner; too many are dropped and counted; the oldest says for how long."""
    holding = Holding(asks=True)
    watch = Site(request_of, NONE).watch
    answered(watch, request_of())
    (followed,) = watch.streams

    def vote(now_s: float) -> Vote:
        return Vote(followed, request_of(), None, 0, now_s, 0)

    assert holding.waits
    assert holding.told(holding.asking(0.0), A) == []
    holding.take(vote(1.0))
    assert not holding.wants_answer(1.0)
    assert holding.wants_answer(ASK_S)
    for _ in range(MANY):
        holding.take(vote(1.5))
    assert holding.wants_answer(1.5)
    for _ in range(MAX_HELD):
        holding.take(vote(2.0))
    assert holding.dropped == MANY + 1
    assert not holding.is_stuck(1.0 + STUCK_S)
    assert holding.is_stuck(1.1 + STUCK_S)
    assert len(holding.told(holding.asking(3.0), A)) == MAX_HELD
    assert not Holding(asks=False).waits


def test_a_late_request_is_late_for_an_hour(request_of: Make) -> None:
    """A wall clock that goes back does not switch anything off for longer."""
    holding = Holding(asks=True)
    record = request_of(wall_ns=0)
    assert not holding.is_late(record, 10.0)
    holding.changed(10.0, MONDAY_S)
    assert holding.is_late(record, 11.0)
    assert not holding.is_late(request_of(wall_ns=int(MONDAY_S * 1e9)), 11.0)
    assert not holding.is_late(record, 10.0 + LATE_S)
