"""GPU: the instances that a card is split into (MIG)."""

from typing import Final

from inferwatch_collectors.metrics.base import Group, Kind, Metric
from inferwatch_collectors.metrics.gpu import CARD

INSTANCE: Final = (*CARD, "mig_uuid", "mig_profile")

GPU_MIG_ENABLED: Final = Metric(
    name="inferwatch_gpu_mig_enabled",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=CARD,
    help="1 if the GPU is split into MIG instances.",
    measured="Absent where there is no MIG.",
)
GPU_MIG_MEMORY_TOTAL: Final = Metric(
    name="inferwatch_gpu_mig_memory_total_bytes",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=INSTANCE,
    unit="bytes",
    help="Memory of the MIG instance.",
    measured="A family of its own, so that sums over GPUs count nothing twice.",
)
GPU_MIG_MEMORY_USED: Final = Metric(
    name="inferwatch_gpu_mig_memory_used_bytes",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=INSTANCE,
    unit="bytes",
    help="Memory in use on the MIG instance.",
    measured="Compute instances of one GPU instance share it and show the same.",
)
GPU_MIG_SM_ACTIVITY: Final = Metric(
    name="inferwatch_gpu_mig_sm_activity_ratio",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=INSTANCE,
    unit="ratio",
    help="Share of the instance's multiprocessors that were busy.",
    measured="Mean since the reading before (GPM); Hopper and later.",
)
GPU_MIG_SM_OCCUPANCY: Final = Metric(
    name="inferwatch_gpu_mig_sm_occupancy_ratio",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=INSTANCE,
    unit="ratio",
    help="Active warps of the instance as a share of the most that could be active.",
    measured="Mean since the reading before (GPM); Hopper and later.",
)
GPU_MIG_TENSOR_ACTIVITY: Final = Metric(
    name="inferwatch_gpu_mig_tensor_activity_ratio",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=INSTANCE,
    unit="ratio",
    help="Share of time in which tensor operations of any kind ran on the instance.",
    measured="Mean since the reading before (GPM); Hopper and later.",
)
GPU_MIG_DRAM_ACTIVITY: Final = Metric(
    name="inferwatch_gpu_mig_dram_activity_ratio",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=INSTANCE,
    unit="ratio",
    help="Memory bandwidth used by the instance, as a share of the most it can use.",
    measured="Mean since the reading before (GPM); Hopper and later.",
)
