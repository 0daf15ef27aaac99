"""What is read of the GPUs."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from inferwatch.settings.base import MAX_SECONDS


class Gpu(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The GPUs of this host. Nothing here can fail or delay a request."""

    # Not `off`: YAML reads that as a boolean.
    source: Annotated[
        Literal["auto", "nvidia", "amd", "simulated", "none"],
        Meta(
            description="Whose GPUs are read. `auto`: NVIDIA's and AMD's, whichever library is there. `simulated`: the "
            "one that `inferwatch simulate` at `upstream.url` pretends to have, for demonstrations."
        ),
    ] = "auto"
    interval_s: Annotated[
        float,
        # Drivers update the energy counter about every 0.1 s, and activity needs 0.1 s between two readings.
        Meta(ge=0.2, le=MAX_SECONDS, description="Time between two readings of all GPUs."),
    ] = 1.0
    hang_timeout_s: Annotated[
        float,
        Meta(
            ge=0.1,
            le=MAX_SECONDS,
            description="A GPU whose driver takes longer than this is reported as down; the others are read on.",
        ),
    ] = 3.0
    processes: Annotated[bool, Meta(description="Count the processes on each GPU and their memory.")] = True
    nvml_library: Annotated[
        str, Meta(description="Path of `libnvidia-ml.so.1`; empty: where the system's linker finds it.")
    ] = ""
