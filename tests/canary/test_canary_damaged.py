"""What is remembered of the canary and was damaged: it reads as something that makes sense, or is refused."""

import math
import random

from damage import mutated
from hypothesis import given, settings
from hypothesis import strategies as st

from inferwatch.settings.canary import Canary
from inferwatch_collectors.canary.memory import NAME
from inferwatch_collectors.canary.prompts import PROMPTS
from inferwatch_collectors.canary.watch import CanaryWatch
from inferwatch_collectors.drift_report import Report, as_text
from inferwatch_collectors.metric_store import MetricStore

MONDAY_S = 1_760_313_600.0
SETTINGS = Canary(enabled=True, reference_probes_min=500, reference_hours=1)
TOKENS = tuple(f"t{number}" for number in range(5))


class Site:
    """A watch, and a model that answers."""

    def __init__(self, *memos: bytes) -> None:
        self.store = MetricStore()
        for number, data in enumerate(memos):
            self.store.memo(NAME, (str(number),)).set(data)
        self.watch = CanaryWatch(self.store, SETTINGS, secret=b"a secret of somebody", around=lambda _: {})
        self.rng, self.now_s, self.turn = random.Random(3), 0.0, 0
        self.watch.resume(0.0, MONDAY_S)

    def probe(self, count: int, model: str = "m") -> None:
        """Let so many replies come, and see that what is said of them makes sense."""
        for _ in range(count):
            self.now_s += 60.0
            self.watch.tick(self.now_s, MONDAY_S + self.now_s)
            self.turn += 1
            reply = {token: -0.5 - number + self.rng.gauss(0, 0.01) for number, token in enumerate(TOKENS)}
            self.watch.take(model, self.turn % len(PROMPTS), reply)
        report = self.watch.report()
        assert all(0 <= (each.evidence_weeks or 0.0) < math.inf for each in report.models)
        as_text(Report(weeks_per_false_alarm=20, text=False, streams=(), canary=report))

    def memos(self) -> tuple[bytes, ...]:
        """Return what is written down."""
        self.watch.finish()
        return tuple(memo.data for memo in self.store.memos(NAME) if memo.data)


def memos() -> tuple[bytes, ...]:
    """Return what is written down while prompts are learnt, while replies are counted, and while they are judged."""
    site = Site()
    found = []
    for count in (100, 300, 300):
        site.probe(count)
        found += site.memos()
    return tuple(found)


MEMOS = memos()


def test_what_is_whole_is_read() -> None:
    """In each of its stages, as which it goes on."""
    states = []
    for data in MEMOS:
        site = Site(data)
        assert site.watch.memos_damaged == 0
        states.append(site.watch.report().models[0].state)
        site.probe(10)
    assert states == ["learning", "learning", "judging"]


@settings(max_examples=200)
@given(st.sampled_from(MEMOS), st.randoms(use_true_random=False))
def test_whatever_is_damaged_makes_sense_or_is_refused(data: bytes, rng: random.Random) -> None:
    """Any byte, any number, any length: what is read can be judged, told and written down again; else it is counted."""
    site = Site(mutated(rng, data))
    known = [each.model for each in site.watch.report().models]
    for model in known or ["m"]:
        site.probe(len(PROMPTS), model)
    assert len(known) + site.watch.memos_damaged <= 1
    again = Site(*site.memos())
    assert again.watch.memos_damaged == 0
    assert len(again.watch.report().models) == len(site.watch.report().models)
