"""The comparison: nginx, vllm-router, a bare pipe, LiteLLM and Inferwatch before one mock engine, in one run.

Run as `python -m bench.compare` from the root of the repository; `bench/run.sh` installs the others first. Rounds
alternate the contenders, so that a slow minute of the machine falls on all of them; only the engine runs throughout.
"""

import argparse
import dataclasses
import datetime as dt
import os
import platform
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from bench import contenders, measure, procs, report
from bench.contenders import Contender
from bench.load import LoadError
from bench.measure import Bench, Plan

FULL = Plan(rounds=3, window_s=5.0, plain_s=4.0, latency_s=8.0, held_fraction=1.0)
QUICK = Plan(rounds=1, window_s=1.8, plain_s=1.2, latency_s=1.2, held_fraction=0.25)
ALL = ("nginx", "vllm-router", "pipe", "litellm", "ours")


def choose(only: str | None, extra: Sequence[str]) -> list[Contender]:
    """The contenders asked for that are installed; says which are not."""
    chosen = []
    for key in only.split(",") if only else ALL:
        if key not in ALL:
            sys.exit(f"--only: no contender is called {key!r}; there are {', '.join(ALL)}")
        try:
            chosen.append(contenders.find(key))
        except contenders.UnavailableError as missing:
            _say(f"not measured: {key} ({missing})")
    return chosen + [contenders.custom(spec) for spec in extra]


def measure_all(bench: Bench, chosen: Sequence[Contender]) -> report.Results:
    """All rounds, with a line of progress for each turn; memory in the first."""
    results = report.Results(
        titles={c.key: f"{c.title} {c.version}".strip() for c in chosen}, burdens={c.key: c.burden for c in chosen}
    )
    cores = sorted(os.sched_getaffinity(0)) if bench.core is None else [*os.sched_getaffinity(0), bench.core]
    for number in range(1, bench.plan.rounds + 1):
        results.direct.append(bench.direct())
        for contender in chosen:
            procs.wait_for_quiet(cores, below=0.3, at_most_s=10.0)
            turn = bench.turn(contender, hold_streams=number == 1)
            if turn.held is not None:
                results.held[contender.key] = turn.held
            results.turns.setdefault(contender.key, []).append(turn)
            event_us, request_us = sum(turn.event_us.values()), sum(turn.request_us.values())
            figures = f"{event_us:.1f} µs per event, {request_us:.0f} µs per request"
            _say(f"round {number} of {bench.plan.rounds}: {contender.title}: {figures}")
    return results


def measure_unpinned(bench: Bench, chosen: Sequence[Contender], results: report.Results) -> None:
    """CPU once more, on cores that the kernel chooses."""
    cores = sorted(os.sched_getaffinity(0))
    for number in range(1, bench.plan.rounds + 1):
        for contender in chosen:
            procs.wait_for_quiet(cores, below=0.3, at_most_s=10.0)
            turn = bench.cpu_turn(contender)
            results.unpinned.setdefault(contender.key, []).append(turn)
            event_us, request_us = sum(turn.event_us.values()), sum(turn.request_us.values())
            figures = f"{event_us:.1f} µs per event, {request_us:.0f} µs per request"
            _say(f"unpinned round {number} of {bench.plan.rounds}: {contender.title}: {figures}")


@contextmanager
def bench_on(plan: Plan, *, pin: bool) -> Iterator[Bench]:
    """The engine, running, and this process beside it on one core; the contenders get the other."""
    cores = sorted(os.sched_getaffinity(0))
    own_core, their_core = (cores[0], cores[1]) if pin and len(cores) > 1 else (None, None)
    (port,) = measure.free_ports(1)
    with tempfile.TemporaryDirectory(prefix="inferwatch-bench-") as name, procs.bound_to(own_core):
        folder = Path(name)
        folder.chmod(0o755)  # started by root, nginx's worker is another user
        command = [sys.executable, "-m", "bench.mock_engine", str(port)]
        with procs.running(command, core=own_core, log=folder / "engine.log"):
            bench = Bench(plan, port, their_core, folder)
            bench.wait_for_engine()
            yield bench


def document(results: report.Results, command: str, load_before: float, seconds: float) -> str:
    """RESULTS.md: the tables, the machine, the method."""
    today = dt.datetime.now(dt.UTC).date()
    return "\n".join(
        [
            "# Benchmark results",
            "",
            f"Written by `{command}` on {today} in {seconds / 60:.0f} minutes. {machine(load_before)}",
            "",
            report.tables(results),
            "",
            "## Method",
            "",
            report.method(results, events=measure.EVENTS_PER_STREAM, cap=measure.LATENCY_CAP_EVENTS_PER_S),
        ]
    )


def machine(load_before: float, of: Sequence[str] = ("aiohttp", "httptools", "msgspec", "uvloop")) -> str:
    """Describe this machine in a line, with the versions of the packages that matter."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.machine())
    mhz = next((f" at {float(line.split(':')[1]):.0f} MHz" for line in info if line.startswith("cpu MHz")), "")
    memory_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    virtual = ", virtual" if any("hypervisor" in line for line in info if line.startswith("flags")) else ""
    packages = ", ".join(f"{name} {version(name)}" for name in of)
    return (
        f"Machine: {model}{mhz}, {os.cpu_count()} cores{virtual}, {memory_gb:.0f} GB; Linux {platform.release()}; "
        f"load average before the run {load_before:.2f}. Python {platform.python_version()} "
        f"({'the distribution’s' if sys.base_prefix == '/usr' else 'not the distribution’s'}), {packages}."
    )


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run.sh", description="Compare Inferwatch with other proxies.")
    parser.add_argument("--quick", action="store_true", help="one short round: does it all work, roughly how fast")
    parser.add_argument("--only", metavar="A,B", help=f"some of {', '.join(ALL)}")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each contender is measured")
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="one more; {port}, {engine} are filled in",
    )
    parser.add_argument("--no-pin", action="store_true", help="leave the choice of cores to the kernel")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: bench/RESULTS.md for a full run")
    return parser.parse_args()


def main() -> None:
    options = _options()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))  # an exception, so that what was started is ended
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # thousands of sockets; inherited by the contenders
    contenders.WORK.mkdir(exist_ok=True)

    chosen = choose(options.only, options.also)
    plan = QUICK if options.quick else FULL
    if options.rounds:
        plan = dataclasses.replace(plan, rounds=options.rounds)
    began_s, load_before = time.monotonic(), os.getloadavg()[0]
    try:
        with bench_on(plan, pin=not options.no_pin) as bench:
            results = measure_all(bench, chosen)
        if not options.no_pin:
            with bench_on(plan, pin=False) as bench:
                measure_unpinned(bench, [each for each in chosen if each.key != "litellm"], results)
    except (LoadError, procs.ProcessGoneError) as error:
        sys.exit(f"the run has no result: {error}")
    full = not (options.quick or options.only or options.rounds or options.also)
    output = options.output or (Path(__file__).parent / "RESULTS.md" if full else None)
    if output is not None:
        command = " ".join(["make bench"] if full else ["bench/run.sh", *sys.argv[1:]])
        output.write_text(document(results, command, load_before, time.monotonic() - began_s))
    print(report.tables(results))


if __name__ == "__main__":
    main()
