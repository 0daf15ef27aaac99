"""Drift in the collector: what a relay mirrors becomes a vote, with texts if they are asked for."""

from typing import Any

from inferwatch.record import RequestRecord
from inferwatch.settings.drift import Drift
from inferwatch_collectors import metrics as m
from inferwatch_collectors.booking import Booking
from inferwatch_collectors.cardinality import CardinalityGuard
from inferwatch_collectors.drift.watch import DriftWatch
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.recorder import Recorder

BODY = b'{"model":"qwen","messages":[{"role":"user","content":"How are you today, and what is it like there?"}]}'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
KEY = ("qwen", "acme")


def heard(frames: Any, settings: Drift) -> tuple[MetricStore, DriftWatch]:
    """Book one streamed request."""
    store = MetricStore()
    recorder = Recorder(store, CardinalityGuard())
    watch = DriftWatch(store, recorder.guard, settings, secret=b"a secret of the installation")
    records: list[RequestRecord] = []
    booking = Booking(
        recorder,
        records.append,
        watchers=(("drift", watch.record),),
        audiences=(("drift", watch),),
    )
    watch.tick(1.0, 1.76e9)
    link = booking.connect(frames.hello(), frames.base_ns)
    batch = frames.batch(
        opens=[frames.open(1, body=BODY, stream=True)],
        heads=[frames.head(1, "text/event-stream")],
        reads=[
            frames.event(1, "I am sorry, but ", 1, 20),
            frames.event(1, "I cannot say.", 2, 40),
            frames.read(1, FINISH),
        ],
        closes=[frames.close(1)],
    )
    for _ in booking.apply(link, batch, set(), frames.base_ns):
        pass
    assert len(records) == 1
    assert store.counter(m.COLLECTOR_OBSERVER_ERRORS, ("drift",)).value == 0
    watch.refresh()
    return store, watch


def test_a_finished_request_votes_by_its_record(frames: Any) -> None:
    """Without texts: the watcher alone."""
    store, watch = heard(frames, Drift())
    assert not watch.listens
    assert store.gauge(m.DRIFT_REFERENCE_VOTES, KEY).value == 1
    assert [each.state for each in watch.report().streams] == ["learning"]


def test_with_texts_it_is_heard_and_votes_once(frames: Any) -> None:
    """The first votes teach the trigrams; the record alone is not counted beside."""
    store, watch = heard(frames, Drift(text=True))
    assert store.gauge(m.DRIFT_REFERENCE_VOTES, KEY).value == 0
    (followed,) = watch.streams
    assert [words.texts for words in followed._words.values()] == [1, 1]
