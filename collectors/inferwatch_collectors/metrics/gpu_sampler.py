"""GPU: how it is read, and what that costs."""

from typing import Final

from inferwatch_collectors.metrics.base import Group, Kind, Metric
from inferwatch_collectors.metrics.gpu import CARD

GPU_COUNTER_RESETS: Final = Metric(
    name="inferwatch_gpu_counter_resets_total",
    kind=Kind.COUNTER,
    group=Group.GPU,
    labels=CARD,
    help="Readings in which counters of the GPU had gone back.",
    measured="A driver was reloaded, a GPU reset, or a counter ran over. Our counters go on.",
)
GPU_SAMPLER_FAULTS: Final = Metric(
    name="inferwatch_gpu_sampler_faults_total",
    kind=Kind.COUNTER,
    group=Group.GPU,
    labels=("reason",),
    help="What went wrong while reading GPUs.",
    measured="hung: a call did not return within gpu.hang_timeout_s; lost: a GPU stopped answering; "
    "failed: one value could not be read this time; died: the reading thread ended; "
    "dropped: readings that the collector was too busy to take.",
)
GPU_SAMPLER_CPU: Final = Metric(
    name="inferwatch_gpu_sampler_cpu_seconds_total",
    kind=Kind.COUNTER,
    group=Group.GPU,
    unit="seconds",
    help="CPU time spent on reading GPUs.",
    measured="Of the reading thread, driver calls included.",
)
GPU_SAMPLE_DURATION: Final = Metric(
    name="inferwatch_gpu_sample_duration_seconds",
    kind=Kind.GAUGE,
    group=Group.GPU,
    unit="seconds",
    help="How long the last reading of all GPUs took.",
    measured="In a thread of its own: it delays neither traffic nor the collector.",
)
