"""A GPU that does not exist: what `inferwatch simulate` says of its own, for demonstrations and where there is none.

Nobody should take it for a real one: its model says what it is, and so does its vendor.
"""

import http.client
import urllib.parse
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from inferwatch_collectors.gpu.base import (
    Counters,
    GpuEvent,
    GpuLostError,
    GpuSample,
    Identity,
    Memory,
    SourceUnavailableError,
)

PATH: Final = "/simulator/gpu"
TIMEOUT_S: Final = 2.0


class SimulatedDevice:
    """The one GPU."""

    def __init__(self, where: str, model: str) -> None:
        self._where = where
        self.identity = Identity(index=0, uuid="SIMULATED-0", model=model, vendor="simulated")

    def sample(self, stamp_ns: int) -> GpuSample:
        """Ask the simulator.

        Raises:
            GpuLostError: it does not answer.
        """
        try:
            said = ask(self._where)
            return GpuSample(
                identity=self.identity,
                stamp_ns=stamp_ns,
                counters=Counters(energy_mj=said["energy_mj"], clock_event_ns=said["clock_event_ns"]),
                utilization_ratio=said["utilization"],
                memory=Memory(total=said["memory_total"], used=said["memory_used"]),
                power_mw=said["power_mw"],
                power_limit_mw=said["power_limit_mw"],
                temperature_c=said["temperature_c"],
                clocks_hz={"sm": said["sm_hz"]},
                clock_events=frozenset(said["clock_events"]),
            )
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            raise GpuLostError(f"the simulator does not answer: {type(error).__name__}") from None


class SimulatedSource:
    """The simulator at `upstream.url`."""

    name = "simulated"

    def __init__(self, upstream: str) -> None:
        self._where = urllib.parse.urlsplit(upstream).netloc.rpartition("@")[2]

    def open(self) -> Sequence[SimulatedDevice]:
        """Find it.

        Raises:
            SourceUnavailableError: what is there simulates no GPU.
        """
        try:
            model = str(ask(self._where)["model"])
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            raise SourceUnavailableError(
                f"{self._where} simulates no GPU: `gpu.source: simulated` is for `inferwatch simulate`"
            ) from None
        return [SimulatedDevice(self._where, model)]

    def events(self) -> Sequence[GpuEvent]:
        """It has none."""
        return ()


def ask(where: str) -> Any:
    """Return what the simulator says of its GPU."""
    connection = http.client.HTTPConnection(where, timeout=TIMEOUT_S)
    try:
        connection.request("GET", PATH)
        reply = connection.getresponse()
        if reply.status != http.client.OK:
            raise ValueError(f"status {reply.status}")
        return msgspec.json.decode(reply.read())
    finally:
        connection.close()
