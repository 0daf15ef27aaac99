"""What comes that makes no sense, or says nothing: no alarm, no crash, no figure that is none; and who is not judged says so."""

import json
import math
import random
from collections.abc import Callable
from typing import Final

import pytest
from drift_requests import open_of

from inferwatch.record import Outcome, RequestRecord
from inferwatch.settings.drift import Drift
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import CardinalityGuard, Limits
from inferwatch_collectors.dialects.base import ANSWER
from inferwatch_collectors.dialects.openai_chat import OPENAI_CHAT
from inferwatch_collectors.drift.watch import DriftWatch
from inferwatch_collectors.metric_store import MetricStore

Make = Callable[..., RequestRecord]
MONDAY_S: Final = 1_760_313_600.0
KEY: Final = ("m", "acme")
SETTINGS: Final = Drift(text=True, votes_per_hour=36_000, reference_requests_min=1_000)
# 512 teach what trigrams are like, 256 make the edges, 1,000 are counted.
REFERENCE: Final = 1_800
WORDS: Final = (
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "was",
    "not",
    "at",
    "all",
    "sure",
    "what",
    "to",
    "do",
    "today",
)


class Site:
    """A watch that hears texts, and a clock that goes on by a second for each ten requests."""

    def __init__(self, make: Make) -> None:
        self.store = MetricStore()
        self.watch = DriftWatch(self.store, CardinalityGuard(Limits()), SETTINGS, secret=b"sixteen bytes or more")
        self.make = make
        self.rng = random.Random(3)
        self.now_s = 0.0
        self.asked = 0
        self.watch.resume(0.0)
        self.watch.tick(0.0, MONDAY_S)

    def ask(self, prompt: str, answer: str, model: str = "m", **fields: object) -> None:
        """Let a request be answered."""
        self.now_s += 0.1
        self.watch.tick(self.now_s, MONDAY_S + self.now_s)
        body = json.dumps({"messages": [{"role": "user", "content": prompt}]}).encode()
        self.asked += 1
        opened = open_of(body, model=model, session=str(self.asked))  # many people, who may ask the same
        hearing = self.watch.opened(opened, OPENAI_CHAT)
        assert hearing is not None
        if answer:
            hearing.text(0, 0, ANSWER, answer)
        hearing.closed(self.make(model=model, **fields))

    def usual(self, count: int) -> None:
        """Let so many usual requests be answered, no two alike."""
        for _ in range(count):
            texts = [" ".join(self.rng.choices(WORDS, k=self.rng.randrange(5, 60))) for _ in range(2)]
            tokens = {f"{side}_tokens": int(self.rng.lognormvariate(5, 1)) for side in ("prompt", "completion")}
            self.ask(*texts, **tokens, ttft_s=self.rng.lognormvariate(-2, 0.3), gap_max_s=self.rng.uniform(0.01, 0.1))

    def shown(self) -> dict[str, float]:
        """Return what is exported of KEY: by the name of the metric, and of the feature or direction."""
        self.watch.refresh()
        found = {}
        for metric in (m.DRIFT_EVIDENCE, m.DRIFT_DETECTED, m.DRIFT_JUDGING, m.DRIFT_PSI, m.DRIFT_WASSERSTEIN):
            for labels in self.store.series(metric):
                value = self.store.gauge(metric, labels).value
                if labels[:2] == KEY and value is not None:
                    found[" ".join((metric.name, *labels[2:]))] = value
        return found


def evidence(shown: dict[str, float]) -> float:
    """Return that of all directions, after every figure was seen to be one."""
    assert all(map(math.isfinite, shown.values())), shown
    return sum(value for name, value in shown.items() if name.startswith(m.DRIFT_EVIDENCE.name))


@pytest.fixture(name="site")
def _site(request_of: Make) -> Site:
    """One that judges usual requests."""
    site = Site(request_of)
    site.usual(REFERENCE)
    assert site.watch.pin(*KEY)[0]
    return site


def test_what_never_changes_is_no_alarm_and_its_change_is(request_of: Make) -> None:
    """Every feature constant: the same request, thousands of times. Then another one, again and again."""
    site = Site(request_of)
    for _ in range(REFERENCE):
        site.ask("the same", "as ever")
    assert site.watch.pin(*KEY)[0]
    for _ in range(2_000):
        site.ask("the same", "as ever")
    assert evidence(site.shown()) < 1
    for _ in range(100):
        site.ask("the same", "quite another answer, and a longer one", completion_tokens=400)
    shown = site.shown()
    assert evidence(shown) >= SETTINGS.weeks_per_false_alarm
    assert shown[f"{m.DRIFT_DETECTED.name}"] == 1
    assert shown[f"{m.DRIFT_EVIDENCE.name} prompt"] < 1


def test_requests_whose_bodies_are_not_seen_are_not_judged_and_say_so(site: Site, request_of: Make) -> None:
    """Longer than what is buffered, say: half a day of them, and a metric says that nobody judges."""
    assert site.shown()[m.DRIFT_JUDGING.name] == 1
    for _ in range(200):
        site.now_s += 600
        site.watch.tick(site.now_s, MONDAY_S + site.now_s)
        site.watch.record(request_of())
    shown = site.shown()
    assert shown[m.DRIFT_JUDGING.name] == 0
    assert m.DRIFT_DETECTED.name not in shown


def test_a_night_without_requests_is_not_silence(site: Site, request_of: Make) -> None:
    """14 hours: the readings stay, also if the last request of the evening and the first of the morning do not vote. Of
    who asks every other hour and never votes nothing is judged in the end, until there is a vote."""

    def ask(later_s: float) -> dict[str, float]:
        site.now_s += later_s
        site.watch.tick(site.now_s, MONDAY_S + site.now_s)
        found = site.shown()
        site.watch.record(request_of())  # its body was not seen
        return found

    site.usual(100)
    known = ask(1.0)
    assert known[m.DRIFT_DETECTED.name] == 0
    assert ask(14 * 3_600.0) == known
    assert site.shown() == known
    for _ in range(11):
        site.now_s += 2 * 3_600
        site.watch.tick(site.now_s, MONDAY_S + site.now_s)
        site.watch.record(request_of())
    assert m.DRIFT_DETECTED.name not in site.shown()
    site.usual(1)
    assert site.shown()[m.DRIFT_DETECTED.name] == 0


ODD: Final[dict[str, tuple[str, str, dict[str, object]]]] = {
    "nothing": ("", "", {"prompt_tokens": 0, "completion_tokens": 0}),
    "nothing-known": (
        "a",
        "b",
        {"prompt_tokens": None, "completion_tokens": None, "finish_reasons": (), "ttft_s": None},
    ),
    "huge": ("word " * 400_000, "word " * 400_000, {"prompt_tokens": 10**9, "completion_tokens": 10**9}),
    "one-word": ("x" * 1_000_000, "y" * 1_000_000, {}),
    "broken-text": ("\ud800\udfff\x00\x00", "\udc00\x00", {}),
    "blanks": (" \n\t" * 1_000, "\n" * 1_000, {}),
    "another-script": ("ⵣⴰⵎⴰⵣⵉⵖ" * 20, "𓀀𓂀" * 50, {}),
    "no-number": ("a", "b", {"ttft_s": math.nan, "gap_sum_s": math.nan, "gap_max_s": math.nan}),
    "infinite": ("a", "b", {"ttft_s": math.inf, "gap_sum_s": math.inf, "gap_max_s": math.inf}),
    "before-time": ("a", "b", {"ttft_s": -1.0, "gap_sum_s": -1.0, "gap_max_s": -1.0}),
    "new-category": ("a", "b", {"finish_reasons": ("what nobody has heard of",)}),
    "hung-up-on": ("a", "", {"outcome": Outcome.CLIENT_ABORT, "ttft_s": None}),
    "broken-json": ("a", "{" * 100_000, {}),
}


# Of these the features that have no value there.
SOME_FEATURES: Final = {"prompt_tokens", "completion_tokens", "ttft", "gap", "prompt_chars", "answer_chars"}
OFF: Final[dict[str, set[str]]] = {
    "nothing": {"prompt_chars", "answer_chars"},
    "nothing-known": {"prompt_tokens", "completion_tokens", "ttft"},
    "no-number": {"ttft", "gap"},
    "infinite": {"ttft", "gap"},
    "before-time": {"ttft", "gap"},
    "hung-up-on": {"completion_tokens", "ttft", "answer_chars"},
}


def test_what_makes_no_sense_is_no_alarm(site: Site) -> None:
    """Each once among usual requests: no signal, no crash, every figure is one, and it goes on judging."""
    for prompt, answer, fields in ODD.values():
        site.ask(prompt, answer, **fields)
        site.usual(30)
        shown = site.shown()
        assert evidence(shown) < SETTINGS.weeks_per_false_alarm
        assert shown[m.DRIFT_DETECTED.name] == 0
    for _ in range(200):
        site.ask("a", "b", completion_tokens=8_000)
    assert site.shown()[m.DRIFT_DETECTED.name] == 1


@pytest.mark.parametrize("name", ODD)
def test_a_reference_of_what_makes_no_sense_makes_sense(request_of: Make, name: str) -> None:
    """Also if it is all that ever comes: it is pinned, says which features it has not, and is no alarm."""
    prompt, answer, fields = ODD[name]
    site = Site(request_of)
    for _ in range(REFERENCE):
        site.ask(prompt[:3_000], answer[:3_000], **fields)
    assert site.watch.pin(*KEY)[0]
    off = set(site.watch.report().streams[0].off)
    assert off & SOME_FEATURES == OFF.get(name, set())
    for _ in range(200):
        site.ask(prompt[:3_000], answer[:3_000], **fields)
    shown = site.shown()
    assert shown[m.DRIFT_JUDGING.name] == 1
    assert evidence(shown) < 1


def test_names_of_models_that_come_once_are_no_alarm_and_not_judged(site: Site) -> None:
    """Each says so in a metric; those who are judged need no more evidence for it."""
    for number in range(50):
        site.ask("a", "b", model=f"once-{number}")
    site.usual(100)
    assert evidence(site.shown()) < 1
    for number in range(50):
        assert site.store.gauge(m.DRIFT_JUDGING, (f"once-{number}", "acme")).value == 0
    assert site.watch.bar_weeks == SETTINGS.weeks_per_false_alarm


@pytest.mark.parametrize("jump_s", [-MONDAY_S, -3_600.0, 1e6, 1e9], ids=["to-1970", "an-hour-back", "days", "decades"])
def test_a_clock_that_jumps_is_no_alarm(site: Site, jump_s: float) -> None:
    """Of the wall: hours of the week are others then. Evidence goes by a clock that does not jump."""
    for _ in range(200):
        site.usual(1)
        site.watch.tick(site.now_s, MONDAY_S + site.now_s + jump_s)
    shown = site.shown()
    assert evidence(shown) < SETTINGS.weeks_per_false_alarm
    assert shown[m.DRIFT_JUDGING.name] == 1
