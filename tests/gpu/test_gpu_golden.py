"""What a scraper sees of each captured host. Read the diff when a golden file changes; UPDATE_GOLDEN=1 writes them."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse

from inferwatch_collectors import metrics as m
from inferwatch_collectors.exposition import Exposition
from inferwatch_collectors.gpu.base import GpuLostError, SourceUnavailableError
from inferwatch_collectors.gpu.exporter import GpuExporter
from inferwatch_collectors.gpu.nvml import NvmlSource
from inferwatch_collectors.gpu.worker import NS_PER_S
from inferwatch_collectors.metric_store import MetricStore

GOLDEN = Path(__file__).parents[1] / "golden"
CAPTURES = sorted(path.stem for path in (Path(__file__).parents[1] / "fixtures" / "nvml").glob("*.json"))

OPENMETRICS = "application/openmetrics-text; version=1.0.0"

Frames = Callable[[str], list[dict[str, Any]]]


def replay(stub: Any, frames: list[dict[str, Any]], store: MetricStore) -> GpuExporter:
    """Read each frame once, a second apart, with the real binding and the real reading code."""
    exporter = GpuExporter(store, stale_ns=5 * NS_PER_S)
    stub.play(frames[0])
    source = NvmlSource(stub.library)
    devices = source.open()
    for number in range(len(frames)):
        stub.play(*frames[: number + 1])
        exporter.searched()
        for device in devices:
            try:
                exporter.take(device.sample(number * NS_PER_S))
            except GpuLostError:
                exporter.down(device.identity)
        for event in source.events():
            exporter.event(event)
        exporter.refresh(number * NS_PER_S)
    return exporter


def exposed(store: MetricStore) -> str:
    return Exposition(store).render()[0].decode()


def check(name: str, text: str) -> None:
    path = GOLDEN / f"gpu_{name}.metrics"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8")


@pytest.mark.parametrize("name", CAPTURES)
def test_exposition_of_a_capture(name: str, stub: Any, frames: Frames) -> None:
    """Every series after the last frame, byte for byte."""
    store = MetricStore()
    replay(stub, frames(name), store)
    check(name, exposed(store))


def test_exposition_without_nvml() -> None:
    """One series that says 0, and nothing else of GPUs."""
    store = MetricStore()
    exporter = GpuExporter(store, stale_ns=NS_PER_S)
    with pytest.raises(SourceUnavailableError, match=r"cannot load `/nowhere/libnvidia-ml\.so\.1`"):
        NvmlSource("/nowhere/libnvidia-ml.so.1").open()
    exporter.searched()
    exporter.refresh(0)
    check("none", exposed(store))


def test_golden_files_show_every_metric_of_a_gpu() -> None:
    """A metric added to the chapter needs a capture that has it; the sampler's own are tested with the sampler."""
    own = {m.GPU_SAMPLER_FAULTS.family, m.GPU_SAMPLER_CPU.family, m.GPU_SAMPLE_DURATION.family}
    texts = [path.read_text("utf-8") for path in GOLDEN.glob("gpu_*.metrics")]
    shown = {name.removesuffix("_total") for text in texts for name in re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)}
    assert shown == {metric.family for metric in m.TABLE if metric.group is m.Group.GPU} - own


@pytest.mark.parametrize("name", CAPTURES)
def test_openmetrics_takes_it(name: str, stub: Any, frames: Frames) -> None:
    """The strict parser reads names, units and values as they are in the store."""
    store = MetricStore()
    replay(stub, frames(name), store)
    families = {family.name: family for family in parse(Exposition(store).render(OPENMETRICS)[0].decode())}
    assert families["inferwatch_gpu_temperature_celsius"].unit == "celsius"
    for family in families.values():
        assert family.unit == m.BY_NAME.get(family.name, m.BY_NAME.get(f"{family.name}_total", m.GPU_UP)).exposed_unit


@pytest.mark.parametrize("name", CAPTURES)
def test_absent_is_not_zero(name: str, stub: Any, frames: Frames) -> None:
    """What the driver answers with an error has no series: the P100's energy, a split GPU's utilisation."""
    store = MetricStore()
    replay(stub, frames(name), store)
    text = exposed(store)
    absent = {
        "p100_no_energy": (
            "energy_joules_total",
            "pcie_bytes_total",
            "remapped_rows",
            "sm_activity_ratio",
            "mig_enabled",
        ),
        "h100_mig": ("utilization_ratio", "nvlink_bytes_total", "process_memory_bytes", "gpu_sm_activity_ratio"),
        "gb10_few_values": ("memory_used_bytes", "energy_joules_total", "xid_errors_total", "power_limit_watts"),
        "l4_falls_off": ("memory_temperature_celsius", "nvlink_bytes_total"),
    }
    for family in absent.get(name, ()):
        assert not re.search(rf"^inferwatch_(gpu_)?{family}", text, re.MULTILINE)
