"""Takes finished requests, learns a reference for each model and tenant, and tells when they are no longer like it.

* **Who votes.** At most `votes_per_hour` requests of a model and tenant, evenly; one of a session (`choosing`). All
  others cost a look into a dict. Who votes is chosen when the request begins, while its body is there, and with
  `text` only then texts are heard. What generates nothing votes by its record.
* **Engine.** A reference is of one version and configuration of the engine. When another one answers, what was learnt
  is set aside, and what there is of the new one is used again, or learnt; votes wait for its word (`holding`).
* **Rate.** All streams together give a false signal once in `weeks_per_false_alarm`: what must be worth so much is the
  mean of their evidence, by one alone or by all (`together`). It is divided by as many as there were streams with a
  reference at a time since the start of the collector (till the next start never fewer again: weights may not grow
  afterwards).
* **Embeddings** (`drift.embeddings`) of prompts are asked for when a request begins. A vote whose prompt is on its way
  waits for it, so that all that is known of a request is judged in one step, as the rate needs it: two time-outs at
  most, of as many votes as prompts can wait.

Time is given by the caller, who calls `tick` twice a second. How long was learnt is counted by the clock that never
goes back. When the wall clock is set, what was learnt or judged by the hour of the week begins anew.
"""

import logging
from collections.abc import Callable, Container, Iterable
from typing import Final

from inferwatch.record import RequestRecord
from inferwatch.settings.drift import Drift
from inferwatch.tap import Open
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import DAY_S, OTHER, CardinalityGuard
from inferwatch_collectors.clock_steps import ClockSteps
from inferwatch_collectors.dialects.base import Dialect
from inferwatch_collectors.drift.betting import QUANTITY_BETS, RATIOS, WEEK_S
from inferwatch_collectors.drift.choosing import Choosing
from inferwatch_collectors.drift.features import Kind, embedding_features, features
from inferwatch_collectors.drift.following import Followed, Heard
from inferwatch_collectors.drift.gauges import Gauges
from inferwatch_collectors.drift.hearing import Hearing, last_said
from inferwatch_collectors.drift.holding import Holding, Vote
from inferwatch_collectors.drift.made import Made
from inferwatch_collectors.drift.memory import Key, Memory
from inferwatch_collectors.drift.pinning import Pinning
from inferwatch_collectors.drift.reference import Terms
from inferwatch_collectors.drift.roster import Roster
from inferwatch_collectors.drift.signals import JUDGED
from inferwatch_collectors.drift.telling import log_signal, log_together
from inferwatch_collectors.drift.together import Together
from inferwatch_collectors.drift.trigrams import Codebook
from inferwatch_collectors.drift.words import Report, stream_of
from inferwatch_collectors.embeddings.embedder import Embedder
from inferwatch_collectors.embeddings.redacting import LOOKED_AT_CHARS
from inferwatch_collectors.embeddings.sketch import Sketch
from inferwatch_collectors.engine.said import Said
from inferwatch_collectors.ledger.vote import Thumb
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.wall_time import HOUR_S, hour_of_week

_log: Final = logging.getLogger(__name__)

HIDE_BEFORE_S: Final = 60.0
# Of whom requests came for so long and nobody voted, nothing is judged: no body was seen, say.
UNHEARD_S: Final = DAY_S / 2
# A command is to be heard within a minute, a reference pins itself then as well.
LOOK_S: Final = 30.0
# Between two ticks no time passes here.
TICK_S: Final = 0.5


class DriftWatch:
    """All models and tenants. Nothing happens before the first `tick`."""

    def __init__(
        self,
        store: MetricStore,
        guard: CardinalityGuard,
        settings: Drift,
        *,
        secret: bytes,
        load: Callable[[], int] = lambda: 0,
        ask: Callable[[], None] | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        """`load` tells how many requests are open; `secret` has 16 bytes or more.

        `ask` has the engine asked soon what it is, which is told by `asking` and then `told` or `silent`. None: what
        answers is not known, and taken for the same all the time. `embedder`: with texts alone.
        """
        self._store = store
        self._guard = guard
        self._settings = settings
        self._load = load
        self._ask = ask
        self._holding = Holding(asks=ask is not None)
        self._embedder = embedder
        numbers = 0 if embedder is None else embedder.numbers
        watched = features(text=settings.text)
        of = (*watched, *embedding_features(numbers))
        bets = sum(len(RATIOS) if each.kind is Kind.FLAG else QUANTITY_BETS for each in of)
        # Where there are embeddings, they have their part of the evidence, and all else the other.
        weights = [sum(each.weight for each in part) for part in (watched, embedding_features(numbers)) if part]
        self._terms = Terms.of(
            bets,
            risk=settings.reference_risk,
            tolerance=settings.tolerance,
            bar_weeks=settings.weeks_per_false_alarm * settings.max_streams * sum(weights) / min(weights),
        )
        self._book = Codebook(secret) if settings.enabled and settings.text else None
        self._memory = Memory(store, numbers)
        self.streams = Roster(guard, self._memory, watched, numbers=numbers, max_streams=settings.max_streams)
        self._gauges = Gauges(store)
        self._together = Together()
        self._choosing = Choosing(self.streams, HOUR_S / settings.votes_per_hour)
        self._steps = ClockSteps()
        self._now_s = -1.0
        self._wall_s = 0.0
        self._hour = 0
        self._look_s = 0.0
        self._pinning = Pinning(self.streams, settings, self._terms)

    @property
    def listens(self) -> bool:
        """Whether texts are heard."""
        return self._book is not None

    @property
    def streams_cut(self) -> int:
        """How often somebody was not followed, for want of room."""
        return self.streams.cut

    @property
    def sessions_cut(self) -> int:
        """Sessions forgotten while they went on."""
        return self._choosing.sessions_cut

    @property
    def choices_cut(self) -> int:
        """Requests that were to vote and were forgotten while they were open."""
        return self._choosing.choices_cut

    @property
    def references_cut(self) -> int:
        """What was learnt of earlier engines, and forgotten for that of later ones."""
        return self._memory.references_cut

    @property
    def memos_damaged(self) -> int:
        """What an earlier life wrote down and could not be read."""
        return self._memory.damaged

    @property
    def votes_dropped(self) -> int:
        """Votes of which it is not known what answered."""
        return self._holding.dropped

    @property
    def bar_weeks(self) -> float:
        """The evidence that one stream needs for a signal."""
        return self._settings.weeks_per_false_alarm * self.streams.parts

    def resume(self, now_s: float) -> None:
        """Take up what an earlier life knew. Once, after the store was restored."""
        if self._settings.enabled:
            self.streams.read(self._terms, now_s, now_s / WEEK_S)
            self._together.signalling = self._memory.read_together()

    # --- requests

    def record(self, record: RequestRecord) -> None:
        """Take a request, after it was counted: it votes, if it was chosen and nobody hears it."""
        if self._now_s < 0:
            return
        chosen, followed = self._choosing.over(record)
        if record.outcome not in JUDGED or record.operation == OTHER:
            return
        if chosen and followed is None:  # not followed before there is an answer: clients make up names
            followed = self._follow(record.model, record.tenant, record.operation)
        known = self.streams.known((record.model, record.tenant))
        if known is not None:
            known.asked(self._now_s)
            if known.watched is None:
                known.makeup.requests += 1
        if followed is not None:
            self._vote(followed, record, None, self._load())

    def opened(self, opened: Open, dialect: Dialect) -> Hearing | None:
        """Choose whether a request votes, and whether to listen to it."""
        if self._now_s < 0 or dialect.operation == OTHER:
            return None
        book = self._book if dialect.generates else None  # else there is no answer to be heard
        if book is not None and not opened.body:
            return None
        if book is None:
            self._choosing.choose(opened, dialect, self._now_s)
            return None
        followed = self._follow(opened.model, opened.tenant, dialect.operation)
        if followed is None or not self._choosing.takes(followed, opened, dialect, self._now_s):
            return None

        prompt = last_said(dialect.prompt(opened.body))
        ticket = None
        if self._embedder is not None and prompt:
            # Half an emoji, which JSON can have, is nothing that can be sent.
            ticket = self._embedder.take(prompt[:LOOKED_AT_CHARS].encode("utf-8", "replace").decode())

        def over(record: RequestRecord, heard: Heard) -> None:
            if record.outcome not in JUDGED:
                return
            load = self._load()
            if ticket is None:
                self._vote(followed, record, heard, load)
            else:
                ticket.then(lambda: self._vote(followed, record, heard, load, ticket.sketch))

        return Hearing(prompt, book, over)

    def _follow(self, model: str, tenant: str, operation: str) -> Followed | None:
        """Return who is followed under these names, from now on."""
        said = self._holding.said
        return self.streams.of((model, tenant), operation, now_s=self._now_s, wall_s=self._wall_s, said=said)

    def _vote(
        self, followed: Followed, record: RequestRecord, heard: Heard | None, load: int, sketch: Sketch | None = None
    ) -> None:
        if followed not in self.streams:
            return  # it was another engine's, or made room
        followed.voted(self._now_s)
        if self._holding.is_late(record, self._now_s):
            return
        vote = Vote(followed, record, heard, load, self._now_s, self._hour, sketch)
        if self._holding.waits:
            self._holding.take(vote)
        else:
            self._count(vote)

    def _count(self, vote: Vote) -> None:
        followed = vote.followed
        followed.vote(vote.record, vote.heard, vote.load, self._now_s / WEEK_S, vote.hour)
        if vote.sketch is not None and followed.meaning is not None:
            other = followed.meaning.vote(vote.sketch, self._now_s / WEEK_S, vote.hour, self._wall_s)
            if other:
                _log.warning("drift_embeddings_learnt_anew model=%s tenant=%s", followed.model, followed.tenant)
        if followed.watched is not None:
            self._judge(followed)

    def _judge(self, followed: Followed) -> None:
        signalled = followed.signalling
        if followed.judge(self.bar_weeks, self._wall_s):
            self._store.counter(m.DRIFT_SIGNALS, (followed.model, followed.tenant)).add()
            log_signal(followed, self.streams.parts)
        if followed.signalling != signalled:
            self.streams.write_soon(followed)  # who is killed must not forget what it has told

    # --- the engine: `engine.said.Listener`

    def asking(self) -> int:
        """The engine is being asked what it is. Return what `told` is to be given."""
        return self._holding.asking(self._now_s)

    def told(self, mark: int, said: Said) -> None:
        """Take what the engine says of itself."""
        if self._now_s < 0:
            return
        known = self._holding.said
        votes = self._holding.told(mark, said)
        if known is not None and known.version != said.version:
            self._changed()
        unsure: set[Key] = set()
        if said != known:
            changed = [each for each in self.streams if not self._is_still(each, said)]
            unsure = {(each.model, each.tenant) for each in changed}
            self._gauges.hide({(each.model, each.tenant) for each in changed if each not in self.streams})
        self._settle(votes, unsure)

    def silent(self) -> None:
        """The engine could not be asked."""
        self._settle(self._holding.silent(), ())

    def _settle(self, votes: Iterable[Vote], unsure: Container[Key]) -> None:
        """Count the votes that have waited, but of `unsure`."""
        for vote in votes:
            key = (vote.followed.model, vote.followed.tenant)
            if key not in unsure and vote.followed in self.streams:
                self._count(vote)
            else:
                self._holding.dropped += 1

    def doubt(self) -> None:
        """The engine was away, or has been started anew: whoever answers next may be another one."""
        self._holding.doubt()
        if self._ask is not None:
            self._ask()

    def _is_still(self, each: Followed, said: Said) -> bool:
        """Bring one in line with what the engine says it is; return whether it is what it was."""
        key = (each.model, each.tenant)
        now = Made.of(said, each.model)
        if each.made is None:  # learnt before anybody asked: it is taken for the same, as it would be without a version
            each.made = now
            self.streams.write_soon(each)
            return not now.version
        if not each.made.is_another(now):
            each.made = each.made.with_(now)
            return True
        self._memory.set_aside(each, self._wall_s)
        back = self._memory.take_back(key, now, each.of, self._terms, self._now_s / WEEK_S)
        if back is None and not each.votes:
            each.learn_anew(self._wall_s)  # a little was learnt of texts
            each.made = now
            self._changed()
            return False
        self._replace(each, (back or self.streams.new(*key, self._wall_s)).takes_over(each, now, self._wall_s))
        return False

    def _replace(self, before: Followed, now: Followed) -> None:
        key = (now.model, now.tenant)
        self.streams.replace(before, now)
        self._changed()
        if self._is_shown(now):
            result = "used_again" if now.watched is not None else "learning"
            self._store.counter(m.DRIFT_ENGINE_CHANGES, (*key, result)).add()
        _log.warning("drift_engine_changed model=%s tenant=%s %s", *key, now.changed)

    def _changed(self) -> None:
        self._holding.changed(self._now_s, self._wall_s + TICK_S)

    # --- time

    def tick(self, now_s: float, wall_s: float, slept_s: float = 0.0) -> None:
        """Let time pass: `now_s` of a clock that never goes back, `wall_s` Unix time, `slept_s` as in `ClockSteps`."""
        if not self._settings.enabled:
            return
        if self._now_s < 0:
            self._look_s = now_s
        self._now_s = max(now_s, self._now_s)
        self._wall_s = wall_s
        if step_s := self._steps.step(now_s, wall_s, slept_s):
            self._clock_stepped(step_s)
        hour = hour_of_week(int(wall_s // HOUR_S))
        if hour != self._hour:
            self._hour = hour
            self.streams.turn()
        if self._ask is not None and self._holding.wants_answer(self._now_s):
            self._ask()
        self.streams.write_one()
        if now_s - self._look_s >= LOOK_S and not self._pinning.is_busy:
            for each in self.streams:
                each.let_pass(now_s - self._look_s)
            self._look_s = now_s
            self._judge_together()
            self._pinning.look()
        self._pinning.pin_one(self._now_s / WEEK_S, self._wall_s)

    def _clock_stepped(self, step_s: float) -> None:
        anew = {(each.model, each.tenant) for each in self.streams if each.clock_stepped(step_s, self._wall_s)}
        self._gauges.hide(anew)
        self._memory.forget_lessons()
        self.streams.turn()
        _log.warning("drift_clock_stepped seconds=%d begun_anew=%d", step_s, len(anew))

    def finish(self) -> None:
        """Nothing comes any more: all that is known is to be written down, by `write_one`."""
        if self._settings.enabled:
            self.streams.finish()

    def write_one(self) -> None:
        """Write one stream down: some milliseconds."""
        self.streams.write_one()

    @property
    def unwritten(self) -> int:
        """Streams that are still to be written down."""
        return self.streams.unwritten

    # --- commands

    def pin(self, model: str, tenant: str) -> tuple[bool, str]:
        """Take what was learnt for the reference, by command; or, if there is one, begin to learn another.

        Returns:
            Whether that was done, and what was done or why not.
        """
        return self._pinning.command(model, tenant, self._now_s / WEEK_S, self._wall_s)

    # --- telling

    def report(self) -> Report:
        """Return what there is to say of all, by name."""
        streams = sorted(self.streams, key=lambda each: (each.model, each.tenant))
        return Report(
            weeks_per_false_alarm=self._settings.weeks_per_false_alarm,
            text=self.listens,
            waits=self._holding.is_stuck(self._now_s),
            together=self._together.told(streams, self.streams.parts),
            streams=tuple(
                stream_of(each, self.streams.parts, self._thumbs(each), self._memory.kept((each.model, each.tenant)))
                for each in streams
            ),
        )

    def _thumbs(self, each: Followed) -> tuple[int, int] | None:
        known = self._store.family(m.FEEDBACK_VOTES).children  # looked at first: who is only asked for does not begin
        labels = {thumb: (each.model, each.tenant, thumb.value) for thumb in Thumb}
        votes = {
            thumb: int(self._store.counter(m.FEEDBACK_VOTES, key).value)
            for thumb, key in labels.items()
            if key in known
        }
        return (votes.get(Thumb.UP, 0), votes.get(Thumb.DOWN, 0)) if any(votes.values()) else None

    def _judge_together(self) -> None:
        """Look at all that have no signal of their own."""
        parts, signalled = self.streams.parts, self._together.signalling
        if self._together.judge(self.streams, parts, self._settings.weeks_per_false_alarm):
            log_together(self._together.told(self.streams, parts))
        if self._together.signalling != signalled:
            self._memory.write_together(signalling=self._together.signalling)
            self.streams.write_all_soon()  # a later life must find the evidence that goes with it

    def refresh(self) -> None:
        """Set the gauges. Right before an exposition."""
        if self._embedder is not None:
            self._embedder.refresh()
        shown = {(each.model, each.tenant): each for each in self.streams if self._is_shown(each)}
        stuck = self._holding.is_stuck(self._now_s)
        off = {key for key, each in shown.items() if stuck or each.unheard_s > UNHEARD_S}
        self._gauges.show(shown, self.streams.parts, off=off)
        judged = any(each.watched is not None for key, each in shown.items() if key not in off)
        self._store.gauge(m.DRIFT_DETECTED_TOGETHER, ()).set(int(self._together.signalling) if judged else None)

    def _is_shown(self, each: Followed) -> bool:
        # A little before the guard removes the series of a tenant: one set afterwards would stay for ever.
        return self._now_s - max(each.seen_s, each.asked_s) <= (self._guard.limits.idle_s or DAY_S) - HIDE_BEFORE_S
