"""Who listens to a request, and the fence around them."""

from typing import Any

import pytest

from inferwatch.record import RequestRecord
from inferwatch.tap import Open
from inferwatch_collectors import metrics as m
from inferwatch_collectors.booking import Booking
from inferwatch_collectors.cardinality import CardinalityGuard
from inferwatch_collectors.dialects.base import Dialect
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.recorder import Recorder


class Memory:
    """Listens to requests of one tenant; `fails` names the call that raises."""

    def __init__(self, tenant: str = "acme", fails: str = "") -> None:
        self.tenant = tenant
        self.fails = fails
        self.prompts: list[str] = []
        self.answers: list[str] = []
        self.holes = 0
        self.records: list[RequestRecord] = []

    def opened(self, opened: Open, dialect: Dialect) -> "Memory | None":
        self._maybe("opened")
        self.prompts += [piece.text for piece in dialect.prompt(opened.body)]
        return self if opened.tenant == self.tenant else None

    def text(self, stamp_ns: int, choice: int, classes: int, text: str) -> None:
        self._maybe("text")
        self.answers.append(text)

    def missing(self) -> None:
        self.holes += 1

    def closed(self, record: RequestRecord) -> None:
        self._maybe("closed")
        self.records.append(record)

    def _maybe(self, call: str) -> None:
        if self.fails == call:
            raise RuntimeError(call)


class Room:
    """A booking with an audience."""

    def __init__(self, frames: Any, *audiences: Memory) -> None:
        self.store = MetricStore()
        self.records: list[RequestRecord] = []
        staged = [(f"stage{i}", audience) for i, audience in enumerate(audiences)]
        recorder = Recorder(self.store, CardinalityGuard())
        self.booking = Booking(recorder, self.records.append, audiences=staged)
        self.frames = frames
        self.link = self.booking.connect(frames.hello(), frames.base_ns)

    def apply(self, batch: Any) -> None:
        for _ in self.booking.apply(self.link, batch, set(), self.frames.base_ns):
            pass

    def faults(self, stage: str) -> float:
        return self.store.counter(m.COLLECTOR_OBSERVER_ERRORS, (stage,)).value


BODY = b'{"model":"qwen","messages":[{"role":"user","content":"Hi"}]}'


def stream(frames: Any) -> Any:
    """A batch with one streamed request."""
    return frames.batch(
        opens=[frames.open(1, body=BODY, stream=True)],
        heads=[frames.head(1, "text/event-stream")],
        reads=[frames.event(1, "Hel", 1, 20), frames.read(1, b""), frames.event(1, "lo", 2, 40)],
        closes=[frames.close(1)],
    )


def test_a_listener_hears_all_and_gets_the_record(frames: Any) -> None:
    """Prompt, answer with its holes, and what was booked."""
    memory = Memory()
    room = Room(frames, memory)
    room.apply(stream(frames))
    assert (memory.prompts, memory.answers, memory.holes) == (["Hi"], ["Hel", "lo"], 1)
    assert memory.records == room.records


def test_who_is_not_interested_hears_nothing(frames: Any) -> None:
    """Each chooses for itself."""
    memory, other = Memory(), Memory(tenant="nobody")
    room = Room(frames, other, memory)
    room.apply(stream(frames))
    assert (other.answers, other.records) == ([], [])
    assert memory.answers == ["Hel", "lo"]


@pytest.mark.parametrize("call", ["opened", "text", "closed"])
def test_a_fault_of_one_costs_only_what_it_would_have_heard(frames: Any, call: str) -> None:
    """It is counted once under its stage; the other hears on, and the request is booked in full."""
    broken, memory = Memory(fails=call), Memory()
    room = Room(frames, broken, memory)
    room.apply(stream(frames))
    assert memory.answers == ["Hel", "lo"]
    assert memory.records == room.records
    assert [record.completion_tokens for record in room.records] == [3]
    assert (room.faults("stage0"), room.faults("stage1")) == (1, 0)


def test_a_request_of_a_dead_relay_is_heard_to_its_end(frames: Any) -> None:
    """It gets its record, too."""
    memory = Memory()
    room = Room(frames, memory)
    room.apply(
        frames.batch(opens=[frames.open(1, body=BODY, stream=True)], heads=[frames.head(1, "text/event-stream")])
    )
    room.apply(frames.batch(reads=[frames.event(1, "Hel", 1, 20)]))
    room.booking.left(room.link, frames.base_ns)
    assert [record.outcome for record in memory.records] == ["interrupted"]
    assert memory.answers == ["Hel"]
