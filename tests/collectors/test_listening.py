"""Who listens to a request, and the fence around them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.record import RequestRecord
from inferwatch.tap import Open
from inferwatch_collectors import metrics as m
from inferwatch_collectors.booking import Booking
from inferwatch_collectors.cardinality import CardinalityGuard
from inferwatch_collectors.dialects.base import ANSWER, REASONING, TOOL_CALL, Dialect
from inferwatch_collectors.dialects.select import choose
from inferwatch_collectors.fence import Fence
from inferwatch_collectors.listening import PIECES, Audiences
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.quality.tail_cycle import EVERY_PIECES
from inferwatch_collectors.recorder import Recorder

_OPEN: Any = {
    "id": 1, "request_id": "r", "wall_ns": 0, "arrival_ns": 0, "sent_ns": 0, "method": "POST",
    "path": "/v1/chat/completions", "tenant": "acme", "model": "m", "stream": True, "asked_usage": False, "choices": 1,
    "headers": {}, "body": b"", "body_bytes": 0,
}  # fmt: skip


class Memory:
    """Listens to requests of one tenant; `fails` names the call that raises."""

    def __init__(self, tenant: str = "acme", fails: str = "") -> None:
        self.tenant = tenant
        self.fails = fails
        self.prompts: list[str] = []
        self.answers: list[str] = []
        self.pieces: list[tuple[int, int, int]] = []  # of each answer's text: choice, class, how many it is made of
        self.holes = 0
        self.records: list[RequestRecord] = []

    def opened(self, opened: Open, dialect: Dialect) -> "Memory | None":
        self._maybe("opened")
        self.prompts += [piece.text for piece in dialect.prompt(opened.body)]
        return self if opened.tenant == self.tenant else None

    def text(self, stamp_ns: int, choice: int, classes: int, text: str, pieces: int = 1) -> None:
        self._maybe("text")
        self.answers.append(text)
        self.pieces.append((choice, classes, pieces))

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


@pytest.mark.parametrize("relay_dies", [False, True])
def test_a_fault_over_the_last_words_keeps_the_record_from_nobody_else(frames: Any, relay_dies: bool) -> None:
    """What waits is told while the answer is being ended: that is a step of its own, and it has not failed."""
    broken, memory = Memory(fails="text"), Memory()
    room = Room(frames, broken, memory)
    room.apply(
        frames.batch(
            opens=[frames.open(1, body=BODY, stream=True)],
            heads=[frames.head(1, "text/event-stream")],
            reads=[frames.event(1, "Hello", 1, 20)],
        )
    )
    if relay_dies:
        room.booking.left(room.link, frames.base_ns)
    else:
        room.apply(frames.batch(closes=[frames.close(1)]))
    assert memory.answers == ["Hello"]
    assert memory.records == room.records
    assert len(room.records) == 1
    assert broken.records == []
    assert (room.faults("stage0"), room.faults("close")) == (1, 0)


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


def test_no_look_for_a_loop_waits_for_pieces_that_are_not_told_yet() -> None:
    """Else a loop would be known later than its detector says."""
    assert PIECES <= EVERY_PIECES


def test_pieces_are_told_a_few_at_a_time_and_none_is_left_behind(frames: Any) -> None:
    """Before the record is booked all are: whoever takes it then has the whole answer."""
    memory = Memory()
    room = Room(frames, memory)
    count = 2 * PIECES + 3
    room.apply(
        frames.batch(opens=[frames.open(1, body=BODY, stream=True)], heads=[frames.head(1, "text/event-stream")])
    )
    room.apply(frames.batch(reads=[frames.event(1, f"{at} ", at + 1, 20 + at) for at in range(count)]))
    assert memory.pieces == [(0, ANSWER, PIECES)] * 2
    booked: list[int] = []
    room.booking._sink = lambda record: booked.append(len(memory.answers))
    room.apply(frames.batch(closes=[frames.close(1)]))
    assert booked == [3]
    assert memory.pieces[-1] == (0, ANSWER, 3)
    assert "".join(memory.answers) == "".join(f"{at} " for at in range(count))


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.sampled_from([REASONING, ANSWER, TOOL_CALL]), st.sampled_from(["a", "b", "c" * 200])
        ),
        max_size=80,
    )
)
def test_what_a_choice_says_is_told_in_its_order(said: list[tuple[int, int, str]]) -> None:
    """However choices and classes alternate; and no later than a few pieces after it came."""
    memory = Memory()
    audiences = Audiences([("stage", memory)], Fence(lambda stage: None))
    ear = audiences.opened(Open(**_OPEN), choose("POST", "/v1/chat/completions", "", True).dialect)
    assert ear is not None
    for number, (choice, classes, text) in enumerate(said, 1):
        ear.text(number, choice, classes, text)
        assert number - sum(pieces for _, _, pieces in memory.pieces) <= 3 * (PIECES - 1)
        assert text != "c" * 200 or memory.answers[-1].endswith(text)
    ear.ended()
    assert sum(pieces for _, _, pieces in memory.pieces) == len(said)
    for which in range(3):
        came = [(classes, letter) for choice, classes, text in said if choice == which for letter in text]
        told = [
            (classes, letter)
            for (choice, classes, _), text in zip(memory.pieces, memory.answers, strict=True)
            if choice == which
            for letter in text
        ]
        assert came == told
