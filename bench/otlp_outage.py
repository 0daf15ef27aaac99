"""Does an OTLP endpoint that is dead, silent, slow or refusing cost anybody anything? `python -m bench.otlp_outage`

Three Inferwatches stand before one mock engine and get the same load, request by request in turn: one exports nothing
(`off`), one exports traces, metrics and logs over HTTP, one over gRPC. What other work does to the machine it does to
all three alike. The endpoints are well first, then ill for `--minutes` in all, one kind of illness after the other
without a pause, then well again; nothing is restarted. All of OpenTelemetry's settings are the defaults.

Written down for each phase: latencies as a client sees them, memory, what became of the spans; and at the end whether
every request has its span among those that were taken, failed or dropped. It takes the whole time on a quiet core's
third; `--out` writes bench/RESULTS-traces.md.
"""

import argparse
import asyncio
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import uvloop
from bench import procs
from bench.load import Delays, Load, LoadError, quantile
from bench.measure import free_ports
from bench.mock_engine import Pace

from inferwatch_simulator.readings import parse, total

OFF: Final = "off"
KINDS: Final = (OFF, "http", "grpc")
WELL, AGAIN = "well", "well again"
ILLNESSES: Final = ("closed", "silent", "slow", "refusing")
PHASES: Final = (WELL, *ILLNESSES, AGAIN)
RESULTS: Final = ("exported", "failed", "dropped")

EVENTS_PER_STREAM: Final = 8
PACE: Final = Pace(events_per_s=100.0, first_s=0.02, stamped=True)
START_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how much, and what differs from OpenTelemetry's defaults."""

    well_s: float = 60.0  # before and after
    ill_s: float = 150.0  # of each illness
    per_s: float = 80.0  # requests to each Inferwatch; every other one a stream
    samples: int = 20  # of memory and counters, in each phase
    variables: Mapping[str, str] = field(default_factory=dict)

    def seconds(self, phase: str) -> float:
        return self.well_s if phase in (WELL, AGAIN) else self.ill_s


@dataclass(slots=True)
class Phase:
    """What one Inferwatch did in one phase. Times in nanoseconds, memory in bytes."""

    requests: int = 0
    plain_ns: list[int] = field(default_factory=list)  # a plain request, from the first byte to the last
    delays: Delays = field(default_factory=Delays)  # of streams, without the engine's own time
    marks: list[tuple[int, int, int]] = field(default_factory=list)  # how many there were of each at each sample
    collector_rss: list[int] = field(default_factory=list)
    relay_rss: list[int] = field(default_factory=list)
    queued: int = 0  # spans, at most
    spans: dict[str, int] = field(default_factory=dict)  # by result, in this phase

    def mark(self) -> None:
        """End a slice."""
        self.marks.append((len(self.plain_ns), len(self.delays.first), len(self.delays.event)))

    def typical_ms(self, measure: int, q: float) -> float:
        """The median over the slices of the q-quantile of a measure: what a burst of other work does to one slice does
        not decide."""
        values = (self.plain_ns, self.delays.first, self.delays.event)[measure]
        bounds = [0, *(mark[measure] for mark in self.marks)]
        slices = [values[begin:end] for begin, end in itertools.pairwise(bounds) if end > begin]
        return statistics.median(quantile(each, q) for each in slices) if slices else float("nan")


class Target:
    """One Inferwatch under load."""

    def __init__(self, kind: str, port: int, admin_port: int, pid: int) -> None:
        self.kind = kind
        self.admin_port = admin_port
        self.load = Load(port, stamped=True)
        self.phases = {name: Phase() for name in PHASES}
        self.now = self.phases[WELL]
        self.recovered_s: float | None = None  # from the endpoint's return to the first span that it took
        self._root = pid
        self._began_s = 0.0  # the phase
        self._spans = dict.fromkeys(RESULTS, 0)
        self.pids = self._find()

    def _find(self) -> dict[str, int]:
        modules = {"inferwatch_collectors": "collector", "inferwatch.relay": "relay"}
        found = {}
        for process in procs.tree(self._root):
            for module, role in modules.items():
                if module in process.command.split():
                    found[role] = process.pid
        if len(found) != len(modules):
            raise LoadError(f"{self.kind}: its processes are {found}")
        return found

    def begin(self, phase: str) -> None:
        """What comes from now on belongs to `phase`."""
        self.now = self.phases[phase]
        self._began_s = time.monotonic()
        self.load.delays = self.now.delays

    def sample(self) -> None:
        """Read memory and counters. Blocking."""
        phase = self.now
        phase.mark()
        if self._find() != self.pids:
            raise LoadError(f"{self.kind}: a process was restarted")
        phase.collector_rss.append(procs.memory(self.pids["collector"]).rss_bytes)
        phase.relay_rss.append(procs.memory(self.pids["relay"]).rss_bytes)
        if self.kind == OFF:
            return
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=30) as reply:
            scrape = parse(reply.read().decode(), time.monotonic())
        phase.queued = max(phase.queued, round(total(scrape, "inferwatch_otlp_queue_items", signal="traces")))
        for result in RESULTS:
            count = round(total(scrape, "inferwatch_otlp_items_total", signal="traces", result=result))
            phase.spans[result] = phase.spans.get(result, 0) + count - self._spans[result]
            self._spans[result] = count
        if phase is self.phases[AGAIN] and self.recovered_s is None and phase.spans["exported"]:
            self.recovered_s = time.monotonic() - self._began_s

    def accounted(self) -> int:
        """Spans of which it is known what became of them."""
        return sum(self._spans.values())

    def exported(self) -> int:
        return self._spans["exported"]

    async def ask(self, *, stream: bool) -> None:
        """One request. Raises LoadError unless it is answered in full."""
        phase = self.now
        began_ns = time.monotonic_ns()
        await self.load.exchange(self.load.chat(stream=stream, max_tokens=EVENTS_PER_STREAM))
        if not stream:
            phase.plain_ns.append(time.monotonic_ns() - began_ns)
        phase.requests += 1


class Endpoint:
    """The endpoint of one kind, ill or well."""

    def __init__(self, kind: str, port: int) -> None:
        self.kind = kind
        self.port = port
        self.taken = 0  # spans
        self._process: subprocess.Popen[str] | None = None

    def become(self, condition: str) -> None:
        """Stop what there is, start another; `closed` is none. Blocking."""
        self.stop()
        if condition == "closed":
            return
        command = [sys.executable, "-m", "bench.otlp_endpoint", str(self.port), self.kind, condition]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise LoadError(f"the {self.kind} endpoint does not start")

    def stop(self) -> None:
        """End it, and learn what it took. Blocking."""
        if self._process is None:
            return
        self._process.terminate()
        said, _ = self._process.communicate(timeout=20)
        self.taken += int(said)
        self._process = None


class Outage:
    """The run."""

    def __init__(self, plan: Plan, targets: list[Target], endpoints: list[Endpoint]) -> None:
        self.plan = plan
        self.targets = targets
        self.endpoints = endpoints

    async def run(self, tell: Callable[[str], None]) -> None:
        """All phases, under load throughout.

        Raises:
            LoadError: a request was not answered in full, or a process ended.
        """
        try:
            async with asyncio.TaskGroup() as group:
                driver = group.create_task(self._drive(group))
                for phase in PHASES:
                    tell(f"{time.strftime('%H:%M:%S')} {phase}")
                    await self._phase(phase)
                driver.cancel()
        except ExceptionGroup as failed:
            raise LoadError(f"{len(failed.exceptions)} requests failed: {failed.exceptions[0]!r}") from failed
        await asyncio.to_thread(self._settle)
        for target in self.targets:
            target.load.close()

    async def _phase(self, phase: str) -> None:
        condition = WELL if phase == AGAIN else phase
        await asyncio.gather(*(asyncio.to_thread(each.become, condition) for each in self.endpoints))
        began_s = time.monotonic()
        for target in self.targets:
            target.begin(phase)
        seconds = self.plan.seconds(phase)
        for number in range(self.plan.samples):
            await asyncio.sleep(began_s + (number + 1) * seconds / self.plan.samples - time.monotonic())
            for target in self.targets:
                await asyncio.to_thread(target.sample)

    async def _drive(self, group: asyncio.TaskGroup) -> None:
        """Requests at an even pace, to one Inferwatch after the other, who goes first by turns."""
        pause_s = 1 / self.plan.per_s / len(self.targets)
        began_s = time.monotonic()
        for number in itertools.count():
            await asyncio.sleep(began_s + number * pause_s - time.monotonic())
            turn = number // len(self.targets)
            target = self.targets[(number + turn) % len(self.targets)]
            group.create_task(target.ask(stream=turn % 2 == 0))

    def _settle(self) -> None:
        """Wait until it is known of each span what became of it."""
        deadline_s = time.monotonic() + START_S
        for target in self.targets:
            if target.kind == OFF:
                continue
            while target.accounted() < sum(phase.requests for phase in target.phases.values()):
                if time.monotonic() > deadline_s:
                    break  # the report says so
                time.sleep(0.2)
                target.sample()
        for each in self.endpoints:
            each.stop()


# --- starting


def _environment(plan: Plan, kind: str, port: int) -> dict[str, str]:
    if kind == OFF:
        return {}
    exported = {f"INFERWATCH__OTLP__{signal}": "true" for signal in ("TRACES", "METRICS", "LOGS")}
    address = {"INFERWATCH__OTLP__ENDPOINT": f"http://127.0.0.1:{port}"}
    protocol = {"INFERWATCH__OTLP__PROTOCOL": "http/protobuf" if kind == "http" else "grpc"}
    return {**exported, **address, **protocol, **plan.variables}


def _answers(url: str) -> None:
    deadline_s = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            if time.monotonic() > deadline_s:
                raise LoadError(f"{url} does not answer") from None
            time.sleep(0.1)


@contextmanager
def started(plan: Plan, folder: Path) -> Iterator[Outage]:
    """Start the engine, three Inferwatches and two endpoints; end all of them."""
    engine, *ports = free_ports(1 + 2 * len(KINDS) + 2)
    with ExitStack() as stack:
        argv = [sys.executable, "-m", "bench.mock_engine", str(engine)]
        stack.enter_context(procs.running(argv, core=None, log=folder / "engine.log"))
        _answers(f"http://127.0.0.1:{engine}/health")
        endpoints = [Endpoint(kind, ports.pop()) for kind in KINDS if kind != OFF]
        addresses = {each.kind: each.port for each in endpoints}
        for each in endpoints:
            stack.callback(each.stop)
        targets = []
        for kind in KINDS:
            port, admin_port = ports.pop(), ports.pop()
            argv = [sys.executable, "-m", "inferwatch", "serve", "--upstream", f"http://127.0.0.1:{engine}"]
            argv += ["--engine", "vllm", "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin_port}"]
            argv += ["--state-dir", str(folder / kind), "--log-level", "error"]
            environment = _environment(plan, kind, addresses.get(kind, 0))
            pid = stack.enter_context(procs.running(argv, core=None, log=folder / f"{kind}.log", env=environment))
            _answers(f"http://127.0.0.1:{admin_port}/metrics")
            targets.append(Target(kind, port, admin_port, pid))
        asyncio.run(_set_pace(engine))
        yield Outage(plan, targets, endpoints)


async def _set_pace(engine: int) -> None:
    import msgspec  # noqa: PLC0415 - a command of its own

    load = Load(engine)
    await load.exchange(load.message("/bench/pace", msgspec.json.encode(PACE)))
    load.close()


# --- the report


def _latencies(outage: Outage) -> Iterator[str]:
    yield "| phase | requests each | | " + " | ".join(KINDS) + " |"
    yield "|---|---|---|" + "---|" * len(KINDS)
    for name in PHASES:
        phases = [target.phases[name] for target in outage.targets]
        for number, what in enumerate(("plain request", "first token", "each event")):
            cells = [f"{each.typical_ms(number, 0.5):.2f} / {each.typical_ms(number, 0.99):.2f}" for each in phases]
            head = f"{name} | {phases[0].requests:,}" if number == 0 else " | "
            yield f"| {head} | {what} | " + " | ".join(cells) + " |"


def _fates(outage: Outage) -> Iterator[str]:
    yield "| phase | over | requests | taken | failed | dropped | queue, at most | collector, MB | relay, MB |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name in PHASES:
        for target in outage.targets:
            phase = target.phases[name]
            fate = [f"{phase.spans.get(result, 0):,}" for result in RESULTS] + [f"{phase.queued:,}"]
            cells = [""] * len(fate) if target.kind == OFF else fate
            memory = [_memory(phase.collector_rss), _memory(phase.relay_rss)]
            yield f"| {name} | {target.kind} | {phase.requests:,} | " + " | ".join(cells + memory) + " |"


def _memory(values: list[int]) -> str:
    return f"{values[0] / 1e6:.0f} → {values[-1] / 1e6:.0f} (≤ {max(values) / 1e6:.0f})" if values else ""


def _totals(outage: Outage) -> Iterator[str]:
    for target in outage.targets:
        if target.kind == OFF:
            continue
        requests = sum(phase.requests for phase in target.phases.values())
        (endpoint,) = [each for each in outage.endpoints if each.kind == target.kind]
        back = "never" if target.recovered_s is None else f"{target.recovered_s:.0f} s"
        yield (
            f"- {target.kind}: {requests:,} requests, {target.accounted():,} spans accounted for (taken, failed or "
            f"dropped); the endpoint counted {endpoint.taken:,}. First spans after its return: {back}."
        )


def report(outage: Outage, note: str) -> str:
    """Return the page."""
    plan = outage.plan
    minutes = plan.ill_s * len(ILLNESSES) / 60
    about = (
        "# While the OTLP endpoint is down\n\n"
        f"Written by `python -m bench.otlp_outage` on {time.strftime('%Y-%m-%d')}: {minutes:.0f} minutes of outage "
        f"({plan.ill_s:.0f} s each of {', '.join(ILLNESSES)}) between two times of {plan.well_s:.0f} s in which the "
        f"endpoint was well. {plan.per_s:.0f} requests a second to each of three Inferwatches on {os.cpu_count()} "
        f"cores, in turn; half of them streams of {EVENTS_PER_STREAM} events. {note}\n\n"
        "`off` exports nothing; `http` and `grpc` export traces, metrics and logs. `closed`: nobody listens; `silent`: "
        "connections are accepted and nothing is ever said; `slow`: answers after nine seconds; `refusing`: 500, or "
        "INTERNAL over gRPC. OpenTelemetry's defaults: a queue of 2,048 spans, batches of 512, a time-out of 10 s."
    )
    return "\n".join(
        [
            about,
            "\n## Latency, p50 / p99 in ms\n",
            (
                "First token and events without the engine's own time. Each is the median over slices of the phase "
                f"({plan.samples} of them): bursts of other work on the machine do not decide.\n"
            ),
            *_latencies(outage),
            "\n## Spans and memory\n",
            "Memory is resident: first → last (most) of each phase.\n",
            *_fates(outage),
            "",
            *_totals(outage),
            "- No process was restarted, and no request failed.\n",
        ]
    )


def run(plan: Plan, tell: Callable[[str], None] = print) -> Outage:
    """Do all of it.

    Raises:
        LoadError: a request was not answered in full, or a process ended.
    """
    with tempfile.TemporaryDirectory() as name, started(plan, Path(name)) as outage:
        uvloop.run(outage.run(tell))
        return outage


def main() -> None:
    """Run and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of outage, in all")
    parser.add_argument("--rate", type=float, default=Plan().per_s, help="requests a second to each Inferwatch")
    parser.add_argument("--note", default="", help="what else ran on the machine")
    parser.add_argument("--out", type=Path, help="where to write the page; else it is printed")
    options = parser.parse_args()
    ill_s = options.minutes * 60 / len(ILLNESSES)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # whatever was started ends with this
    page = report(run(Plan(well_s=min(60.0, ill_s), ill_s=ill_s, per_s=options.rate)), options.note)
    if options.out is None:
        print(page)
    else:
        options.out.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
