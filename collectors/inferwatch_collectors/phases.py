"""Where the time of one request went: its duration, cut into phases that never overlap and leave nothing out.

Pure arithmetic on the relay's stamps and, where the engine tells them, its own times. The relay's clock decides how
long everything took; the engine's numbers only divide what lies between two stamps, and are cut where they are longer.

    arrival ── proxy ── sent ──── queue, prefill ──── first token ──── decode ──── end
                             └── wait, if not told apart         └── client, while it did not read

* Without the engine's numbers nobody outside can tell waiting in its queue from prefill: together they are `wait`.
* A plain reply comes all at once. Without the engine's numbers all of its time is `engine`.
* `engine` is also what remains: the time with the engine that neither a stamp nor the engine accounts for. It is its
  HTTP server, tokenising, the way there and back; and where an engine tells its prefill but not its queue, the queue.
* Time for which the client's socket was full is the client's, though the engine may have gone on meanwhile. It is taken
  from behind the first token, since before that there was nothing to be read.

In nanoseconds, as integers, so that the sum is the duration exactly.
"""

import enum
from typing import Final

import msgspec

from inferwatch.record import RequestRecord, TimingSource
from inferwatch_collectors.dialects.timings import EngineTimings


class Phase(enum.StrEnum):
    """Values of the label `phase`, in the order of time."""

    PROXY = "proxy"
    QUEUE = "queue"
    PREFILL = "prefill"
    WAIT = "wait"  # queue and prefill, not told apart
    DECODE = "decode"
    INFERENCE = "inference"  # prefill and decode, not told apart
    ENGINE = "engine"  # with the engine, otherwise not accounted for
    CLIENT = "client"


PHASES: Final = tuple(phase.value for phase in Phase)

_PROXY: Final = PHASES.index(Phase.PROXY)
_ENGINE: Final = PHASES.index(Phase.ENGINE)
_CLIENT: Final = PHASES.index(Phase.CLIENT)

_NO_SOURCE: Final = TimingSource.NONE
_NOT_TIMED: Final = EngineTimings()

# How a stream ends that never had a first token, where all its time was spent waiting for one.
WAITED_IN_VAIN: Final = frozenset({"client_abort", "timeout", "upstream_error", "error_event", "interrupted"})


class Clocks(msgspec.Struct, frozen=True, kw_only=True):
    """One request's stamps, in nanoseconds from its arrival. They may contradict each other: then the earlier wins."""

    duration_ns: int
    sent_ns: int | None = None  # None: it never was with the engine
    first_token_ns: int | None = None
    stalled_ns: int = 0
    waited_in_vain: bool = False  # no first token came, and it was awaited to the end


class Phases(msgspec.Struct, frozen=True, kw_only=True):
    """Nanoseconds of each phase; None is unknown, or not told apart. Their sum is the duration."""

    proxy_ns: int
    queue_ns: int | None = None
    prefill_ns: int | None = None
    wait_ns: int | None = None
    decode_ns: int | None = None
    inference_ns: int | None = None
    engine_ns: int | None = None
    client_ns: int | None = None
    source: TimingSource = TimingSource.NONE

    def in_order(self) -> tuple[int | None, ...]:
        """Return the nanoseconds of all phases, in the order of PHASES."""
        return (
            self.proxy_ns,
            self.queue_ns,
            self.prefill_ns,
            self.wait_ns,
            self.decode_ns,
            self.inference_ns,
            self.engine_ns,
            self.client_ns,
        )

    def known(self) -> dict[str, int]:
        """Return the nanoseconds of each known phase, by its name."""
        return {name: spent_ns for name, spent_ns in zip(PHASES, self.in_order(), strict=True) if spent_ns is not None}


# (place in PHASES, nanoseconds) of each known phase.
Spent = tuple[tuple[int, int], ...]

# What `spent` answered last. A record is asked about twice in a row: by its metrics, and by its line in the log.
_latest: tuple[RequestRecord | None, Spent] = (None, ())


def of(record: RequestRecord) -> Phases:
    """Return the phases of a finished request."""
    return _divided(record)


def spent(record: RequestRecord) -> Spent:
    """Return the known phases of a finished request. They are those of `of`, for each request that is booked."""
    global _latest
    if _latest[0] is not record:
        _latest = (record, _at_once(record) or _known(_divided(record)))
    return _latest[1]


def _at_once(record: RequestRecord) -> Spent | None:
    """Return what `divide` makes of most plain replies, in a fraction of its time; None for all others."""
    if record.sent_s is None or record.ttft_s is not None or record.stalled_s or record.first_token_missing:
        return None
    if record.timing_source is not _NO_SOURCE:
        return None
    duration_ns, proxy_ns = _ns(record.duration_s), _ns(record.sent_s)
    if not 0 <= proxy_ns <= duration_ns:
        return None
    return ((_PROXY, proxy_ns), (_ENGINE, duration_ns - proxy_ns), (_CLIENT, 0))


def _known(phases: Phases) -> Spent:
    return tuple((place, spent_ns) for place, spent_ns in enumerate(phases.in_order()) if spent_ns is not None)


def _divided(record: RequestRecord) -> Phases:
    return divide(
        Clocks(
            duration_ns=_ns(record.duration_s),
            sent_ns=None if record.sent_s is None else _ns(record.sent_s),
            first_token_ns=None if record.ttft_s is None else _ns(record.ttft_s),
            stalled_ns=_ns(record.stalled_s),
            waited_in_vain=record.first_token_missing in WAITED_IN_VAIN,
        ),
        _NOT_TIMED
        if record.timing_source is _NO_SOURCE
        else EngineTimings(record.timing_source, record.queue_s, record.prefill_s, record.decode_s, record.inference_s),
    )


def divide(clocks: Clocks, engine: EngineTimings) -> Phases:
    """Divide a duration among its phases."""
    duration_ns = max(0, clocks.duration_ns)
    if clocks.sent_ns is None:
        return Phases(proxy_ns=duration_ns)
    proxy_ns = min(max(0, clocks.sent_ns), duration_ns)
    if clocks.first_token_ns is None:
        return _undivided(clocks, engine, proxy_ns, duration_ns - proxy_ns)
    first_ns = min(max(proxy_ns, clocks.first_token_ns), duration_ns)
    return _streamed(clocks, engine, proxy_ns, first_ns - proxy_ns, duration_ns - first_ns)


def _streamed(clocks: Clocks, engine: EngineTimings, proxy_ns: int, before_ns: int, after_ns: int) -> Phases:
    """Divide the time before the first token and the time after it, each for itself."""
    stalled_ns = max(0, clocks.stalled_ns)
    stalled_after_ns = min(stalled_ns, after_ns)
    stalled_before_ns = min(stalled_ns - stalled_after_ns, before_ns)
    before_ns -= stalled_before_ns
    after_ns -= stalled_after_ns
    queue_ns, rest_ns = _take(engine.queue_s, before_ns)
    prefill_ns, rest_ns = _take(engine.prefill_s, rest_ns)
    wait_ns = None
    if queue_ns is None and prefill_ns is None:
        wait_ns, rest_ns = before_ns, 0
    decode_ns, late_ns = _take(engine.decode_s, after_ns)
    if decode_ns is None:
        decode_ns, late_ns = after_ns, 0
    return Phases(
        proxy_ns=proxy_ns,
        queue_ns=queue_ns,
        prefill_ns=prefill_ns,
        wait_ns=wait_ns,
        decode_ns=decode_ns,
        engine_ns=rest_ns + late_ns,
        client_ns=stalled_before_ns + stalled_after_ns,
        source=engine.source,
    )


def _undivided(clocks: Clocks, engine: EngineTimings, proxy_ns: int, window_ns: int) -> Phases:
    """Divide the time of a plain reply, or of a stream without a first token: only the engine can."""
    client_ns = min(max(0, clocks.stalled_ns), window_ns)
    rest_ns = window_ns - client_ns
    if engine.source is _NO_SOURCE and not clocks.waited_in_vain:  # most plain replies: at once what comes out below
        return Phases(proxy_ns=proxy_ns, engine_ns=rest_ns, client_ns=client_ns)
    queue_ns, rest_ns = _take(engine.queue_s, rest_ns)
    prefill_ns, rest_ns = _take(engine.prefill_s, rest_ns)
    decode_ns, rest_ns = _take(engine.decode_s, rest_ns)
    apart = prefill_ns is not None or decode_ns is not None
    inference_ns, rest_ns = (None, rest_ns) if apart else _take(engine.inference_s, rest_ns)
    wait_ns = None
    if clocks.waited_in_vain and queue_ns is None and not apart and inference_ns is None:
        wait_ns, rest_ns = rest_ns, 0
    return Phases(
        proxy_ns=proxy_ns,
        queue_ns=queue_ns,
        prefill_ns=prefill_ns,
        wait_ns=wait_ns,
        decode_ns=decode_ns,
        inference_ns=inference_ns,
        engine_ns=rest_ns,
        client_ns=client_ns,
        source=engine.source,
    )


def _take(wanted_s: float | None, available_ns: int) -> tuple[int | None, int]:
    """Return what of `available_ns` is taken for `wanted_s`, and what is left."""
    if wanted_s is None:
        return None, available_ns
    taken_ns = min(max(0, _ns(wanted_s)), available_ns)
    return taken_ns, available_ns - taken_ns


def _ns(seconds: float) -> int:
    """Return whole nanoseconds. A float keeps them exactly for 104 days."""
    return round(seconds * 1e9)
