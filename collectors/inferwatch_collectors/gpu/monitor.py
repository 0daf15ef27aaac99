"""The GPU part of the collector: settings in, metrics and energy readings out."""

import time
from collections.abc import Callable, Sequence
from typing import Final

from inferwatch.settings.gpu import Gpu
from inferwatch_collectors.gpu.amd import AmdSource
from inferwatch_collectors.gpu.base import EnergyReading, GpuSample, Identity, Source
from inferwatch_collectors.gpu.exporter import GpuExporter
from inferwatch_collectors.gpu.nvml import NvmlSource
from inferwatch_collectors.gpu.sampler import GpuSampler
from inferwatch_collectors.gpu.simulated import SimulatedSource
from inferwatch_collectors.gpu.worker import NS_PER_S, Round
from inferwatch_collectors.metric_store import MetricStore

# A reading is shown until this many more should have come.
STALE_INTERVALS: Final = 3


def sources_for(settings: Gpu, upstream: str = "") -> list[Source]:
    """Return the sources that `gpu.source` names. `upstream` is the URL of the engine, which may be a simulated one."""
    sources: list[Source] = []
    if settings.source in ("auto", "nvidia"):
        sources.append(NvmlSource(settings.nvml_library, processes=settings.processes))
    if settings.source in ("auto", "amd"):
        sources.append(AmdSource(processes=settings.processes))
    if settings.source == "simulated":
        sources.append(SimulatedSource(upstream))
    return sources


class GpuMonitor:
    """Run it as a task; refresh it before each exposition and before the last commit."""

    def __init__(
        self,
        settings: Gpu,
        store: MetricStore,
        on_energy: Callable[[Sequence[EnergyReading]], None] | None = None,
        *,
        sources: Sequence[Source] | None = None,
        upstream: str = "",
    ) -> None:
        """`on_energy` is called on the loop once per reading of all GPUs, with those that answered.

        `sources` stands in for those of the settings, in a test.
        """
        self._on_energy = on_energy
        stale_s = STALE_INTERVALS * settings.interval_s + settings.hang_timeout_s
        self._exporter = GpuExporter(store, stale_ns=int(stale_s * NS_PER_S))
        self.samples: dict[tuple[str, int], GpuSample] = {}  # the last of each GPU that answers
        chosen = sources_for(settings, upstream) if sources is None else sources
        self._sampler = (
            GpuSampler(chosen, self, interval_s=settings.interval_s, hang_timeout_s=settings.hang_timeout_s)
            if chosen
            else None
        )

    async def run(self) -> None:
        """Read until cancelled; returns at once if there is nothing to read."""
        if self._sampler is None:
            return
        try:
            await self._sampler.run()
        finally:
            self._sampler.close()

    def close(self) -> None:
        """End the reading; waits for nothing."""
        if self._sampler is not None:
            self._sampler.close()

    def refresh(self) -> None:
        """Bring the store up to date."""
        if self._sampler is not None and (dropped := self._sampler.take_dropped()):
            self._exporter.fault("dropped", dropped)
        self._exporter.refresh(time.monotonic_ns())

    # --- the sampler: `sampler.Taker`

    def take(self, done: Round) -> None:
        """Take what one round brought."""
        if done.searched:
            self._exporter.searched()
        for identity in done.lost:
            self._down(identity)
        for sample in done.samples:
            self._exporter.take(sample)
            self.samples[sample.identity.vendor, sample.identity.index] = sample
        for event in done.events:
            self._exporter.event(event)
        for reason, count in (
            ("lost", done.newly_lost),
            ("failed", sum(sample.failed_reads for sample in done.samples)),
        ):
            if count:
                self._exporter.fault(reason, count)
        self._exporter.cost(done.cpu_s, done.duration_s)
        if done.samples and self._on_energy is not None:
            self._on_energy([sample.energy for sample in done.samples])

    def hung(self, identity: Identity | None) -> None:
        """A call does not return."""
        self._exporter.fault("hung")
        self._exporter.searched()
        if identity is not None:
            self._down(identity)

    def died(self) -> None:
        """The reading thread ended by a fault of ours."""
        self._exporter.fault("died")

    def _down(self, identity: Identity) -> None:
        self._exporter.down(identity)
        self.samples.pop((identity.vendor, identity.index), None)
