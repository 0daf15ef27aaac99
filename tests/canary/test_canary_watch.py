"""watch: a reference is learnt, a change is told, noise is not; what comes to nothing says so."""

import datetime as dt
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from inferwatch.settings.canary import MAX_MODELS, Canary
from inferwatch_collectors import metrics as m
from inferwatch_collectors.canary.memory import NAME
from inferwatch_collectors.canary.prompts import PROMPTS
from inferwatch_collectors.canary.watch import TRIES, CanaryWatch
from inferwatch_collectors.drift_report import Report, as_text
from inferwatch_collectors.metric_store import MetricStore

MONDAY_S = 1_760_313_600.0
SECRET = b"a secret of the installation"
MODEL = "m"
QUICK = Canary(enabled=True, reference_probes_min=500, reference_hours=1)
Make = Callable[..., dict[str, float]]


class Site:
    """A watch with a clock that goes on by a minute for each probe, and a model that answers."""

    def __init__(
        self, make: Make, settings: Canary = QUICK, store: MetricStore | None = None, now_s: float = 0.0
    ) -> None:
        self.store = store or MetricStore()
        self.around = {"engine": "vllm 0.32.0", "driver": "550.54"}
        self.watch = CanaryWatch(self.store, settings, secret=SECRET, around=lambda _: self.around)
        self.make = make
        self.now_s = now_s
        self.rng = random.Random(3)
        self.turn = 0
        self.wrong_s = 0.0  # by how much the wall clock is
        self.slept_s = 0.0
        self.watch.resume(now_s, MONDAY_S + now_s)

    def tick(self, step_s: float = 0.0) -> None:
        self.now_s += step_s
        self.watch.tick(self.now_s, MONDAY_S + self.now_s + self.slept_s + self.wrong_s, self.slept_s)

    def probe(self, count: int, seed: int = 1, model: str = MODEL, **noise: float) -> int:
        """Let so many replies come; return at which the alarm began, 0 if at none."""
        for number in range(1, count + 1):
            self.tick(60.0)
            place = self.turn % len(PROMPTS)
            self.turn += 1
            self.watch.take(model, place, self.make(seed, place, self.rng, **noise))
            if self.gauge(m.CANARY_DETECTED, model):
                return number
        return 0

    def gauge(self, metric: m.Metric, *labels: str) -> float | None:
        self.watch.refresh()
        return self.store.gauge(metric, labels).value

    def text(self) -> str:
        return as_text(Report(weeks_per_false_alarm=20, text=False, streams=(), canary=self.watch.report()))


@pytest.fixture(name="site")
def _site(reply_of: Make) -> Site:
    """One that has learnt its reference."""
    site = Site(reply_of)
    assert site.probe(700) == 0
    assert site.gauge(m.CANARY_JUDGING, MODEL) == 1
    return site


def test_other_weights_are_noticed_within_twenty_probes(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A gauge, a count, a line in the log, and words that say by how much and what else changed."""
    assert site.probe(1_000) == 0
    assert (site.gauge(m.CANARY_EVIDENCE, MODEL) or 0) < 1
    site.around = {"engine": "vllm 0.33.0", "driver": "550.54"}
    assert 0 < site.probe(20, seed=2) <= 20
    assert (site.gauge(m.CANARY_EVIDENCE, MODEL) or 0) >= QUICK.weeks_per_false_alarm
    assert site.store.counter(m.CANARY_SIGNALS, (MODEL,)).value == 1
    assert "model_changed model=m" in caplog.text
    assert "m: CHANGED" in site.text()
    assert "engine was vllm 0.32.0, is vllm 0.33.0" in site.text()
    assert "driver was" not in site.text()


def test_evidence_goes_when_the_model_is_back(site: Site) -> None:
    """A rollback ends the signal by itself."""
    site.probe(20, seed=2)
    for _ in range(200):
        site.probe(1)
    assert site.gauge(m.CANARY_DETECTED, MODEL) == 0


def test_a_small_change_of_all_probabilities_is_noticed(reply_of: Make) -> None:
    """As another quantisation makes: the same tokens, 0.3 nats away."""
    site = Site(reply_of)
    site.probe(700)
    site.make = lambda *what: {token: each - 0.3 for token, each in reply_of(*what).items()}
    assert 0 < site.probe(20) <= 20


@pytest.mark.parametrize("seed", range(5))
def test_noise_that_grows_under_load_is_no_change(reply_of: Make, seed: int) -> None:
    """A reference without any noise, then thousands of replies with as much as bfloat16 makes: within the tolerance."""
    site = Site(reply_of)
    site.rng = random.Random(seed)
    assert site.probe(700, noise=0.0) == 0
    assert site.gauge(m.CANARY_JUDGING, MODEL) == 1
    assert site.probe(3_000, noise=0.06) == 0
    assert (site.gauge(m.CANARY_EVIDENCE, MODEL) or 0) < 1


def test_pinning_by_command(reply_of: Make) -> None:
    """Refused with too few replies, or for a model that nobody knows; a second time it begins anew."""
    site = Site(reply_of, Canary(enabled=True, reference_probes_min=600))
    assert site.watch.pin(MODEL) == (False, "no such model is probed")
    site.probe(500)
    assert site.watch.pin(MODEL) == (False, "too few replies: 500, expected at least 600")
    site.probe(100)
    assert site.watch.pin(MODEL) == (True, "pinned")
    assert "number 1, pinned" in site.text()
    done, said = site.watch.pin(MODEL)
    assert done
    assert "another one" in said
    assert site.gauge(m.CANARY_JUDGING, MODEL) == 0
    site.probe(700, seed=2)
    assert site.watch.pin(MODEL) == (True, "pinned")
    assert site.probe(50, seed=2) == 0
    assert "number 2, pinned" in site.text()


def test_a_restart_goes_on_where_it_was(site: Site, reply_of: Make) -> None:
    """The reference is written when it is pinned."""
    store = MetricStore()
    store.restore(site.store.take_dirty())
    again = Site(reply_of, store=store, now_s=site.now_s)
    assert 0 < again.probe(20, seed=2) <= 20


def test_a_clean_end_forgets_no_evidence_and_a_kill_no_signal(site: Site, reply_of: Make) -> None:
    """Of a change that is not yet told, and of one that is."""
    site.probe(3, seed=2)
    some = site.gauge(m.CANARY_EVIDENCE, MODEL) or 0.0
    assert 1e-4 < some < QUICK.weeks_per_false_alarm
    site.watch.finish()
    store = MetricStore()
    store.restore(site.store.take_dirty())
    again = Site(reply_of, store=store, now_s=site.now_s)
    assert again.probe(1, seed=2) <= 1
    assert (again.gauge(m.CANARY_EVIDENCE, MODEL) or 0.0) > some
    assert again.probe(20, seed=2) > 0
    killed = MetricStore()
    killed.restore(again.store.take_dirty())
    third = Site(reply_of, store=killed, now_s=again.now_s)
    assert third.probe(1, seed=2) == 1
    assert third.store.counter(m.CANARY_SIGNALS, (MODEL,)).value == 1


@pytest.mark.parametrize(
    ("changed", "known"),
    [
        ({}, [MODEL]),
        ({"interval_s": 5.0, "weeks_per_false_alarm": 10.0}, [MODEL]),
        ({"prompts": ("Hello",)}, []),
        ({"api": "chat"}, []),
        ({"top_logprobs": 4}, []),
        ({"tolerance_nats": 0.2}, []),
    ],
)
def test_what_is_asked_or_judged_otherwise_needs_another_reference(
    site: Site, reply_of: Make, changed: dict[str, Any], known: list[str]
) -> None:
    """What was counted as far, or of other prompts, says nothing about it."""
    store = MetricStore()
    store.restore(site.store.take_dirty())
    report = Site(reply_of, msgspec.structs.replace(QUICK, **changed), store, site.now_s).watch.report()
    assert report is not None
    assert [each.model for each in report.models] == known


def test_the_first_reply_may_come_before_the_first_tick(site: Site, reply_of: Make) -> None:
    """After a start as after a restart: a reply is judged, and a lesson begins, at the time that it is."""
    store = MetricStore()
    store.restore(site.store.take_dirty())
    again = Site(reply_of, store=store, now_s=site.now_s)
    for place in range(12):  # without one tick
        again.watch.take(MODEL, place % len(PROMPTS), reply_of(2, place % len(PROMPTS), again.rng))
    assert again.gauge(m.CANARY_JUDGING, MODEL) == 1
    assert again.gauge(m.CANARY_DETECTED, MODEL) == 1
    assert f"since {dt.datetime.fromtimestamp(MONDAY_S + site.now_s, dt.UTC):%Y-%m-%dT%H:%MZ}" in again.text()
    assert again.watch.pin(MODEL)[0]
    fresh = Site(reply_of, now_s=1_000_000.0)
    for number in range(500):
        fresh.watch.take(MODEL, number % len(PROMPTS), reply_of(1, number % len(PROMPTS), fresh.rng))
    fresh.tick(60.0)
    assert fresh.gauge(m.CANARY_JUDGING, MODEL) == 0  # it was learnt for a minute, not since 1970


def test_what_is_written_down_that_makes_no_sense_is_forgotten(site: Site, reply_of: Make) -> None:
    """Truncated, or of another version: no crash, a new reference."""
    data = site.store.memo(NAME, ("0",)).data
    assert data
    for wrong in (data[:-5], b"\x90", b"\xc1", data.replace(b"canary_far", b"canary_fur")):
        store = MetricStore()
        store.memo(NAME, ("0",)).set(wrong)
        again = Site(reply_of, store=store, now_s=site.now_s)
        assert again.text().count("\n") == 4
        assert again.probe(10) == 0


@pytest.mark.parametrize("result", ["no_logprobs", "timeout", "connect", "not_a_number", "unserved"])
def test_probes_that_come_to_nothing_are_no_evidence_and_say_so(site: Site, result: str) -> None:
    """Off after three, with the reason; on again with the next reply."""
    evidence = site.gauge(m.CANARY_EVIDENCE, MODEL)
    for number in range(1, 30):
        site.tick(60)
        site.watch.failed(MODEL, result)
        assert site.gauge(m.CANARY_OFF, result) == (1 if number >= TRIES else None)
    assert site.gauge(m.CANARY_JUDGING, MODEL) == 0  # not one reply for half an hour
    assert site.gauge(m.CANARY_EVIDENCE, MODEL) is None
    assert f"OFF: nothing comes of probes at present: {result}" in site.text()
    assert site.store.counter(m.CANARY_PROBES, (MODEL, result)).value == 29
    site.probe(1)
    assert site.gauge(m.CANARY_OFF, result) is None
    assert site.gauge(m.CANARY_EVIDENCE, MODEL) == pytest.approx(evidence, rel=1)


def test_an_engine_of_which_nothing_is_usual_is_off(reply_of: Make) -> None:
    """Log-probabilities of other tokens each time are not compared with anything."""
    site = Site(reply_of)
    for number in range(2_000):
        site.tick(60)
        site.watch.take(MODEL, number % len(PROMPTS), reply_of(number, 0, site.rng))
    assert site.gauge(m.CANARY_OFF, "unstable") == 1
    assert site.gauge(m.CANARY_JUDGING, MODEL) == 0


def test_another_model_name_is_another_reference(site: Site) -> None:
    """The old one is no longer judged, the new one is learnt; no alarm of either."""
    assert site.probe(100, seed=2, model="m-v2") == 0
    assert site.gauge(m.CANARY_JUDGING, MODEL) == 0
    assert site.gauge(m.CANARY_EVIDENCE, MODEL) is None
    assert site.gauge(m.CANARY_JUDGING, "m-v2") == 0


def test_models_are_bounded_and_references_stay(site: Site) -> None:
    """A name that comes for one probe does not push out who has a reference."""
    for number in range(3 * MAX_MODELS):
        site.probe(1, model=f"once-{number}")
    report = site.watch.report()
    assert report is not None
    assert len(report.models) == MAX_MODELS
    assert MODEL in {each.model for each in report.models}
    assert site.watch.models_cut == 0


def pinned(site: Site, count: int) -> list[str]:
    """Let so many further models have references, each after the one before; return their names."""
    names = [f"m-v{number}" for number in range(2, count + 2)]
    for name in names:
        site.probe(500, model=name)
        assert site.watch.pin(name)[0]
    return names


def models(site: Site) -> set[str]:
    report = site.watch.report()
    assert report is not None
    return {each.model for each in report.models}


def test_another_model_takes_the_place_of_a_reference_that_is_silent(site: Site, reply_of: Make) -> None:
    """With a name for each release there are as many references as can be, some day. The longest silent one goes, also
    after a restart, when nobody has answered yet; the canary never goes blind."""
    names = pinned(site, MAX_MODELS - 1)
    assert models(site) == {MODEL, *names}
    site.probe(1, model="next")
    assert models(site) == {*names, "next"}
    site.probe(499, model="next")
    assert site.watch.pin("next")[0]
    assert 0 < site.probe(20, seed=2, model="next") <= 20
    site.tick(3600)
    store = MetricStore()
    store.restore(site.store.take_dirty())
    again = Site(reply_of, store=store, now_s=site.now_s)
    again.probe(1, model="after next")
    assert models(again) == {*names[1:], "next", "after next"}
    assert again.watch.models_cut == site.watch.models_cut == 0


def test_references_of_models_that_answer_stay(reply_of: Make) -> None:
    """Then another name is not judged, and that is counted."""
    settings = msgspec.structs.replace(QUICK, models=tuple(f"m-v{number}" for number in range(2, MAX_MODELS + 2)))
    site = Site(reply_of, settings)
    names = pinned(site, MAX_MODELS)
    for name in names:
        site.probe(1, model=name)
    site.probe(3, model="next")
    assert models(site) == set(names)
    assert site.watch.models_cut == 3
    store = MetricStore()
    store.restore(site.store.take_dirty())
    fewer = msgspec.structs.replace(settings, models=("m-v3", "next"))
    assert models(Site(reply_of, fewer, store, site.now_s)) == {"m-v3"}


def test_a_clock_that_jumps_is_no_alarm(site: Site) -> None:
    """Wall time goes to another week and back."""
    for wall_s in (0.0, 4e9, MONDAY_S):
        site.watch.tick(site.now_s, wall_s)
        assert site.probe(50) == 0


@pytest.mark.parametrize("wrong_s", [-MONDAY_S, 8 * 86_400.0, -86_400.0])
def test_a_wall_clock_that_is_set_while_it_learns(reply_of: Make, wrong_s: float) -> None:
    """It learns anew, for as long as it is to: neither half a century nor eight days have passed."""
    site = Site(reply_of, msgspec.structs.replace(QUICK, reference_hours=15))
    site.wrong_s = wrong_s
    site.probe(600)
    site.wrong_s = 0.0
    site.probe(890)
    assert site.gauge(m.CANARY_JUDGING, MODEL) == 0
    site.probe(20)
    assert site.gauge(m.CANARY_JUDGING, MODEL) == 1


def test_a_night_that_the_host_slept_is_no_time_to_learn(reply_of: Make, caplog: pytest.LogCaptureFixture) -> None:
    """What was learnt before is good, and nothing was learnt in it."""
    site = Site(reply_of, msgspec.structs.replace(QUICK, reference_hours=15))
    site.probe(600)
    site.slept_s = 9 * 3_600.0
    site.probe(290)
    assert site.gauge(m.CANARY_JUDGING, MODEL) == 0
    site.probe(20)
    assert site.gauge(m.CANARY_JUDGING, MODEL) == 1
    assert "clock_stepped" not in caplog.text


def test_evidence_is_divided_among_all_models_that_were_ever_judged(site: Site) -> None:
    """With two models each needs twice as much."""
    site.probe(700, model="other")
    assert site.watch.bar_weeks == 2 * QUICK.weeks_per_false_alarm


def test_switched_off_it_shows_nothing(reply_of: Make) -> None:
    """No series, no report."""
    site = Site(reply_of, Canary())
    assert site.watch.report() is None
    assert site.gauge(m.CANARY_JUDGING, MODEL) is None


def test_nothing_that_is_kept_has_text(site: Site, reply_of: Make) -> None:
    """Neither prompts nor tokens are in what is written down: not as text, nor as a hash without the key."""
    kept: Any = msgspec.msgpack.encode(msgspec.msgpack.decode(site.store.memo(NAME, ("0",)).data))
    for text in (*PROMPTS, *reply_of(1, 0, site.rng)):
        assert text.encode() not in kept
