"""Takes what came of probes, learns a reference for each model, and tells when a model is not the same any more.

* **Rate.** All models together give a false signal once in `weeks_per_false_alarm`: each alone needs as many times more
  evidence as there were ever models with a reference at a time. It comes on top of the rate of `drift`.
* **Off.** A probe that comes to nothing is no evidence. TRIES of them in a row for one reason, and a gauge says that
  the canary is off, and why.
* **Bounds.** MAX_MODELS. For another one the one that learns for longest makes room, else the one that has a reference
  and is silent for longest, if it is stale; if all of them answer, the new one is not judged, and counted. Models that
  are not configured any more are forgotten at the start.

Time is given by the caller, who calls `tick` twice a second.
"""

import hashlib
import logging
from collections.abc import Callable
from typing import Final

from inferwatch.settings.canary import MAX_MODELS, Canary
from inferwatch_collectors import metrics as m
from inferwatch_collectors.canary import words
from inferwatch_collectors.canary.memory import Memory
from inferwatch_collectors.canary.probed import Probed
from inferwatch_collectors.canary.prompt import hashed
from inferwatch_collectors.canary.prompts import PROMPTS
from inferwatch_collectors.cardinality import sanitize
from inferwatch_collectors.clock_steps import ClockSteps
from inferwatch_collectors.drift.betting import WEEK_S
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.wall_time import HOUR_S, hour_of_week

_log: Final = logging.getLogger(__name__)

OK: Final = "ok"
# So many probes in a row, and it is more than a hiccup.
TRIES: Final = 3

# A model that did not answer for so many of its turns, and a while, is not judged at present.
STALE_TURNS: Final = 10
STALE_S: Final = 60.0

LOOK_S: Final = 10.0

_SHOWN: Final = (
    m.CANARY_JUDGING,
    m.CANARY_REFERENCE_REPLIES,
    m.CANARY_EVIDENCE,
    m.CANARY_DETECTED,
    m.CANARY_DISTANCE,
    m.CANARY_USUAL,
)


class CanaryWatch:
    """All models. Nothing happens before `resume`."""

    def __init__(
        self, store: MetricStore, settings: Canary, *, secret: bytes, around: Callable[[str], dict[str, str]]
    ) -> None:
        """`around` tells what engine, model and driver say of themselves, for a model.

        `secret` has 16 bytes or more if it is enabled.
        """
        self._store = store
        self.settings = settings
        self._around = around
        self._secret = hashlib.blake2b(secret).digest()
        self.prompts = settings.prompts or PROMPTS
        # All that decides what a reply counts as: the tolerance is in what was counted while the reference was learnt.
        self.asked = self._digest(settings.api, settings.top_logprobs, settings.tolerance_nats, *self.prompts)
        self._memory = Memory(store)
        self._models: dict[str, Probed] = {}
        self._stale_s = STALE_S + STALE_TURNS * settings.interval_s * max(1, len(settings.models))
        self._now_s = 0.0
        self._wall_s = 0.0
        self._look_s = 0.0
        self._hour = -1
        self._parts = 1
        self._steps = ClockSteps()
        self._failed = ("", 0)  # the last result other than OK, and how often in a row
        self.models_cut = 0

    @property
    def bar_weeks(self) -> float:
        """The evidence that one model needs for a signal."""
        return self.settings.weeks_per_false_alarm * self._parts

    @property
    def memos_damaged(self) -> int:
        """What an earlier life wrote down and could not be read."""
        return self._memory.damaged

    @property
    def off(self) -> str:
        """Why nothing comes of probes at present; "" if something does, or may."""
        reason, times = self._failed
        if times >= TRIES:
            return reason
        unstable = self._models and not any(each.stable for each in self._models.values())
        return "unstable" if unstable else ""

    def resume(self, now_s: float, wall_s: float, slept_s: float = 0.0) -> None:
        """Take up what an earlier life knew, and the time. Once, after the store was restored, before the first reply.

        All three as in `tick`.
        """
        if not self.settings.enabled:
            return
        for each in self._memory.read(self.asked, len(self.prompts), now_s / WEEK_S, MAX_MODELS):
            if self.settings.models and each.model not in self.settings.models:
                self._memory.forget(each.model)
            else:
                self._models[each.model] = each
        self._set_parts()
        self._look_s = now_s  # what is ripe is pinned a little later: engine and driver have not said yet who they are
        self.tick(now_s, wall_s, slept_s)

    # --- probes

    def take(self, model: str, place: int, logprobs: dict[str, float]) -> None:
        """Take what the engine said of `model` to prompt number `place`."""
        self._count(model, OK)
        self._failed = ("", 0)
        probed = self._models.get(model) or self._add(model)
        if probed is None:
            return
        probed.answered_s = self._now_s
        now_weeks = self._now_s / WEEK_S
        least = self.settings.tolerance_nats
        probed.take(place, hashed(logprobs, self._secret), least=least, now_weeks=now_weeks, hour=self._hour)
        if probed.watched is not None:
            self._judge(probed)

    def _judge(self, probed: Probed) -> None:
        signalled = probed.signalling
        if probed.judge(self.bar_weeks, self._wall_s):
            self._tell(probed)
        if probed.signalling != signalled:
            self._memory.write(probed)  # who is killed must not forget what it has told

    def failed(self, model: str, result: str) -> None:
        """Nothing came of a probe: `result` is one of those of `CANARY_PROBES`."""
        self._count(model, result)
        reason, times = self._failed
        self._failed = (result, times + 1 if result == reason else 1)
        if self._failed[1] == TRIES:
            _log.warning("canary_off reason=%s", result)

    def _count(self, model: str, result: str) -> None:
        self._store.counter(m.CANARY_PROBES, (sanitize(model), result)).add()

    def _add(self, model: str) -> Probed | None:
        if len(self._models) >= MAX_MODELS and not self._make_room():
            self.models_cut += 1
            return None
        found = self._models[model] = Probed(model, self.asked, len(self.prompts), self._wall_s)
        return found

    def _make_room(self) -> bool:
        known = self._models.values()
        oldest = min((each for each in known if each.watched is None), key=lambda each: each.begun_s, default=None)
        if oldest is None:
            silent = (each for each in known if not self._answers(each))
            # Of those who did not answer in this life `since_s` says when they last did.
            oldest = min(silent, key=lambda each: (each.answered_s, each.since_s), default=None)
        if oldest is None:
            return False
        del self._models[oldest.model]
        self._memory.forget(oldest.model)
        return True

    def _set_parts(self) -> None:
        self._parts = max(self._parts, sum(1 for each in self._models.values() if each.watched is not None))

    def _digest(self, *parts: object) -> str:
        data = "\0".join(map(str, parts)).encode("utf-8", "replace")
        return hashlib.blake2b(data, digest_size=16, key=self._secret).hexdigest()

    # --- time

    def tick(self, now_s: float, wall_s: float, slept_s: float = 0.0) -> None:
        """Let time pass: `now_s` of a clock that never goes back, `wall_s` Unix time, `slept_s` as in `ClockSteps`."""
        if not self.settings.enabled:
            return
        self._now_s = max(now_s, self._now_s)
        self._wall_s = wall_s
        if step_s := self._steps.step(now_s, wall_s, slept_s):
            anew = sum([each.clock_stepped(step_s, wall_s) for each in self._models.values()])
            self.finish()
            _log.warning("canary_clock_stepped seconds=%d begun_anew=%d", step_s, anew)
        hour = hour_of_week(int(wall_s // HOUR_S))
        if hour != self._hour:
            if self._hour >= 0:
                self.finish()
            self._hour = hour
        if (passed_s := now_s - self._look_s) >= LOOK_S:
            self._look_s = now_s
            for each in self._models.values():
                each.let_pass(passed_s)
                if self._ripe(each):
                    self._pin(each)

    def finish(self) -> None:
        """Write down all that is known: a few kB for each of MAX_MODELS at most."""
        for each in self._models.values():
            self._memory.write(each)

    def _ripe(self, each: Probed) -> bool:
        enough = each.replies >= self.settings.reference_probes_min
        return enough and each.lesson is not None and each.lesson.learnt_s >= self.settings.reference_hours * HOUR_S

    # --- commands

    def pin(self, model: str) -> tuple[bool, str]:
        """Take what was learnt for the reference, by command; or, if there is one, begin to learn another.

        Returns:
            Whether that was done, and what was done or why not.
        """
        each = self._models.get(model)
        if each is None:
            return False, "no such model is probed"
        if each.lesson is None:
            each.learn_anew(self._wall_s)
            self._memory.write(each)
            return True, "the reference is forgotten, another one is being learnt"
        least = self.settings.reference_probes_min
        if each.replies < least:
            return False, f"too few replies: {each.replies}, expected at least {least}"
        return (True, "pinned") if self._pin(each) else (False, "too few replies could be judged")

    def _pin(self, each: Probed) -> bool:
        if not each.pin(self._around(each.model), self._now_s / WEEK_S, self._wall_s):
            return False
        self._set_parts()
        self._memory.write(each)
        assert each.about is not None
        _log.info(
            "canary_reference_pinned model=%s number=%d replies=%d usual_nats=%.3g",
            sanitize(each.model),
            each.about.number,
            each.about.replies,
            each.usual or 0.0,
        )
        return True

    # --- telling

    def report(self) -> words.Canary | None:
        """Return what there is to say of all, by name; None if it is not enabled."""
        if not self.settings.enabled:
            return None
        models = sorted(self._models.values(), key=lambda each: each.model)
        return words.Canary(
            weeks_per_false_alarm=self.settings.weeks_per_false_alarm,
            off=self.off,
            models=tuple(words.model_of(each, self._parts, self._around(each.model)) for each in models),
        )

    def _tell(self, probed: Probed) -> None:
        self._store.counter(m.CANARY_SIGNALS, (sanitize(probed.model),)).add()
        model = words.model_of(probed, self._parts, self._around(probed.model))
        _log.warning(
            "model_changed model=%s evidence_weeks=%.3g since=%d moved=%s",
            sanitize(probed.model),
            model.evidence_weeks,
            probed.since_s,
            words.told(model),
        )

    def refresh(self) -> None:
        """Set the gauges. Right before an exposition."""
        if not self.settings.enabled:
            return
        off = self.off
        for (reason,) in self._store.series(m.CANARY_OFF):
            self._store.gauge(m.CANARY_OFF, (reason,)).set(None)
        if off:
            self._store.gauge(m.CANARY_OFF, (off,)).set(1)
        known = {sanitize(model): each for model, each in self._models.items()}
        for metric in _SHOWN:
            for labels in self._store.series(metric):
                if labels[0] not in known:
                    self._store.gauge(metric, labels).set(None)
        for label, each in known.items():
            self._show((label,), each)

    def _answers(self, each: Probed) -> bool:
        return self._now_s - each.answered_s < self._stale_s

    def _show(self, key: tuple[str], each: Probed) -> None:
        gauge = self._store.gauge
        judged = each.watched is not None and self._answers(each)
        gauge(m.CANARY_JUDGING, key).set(int(judged))
        gauge(m.CANARY_REFERENCE_REPLIES, key).set(each.replies)
        gauge(m.CANARY_EVIDENCE, key).set(each.weeks / self._parts if judged else None)
        gauge(m.CANARY_DETECTED, key).set(int(each.signalling) if judged else None)
        gauge(m.CANARY_DISTANCE, key).set(each.distance)
        gauge(m.CANARY_USUAL, key).set(each.usual)
