"""The values of an NVIDIA GPU that are read together: field numbers of nvml.h, and what they become."""

from typing import Final, NamedTuple

from inferwatch_collectors.gpu.base import CORRECTED, RECEIVE, TRANSMIT, UNCORRECTED, Counters

# For fields of NVLink: the sum over all links.
ALL_LINKS: Final = 0xFFFFFFFF

KIB: Final = 1024


class Field(NamedTuple):
    """A value that is read together with others; numbers are those of nvml.h."""

    name: str
    field_id: int
    scope: int = 0


# (label value, field) of what becomes a family with a label.
CLOCK_EVENT_FIELDS: Final = tuple(
    (reason, Field(f"clock_event_{reason}", field_id))
    for reason, field_id in (
        ("sw_power_cap", 74),
        ("sync_boost", 76),
        ("sw_thermal", 269),
        ("hw_thermal", 270),
        ("hw_power_brake", 271),
    )
)
ECC_FIELDS: Final = ((CORRECTED, Field("ecc_corrected", 3)), (UNCORRECTED, Field("ecc_uncorrected", 4)))
ECC_LIFETIME_FIELDS: Final = (
    (CORRECTED, Field("ecc_lifetime_corrected", 5)),
    (UNCORRECTED, Field("ecc_lifetime_uncorrected", 6)),
)
RETIRED_FIELDS: Final = ((CORRECTED, Field("retired_corrected", 29)), (UNCORRECTED, Field("retired_uncorrected", 30)))
REMAPPED_FIELDS: Final = (
    (CORRECTED, Field("remapped_corrected", 142)),
    (UNCORRECTED, Field("remapped_uncorrected", 143)),
)
PCIE_FIELDS: Final = ((TRANSMIT, Field("pcie_transmit", 197)), (RECEIVE, Field("pcie_receive", 198)))
NVLINK_FIELDS: Final = (
    (TRANSMIT, Field("nvlink_transmit", 202, ALL_LINKS)),
    (RECEIVE, Field("nvlink_receive", 204, ALL_LINKS)),
)
# NVLink 4 and earlier, in KiB.
NVLINK_KIB_FIELDS: Final = (
    (TRANSMIT, Field("nvlink_transmit_kib", 138, ALL_LINKS)),
    (RECEIVE, Field("nvlink_receive_kib", 139, ALL_LINKS)),
)

FIELDS: Final = (
    Field("energy", 83),
    Field("memory_temperature", 82),
    Field("retired_pending", 31),
    Field("remap_pending", 144),
    Field("remap_failed", 145),
    Field("pcie_replays", 94),
    *(
        field
        for members in (
            CLOCK_EVENT_FIELDS,
            ECC_FIELDS,
            ECC_LIFETIME_FIELDS,
            RETIRED_FIELDS,
            REMAPPED_FIELDS,
            PCIE_FIELDS,
            NVLINK_FIELDS,
            NVLINK_KIB_FIELDS,
        )
        for _, field in members
    ),
)


def counters(fields: dict[str, int]) -> Counters:
    """Return what only grows, of the fields that were read."""
    nvlink = family(fields, NVLINK_FIELDS)
    return Counters(
        energy_mj=fields.get("energy"),
        clock_event_ns=family(fields, CLOCK_EVENT_FIELDS),
        ecc_errors=family(fields, ECC_FIELDS),
        pcie_bytes=family(fields, PCIE_FIELDS),
        pcie_replays=fields.get("pcie_replays"),
        nvlink_bytes=nvlink or {key: kib * KIB for key, kib in family(fields, NVLINK_KIB_FIELDS).items()},
    )


def family(fields: dict[str, int], members: tuple[tuple[str, Field], ...]) -> dict[str, int]:
    """Return those of `members` that were read, by their label."""
    return {label: fields[field.name] for label, field in members if field.name in fields}
