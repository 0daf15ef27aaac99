"""GPM: how busy the parts of a GPU were between two readings. Hopper and later; needs no privilege and no DCGM."""

from collections.abc import Callable
from math import isfinite
from typing import Any, Final

from inferwatch_collectors.gpu.base import Activity
from inferwatch_collectors.gpu.nvml_reads import Asked

# (field of Activity, nvmlGpmMetricId_t)
METRICS: Final = (("sm_ratio", 2), ("sm_occupancy_ratio", 3), ("tensor_ratio", 5), ("dram_ratio", 10))


class Gpm:
    """Pairs of samples of one GPU or MIG instance. The driver wants at least 0.1 s between the two."""

    def __init__(self, nvml: Any, asked: Asked, take: Callable[[Any], None], name: str = "activity") -> None:
        """`take` fills a sample buffer."""
        self._nvml = nvml
        self._asked = asked
        self._take = take
        self._name = name
        self._buffers: list[Any] = []  # the last sample, and the one to be filled
        self._request: Any = None  # 19 kB, made once
        self._paired = False

    def read(self) -> Activity:
        """Return the means since the last call; nothing at the first."""
        if self._asked.read(self._name, self._fill) is None:
            return Activity()
        paired, self._paired = self._paired, True
        last, fresh = self._buffers
        self._buffers = [fresh, last]
        if not paired or self._asked.read(self._name, self._compute, last, fresh) is None:
            return Activity()
        return Activity(**{field: self._ratio(index) for index, (field, _) in enumerate(METRICS)})

    def close(self) -> None:
        """Give the buffers back."""
        buffers, self._buffers = self._buffers, []
        for buffer in buffers:
            self._asked.read(f"{self._name}_free", self._nvml.nvmlGpmSampleFree, buffer)

    def _fill(self) -> bool:
        nvml = self._nvml
        while len(self._buffers) < 2:
            self._buffers.append(nvml.nvmlGpmSampleAlloc())
        self._take(self._buffers[1])
        return True

    def _compute(self, last: Any, fresh: Any) -> bool:
        if self._request is None:
            self._request = self._nvml.c_nvmlGpmMetricsGet_t()
        request = self._request
        request.version = self._nvml.NVML_GPM_METRICS_GET_VERSION
        request.numMetrics = len(METRICS)
        request.sample1, request.sample2 = last, fresh
        for index, (_, metric_id) in enumerate(METRICS):
            request.metrics[index].metricId = metric_id
        self._nvml.nvmlGpmMetricsGet(request)
        return True

    def _ratio(self, index: int) -> float | None:
        metric = self._request.metrics[index]
        percent = float(metric.value)
        if metric.nvmlReturn or not isfinite(percent) or percent < 0:
            return None
        # Counters of different clocks are divided: a full unit may show a hair above 100.
        return min(percent / 100, 1.0)
