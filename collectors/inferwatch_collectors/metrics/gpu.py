"""GPU: what the driver says of each card. docs/topics/gpu.md has what is read, what is left out, and why."""

from typing import Final

from inferwatch_collectors.metrics.base import Group, Kind, Metric

CARD: Final = ("gpu", "uuid", "gpu_model")

GPU_UP: Final = Metric(
    name="inferwatch_gpu_up",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=CARD,
    help="1 while the GPU answers, 0 if it is lost, hangs, or was not read lately.",
    measured="One series with empty labels and 0 if no driver library or no GPU was found; none with gpu.source: none.",
    semconv="hw.status",
    note="the twin has a series per state",
)
GPU_INFO: Final = Metric(
    name="inferwatch_gpu_info",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=(*CARD, "vendor", "driver_version", "pci_bus_id"),
    help="Always 1; what the GPU is stands in the labels.",
    measured="Absent while the GPU does not answer.",
    note="`hw.vendor`, `hw.driver_version`",
)
GPU_UTILIZATION: Final = Metric(
    name="inferwatch_gpu_utilization_ratio",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=CARD,
    unit="ratio",
    help="Share of the driver's last sample period (1/6 to 1 s) in which at least one kernel ran.",
    measured="1 does not mean full: decoding keeps it near 1 at any batch size. Not known for a GPU split by MIG.",
    semconv="hw.gpu.utilization",
)
GPU_MEMORY_ACTIVITY: Final = Metric(
    name="inferwatch_gpu_memory_activity_ratio",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=CARD,
    unit="ratio",
    help="Share of the driver's last sample period in which memory was read or written.",
    measured="Not how full the memory is.",
)
GPU_SM_ACTIVITY: Final = Metric(
    name="inferwatch_gpu_sm_activity_ratio",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=CARD,
    unit="ratio",
    help="Share of the streaming multiprocessors that were busy.",
    measured="Mean since the reading before (GPM); Hopper and later.",
)
GPU_SM_OCCUPANCY: Final = Metric(
    name="inferwatch_gpu_sm_occupancy_ratio",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=CARD,
    unit="ratio",
    help="Active warps as a share of the most that could be active.",
    measured="Mean since the reading before (GPM); Hopper and later.",
)
GPU_TENSOR_ACTIVITY: Final = Metric(
    name="inferwatch_gpu_tensor_activity_ratio",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=CARD,
    unit="ratio",
    help="Share of time in which tensor operations of any kind ran.",
    measured="Mean since the reading before (GPM); Hopper and later. High in prefill, low in decode.",
)
GPU_DRAM_ACTIVITY: Final = Metric(
    name="inferwatch_gpu_dram_activity_ratio",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=CARD,
    unit="ratio",
    help="Memory bandwidth used, as a share of the most the memory can do.",
    measured="Mean since the reading before (GPM); Hopper and later. What decode is limited by.",
)
GPU_MEMORY_TOTAL: Final = Metric(
    name="inferwatch_gpu_memory_total_bytes",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=CARD,
    unit="bytes",
    help="Memory of the GPU.",
    measured="As the driver counts it, with what it reserves for itself.",
    semconv="hw.gpu.memory.limit",
)
GPU_MEMORY_USED: Final = Metric(
    name="inferwatch_gpu_memory_used_bytes",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=CARD,
    unit="bytes",
    help="Memory in use by processes, without what the driver reserves.",
    measured="An engine takes its KV cache at the start: near constant, and no sign of load.",
    semconv="hw.gpu.memory.usage",
)
GPU_MEMORY_FREE: Final = Metric(
    name="inferwatch_gpu_memory_free_bytes",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=CARD,
    unit="bytes",
    help="Memory that can still be taken.",
    measured="Total less used and reserved.",
)
GPU_MEMORY_RESERVED: Final = Metric(
    name="inferwatch_gpu_memory_reserved_bytes",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=CARD,
    unit="bytes",
    help="Memory that driver and firmware keep for themselves.",
    measured="Driver 510 and later.",
)
GPU_POWER: Final = Metric(
    name="inferwatch_gpu_power_watts",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=CARD,
    unit="watts",
    help="Power drawn by the whole board.",
    measured="Mean of one second since Ampere (not GA100), before that the instant; for energy use the counter.",
    semconv="hw.power",
)
GPU_POWER_LIMIT: Final = Metric(
    name="inferwatch_gpu_power_limit_watts",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=CARD,
    unit="watts",
    help="Power limit in force.",
    measured="The lowest of all that limit it.",
)
GPU_ENERGY: Final = Metric(
    name="inferwatch_gpu_energy_joules_total",
    kind=Kind.COUNTER,
    group=Group.GPU,
    labels=CARD,
    unit="joules",
    scale=1_000,
    help="Energy that the GPU has taken since Inferwatch first saw it.",
    measured="From the GPU's own counter (Volta and later, updated about every 100 ms), not from power; it goes on "
    "after a restart of Inferwatch and of the driver.",
    semconv="hw.energy",
)
GPU_TEMPERATURE: Final = Metric(
    name="inferwatch_gpu_temperature_celsius",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=CARD,
    unit="celsius",
    help="Temperature of the GPU.",
    measured="Of the die, on AMD of its hottest spot.",
    semconv="hw.temperature",
)
GPU_MEMORY_TEMPERATURE: Final = Metric(
    name="inferwatch_gpu_memory_temperature_celsius",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=CARD,
    unit="celsius",
    help="Temperature of the GPU's memory.",
    measured="Where the board has a sensor for it.",
    semconv="hw.temperature",
)
GPU_CLOCK: Final = Metric(
    name="inferwatch_gpu_clock_hertz",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=(*CARD, "clock"),
    unit="hertz",
    help="Present clock of the multiprocessors and of the memory.",
    measured="At the moment of reading.",
)
GPU_CLOCK_EVENT: Final = Metric(
    name="inferwatch_gpu_clock_event_active",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=(*CARD, "reason"),
    help="1 while this reason holds the clocks down, else 0.",
    measured="idle, app_clocks, sw_power_cap, hw_slowdown, sync_boost, sw_thermal, hw_thermal, hw_power_brake, "
    "display. idle is no fault; sw_power_cap is normal at full load.",
)
GPU_CLOCK_EVENT_SECONDS: Final = Metric(
    name="inferwatch_gpu_clock_event_seconds_total",
    kind=Kind.COUNTER,
    group=Group.GPU,
    labels=(*CARD, "reason"),
    unit="seconds",
    scale=1_000_000_000,
    help="Time for which this reason held the clocks down.",
    measured="Counted by the driver, so nothing between two readings is missed: sw_power_cap, sync_boost, sw_thermal, "
    "hw_thermal, hw_power_brake.",
)
GPU_ECC_ERRORS: Final = Metric(
    name="inferwatch_gpu_ecc_errors_total",
    kind=Kind.COUNTER,
    group=Group.GPU,
    labels=(*CARD, "severity"),
    help="Memory errors since Inferwatch first saw the GPU.",
    measured="From the driver's volatile counters; only where ECC is on.",
    semconv="hw.errors",
)
GPU_ECC_LIFETIME: Final = Metric(
    name="inferwatch_gpu_ecc_lifetime_errors",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=(*CARD, "severity"),
    help="Memory errors in the life of the board.",
    measured="As kept in the board itself; only where ECC is on.",
)
GPU_REMAPPED_ROWS: Final = Metric(
    name="inferwatch_gpu_remapped_rows",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=(*CARD, "severity"),
    help="Rows of memory replaced by spare ones, by the kind of error.",
    measured="Ampere and later.",
)
GPU_ROW_REMAP_PENDING: Final = Metric(
    name="inferwatch_gpu_row_remap_pending",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=CARD,
    help="1 if rows wait for a reset of the GPU to be replaced.",
    measured="Ampere and later.",
)
GPU_ROW_REMAP_FAILED: Final = Metric(
    name="inferwatch_gpu_row_remap_failed",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=CARD,
    help="1 if a row could not be replaced.",
    measured="Ampere and later. The board should be exchanged.",
)
GPU_RETIRED_PAGES: Final = Metric(
    name="inferwatch_gpu_retired_pages",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=(*CARD, "severity"),
    help="Pages of memory taken out of use, by the kind of error.",
    measured="GPUs before Ampere.",
)
GPU_PAGE_RETIREMENT_PENDING: Final = Metric(
    name="inferwatch_gpu_page_retirement_pending",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=CARD,
    help="1 if pages wait for a reset of the GPU to be taken out of use.",
    measured="GPUs before Ampere.",
)
GPU_PCIE_BYTES: Final = Metric(
    name="inferwatch_gpu_pcie_bytes_total",
    kind=Kind.COUNTER,
    group=Group.GPU,
    labels=(*CARD, "direction"),
    unit="bytes",
    help="Bytes over PCIe since Inferwatch first saw the GPU.",
    measured="From the GPU's own counters; transmit is from the GPU to the host. They have 32 bits: of more than 4 GiB "
    "between two readings (gpu.interval_s) the multiples of that are missing.",
    semconv="hw.gpu.io",
)
GPU_PCIE_REPLAYS: Final = Metric(
    name="inferwatch_gpu_pcie_replays_total",
    kind=Kind.COUNTER,
    group=Group.GPU,
    labels=CARD,
    help="PCIe packets sent again since Inferwatch first saw the GPU.",
    measured="More than a few point at the slot, the riser or the cable.",
)
GPU_NVLINK_BYTES: Final = Metric(
    name="inferwatch_gpu_nvlink_bytes_total",
    kind=Kind.COUNTER,
    group=Group.GPU,
    labels=(*CARD, "direction"),
    unit="bytes",
    help="Bytes over all NVLinks since Inferwatch first saw the GPU.",
    measured="Payload only; on NVLink 5 what the driver calls bytes.",
)
GPU_XID_ERRORS: Final = Metric(
    name="inferwatch_gpu_xid_errors_total",
    kind=Kind.COUNTER,
    group=Group.GPU,
    labels=(*CARD, "xid"),
    help="Xid errors that the driver told of, by number.",
    measured="Only those that came while Inferwatch ran. 79: fallen off the bus; 48, 63, 64, 94, 95: memory; "
    "74: NVLink; 119, 120: firmware; 13, 31, 43: mostly the program's own fault. "
    "At most 32 numbers per GPU, the rest is `other`.",
)
GPU_PROCESSES: Final = Metric(
    name="inferwatch_gpu_processes",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=CARD,
    help="Processes that compute on the GPU.",
    measured="No series per process: in a container the driver gives process ids of the host.",
)
GPU_PROCESS_MEMORY: Final = Metric(
    name="inferwatch_gpu_process_memory_bytes",
    kind=Kind.GAUGE,
    group=Group.GPU,
    labels=CARD,
    unit="bytes",
    help="Memory of all processes that compute on the GPU.",
    measured="Absent if the driver does not tell it for each of them.",
)
