"""Agent loops: a program talks to the model, step after step, each prompt longer than the one before, and never stops.

No content is looked at, so a loop is inferred. A run is a row of requests of one session (or, where clients send none,
of one user), each larger in bytes than the one before and sent within GAP_S of the end of its answer: faster than
people read and write. Much smaller requests in between (an agent's side errands) are passed over; a request that is
not larger ends the run. Requests with neither a session nor a user are not looked at.

Agents work just so, and most stop after a while. Unusual is a run longer than the tenant's own: bets begin at the
length that 99 in 100 of its runs do not reach, and c (see `runs`) is what its long runs showed.

Pure.
"""

from array import array
from math import inf
from typing import Final

import msgspec

from inferwatch.record import RequestRecord
from inferwatch_collectors.anomalies.evidence import Signal
from inferwatch_collectors.anomalies.requests import smallest_of, step_of
from inferwatch_collectors.anomalies.runs import Habit, HabitState, Run, Runs

AGENT_LOOP: Final = "agent_loop"

# A tool call takes seconds; a person needs longer to read an answer and write the next question.
GAP_S: Final = 30.0
# Clocks of two processes, and a client that asks while the last bytes of an answer are under way.
OVERLAP_S: Final = 1.0

# Half of the run's last size, and smaller, is another errand.
ERRAND_SHARE: Final = 0.5

# No run shorter than this is unusual: ordinary agents take some twenty steps for a task.
LEAST_STEPS: Final = 20
LONG_SHARE: Final = 0.99

# Fewer runs (single requests are runs of length 1) do not show how long they usually are.
MIN_RUNS: Final = 200
JUDGED_RUNS: Final = 500  # and it takes more until it is seen how the long ones go on
# Above this all counts are halved.
MAX_ENDED: Final = 16_384
LENGTH_STEPS: Final = 44  # quarter octaves: up to 4,096 requests
_MAX_LENGTH: Final = 4095

# Before a tenant has shown it: a run that is longer than most goes on for another ten steps. A few of its own outweigh
# this.
CHANCE: Final = 0.9
PRIOR: Final = 10.0

SWEEP: Final = 256
NS_PER_S: Final = 1_000_000_000

_Key = tuple[str, str]


class LengthsState(msgspec.Struct, array_like=True):
    """What is written down of `Lengths`."""

    counts: bytes
    habit: HabitState


class Lengths:
    """How long one tenant's runs are."""

    __slots__ = ("_counts", "_ended", "begin", "habit")

    def __init__(self, now_s: float) -> None:
        self.habit = Habit(now_s, CHANCE, PRIOR)
        self._counts = array("H", bytes(2 * LENGTH_STEPS))
        self._ended = 0
        self.begin = _MAX_LENGTH

    @property
    def judged(self) -> bool:
        """Whether there is enough history."""
        return self._ended >= JUDGED_RUNS

    def ended(self, steps: int) -> None:
        """A run is over."""
        self._counts[step_of(min(steps, _MAX_LENGTH))] += 1
        self._ended += 1
        if self._ended >= MAX_ENDED:
            self._counts = array("H", [count >> 1 for count in self._counts])
            self._ended = sum(self._counts)
        if self._ended % MIN_RUNS == 0:
            self._look()

    def _look(self) -> None:
        below, step = 0, 0
        while step < LENGTH_STEPS - 1 and (below := below + self._counts[step]) < LONG_SHARE * self._ended:
            step += 1
        self.begin = max(LEAST_STEPS, smallest_of(step + 1))

    def state(self) -> LengthsState:
        """Return it to be written down."""
        return LengthsState(self._counts.tobytes(), self.habit.state())

    def resume(self, state: LengthsState) -> None:
        """Take up what was written down.

        Raises:
            ValueError: it was written by another version, or is damaged.
        """
        if len(state.counts) != 2 * LENGTH_STEPS:
            raise ValueError(f"lengths of {len(state.counts)} bytes")
        self._counts = array("H", state.counts)
        self._ended = sum(self._counts)
        if self._ended > 2 * MAX_ENDED:  # an older version had more; with the next run they are halved
            raise ValueError(f"{self._ended} runs, expected no more than {2 * MAX_ENDED}")
        self.habit.resume(state.habit)
        if self._ended >= MIN_RUNS:
            self._look()


class Loops:
    """The sessions of all tenants."""

    def __init__(self) -> None:
        self.runs: Runs[_Key, _LoopRun] = Runs()

    def take(
        self, record: RequestRecord, label: str, lengths: Lengths, now_s: float, bar_weeks: float
    ) -> Signal | None:
        """Take a request of the tenant `label` that ended at `now_s`. Return a signal that begins with it."""
        who = record.session or record.user
        size = record.request_bytes
        if not who or not size:
            return None
        key = (label, who)
        run = self.runs.get(key)
        if run is not None:
            pause_ns = record.wall_ns - run.mark_ns
            in_time = -OVERLAP_S * NS_PER_S <= pause_ns <= GAP_S * NS_PER_S
            if in_time and size < ERRAND_SHARE * run.size:
                return None
            if in_time and size > run.size:
                return self._step(run, record, now_s, bar_weeks if lengths.judged else inf)
        self.runs.begin(key, _LoopRun(record, lengths, now_s))
        return None

    def _step(self, run: "_LoopRun", record: RequestRecord, now_s: float, bar_weeks: float) -> Signal | None:
        run.size = record.request_bytes
        run.mark_ns = _end_ns(record)
        if not run.step(now_s, bar_weeks):
            return None
        facts = (
            f"steps={run.steps} longer_than_usual={run.begin} request_bytes={run.size} last_request={record.request_id}"
        )
        return Signal(AGENT_LOOP, run.weeks, facts)

    def sweep(self, now_s: float) -> None:
        """End what has been silent. A request under way may be a run's next step, so this waits longer than GAP_S."""
        self.runs.expire(now_s - 20 * GAP_S, SWEEP)


class _LoopRun(Run):
    """A run, and of the last request in it: how large it was, and when its answer had ended."""

    __slots__ = ("_lengths", "mark_ns", "size")

    def __init__(self, record: RequestRecord, lengths: Lengths, now_s: float) -> None:
        super().__init__(lengths.habit, lengths.begin, now_s)
        self._lengths = lengths
        self.size = record.request_bytes
        self.mark_ns = record.wall_ns + int(record.duration_s * NS_PER_S)

    def end(self) -> None:
        if self.steps > 1:  # most are single requests
            super().end()
        self._lengths.ended(self.steps)


def _end_ns(record: RequestRecord) -> int:
    return record.wall_ns + int(record.duration_s * NS_PER_S)
