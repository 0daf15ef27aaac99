"""GPU and engine: how full they are, and whether they are well."""

from typing import Final

from dashboards.src.panels import (
    BAD,
    FAIR,
    GOOD,
    HOST,
    Board,
    Query,
    Row,
    counted,
    ratio,
    rows_of,
    series,
    stack,
    stat,
    total,
    value,
)

_CARD: Final = "instance, gpu"


def _gauge(metric: str, *, by: str = _CARD) -> Query:
    return value(metric, HOST, by, how="max")


def _of_instances(metric: str, what: str = "", by: str = "mig_uuid, mig_profile") -> Query:
    return value(metric, HOST, by, how="max", legend=what and f"{{{{mig_profile}}}} {what}")


def _of_cards(metric: str, what: str = "") -> Query:
    return value(metric, HOST, _CARD, how="max", legend=f"{{{{instance}}}} {{{{gpu}}}} {what}".strip())


_ENGINE: Final = Row(
    "Engine",
    (
        stat(
            "Engine up",
            Query(f"min(inferwatch_upstream_up{{{HOST}}})"),
            "bool_on_off",
            "Whether every engine takes connections.",
            steps=((0, BAD), (1, GOOD)),
        ),
        stat(
            "Its metrics",
            Query(f"min(inferwatch_engine_up{{{HOST}}})"),
            "bool_on_off",
            "Whether its own metrics can be read. Off alone hurts nobody.",
            steps=((0, FAIR), (1, GOOD)),
        ),
        rows_of(
            "Engines",
            (Query(f"max by (instance, upstream, engine) (inferwatch_engine_info{{{HOST}}})", "up"),),
            "none",
            "What each is, by the names of its metrics.",
            width=16,
            height=4,
        ),
        series(
            "Running and waiting",
            (
                value("inferwatch_engine_requests_running", HOST, "instance", what="running"),
                value("inferwatch_engine_requests_waiting", HOST, "instance", what="waiting"),
            ),
            "short",
            "Sequences. Waiting above running for ten minutes is a ticket.",
        ),
        series(
            "KV cache",
            _gauge("inferwatch_engine_kv_cache_usage_ratio", by="instance"),
            "percentunit",
            "In use. Full is a fault only if requests wait for it or are put back.",
            most=1,
            steps=((0, GOOD), (0.95, BAD)),
        ),
        series(
            "Put back",
            total("inferwatch_engine_preemptions_total", HOST, "instance"),
            "short",
            "Sequences a second whose work was thrown away to make room, and is done again.",
        ),
        series(
            "Prefix cache hits",
            ratio(
                f"inferwatch_engine_prefix_cache_hits_total{{{HOST}}}",
                f"inferwatch_engine_prefix_cache_queries_total{{{HOST}}}",
                "instance",
            ),
            "percentunit",
            "Share of prompt tokens that need not be computed.",
            most=1,
        ),
        stack(
            "Tokens by the engine's count",
            total("inferwatch_engine_tokens_total", HOST, "type"),
            "short",
            "A second, whoever asked for them.",
        ),
        series(
            "Restarts and unread scrapes",
            (
                counted("inferwatch_engine_restarts_total", HOST, "instance", what="restarts"),
                counted("inferwatch_engine_scrape_failures_total", HOST, "reason", legend="scrape: {{reason}}"),
            ),
            "short",
            "In the time shown.",
        ),
        series(
            "The engine answers a scrape in",
            _gauge("inferwatch_engine_scrape_duration_seconds", by="instance"),
            "s",
            "vLLM answers from the loop that also sends tokens: a long time is a busy loop.",
            width=12,
        ),
        series(
            "Joules a token",
            ratio(
                f"inferwatch_gpu_energy_joules_total{{{HOST}}}",
                f'inferwatch_engine_tokens_total{{{HOST}, type="completion"}}',
                "instance",
            ),
            "joule",
            "All energy of the cards over completion tokens. It falls as the batch fills.",
            width=12,
        ),
    ),
)

_SATURATION: Final = Row(
    "GPU: how full",
    (
        stat(
            "GPUs that answer",
            (
                Query(f'sum(inferwatch_gpu_up{{{HOST}, uuid!=""}})', "up"),
                Query(f'count(inferwatch_gpu_up{{{HOST}, uuid!=""}})', "known"),
            ),
            "none",
            "A card that is lost is a page.",
            width=8,
        ),
        rows_of(
            "Cards",
            (
                Query(
                    "max by (instance, gpu, gpu_model, vendor, driver_version, pci_bus_id) "
                    f"(inferwatch_gpu_info{{{HOST}}})",
                    "up",
                ),
            ),
            "none",
            "What they are.",
            width=16,
            height=4,
        ),
        series(
            "Busy",
            _gauge("inferwatch_gpu_utilization_ratio"),
            "percentunit",
            "Share of time in which any kernel ran. 1 does not mean full: decoding keeps it there at any batch size.",
            most=1,
        ),
        series(
            "Memory bandwidth",
            (
                _of_cards("inferwatch_gpu_dram_activity_ratio", "DRAM"),
                _of_cards("inferwatch_gpu_memory_activity_ratio", "any access"),
            ),
            "percentunit",
            "DRAM: of the most the memory can do, what decoding is limited by.",
            most=1,
        ),
        series(
            "Arithmetic",
            (
                _of_cards("inferwatch_gpu_tensor_activity_ratio", "tensor"),
                _of_cards("inferwatch_gpu_sm_activity_ratio", "SM"),
                _of_cards("inferwatch_gpu_sm_occupancy_ratio", "occupancy"),
            ),
            "percentunit",
            "Tensor cores are busy in prefill, nearly idle in decode.",
            most=1,
        ),
        series(
            "Memory",
            (
                _of_cards("inferwatch_gpu_memory_used_bytes", "used"),
                _of_cards("inferwatch_gpu_memory_free_bytes", "free"),
                _of_cards("inferwatch_gpu_memory_reserved_bytes", "driver"),
                _of_cards("inferwatch_gpu_memory_total_bytes", "total"),
            ),
            "bytes",
            "An engine takes it all at the start: no sign of load.",
        ),
        series(
            "Processes",
            (
                _of_cards("inferwatch_gpu_processes", "processes"),
                _of_cards("inferwatch_gpu_mig_enabled", "MIG"),
            ),
            "short",
            "More than the engine's: somebody shares the card.",
        ),
        series(
            "Memory of processes",
            _gauge("inferwatch_gpu_process_memory_bytes"),
            "bytes",
            "Of all processes that compute on the card.",
        ),
    ),
)

_POWER: Final = Row(
    "GPU: power, heat, clocks",
    (
        series(
            "Power",
            (
                _of_cards("inferwatch_gpu_power_watts"),
                _of_cards("inferwatch_gpu_power_limit_watts", "limit"),
            ),
            "watt",
            "Drawn by the board, and its limit.",
        ),
        series(
            "Power by the energy counter",
            total("inferwatch_gpu_energy_joules_total", HOST, _CARD),
            "watt",
            "Joules a second: what energy is divided by.",
        ),
        series(
            "Temperature",
            (
                _of_cards("inferwatch_gpu_temperature_celsius"),
                _of_cards("inferwatch_gpu_memory_temperature_celsius", "memory"),
            ),
            "celsius",
            "Nobody is woken by heat alone.",
        ),
        series(
            "Clocks",
            value("inferwatch_gpu_clock_hertz", HOST, "instance, gpu, clock", how="max"),
            "hertz",
            "Of the multiprocessors and of the memory.",
        ),
        series(
            "Held back, by the driver's clock",
            total("inferwatch_gpu_clock_event_seconds_total", HOST, "instance, gpu, reason"),
            "percentunit",
            "Share of time. Told only if tokens are late as well: a card at its power limit is a card in use.",
            most=1,
        ),
        series(
            "Held back now",
            value("inferwatch_gpu_clock_event_active", HOST, "gpu, reason", how="max"),
            "short",
            "1 while a reason holds the clocks down; idle is no fault.",
        ),
    ),
)

_HEALTH: Final = Row(
    "GPU: errors",
    (
        series(
            "Xid errors",
            counted("inferwatch_gpu_xid_errors_total", HOST, "instance, gpu, xid"),
            "short",
            "By the driver, in the time shown. 79: fallen off the bus; 13, 31, 43: mostly the program's own fault.",
        ),
        series(
            "Memory errors",
            counted("inferwatch_gpu_ecc_errors_total", HOST, "instance, gpu, severity"),
            "short",
            "In the time shown. Corrected ones are what ECC is for.",
        ),
        series(
            "Memory errors of a lifetime",
            value("inferwatch_gpu_ecc_lifetime_errors", HOST, "instance, gpu, severity", how="max"),
            "short",
            "As kept in the board.",
        ),
        series(
            "Spare memory used",
            (
                value(
                    "inferwatch_gpu_remapped_rows", HOST, "gpu, severity", how="max", legend="{{gpu}} rows {{severity}}"
                ),
                value(
                    "inferwatch_gpu_retired_pages",
                    HOST,
                    "gpu, severity",
                    how="max",
                    legend="{{gpu}} pages {{severity}}",
                ),
            ),
            "short",
            "Rows (Ampere and later) or pages (before) replaced.",
        ),
        series(
            "Waits for a reset, or beyond help",
            (
                value("inferwatch_gpu_row_remap_pending", HOST, _CARD, how="max", legend="{{gpu}} rows pending"),
                value("inferwatch_gpu_page_retirement_pending", HOST, _CARD, how="max", legend="{{gpu}} pages pending"),
                value("inferwatch_gpu_row_remap_failed", HOST, _CARD, how="max", legend="{{gpu}} no spare rows"),
            ),
            "short",
            "1: reset the card at the next quiet hour; no spare rows: have it exchanged.",
        ),
        series(
            "PCIe",
            (
                total("inferwatch_gpu_pcie_bytes_total", HOST, "gpu, direction"),
                total("inferwatch_gpu_pcie_replays_total", HOST, "gpu", what="replays"),
            ),
            "Bps",
            "Bytes a second; replays point at slot, riser or cable.",
        ),
        series(
            "NVLink",
            total("inferwatch_gpu_nvlink_bytes_total", HOST, "gpu, direction"),
            "Bps",
            "Payload a second over all links.",
        ),
        series(
            "Reading the cards",
            (
                counted("inferwatch_gpu_sampler_faults_total", HOST, "reason"),
                counted("inferwatch_gpu_counter_resets_total", HOST, legend="counters that went back"),
            ),
            "short",
            "In the time shown. hung: a driver call did not return.",
        ),
        series(
            "What reading costs",
            (
                total("inferwatch_gpu_sampler_cpu_seconds_total", HOST, legend="CPU"),
                value("inferwatch_gpu_sample_duration_seconds", HOST, "instance", how="max", what="takes"),
            ),
            "s",
            "CPU seconds a second, and how long one reading takes.",
        ),
    ),
)

_MIG: Final = Row(
    "MIG instances",
    (
        series(
            "Memory of instances",
            (
                _of_instances("inferwatch_gpu_mig_memory_used_bytes", by="gpu, mig_uuid, mig_profile"),
                _of_instances("inferwatch_gpu_mig_memory_total_bytes", "total", by="gpu, mig_uuid, mig_profile"),
            ),
            "bytes",
            "Of cards that are split.",
        ),
        series(
            "SM activity and occupancy",
            (
                _of_instances("inferwatch_gpu_mig_sm_activity_ratio"),
                _of_instances("inferwatch_gpu_mig_sm_occupancy_ratio", "occupancy"),
            ),
            "percentunit",
            "Of the instance.",
            most=1,
        ),
        series(
            "Tensor and DRAM activity",
            (
                _of_instances("inferwatch_gpu_mig_tensor_activity_ratio"),
                _of_instances("inferwatch_gpu_mig_dram_activity_ratio", "DRAM"),
            ),
            "percentunit",
            "Of the instance.",
            most=1,
        ),
    ),
    closed=True,
)

BOARD: Final = Board(
    uid="inferwatch-engine",
    about="How full engines and GPUs are, and whether they are well.",
    rows=(_ENGINE, _SATURATION, _POWER, _HEALTH, _MIG),
    variables=("job", "instance"),
)
