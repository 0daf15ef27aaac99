"""Which requests are exported. Pure: the answer depends on the request alone, so whoever asks twice hears the same.

Head sampling goes by the trace id, as OpenTelemetry's own does: every service with the same ratio keeps the same ones.
Tail sampling adds what failed and what was slow. The caller's own decision (the sampled flag of `traceparent`) is
heeded by the head, and not by the tail: an error is worth a span whose parent nobody has.
"""

import os
from collections.abc import Mapping
from typing import Final, NamedTuple

from inferwatch.config import ConfigError
from inferwatch.record import Outcome, RequestRecord
from inferwatch.settings.otlp import Otlp

# A client that hangs up has changed its mind; it is no failure of anybody.
_NO_FAILURE: Final = frozenset({Outcome.OK, Outcome.CLIENT_ABORT})

_LOW_64: Final = (1 << 64) - 1

_RATIO_SAMPLERS: Final = {"always_on": 1.0, "always_off": 0.0, "traceidratio": None}


class Head(NamedTuple):
    """How the head decides."""

    ratio: float = 1.0
    parent_based: bool = True  # a caller that does not sample is heeded
    parent_wins: bool = False  # a caller that does sample is heeded, too, whatever the ratio


class Sampler:
    """Decides."""

    def __init__(self, settings: Otlp, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ConfigError: OTEL_TRACES_SAMPLER or its argument makes no sense."""
        self._head = head(settings, environ)
        self._bound = _bound(self._head.ratio)
        self._tenants = {each.tenant: _bound(each.sample_ratio) for each in settings.tenants}
        self._errors = settings.always_errors
        self._slower_s = settings.always_slower_s

    def takes(self, record: RequestRecord) -> bool:
        """Tell whether the request is exported."""
        if self._errors and record.outcome not in _NO_FAILURE:
            return True
        if self._slower_s and record.duration_s > self._slower_s:
            return True
        return self._sampled(record)

    def _sampled(self, record: RequestRecord) -> bool:
        if self._head.parent_based and record.parent_span_id:
            if not record.trace_sampled:
                return False
            if self._head.parent_wins and record.tenant not in self._tenants:
                return True
        return int(record.trace_id[16:] or "0", 16) < self._tenants.get(record.tenant, self._bound)


def kept(trace_id: str, ratio: float) -> bool:
    """Tell whether a share of `ratio` of all traces has this one. Another half of the id than the head looks at."""
    return int(trace_id[:16] or "0", 16) < _bound(ratio)


def _bound(ratio: float) -> int:
    return round(ratio * (_LOW_64 + 1))


def head(settings: Otlp, environ: Mapping[str, str]) -> Head:
    """Return how the head decides, by the configuration, else by OTEL_TRACES_SAMPLER. Raises ConfigError, as above."""
    if settings.sample_ratio is not None:
        return Head(settings.sample_ratio)
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower() or "parentbased_always_on"
    parent_based = name.startswith("parentbased_")
    root = name.removeprefix("parentbased_")
    if root not in _RATIO_SAMPLERS:
        raise ConfigError("otlp.sample_ratio: OTEL_TRACES_SAMPLER is none of OpenTelemetry's samplers")
    ratio = _RATIO_SAMPLERS[root]
    if ratio is None:
        try:
            ratio = float(environ.get("OTEL_TRACES_SAMPLER_ARG", "") or 1.0)
        except ValueError:
            ratio = -1.0
        if not 0 <= ratio <= 1:
            raise ConfigError("otlp.sample_ratio: OTEL_TRACES_SAMPLER_ARG: expected a number from 0 to 1")
    return Head(ratio, parent_based, parent_wins=parent_based)
