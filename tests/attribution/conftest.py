"""A host as the meter sees it: requests that come and go, a bill, GPUs with counters, a ledger, and crashes."""

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from inferwatch.record import ErrorType, Outcome, RequestRecord, Share
from inferwatch.settings.cost import Attribution, Cost
from inferwatch.settings.energy import Energy
from inferwatch.tap import Open
from inferwatch_collectors import metrics as m
from inferwatch_collectors.attribution.meter import Meter
from inferwatch_collectors.attribution.rates import Bill
from inferwatch_collectors.attribution.times import NS_PER_S
from inferwatch_collectors.cardinality import CardinalityGuard, RequestLabels
from inferwatch_collectors.exchange import Progress
from inferwatch_collectors.gpu.base import EnergyReading
from inferwatch_collectors.metric_store import MetricStore

MS = NS_PER_S // 1000
WALL_NS = 1_790_000_000 * NS_PER_S
START_NS = 5_000 * NS_PER_S


class Job(NamedTuple):
    """A request; times in ms from the start of the host."""

    name: str
    sent_ms: int
    end_ms: int
    first_ms: int | None = None  # of a stream
    prompt: int | None = 100
    cached: int | None = None
    completion: int | None = 100
    tenant: str = "acme"
    model: str = "qwen"
    user: str = "u1"
    feature: str = "search"
    operation: str = "chat"
    outcome: Outcome = Outcome.OK
    error: ErrorType = ErrorType.NONE
    stream: bool = False
    late_prompt: bool = False  # a stream that tells its prompt tokens only at its end

    @property
    def labels(self) -> RequestLabels:
        return RequestLabels(self.model, self.tenant, self.operation)


def stream(name: str, sent_ms: int, first_ms: int, end_ms: int, **changes: Any) -> Job:
    return Job(name, sent_ms, end_ms, first_ms, stream=True, **changes)


class Host:
    """Time goes on by `run`; what was committed survives `crash`."""

    def __init__(self, jobs: Iterable[Job] = (), **settings: Any) -> None:
        self.jobs = list(jobs)
        self.settings: dict[str, Any] = {"cost": Cost(), "attribution": Attribution(), "energy": Energy()} | settings
        self.now_ms = 0
        self.wall_shift_ns = 0
        self.shares: list[Share] = []
        self.closed: set[str] = set()
        self.rows: dict[tuple[str, bytes], bytes] = {}
        self.committed: tuple[int, set[str]] = (0, set())
        self.watts: list[tuple[int, int]] = []  # (from ms, watts)
        self.reset_ms: list[int] = []
        self._start()

    # --- life and death

    def _start(self) -> None:
        self.store = MetricStore()
        self.store.restore([(name, labels, data) for (name, labels), data in self.rows.items()])
        self.meter = Meter(self.store, CardinalityGuard(), self.shares.append, **self.settings)
        self.meter.restore(self.now_ns, self.wall_ns)

    def commit(self) -> None:
        for name, labels, data in self.store.take_dirty():
            self.rows[name, labels] = data
        self.committed = (len(self.shares), set(self.closed))

    def crash(self, away_ms: int = 0, *, lose: bool = True) -> None:
        """Die and come back after `away_ms`. `lose`: what was not committed is gone, and the relays tell it again."""
        if not lose:
            self.commit()
        del self.shares[self.committed[0] :]
        self.closed = set(self.committed[1])
        self.now_ms += away_ms
        self._start()

    # --- time

    @property
    def now_ns(self) -> int:
        return START_NS + self.now_ms * MS

    @property
    def wall_ns(self) -> int:
        return WALL_NS + self.now_ms * MS + self.wall_shift_ns

    def run(self, upto_ms: int, step_ms: int = 500) -> "Host":
        while self.now_ms < upto_ms:
            self.now_ms = min(upto_ms, self.now_ms + step_ms)
            self.step()
        return self

    def step(self) -> None:
        self.deliver()
        if self.watts:
            self.meter.energy([self.reading()])
        self.tick()
        self.commit()

    def deliver(self) -> None:
        """The relays tell of the requests that have ended."""
        for job in sorted(self.jobs, key=lambda each: (each.end_ms, each.name)):
            if job.end_ms <= self.now_ms and job.name not in self.closed:
                self.closed.add(job.name)
                self.meter.closed(self.record(job))

    def tick(self) -> None:
        links: Any = [SimpleNamespace(entries={index: self.entry(job) for index, job in enumerate(self.open())})]
        self.meter.tick(self.now_ns, self.wall_ns, links, force=True)

    def settle(self) -> "Host":
        """Run until nothing of the jobs is left to divide."""
        return self.run(max([self.now_ms, *(job.end_ms for job in self.jobs)]) + 15_000)

    # --- requests

    def open(self) -> list[Job]:
        return [job for job in self.jobs if job.sent_ms <= self.now_ms < job.end_ms and job.name not in self.closed]

    def entry(self, job: Job) -> Any:
        opened = Open(
            id=1, request_id=job.name, wall_ns=WALL_NS + job.sent_ms * MS, arrival_ns=START_NS + job.sent_ms * MS,
            sent_ns=START_NS + job.sent_ms * MS, method="POST", path="/v1/chat/completions", tenant=job.tenant,
            model=job.model, user=job.user, feature=job.feature, stream=job.stream, asked_usage=True, choices=1, headers={}, body=b"", body_bytes=0,
        )  # fmt: skip
        exchange = SimpleNamespace(operation=job.operation, progress=self.progress(job))
        return SimpleNamespace(opened=opened, labels=job.labels, exchange=exchange)

    def progress(self, job: Job) -> Progress:
        """A stream makes its tokens evenly from its first to its end, and each is told when it is made."""
        first = None if job.first_ms is None or job.first_ms > self.now_ms else START_NS + job.first_ms * MS
        if first is None or job.first_ms is None:
            return Progress(None, START_NS + job.sent_ms * MS, None, None, None)
        done = None
        if job.completion is not None:
            done = max(1, job.completion * (self.now_ms - job.first_ms) // max(1, job.end_ms - job.first_ms))
        prompt = None if job.late_prompt else job.prompt
        return Progress(first, self.now_ns, prompt, job.cached, done)

    def record(self, job: Job) -> RequestRecord:
        return RequestRecord(
            request_id=job.name, wall_ns=WALL_NS + job.sent_ms * MS, tenant=job.tenant, model=job.model,
            user=job.user, feature=job.feature, operation=job.operation, route="chat", method="POST", stream=job.stream, outcome=job.outcome,
            error=job.error, status=200, prompt_tokens=job.prompt, cached_tokens=job.cached,
            completion_tokens=job.completion, duration_s=(job.end_ms - job.sent_ms) / 1000, sent_s=0.0,
            ttft_s=None if job.first_ms is None else (job.first_ms - job.sent_ms) / 1000,
        )  # fmt: skip

    # --- the GPU

    def energy_mj(self) -> int:
        """The counter: begun anew at each reset."""
        since_ms = max((reset for reset in self.reset_ms if reset <= self.now_ms), default=None)
        total = 0 if since_ms is not None else 10**12
        for (from_ms, watts), (to_ms, _) in zip(self.watts, [*self.watts[1:], (self.now_ms, 0)], strict=True):
            total += watts * max(0, min(to_ms, self.now_ms) - max(from_ms, since_ms or 0))
        return total

    def reading(self) -> EnergyReading:
        return EnergyReading("GPU-1", self.now_ns, self.energy_mj(), None)

    # --- the sums

    def share(self, name: str) -> Share:
        (share,) = [each for each in self.shares if each.request_id == name]
        return share

    def dollars(self, name: str) -> int:
        nanodollars = self.share(name).gpu_nanodollars
        assert nanodollars is not None
        return nanodollars

    def total(self, metric: m.Metric, **labels: str) -> int:
        """The sum of a counter's series that have these labels, in whole units of the store."""
        family = next(each for each in self.store.families() if each.metric.name == metric.name)
        return sum(
            series.value
            for series in family.children.values()
            if all(series.labels[metric.labels.index(name)] == value for name, value in labels.items())
        )

    @property
    def idle_dollars(self) -> int:
        return self.total(m.IDLE_COST_DOLLARS)

    @property
    def charged_dollars(self) -> int:
        return self.total(m.COST_DOLLARS, basis="gpu")

    def bill(self, duration_ms: int, energy_uj: int = 0) -> int:
        """What it all costs, worked out anew."""
        rates = Bill.of(self.settings["cost"], self.settings["energy"]) or Bill.nothing()
        return _floor(duration_ms * MS * rates.nanodollars_per_ns) + _floor(energy_uj * rates.nanodollars_per_uj)


def _floor(value: Fraction) -> int:
    return value.numerator // value.denominator


def rented(dollars: str = "3.60") -> Cost:
    """A machine for so many dollars an hour; 3.60 is a million nano-dollars a second."""
    return Cost(hourly_dollars=Decimal(dollars))


@pytest.fixture(scope="session")
def host() -> Any:
    """The names above, for tests: `host.Host(…)`."""
    return SimpleNamespace(Host=Host, Job=Job, stream=stream, rented=rented, MS=MS, WALL_NS=WALL_NS, START_NS=START_NS)
