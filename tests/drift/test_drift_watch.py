"""watch: who votes, when a reference is pinned, what is exported, and what bounds do."""

import random
import re
from collections.abc import Callable

import pytest
from drift_requests import answered

from inferwatch.record import Outcome, RequestRecord
from inferwatch.settings.drift import Drift
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import CardinalityGuard, Limits
from inferwatch_collectors.drift.effects import Effect
from inferwatch_collectors.drift.following import Followed
from inferwatch_collectors.drift.watch import DriftWatch
from inferwatch_collectors.drift.words import as_text
from inferwatch_collectors.metric_store import MetricStore

Make = Callable[..., RequestRecord]
MONDAY_S = 1_760_313_600.0
KEY = ("m", "acme")
QUICK = Drift(votes_per_hour=36_000, reference_requests_min=2_000, reference_hours=1)


class Site:
    """A watch with a clock that goes on by a second for each ten requests."""

    def __init__(
        self, make: Make, settings: Drift = QUICK, store: MetricStore | None = None, now_s: float = 0.0
    ) -> None:
        self.store = store or MetricStore()
        self.watch = DriftWatch(self.store, CardinalityGuard(Limits()), settings, secret=b"")
        self.make = make
        self.now_s = now_s
        self.rng = random.Random(1)
        self.watch.resume(now_s)
        self.watch.tick(now_s, MONDAY_S + now_s)

    def send(self, count: int, longer: float = 0.0, step_s: float = 0.1, **fields: object) -> None:
        """Let so many requests finish; answers are exp(longer) times as long."""
        for _ in range(count):
            self.now_s += step_s
            self.watch.tick(self.now_s, MONDAY_S + self.now_s)
            known: dict[str, object] = {"completion_tokens": int(self.rng.lognormvariate(5 + longer, 1))}
            answered(self.watch, self.make(**(known | fields)))

    def gauge(self, metric: m.Metric, *labels: str) -> float | None:
        """Return what is exported."""
        self.watch.refresh()
        return self.store.gauge(metric, labels).value


def test_a_reference_pins_itself_and_drift_is_told(request_of: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Learning says so; then judging, silent; then twice as long answers are a signal, a gauge, a count and a line."""
    site = Site(request_of)
    site.send(2_500)
    assert site.gauge(m.DRIFT_JUDGING, *KEY) == 0
    assert site.gauge(m.DRIFT_EVIDENCE, *KEY, "answer") is None
    site.send(100, step_s=36)
    assert site.gauge(m.DRIFT_JUDGING, *KEY) == 1
    site.send(2_000)
    assert site.gauge(m.DRIFT_DETECTED, *KEY) == 0
    assert "drift model=" not in caplog.text
    site.send(600, longer=0.7)
    assert site.gauge(m.DRIFT_DETECTED, *KEY) == 1
    assert (site.gauge(m.DRIFT_EVIDENCE, *KEY, "answer") or 0) >= QUICK.weeks_per_false_alarm
    assert (site.gauge(m.DRIFT_EVIDENCE, *KEY, "prompt") or 0) < 1
    assert site.store.counter(m.DRIFT_SIGNALS, KEY).value == 1
    assert "drift model=m tenant=acme" in caplog.text
    # Of the last thousand votes or so most came before: it is the tail that has moved.
    found = re.search(
        r"moved=length of answers in tokens: above [0-9,]+ in ([0-9.]+)% of answers before, ([0-9.]+)% now;",
        caplog.text,
    )
    assert found is not None
    assert 4 < float(found[1]) < float(found[2]) < 20
    assert (site.gauge(m.DRIFT_PSI, *KEY, "completion_tokens") or 0) > 0.1
    assert "m for acme: DRIFTED" in as_text(site.watch.report())


def test_references_are_pinned_one_a_tick(request_of: Make) -> None:
    """Each takes some tenths of a second; streams that began together are ripe together."""
    site = Site(request_of)
    tenants = ("acme", "second", "third")
    for _ in range(2_500):
        for tenant in tenants:
            site.send(1, tenant=tenant, step_s=0.04)
    site.now_s += 4_000
    pinned = []
    for _ in range(4):
        site.now_s += 0.5
        site.watch.tick(site.now_s, MONDAY_S + site.now_s)
        pinned.append(sum(each.state == "judging" for each in site.watch.report().streams))
    assert pinned == [1, 2, 3, 3]


def restarted(site: Site, *, cleanly: bool) -> Site:
    """Return the next life: after a clean end, or after a kill."""
    if cleanly:
        site.watch.finish()
        while site.watch.unwritten:
            site.watch.write_one()
    store = MetricStore()
    store.restore(site.store.take_dirty())
    again = Site(site.make, store=store, now_s=site.now_s)
    again.rng = site.rng
    return again


def evidence(site: Site) -> float:
    return site.gauge(m.DRIFT_EVIDENCE, *KEY, "answer") or 0.0


@pytest.fixture(name="judging")
def _judging(request_of: Make) -> Site:
    """One that has pinned its reference."""
    site = Site(request_of)
    site.send(2_500)
    site.send(100, step_s=36)
    assert site.watch.report().streams[0].state == "judging"
    return site


def test_a_restart_goes_on_where_it_was(judging: Site) -> None:
    """After a clean end with all of the evidence, be it enough for a signal or not; and it goes again as it came."""
    while (some := evidence(judging)) < 0.1:
        judging.send(1, longer=0.7)
    assert some < QUICK.weeks_per_false_alarm
    again = restarted(judging, cleanly=True)
    assert evidence(again) == pytest.approx(some)
    assert again.gauge(m.DRIFT_DETECTED, *KEY) == 0
    again.send(400, longer=0.7)
    assert again.gauge(m.DRIFT_DETECTED, *KEY) == 1
    much, since = evidence(again), again.watch.report().streams[0].since
    third = restarted(again, cleanly=True)
    assert third.gauge(m.DRIFT_DETECTED, *KEY) == 1
    assert evidence(third) == pytest.approx(much)
    assert third.watch.report().streams[0].since == since
    third.send(1)
    assert third.store.counter(m.DRIFT_SIGNALS, KEY).value == 1  # it is the same signal
    third.send(4_000)
    assert third.gauge(m.DRIFT_DETECTED, *KEY) == 0


def test_what_was_learnt_goes_on_after_a_clean_end(request_of: Make) -> None:
    """Votes are not lost with the hour."""
    site = Site(request_of)
    site.send(1_500)
    assert restarted(site, cleanly=True).gauge(m.DRIFT_REFERENCE_VOTES, *KEY) == 1_500


def test_after_a_kill_it_is_as_when_last_written(judging: Site) -> None:
    """Once an hour; and a signal that was told is not forgotten, nor that it is over."""
    judging.send(50, longer=0.7)
    assert evidence(judging) > 0
    assert evidence(restarted(judging, cleanly=False)) == 0  # nothing was written since the reference was pinned
    judging.store.touch_all()
    written = evidence(judging)
    judging.send(1, longer=0.7, step_s=3_600)  # the hour is over when the tick comes, before the vote
    judging.send(20, longer=0.7)
    assert evidence(restarted(judging, cleanly=False)) == pytest.approx(written)
    judging.store.touch_all()
    while not judging.gauge(m.DRIFT_DETECTED, *KEY):
        judging.send(1, longer=0.7)
    judging.send(1)
    again = restarted(judging, cleanly=False)
    assert again.gauge(m.DRIFT_DETECTED, *KEY) == 1
    assert evidence(again) >= 0.1 * QUICK.weeks_per_false_alarm
    while again.gauge(m.DRIFT_DETECTED, *KEY):
        again.send(1)
    again.send(1)
    assert restarted(again, cleanly=False).gauge(m.DRIFT_DETECTED, *KEY) == 0


def test_pinning_by_command(request_of: Make) -> None:
    """Refused with too few votes, or for whom nobody knows; a second time it begins anew."""
    site = Site(request_of, Drift(votes_per_hour=36_000, reference_requests_min=2_000))
    assert site.watch.pin("m", "acme") == (False, "no such model and tenant is followed")
    site.send(500)
    assert site.watch.pin("m", "acme") == (False, "too few votes: 500, expected at least 2000")
    site.send(2_000)
    done, said = site.watch.pin("m", "acme")
    assert done
    assert said.startswith(
        "pinned\n  made of 2500 votes, 0 of sessions or users, from 2500 requests in 1 of the week's 168 hours"
    )
    assert site.gauge(m.DRIFT_JUDGING, *KEY) == 1
    done, said = site.watch.pin("m", "acme")
    assert done
    assert "another one" in said
    assert site.gauge(m.DRIFT_JUDGING, *KEY) == 0


def test_one_vote_a_session_and_no_more_than_so_many_an_hour(request_of: Make) -> None:
    """A session's ten requests are one vote; without sessions the interval bounds them."""
    site = Site(request_of)
    for session in range(20):
        site.send(10, session=f"s{session}")
    assert site.gauge(m.DRIFT_REFERENCE_VOTES, *KEY) == 20
    slow = Site(request_of, Drift(votes_per_hour=360))
    slow.send(1_000)  # a hundred seconds
    assert slow.gauge(m.DRIFT_REFERENCE_VOTES, *KEY) == pytest.approx(10, abs=1)


def test_requests_that_failed_do_not_vote(request_of: Make) -> None:
    """They are another alert's; nor is anybody followed for a name that was never answered."""
    site = Site(request_of)
    site.send(10, outcome=Outcome.UPSTREAM_ERROR)
    site.send(10, operation="other")
    assert site.gauge(m.DRIFT_REFERENCE_VOTES, *KEY) is None


def test_streams_are_bounded_and_the_idle_make_room(request_of: Make) -> None:
    """A model name that comes for one request takes a place for an hour, and never that of a reference."""
    site = Site(
        request_of, Drift(max_streams=2, votes_per_hour=36_000, reference_requests_min=2_000, reference_hours=1)
    )
    site.send(2_500)
    site.send(40, step_s=100)
    site.send(1, model="once")
    site.send(1, model="third")
    assert site.watch.streams_cut == 1
    site.send(40, step_s=100)
    site.send(1, model="third")
    assert {each.model for each in site.watch.report().streams} == {"m", "third"}


def test_what_users_said_stands_beside_it(request_of: Make) -> None:
    """Their own votes on this model for this tenant; nothing while there are none, and no series is begun by asking."""
    site = Site(request_of)
    site.send(1)
    votes = site.store.series(m.FEEDBACK_VOTES)
    stream = site.watch.report().streams[0]
    assert (stream.up, stream.down) == (None, None)
    assert site.store.series(m.FEEDBACK_VOTES) == votes == []
    for tenant, thumb, count in (("acme", "up", 0), ("acme", "down", 2), ("acme", "none", 1), ("other", "up", 7)):
        site.store.counter(m.FEEDBACK_VOTES, ("m", tenant, thumb)).add(count)
    stream = site.watch.report().streams[0]
    assert (stream.up, stream.down) == (0, 2)


def test_only_what_has_changed_is_shown_anew(request_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each scrape would compute every effect of every stream, of which most have had no vote since the last one."""
    computed: list[str] = []
    effects = Followed.effects

    def counted(self: Followed) -> list[Effect]:
        computed.append(self.tenant)
        return effects(self)

    site = Site(request_of)
    for _ in range(2_500):
        site.send(1)
        site.send(1, tenant="quiet")
    site.send(100, step_s=36)
    monkeypatch.setattr(Followed, "effects", counted)
    site.watch.refresh()
    computed.clear()
    site.watch.refresh()
    assert computed == []
    site.send(1)
    site.watch.refresh()
    assert computed == ["acme"]
    assert site.watch.pin("m", "quiet")[0]
    assert site.gauge(m.DRIFT_JUDGING, "m", "quiet") == 0
    assert site.gauge(m.DRIFT_DETECTED, "m", "quiet") is None
    site.send(1, tenant="third", step_s=90_000)  # a day later: who was silent is not shown, and comes again
    assert site.gauge(m.DRIFT_JUDGING, *KEY) is None
    site.send(1)
    assert site.gauge(m.DRIFT_JUDGING, *KEY) == 1


def test_who_asks_and_never_votes_is_not_judged_and_says_so(request_of: Make) -> None:
    """How they begin is not seen: after half a day nothing is judged, and no reading stays as if it were."""
    site = Site(request_of)
    site.send(2_500)
    site.send(100, step_s=36)
    of_features = (m.DRIFT_PSI, m.DRIFT_WASSERSTEIN)
    assert site.gauge(m.DRIFT_JUDGING, *KEY) == 1
    assert all(site.gauge(metric, *KEY, "completion_tokens") is not None for metric in of_features)
    for _ in range(200):  # a day and more
        site.now_s += 600
        site.watch.tick(site.now_s, MONDAY_S + site.now_s)
        site.watch.record(request_of())
    assert site.gauge(m.DRIFT_JUDGING, *KEY) == 0
    assert site.gauge(m.DRIFT_EVIDENCE, *KEY, "answer") is None
    assert all(site.gauge(metric, *KEY, "completion_tokens") is None for metric in of_features)
    site.send(1)
    assert site.gauge(m.DRIFT_JUDGING, *KEY) == 1
    assert all(site.gauge(metric, *KEY, "completion_tokens") is not None for metric in of_features)
    site.send(1, tenant="third", step_s=90_000)  # nobody asks: nothing is to be judged
    assert site.gauge(m.DRIFT_JUDGING, *KEY) is None


def test_who_made_room_is_not_written_down_again(request_of: Make) -> None:
    """Not even if its turn was still to come in the round of this hour: its place would be taken for ever."""
    settings = Drift(max_streams=2, votes_per_hour=36_000)
    site = Site(request_of, settings)
    site.send(1, model="first")
    site.send(1, model="second")
    site.send(1, model="third", step_s=4_000)  # another hour: a round begins, and `first` goes
    assert {each.model for each in site.watch.report().streams} == {"second", "third"}
    site.send(5, model="second")
    store = MetricStore()
    store.restore(site.store.take_dirty())
    again = Site(request_of, settings, store, site.now_s)
    assert {each.model for each in again.watch.report().streams} == {"second"}  # `third` has its turn in an hour


def test_a_clock_that_jumps_is_no_alarm(request_of: Make) -> None:
    """Wall time goes to another week and back: nothing crashes, nothing is told."""
    site = Site(request_of)
    site.send(2_500)
    site.send(100, step_s=36)
    for wall_s in (0.0, 4e9, MONDAY_S):
        site.watch.tick(site.now_s, wall_s)
        site.send(50)
    assert site.gauge(m.DRIFT_DETECTED, *KEY) == 0


def test_switched_off_it_does_nothing(request_of: Make) -> None:
    """No stream, no gauge."""
    site = Site(request_of, Drift(enabled=False))
    site.send(100)
    assert site.gauge(m.DRIFT_JUDGING, *KEY) is None
    assert not site.watch.listens


def test_evidence_is_divided_among_all_that_were_ever_judged(request_of: Make) -> None:
    """With two tenants each needs twice as much, so that together they hold the rate."""
    site = Site(request_of)
    for _ in range(2_500):
        site.send(1)
        site.send(1, tenant="other-inc")
    site.send(100, step_s=36)
    assert site.watch.bar_weeks == 2 * QUICK.weeks_per_false_alarm
