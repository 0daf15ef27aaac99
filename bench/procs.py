"""Processes under measurement: started in a group of their own, bound to a core, read through /proc, always ended.

CPU time is read from each process's own CPU clock. It has nanoseconds where /proc/PID/stat has ticks of 10 ms, and
counts threads that have ended, which a sum over /proc/PID/task does not.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

STOP_GRACE_S = 10.0  # a relay drains, LiteLLM runs shutdown hooks; after this they are killed


@dataclass(frozen=True, slots=True)
class Process:
    """One process, told from a later one of the same number by its start time (clock ticks since boot)."""

    pid: int
    parent: int
    started_ticks: int
    command: str


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of one process: all its pages, and its fair share of the pages that it shares."""

    rss_bytes: int
    pss_bytes: int


class ProcessGoneError(RuntimeError):
    """A process ended while it was being measured, so the figures of that moment are void."""


def read_process(pid: int) -> Process | None:
    """The process, or None when there is none of that number (any more)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()  # the name before it may hold spaces and brackets
    if fields[0] in "ZX":
        return None
    return Process(pid, int(fields[1]), int(fields[19]), command)


def tree(root: int) -> list[Process]:
    """`root` and all its descendants, parents first."""
    everything = [
        p for entry in Path("/proc").iterdir() if entry.name.isdigit() and (p := read_process(int(entry.name)))
    ]
    found = [p for p in everything if p.pid == root]
    for parent in found:  # grows while it is walked
        found += [p for p in everything if p.parent == parent.pid]
    return found


def cpu_ns(pid: int) -> int:
    """CPU time of all threads of another process, living and ended, user and system."""
    clock = (~pid << 3) | 2  # CPUCLOCK_SCHED of a process, as glibc's clock_getcpuclockid(3) makes it
    try:
        return time.clock_gettime_ns(clock)
    except OSError as error:
        raise ProcessGoneError(f"process {pid} ended during a measurement") from error


def memory(pid: int) -> Memory:
    """Resident memory now."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessGoneError(f"process {pid} ended during a measurement") from error
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines[1:]}
    return Memory(sizes["Rss"], sizes["Pss"])


def busy_ns(core: int) -> int:
    """Time that a core has not been idle, since boot; in steps of 10 ms."""
    line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) * 10_000_000  # USER_HZ is 100 on every Linux


def wait_for_quiet(cores: Sequence[int], *, below: float, at_most_s: float) -> None:
    """Return when every core has been busy for less than `below` of half a second, or after `at_most_s`."""
    deadline_s = time.monotonic() + at_most_s
    while time.monotonic() < deadline_s:
        before_ns = [busy_ns(core) for core in cores]
        time.sleep(0.5)
        if all(busy_ns(core) - before < below * 0.5e9 for core, before in zip(cores, before_ns, strict=True)):
            return


@contextmanager
def bound_to(core: int | None) -> Iterator[None]:
    """Bind this process to `core`; children started meanwhile inherit it. None leaves everything as it is."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def running(
    argv: Sequence[str], *, core: int | None, log: Path, cwd: Path | None = None, env: dict[str, str] | None = None
) -> Iterator[int]:
    """Run a command and everything it starts; yields its pid, and ends all of it on the way out."""
    with log.open("wb") as output, bound_to(core):
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd=cwd,
            env=os.environ | (env or {}),
        )  # fmt: skip
    try:
        yield process.pid
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    family = tree(process.pid)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_GRACE_S)
    for member in family:
        now = read_process(member.pid)
        if now is not None and now.started_ticks == member.started_ticks:
            with suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)
    process.wait()
