"""Embeddings in the collector: from the body of a request, through an endpoint over HTTP, to a vote and what is told."""

import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from subjects import SUBJECTS, prompt

from inferwatch.record import Outcome
from inferwatch.settings.drift import Drift
from inferwatch.settings.embeddings import Embeddings
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import CardinalityGuard
from inferwatch_collectors.dialects import base as dialects
from inferwatch_collectors.dialects import select
from inferwatch_collectors.drift.features import Direction, embedding_features
from inferwatch_collectors.drift.following import WORD_VOTES
from inferwatch_collectors.drift.learning import EDGE_VOTES
from inferwatch_collectors.drift.meaning import OTHERS, SPREAD_VOTES
from inferwatch_collectors.drift.watch import DriftWatch
from inferwatch_collectors.drift.words import as_text
from inferwatch_collectors.embeddings.asking import Endpoint
from inferwatch_collectors.embeddings.embedder import BATCH, Embedder
from inferwatch_collectors.embeddings.redacting import LOOKED_AT_CHARS, MAX_CHARS
from inferwatch_collectors.embeddings.sketch import BUCKETS, Sketch, Sketcher
from inferwatch_collectors.engine.said import Said
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.embeddings import vector_of
from inferwatch_simulator.server import RunningSimulator, start

SECRET = b"a secret of the installation"
MONDAY_S = 1_760_313_600.0
KEY = ("qwen", "acme")
ANSWER = "That depends on what you have at hand."


class Site:
    """A watch and an embedder before a simulated engine, with a clock that goes on by 0.1 s for each request."""

    def __init__(
        self, frames: Any, url: str, store: MetricStore | None = None, now_s: float = 0.0, ask: Any = None
    ) -> None:
        wanted = Embeddings(url=url, model="simulated-8b", per_minute=6_000)
        self.settings = Drift(
            text=True, votes_per_hour=36_000, reference_requests_min=1_500, reference_hours=1, embeddings=wanted
        )
        self.store = store or MetricStore()
        self.frames = frames
        self.now_s = now_s
        self.rng = random.Random(int(now_s) + 1)
        self.number = 0
        self.endpoint = Endpoint(wanted, "", secret=SECRET)
        self.faults: list[str] = []
        self.embedder = Embedder(
            wanted,
            self.store,
            self.endpoint,
            Sketcher(SECRET),
            redact=None,
            fault=self.faults.append,
            clock=lambda: self.now_s,
        )
        self.watch = DriftWatch(
            self.store, CardinalityGuard(), self.settings, secret=SECRET, embedder=self.embedder, ask=ask
        )
        self.watch.resume(now_s)
        self.watch.tick(now_s, MONDAY_S + now_s)

    async def send(self, count: int, *, other: float = 0.0, step_s: float = 0.1, outcome: Outcome = Outcome.OK) -> None:
        """Let so many requests come and finish; some prompts are about something else."""
        for _ in range(count):
            self.number += 1
            self.now_s += step_s
            self.watch.tick(self.now_s, MONDAY_S + self.now_s)
            subjects = ("networks",) if self.rng.random() < other else ("cooking", "gardens")
            self.request(prompt(self.rng, *subjects), outcome)
            if self.number % BATCH == 0:
                await self.embedder.send()

    def request(self, text: str, outcome: Outcome = Outcome.OK) -> None:
        body = json.dumps({"model": "qwen", "messages": [{"role": "user", "content": text}]}).encode()
        opened = self.frames.open(self.number, body=body)
        hearing = self.watch.opened(opened, select.choose("POST", opened.path, "", False).dialect)
        if hearing is not None:
            hearing.text(0, 0, dialects.ANSWER, ANSWER)
            hearing.closed(self.frames.record(self.number, outcome=outcome, prompt_tokens=len(text.split())))

    def gauge(self, metric: m.Metric, *labels: str) -> float | None:
        """Return what is exported."""
        self.watch.refresh()
        return self.store.gauge(metric, labels).value


@pytest.fixture(name="engine")
async def _engine() -> AsyncIterator[RunningSimulator]:
    async with await start(SimulatorConfig(port=0, model="simulated-8b")) as simulator:
        yield simulator


async def test_prompts_about_something_else_are_found(frames: Any, engine: RunningSimulator) -> None:
    """First all is learnt; the same prompts are no drift; when a quarter is about something else, it is told, and how it
    was found. What is kept has none of the texts.
    """
    site = Site(frames, engine.url)
    await site.send(2_900)
    assert site.gauge(m.DRIFT_JUDGING, *KEY) == 0
    await site.send(1, step_s=3_600)
    await site.send(2, step_s=31)
    assert site.gauge(m.DRIFT_JUDGING, *KEY) == 1
    assert "prompt_embedding" not in " ".join(site.watch.report().streams[0].off)
    assert "embeddings of prompts: judged by reference number 1" in as_text(site.watch.report())
    await site.send(600)
    assert site.gauge(m.DRIFT_DETECTED, *KEY) == 0
    assert (site.gauge(m.DRIFT_EVIDENCE, *KEY, "prompt") or 0) < 1
    await site.send(400, other=0.25)
    await site.endpoint.close()
    assert site.gauge(m.DRIFT_DETECTED, *KEY) == 1
    assert (site.gauge(m.DRIFT_EVIDENCE, *KEY, "answer") or 0) < 1
    moved = [each.feature for each in site.watch.report().streams[0].moved]
    assert "prompt_embedding_likeness" in moved[:3]
    assert (site.gauge(m.DRIFT_WASSERSTEIN, *KEY, "prompt_embedding_likeness") or 0) > 0.2
    assert site.faults == []
    assert site.store.counter(m.DRIFT_EMBEDDINGS, ("ok",)).value > 3_800
    rows = site.store.take_dirty()
    kept = b"".join(labels + state for _, labels, state in rows)
    assert b"prompt_embedding_likeness" in kept
    words = {word.encode() for subject in SUBJECTS.values() for word in subject.split() if len(word) > 5}
    assert not any(word in kept for word in words)

    (followed,) = site.watch.streams
    assert followed.meaning is not None
    for _ in range(OTHERS):  # another embedding model: what is shown of the one before is no effect any more
        followed.meaning.vote(Sketch("other", (0.1,) * BUCKETS), 0.0, 0, MONDAY_S)
    for metric in (m.DRIFT_PSI, m.DRIFT_WASSERSTEIN):
        assert site.gauge(metric, *KEY, "prompt_embedding_likeness") is None
        assert site.gauge(metric, *KEY, "prompt_tokens") is not None

    store = MetricStore()
    store.restore(rows)
    again = Site(frames, engine.url, store, site.now_s)
    assert "embeddings of prompts: judged by reference number 1" in as_text(again.watch.report())


async def test_an_endpoint_that_is_away_takes_no_vote(frames: Any) -> None:
    """All vote without an embedding, as soon as that is known; of embeddings nothing is judged, and that is said."""
    site = Site(frames, "http://127.0.0.1:1")
    await site.send(BATCH)
    assert site.gauge(m.DRIFT_REFERENCE_VOTES, *KEY) == 0  # the first teach the trigrams
    await site.send(3 * BATCH)
    await site.send(2_000)
    await site.endpoint.close()
    (followed,) = site.watch.streams
    assert followed.votes == site.number - (WORD_VOTES - 1)
    assert site.store.counter(m.DRIFT_EMBEDDINGS, ("connect",)).value > 0
    assert site.gauge(m.DRIFT_EMBEDDINGS_OFF, "connect") == 1
    assert site.watch.pin("qwen", "acme")[0]
    assert site.gauge(m.DRIFT_FEATURES_OFF, *KEY) == len(embedding_features(8)) + len(followed._watched()[0][1].off)
    assert "embeddings of prompts: a reference is being learnt, 0 so far" in as_text(site.watch.report())


async def test_embeddings_have_a_time_and_a_number_of_their_own(frames: Any) -> None:
    """They are made since this hour alone: their reference is not pinned with that of their stream, which had its time.
    By command it is; and after the next command it is the second one."""
    site = Site(frames, "http://127.0.0.1:1")
    sketcher = Sketcher(SECRET)
    await site.send(2_900)
    (followed,) = site.watch.streams
    meaning = followed.meaning
    assert meaning is not None

    def learn() -> None:
        for _ in range(SPREAD_VOTES + EDGE_VOTES + 1_500):
            numbers = sketcher.numbers(vector_of(prompt(site.rng, "cooking")))
            assert numbers is not None
            meaning.vote(Sketch("e5", numbers), 0.0, 0, MONDAY_S + site.now_s)

    def told() -> str:
        return as_text(site.watch.report())

    learn()
    await site.send(1, step_s=3_600.0 - site.now_s)
    await site.send(1, step_s=31)
    assert site.gauge(m.DRIFT_JUDGING, *KEY) == 1
    assert "embeddings of prompts: a reference is being learnt, 1756 so far" in told()
    await site.send(2, step_s=290)
    assert "embeddings of prompts: judged by reference number 1" in told()

    assert "another one" in site.watch.pin(*KEY)[1]
    assert meaning.watched is None
    await site.send(2_900)
    learn()
    assert site.watch.pin(*KEY)[0]
    assert "embeddings of prompts: judged by reference number 2" in told()
    await site.endpoint.close()


async def test_requests_that_failed_and_those_without_a_prompt_do_not_wait(
    frames: Any, engine: RunningSimulator
) -> None:
    """The first do not vote, the others vote at once; an embedding of our own is nobody's prompt."""
    site = Site(frames, engine.url)
    await site.send(BATCH, outcome=Outcome.UPSTREAM_ERROR)
    (followed,) = site.watch.streams
    assert followed._words[Direction.PROMPT].texts == 0
    site.now_s += 1
    site.request("")
    assert followed._words[Direction.ANSWER].texts == 1
    body = b'{"model":"qwen","input":["a prompt of somebody"]}'
    opened = frames.open(site.number + 1, path="/v1/embeddings", body=body)
    dialect = select.choose("POST", opened.path, "", False).dialect
    assert site.watch.opened(opened, dialect) is None
    await site.endpoint.close()


async def test_half_an_emoji_is_embedded_like_any_text(frames: Any, engine: RunningSimulator) -> None:
    """Clients that cut texts by UTF-16 send such; and those that are sent with it are, too."""
    site = Site(frames, engine.url)
    site.number += 1
    site.request("how do I bake \ud83d")
    await site.send(BATCH - 1)
    await site.endpoint.close()
    assert site.store.counter(m.DRIFT_EMBEDDINGS, ("ok",)).value == BATCH
    assert site.faults == []


async def test_more_of_a_prompt_is_looked_at_than_is_sent(frames: Any, engine: RunningSimulator) -> None:
    """Half an address at the cut would not be known for one."""
    site = Site(frames, engine.url)
    looked_at: list[str] = []
    site.embedder._redact = lambda texts: looked_at.extend(texts) or ["x"] * len(texts)
    site.request("x" * (MAX_CHARS - 5) + " ann@example.com" + "y" * 9_000)
    await site.embedder.send()
    await site.endpoint.close()
    (text,) = looked_at
    assert " ann@example.comy" in text
    assert len(text) == LOOKED_AT_CHARS


async def test_a_vote_of_an_engine_of_before_is_not_counted_late(frames: Any, engine: RunningSimulator) -> None:
    """Its embedding comes when another version answers already."""
    asked: list[float] = []
    site = Site(frames, engine.url, ask=lambda: asked.append(site.now_s))
    site.watch.told(site.watch.asking(), Said("0.1", ()))
    await site.send(4)
    (before,) = site.watch.streams
    site.watch.told(site.watch.asking(), Said("0.2", ()))
    await site.embedder.send()
    site.watch.told(site.watch.asking(), Said("0.2", ()))
    await site.endpoint.close()
    (now,) = site.watch.streams
    for followed in (before, now):
        assert followed._words[Direction.PROMPT].texts == 0
        assert followed.meaning is not None
        assert followed.meaning.source == ""
