"""What becomes of divided seconds: counters by label, and shares for the ledger."""

from collections.abc import Callable
from typing import Final

from inferwatch.record import Share
from inferwatch.settings.energy import Energy
from inferwatch_collectors import metrics as m
from inferwatch_collectors.attribution.accounts import Account
from inferwatch_collectors.attribution.arithmetic import Carry
from inferwatch_collectors.attribution.memory import Idle
from inferwatch_collectors.attribution.rates import Grid
from inferwatch_collectors.attribution.timeline import Divided
from inferwatch_collectors.attribution.times import NS_PER_S
from inferwatch_collectors.metric_store import MetricStore

MINUTE_NS: Final = 60 * NS_PER_S

# Values of the label `reason` of ATTRIBUTION_CUT.
CUTS: Final = ("horizon", "memory", "unknown", "late", "accounts", "abandoned", "energy_reading")


class Counting:
    """Counts charges and idle parts. `carbon` and `idle` are what must be remembered."""

    def __init__(self, store: MetricStore, sink: Callable[[Share], None], energy: Energy, *, priced: bool) -> None:
        """`priced`: the machine's cost is known, so that it is counted."""
        self._store = store
        self._sink = sink
        self._grid = Grid(energy)
        self._priced = priced
        self._begun = False
        self.carbon = Carry()
        self.idle: Idle | None = None

    def begin(self) -> None:
        """Start at 0 what is known to be 0."""
        if self._begun:
            return
        self._begun = True
        for reason in CUTS:
            self._store.counter(m.ATTRIBUTION_CUT, (reason,))
        self._store.counter(m.UNOBSERVED_SECONDS)
        if self._priced:
            self._store.counter(m.IDLE_COST_DOLLARS)

    def cut(self, reason: str, count: int = 1) -> None:
        """Count what had to be done without a token count."""
        self._store.counter(m.ATTRIBUTION_CUT, (reason,)).add(count)

    def unobserved(self, duration_ns: int) -> None:
        """Count time that is in no bill."""
        self._store.counter(m.UNOBSERVED_SECONDS).add(duration_ns)

    def divided(self, divided: Divided, wall_ns: int, *, measured: bool) -> None:
        """Count one second, which began at Unix time `wall_ns`. `measured`: its energy is known."""
        by_labels: dict[tuple[str, str, str], tuple[int, int]] = {}
        for account, nanodollars, energy_uj in divided.charges:
            account.gpu_nanodollars += nanodollars
            account.energy_uj += energy_uj
            before = by_labels.get(account.labels, (0, 0))
            by_labels[account.labels] = (before[0] + nanodollars, before[1] + energy_uj)
        store = self._store
        for labels, (nanodollars, energy_uj) in by_labels.items():
            if self._priced:
                store.counter(m.COST_DOLLARS, (*labels, m.BASIS_GPU)).add(nanodollars)
            if measured:
                store.counter(m.ENERGY_JOULES, labels).add(energy_uj)
                if self._grid:
                    store.counter(m.CO2E_GRAMS, labels).add(self._micrograms(energy_uj, wall_ns))
        if self._priced:
            store.counter(m.IDLE_COST_DOLLARS).add(divided.idle_nanodollars)
        if measured:
            store.counter(m.IDLE_ENERGY_JOULES).add(divided.idle_energy_uj)
            if self._grid:
                store.counter(m.IDLE_CO2E_GRAMS).add(self._micrograms(divided.idle_energy_uj, wall_ns))
        self._count_idle(divided, wall_ns // MINUTE_NS * MINUTE_NS, measured=measured)

    def share(self, account: Account, *, measured: bool) -> None:
        """Hand out what a request was charged in all."""
        self._sink(
            Share(
                request_id=account.request_id,
                wall_ns=account.wall_ns,
                tenant=account.tenant,
                model=account.model,
                user=account.user,
                feature=account.feature,
                gpu_nanodollars=account.gpu_nanodollars if self._priced else None,
                energy_uj=account.energy_uj if measured or account.energy_uj else None,
            )
        )

    def _micrograms(self, energy_uj: int, wall_ns: int) -> int:
        return self.carbon.take(energy_uj, self._grid.micrograms_per_uj(wall_ns))

    def _count_idle(self, divided: Divided, minute_ns: int, *, measured: bool) -> None:
        """Add to the minute; a minute that is over is handed out."""
        idle = self.idle
        if idle is not None and idle.wall_ns != minute_ns:
            self._sink(
                Share(
                    wall_ns=idle.wall_ns,
                    gpu_nanodollars=idle.nanodollars if self._priced else None,
                    energy_uj=idle.energy_uj if idle.measured else None,
                )
            )
            idle = None
        if idle is None:
            idle = self.idle = Idle(minute_ns)
        idle.nanodollars += divided.idle_nanodollars
        idle.energy_uj += divided.idle_energy_uj
        idle.measured = idle.measured or measured
