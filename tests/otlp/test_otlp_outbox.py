"""Whatever the other side does, handing over never waits, and every item is accounted for."""

import threading

import pytest

from inferwatch_collectors.otlp.outbox import Outbox


def box(send: object, **changes: float) -> Outbox[int]:
    sizes = {"max_items": 10, "batch_items": 4, "delay_s": 0.01, "max_bytes": 1000} | changes
    return Outbox("test", send, **sizes)  # type: ignore[arg-type]


def test_items_arrive_in_order_and_in_batches() -> None:
    """No batch is larger than asked for, nothing is lost on the way, and what waits is sent at the end."""
    batches: list[list[int]] = []
    outbox = box(lambda batch: batches.append(batch) or True)
    for number in range(10):
        assert outbox.put(number, 1)

    outbox.start()
    outbox.close(10)

    assert [each for batch in batches for each in batch] == list(range(10))
    assert max(map(len, batches)) <= 4
    assert (outbox.exported, outbox.failed, outbox.dropped, outbox.queued) == (10, 0, 0, 0)


def test_what_does_not_fit_is_dropped_and_counted() -> None:
    """By number and by size, while the endpoint hangs."""
    let_go = threading.Event()
    taken = threading.Event()

    def hang(batch: list[int]) -> bool:
        taken.set()
        return let_go.wait(20)

    outbox = box(hang, max_items=5, batch_items=1, delay_s=0)
    outbox.start()
    outbox.put(0, 1)
    assert taken.wait(10)

    assert [outbox.put(number, 300) for number in range(1, 6)] == [True, True, True, False, False]
    assert outbox.dropped == 2
    let_go.set()
    outbox.close(10)
    assert outbox.exported == 4


@pytest.mark.parametrize("failure", [lambda batch: False, lambda batch: 1 / 0], ids=["refuses", "raises"])
def test_the_thread_outlives_failures(failure: object) -> None:
    """An endpoint that refuses, and a fault of ours, cost that batch; the next one goes out."""
    answers = iter([failure, failure, lambda batch: True])
    outbox = box(lambda batch: next(answers)(batch), batch_items=1, delay_s=0)
    for number in range(3):
        outbox.put(number, 1)

    outbox.start()
    outbox.close(10)

    assert (outbox.failed, outbox.exported) == (2, 1)


def test_closing_does_not_wait_for_an_endpoint_that_hangs() -> None:
    """The thread is left behind, and takes nothing more."""
    forever = threading.Event()
    outbox = box(lambda batch: forever.wait(20), batch_items=1)
    outbox.start()
    outbox.put(1, 1)

    outbox.close(0.05)

    assert not outbox.put(2, 1)
    assert outbox.exported == 0
    forever.set()


def test_one_that_was_never_started_can_be_closed() -> None:
    """A collector that fails at its start closes what it has."""
    box(lambda batch: True).close(0.1)
