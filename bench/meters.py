"""What a contender costs: CPU time per unit of work, and memory, by the role of its processes."""

from dataclasses import dataclass

from bench import procs
from bench.contenders import Contender
from bench.load import LoadError, Window


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU nanoseconds so far, by process; and what the contender's core has spent on everything, if it has a core."""

    by_pid: dict[int, int]
    core_ns: int


class CpuMeter:
    """CPU time of a contender's processes over a window. `others` keeps the worst share of its core taken by others."""

    def __init__(self, contender: Contender, root: int, core: int | None) -> None:
        self.others = 0.0
        self._contender = contender
        self._root = root
        self._core = core
        self._processes = procs.tree(root)

    def read(self) -> Reading:
        """ProcessGoneError when a process has ended since the meter was made."""
        by_pid = {process.pid: procs.cpu_ns(process.pid) for process in self._processes}
        return Reading(by_pid, 0 if self._core is None else procs.busy_ns(self._core))

    def per_unit_us(self, window: Window[Reading]) -> dict[str, float]:
        """Microseconds per counted unit by role; LoadError when the contender has started processes meanwhile."""
        if {p.pid for p in procs.tree(self._root)} != {p.pid for p in self._processes}:
            raise LoadError(f"{self._contender.title}: processes came or went during the measurement")
        by_role: dict[str, float] = {}
        total_ns = 0
        for process in self._processes:
            spent_ns = window.after.by_pid[process.pid] - window.before.by_pid[process.pid]
            total_ns += spent_ns
            role = self._contender.role(process.command)
            by_role[role] = by_role.get(role, 0.0) + spent_ns / 1e3 / window.count
        others_ns = window.after.core_ns - window.before.core_ns - total_ns
        self.others = max(self.others, others_ns / 1e9 / window.seconds)
        return by_role


def memory_by_role(contender: Contender, root: int) -> dict[str, procs.Memory]:
    """Resident memory by role; processes of one role are summed."""
    by_role: dict[str, procs.Memory] = {}
    for process in procs.tree(root):
        role = contender.role(process.command)
        now = procs.memory(process.pid)
        before = by_role.get(role, procs.Memory(0, 0))
        by_role[role] = procs.Memory(before.rss_bytes + now.rss_bytes, before.pss_bytes + now.pss_bytes)
    return by_role
