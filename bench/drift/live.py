"""What hearing costs the collector live: from a relay's frames to the booked request, with all off, and each part on.

A prompt and an answer of 2 kB, in 512 events or fewer, of streams that run side by side: a batch of the tap has a few
events of each, as at 50 tokens a second. Each request votes, and the reference is pinned: it is judged.
"""

import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Final

from bench.drift.corpora import texts

from inferwatch import tap
from inferwatch.record import RequestRecord
from inferwatch.settings.drift import Drift
from inferwatch.settings.quality import Quality
from inferwatch.tap import Batch, Close, Head, Hello, Open
from inferwatch_collectors.booking import Booking
from inferwatch_collectors.cardinality import CardinalityGuard
from inferwatch_collectors.drift.watch import DriftWatch
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.metrics import TABLE
from inferwatch_collectors.quality.watch import QualityWatch
from inferwatch_collectors.recorder import Recorder

BYTES: Final = 2_048
SECRET: Final = b"a key of the benchmark"
EVENT: Final = (
    b'data: {"id":"chatcmpl-b0070001","object":"chat.completion.chunk","created":1760000000,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":%b},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":512,'
    b'"total_tokens":%d,"completion_tokens":%d}}\n\n'
)
FINISH: Final = (
    b'data: {"id":"chatcmpl-b0070001","object":"chat.completion.chunk","created":1760000000,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"stop","stop_reason":null}]}\n\n'
    b"data: [DONE]\n\n"
)
# Side by side, and what of each is in a batch: 100 ms of 50 tokens a second.
STREAMS: Final = 10
BATCH_EVENTS: Final = 5
LEARNT: Final = 1_000
MEASURED: Final = 200
ROUNDS: Final = 3
EVENTS: Final = (512, 128, 32)  # that an answer comes in
S_TO_NS: Final = 1_000_000_000


class Site:
    """A collector's parts that take what a relay mirrors."""

    def __init__(self, *, text: bool, listen: bool) -> None:
        store, self.booked = MetricStore(TABLE), 0
        recorder = Recorder(store, CardinalityGuard())
        settings = Drift(text=text, votes_per_hour=360_000, reference_requests_min=LEARNT, reference_hours=1_000)
        self.drift = DriftWatch(store, recorder.guard, settings, secret=SECRET)
        quality = QualityWatch(store, recorder.guard, Quality(listen=listen), secret=SECRET)
        self._booking = Booking(
            recorder,
            self._count,
            watchers=(("drift", self.drift.record), ("quality", quality.record)),
            audiences=(("drift", self.drift), *((("quality", quality),) if listen else ())),
        )
        self._link = self._booking.connect(Hello(tap.PROTOCOL_VERSION, 0, 1, "b007"), 0)
        self._frames = tap.collector_side()
        self._now_s = 0.0

    def _count(self, record: RequestRecord) -> None:
        self.booked += record.completion_tokens is not None

    def take(self, messages: list[bytes]) -> float:
        """Return the seconds of CPU that some batches take."""
        self._now_s += STREAMS
        self.drift.tick(self._now_s, 1.76e9 + self._now_s)
        began = time.process_time()
        for message in messages:
            for batch in self._frames.feed(message):
                assert isinstance(batch, Batch)
                for _ in self._booking.apply(self._link, batch, set(), 0):
                    pass
        return time.process_time() - began


def live(say: Callable[[str], None] = print) -> None:
    """Print CPU per request by what is on, and how many events an answer comes in."""
    rng = random.Random(1)
    whole = "\n\n".join(texts("English manual pages"))
    said = [whole[start : start + BYTES] for start in range(0, len(whole) - BYTES, BYTES)]
    say("\nA request with a prompt and an answer of 2 kB, from frame to record, CPU in µs; each votes:\n")
    say("| events | all off | drift.text | quality.listen | both | both take more |\n|---|---|---|---|---|---|")
    numbers = iter(range(1, 1_000_000_000))
    for events in EVENTS:
        sites = [Site(text=text, listen=listen) for listen in (False, True) for text in (False, True)]
        for site in sites:  # from such requests as are measured: nothing drifts
            while not site.drift.pin("m", "t")[0]:
                site.take(list(_requests(rng, said, events, numbers)))
            site.booked = 0
        best = [1e9] * len(sites)
        for _ in range(ROUNDS):
            for place, site in enumerate(sites):
                spent = sum(site.take(list(_requests(rng, said, events, numbers))) for _ in range(MEASURED // STREAMS))
                best[place] = min(best[place], spent / MEASURED * 1e6)
        say(f"| {events} | {' | '.join(f'{each:.0f}' for each in best)} | {best[-1] - best[0]:.0f} |")
        assert {site.booked for site in sites} == {ROUNDS * MEASURED}


def _requests(rng: random.Random, said: list[str], events: int, numbers: Iterator[int]) -> Iterator[bytes]:
    """Yield the frames of STREAMS requests that run side by side."""
    opens, heads, streams, closes = [], [], [], []
    for _ in range(STREAMS):
        number = next(numbers)
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": rng.choice(said)}]}).encode()
        arrival_ns = number * S_TO_NS
        opens.append(_open(number, arrival_ns, body))
        heads.append(Head(number, arrival_ns + 10, 200, {"content-type": "text/event-stream"}))
        answer, size = rng.choice(said), -(-BYTES // events)
        stream = [
            EVENT % (json.dumps(answer[start : start + size]).encode(), 513 + at, 1 + at)
            for at, start in enumerate(range(0, len(answer), size))
        ]
        streams.append([(number, arrival_ns + 20 * at, data) for at, data in enumerate([*stream, FINISH])])
        closes.append(
            Close(
                id=number, stamp_ns=arrival_ns + S_TO_NS // 2, outcome="ok", error="", status=200, reads=events + 1,
                head_ns=arrival_ns + 10, first_body_ns=arrival_ns + 20, last_body_ns=arrival_ns + S_TO_NS // 4,
            )
        )  # fmt: skip
    yield tap.encode(Batch(0, opens, heads, [], []))
    for start in range(0, events + 1, BATCH_EVENTS):
        yield tap.encode(
            Batch(1, [], [], [read for reads in streams for read in reads[start : start + BATCH_EVENTS]], [])
        )
    yield tap.encode(Batch(2, [], [], [], closes))


def _open(number: int, arrival_ns: int, body: bytes) -> Open:
    return Open(
        id=number, request_id=f"b007{number:08x}", wall_ns=arrival_ns, arrival_ns=arrival_ns, sent_ns=arrival_ns,
        method="POST", path="/v1/chat/completions", tenant="t", model="m", stream=True, asked_usage=False, choices=1,
        headers={}, body=body, body_bytes=len(body),
    )  # fmt: skip


if __name__ == "__main__":
    live()
