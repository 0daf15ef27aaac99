"""Where the time of one request went: phases that never overlap and leave nothing out."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.record import Outcome, RequestRecord, TimingSource
from inferwatch_collectors.dialects.timings import NO_TIMINGS, EngineTimings
from inferwatch_collectors.phases import PHASES, Clocks, Phase, divide, of, spent

MS = 1_000_000
BODY = TimingSource.ENGINE_BODY


def engine(**seconds: float) -> EngineTimings:
    return EngineTimings(BODY, **seconds)


def clocks(duration_ms: int, **changes: Any) -> Clocks:
    """A request that was with the engine from the second millisecond on."""
    fields = {"sent_ns": 2 * MS} | {
        name.replace("_ms", "_ns"): value * MS if name.endswith("_ms") and value is not None else value
        for name, value in changes.items()
    }
    return Clocks(duration_ns=duration_ms * MS, **fields)


CASES: dict[str, tuple[Clocks, EngineTimings, dict[str, int]]] = {
    "a stream, by our clocks alone": (
        clocks(100, first_token_ms=30),
        NO_TIMINGS,
        {"proxy": 2, "wait": 28, "decode": 70, "engine": 0, "client": 0},
    ),
    "a stream whose engine tells all": (
        clocks(100, first_token_ms=30),
        engine(queue_s=0.010, prefill_s=0.015, decode_s=0.065),
        {"proxy": 2, "queue": 10, "prefill": 15, "decode": 65, "engine": 8, "client": 0},
    ),
    "an engine that tells its prefill but not its queue": (
        clocks(100, first_token_ms=30),
        engine(prefill_s=0.020, decode_s=0.070),
        {"proxy": 2, "prefill": 20, "decode": 70, "engine": 8, "client": 0},
    ),
    "the engine says more than there was": (
        clocks(100, first_token_ms=30),
        engine(queue_s=0.020, prefill_s=0.020, decode_s=0.500),
        {"proxy": 2, "queue": 20, "prefill": 8, "decode": 70, "engine": 0, "client": 0},
    ),
    "a client that reads slowly": (
        clocks(100, first_token_ms=30, stalled_ms=40),
        NO_TIMINGS,
        {"proxy": 2, "wait": 28, "decode": 30, "engine": 0, "client": 40},
    ),
    "a client that read nothing but the first event": (
        clocks(100, first_token_ms=30, stalled_ms=80),
        NO_TIMINGS,
        {"proxy": 2, "wait": 18, "decode": 0, "engine": 0, "client": 80},
    ),
    "a plain reply, by our clocks alone": (clocks(100), NO_TIMINGS, {"proxy": 2, "engine": 98, "client": 0}),
    "a plain reply whose engine tells all": (
        clocks(100, stalled_ms=5),
        engine(queue_s=0.010, prefill_s=0.015, decode_s=0.060),
        {"proxy": 2, "queue": 10, "prefill": 15, "decode": 60, "engine": 8, "client": 5},
    ),
    "a plain reply of an engine that does not part prefill and decode": (
        clocks(100),
        engine(queue_s=0.010, inference_s=0.080),
        {"proxy": 2, "queue": 10, "inference": 80, "engine": 8, "client": 0},
    ),
    "a stream that was given up before its first token": (
        clocks(100, waited_in_vain=True),
        NO_TIMINGS,
        {"proxy": 2, "wait": 98, "engine": 0, "client": 0},
    ),
    "never with the engine": (clocks(7, sent_ns=None), NO_TIMINGS, {"proxy": 7}),
    "a first token before the request was sent to its end": (
        clocks(100, first_token_ms=1),
        NO_TIMINGS,
        {"proxy": 2, "wait": 0, "decode": 98, "engine": 0, "client": 0},
    ),
}


@pytest.mark.parametrize(("given_clocks", "timings", "expected_ms"), CASES.values(), ids=CASES.keys())
def test_phases(given_clocks: Clocks, timings: EngineTimings, expected_ms: dict[str, int]) -> None:
    """Each phase has what is known to be its own; what cannot be told apart is not split."""
    assert divide(given_clocks, timings).known() == {name: ms * MS for name, ms in expected_ms.items()}


NS = st.integers(0, 10**13)
SECONDS = st.none() | st.floats(0, 1e5)


@given(
    st.builds(
        Clocks,
        duration_ns=NS,
        sent_ns=st.none() | NS,
        first_token_ns=st.none() | NS,
        stalled_ns=NS,
        waited_in_vain=st.booleans(),
    ),
    st.builds(
        EngineTimings,
        st.sampled_from(TimingSource),
        queue_s=SECONDS,
        prefill_s=SECONDS,
        decode_s=SECONDS,
        inference_s=SECONDS,
    ),
)
def test_phases_sum_to_the_duration(given_clocks: Clocks, timings: EngineTimings) -> None:
    """To the nanosecond, whatever the clocks and the engine say; and no phase is negative or told twice."""
    known = divide(given_clocks, timings).known()
    assert sum(known.values()) == given_clocks.duration_ns
    assert min(known.values()) >= 0
    assert not ("wait" in known and known.keys() & {"queue", "prefill"})
    assert not ("inference" in known and known.keys() & {"prefill", "decode"})


@given(NS, NS, st.none() | NS, NS)
def test_a_record_keeps_its_nanoseconds(duration_ns: int, sent_ns: int, first_ns: int | None, stalled_ns: int) -> None:
    """A record's seconds are floats; its phases sum to the nanoseconds from which its duration was made."""
    record = RequestRecord(
        request_id="r", wall_ns=1, tenant="t", model="m", operation="chat", route="/", method="POST", stream=True,
        outcome=Outcome.OK, status=200, duration_s=duration_ns / 1e9, sent_s=sent_ns / 1e9,
        ttft_s=None if first_ns is None else first_ns / 1e9, stalled_s=stalled_ns / 1e9,
    )  # fmt: skip
    assert sum(of(record).known().values()) == duration_ns


@given(
    NS,
    st.none() | NS,
    st.none() | NS,
    st.just(0) | NS,
    st.sampled_from(("", "client_abort", "tap_gap")),
    st.sampled_from(TimingSource),
    SECONDS,
)
def test_what_is_counted_is_what_is_told_by_name(
    duration_ns: int,
    sent_ns: int | None,
    first_ns: int | None,
    stalled_ns: int,
    missing: str,
    source: TimingSource,
    queue_s: float | None,
) -> None:
    """The short way for plain replies gives what the long way gives, whatever the record."""
    record = RequestRecord(
        request_id="r", wall_ns=1, tenant="t", model="m", operation="chat", route="/", method="POST", stream=False,
        outcome=Outcome.OK, status=200, duration_s=duration_ns / 1e9, sent_s=None if sent_ns is None else sent_ns / 1e9,
        ttft_s=None if first_ns is None else first_ns / 1e9, stalled_s=stalled_ns / 1e9, first_token_missing=missing,
        timing_source=source, queue_s=queue_s,
    )  # fmt: skip
    assert {PHASES[place]: spent_ns for place, spent_ns in spent(record)} == of(record).known()


def test_a_records_own_times_are_used(frames: Any) -> None:
    """What the engine said is in the record, and divides its time."""
    fields = {"sent_s": 0.1, "timing_source": BODY, "queue_s": 0.2, "prefill_s": 0.05, "decode_s": 0.1}
    phases = of(frames.record(1, **fields))
    assert phases.source is BODY
    assert phases.known() == {
        name: ms * MS
        for name, ms in {"proxy": 100, "queue": 200, "prefill": 50, "decode": 100, "engine": 50, "client": 0}.items()
    }


def test_who_gave_up_waiting_has_waited(frames: Any) -> None:
    """A stream that the client left before its first token spent its time waiting for one."""
    record = frames.record(1, sent_s=0.1, stream=True, first_token_missing="client_abort")
    assert of(record).known()["wait"] == 400 * MS
    assert "wait" not in of(frames.record(1, sent_s=0.1, stream=True, first_token_missing="tap_gap")).known()


def test_the_names_are_those_of_the_label() -> None:
    """Names of phases are public: label values and keys of the request log."""
    assert PHASES == ("proxy", "queue", "prefill", "wait", "decode", "inference", "engine", "client")
    assert tuple(Phase) == PHASES
