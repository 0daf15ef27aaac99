"""What an engine itself says about the time of one request, in three dialects; anything else is no timing.

| engine | where | fields |
|---|---|---|
| vLLM 0.32 with `--enable-per-request-metrics` | `metrics` of a plain reply or of the usage-only event, n = 1 | ms |
| llama.cpp server | `timings` of a plain reply or of the last event | ms |
| TGI | headers of a plain reply | whole ms |

vLLM's `time_to_first_token_ms` begins when the request is scheduled, not when it arrives: it is the prefill. Its
timestamps are those of the first scheduling, so what a preempted request computes anew is in its decode time. TGI's
`x-inference-time` is prefill and decode together; llama.cpp does not tell how long a request waited for a slot.
"""

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from inferwatch.record import TimingSource

# Longer than any request: relays cut them off after hours. Above it a number is garbage.
MAX_S: Final = 7 * 24 * 3600.0

# No number of milliseconds below MAX_S has more digits.
_MAX_DIGITS: Final = 12


class EngineTimings(NamedTuple):
    """Seconds by the engine's clock; None is unknown. Without a source nothing is known."""

    source: TimingSource = TimingSource.NONE
    queue_s: float | None = None  # from its arrival in the engine until the engine began with it
    prefill_s: float | None = None  # from there to the first token
    decode_s: float | None = None  # from the first token to the last
    inference_s: float | None = None  # prefill and decode together, where they are not known apart


NO_TIMINGS: Final = EngineTimings()


def from_body(metrics: Any, timings: Any) -> EngineTimings | None:
    """Return what the fields `metrics` and `timings` of an answer say, of whatever JSON type; None if nothing."""
    found = NO_TIMINGS
    if isinstance(metrics, dict):
        found = EngineTimings(
            TimingSource.ENGINE_BODY,
            queue_s=_from_ms(metrics.get("queue_time_ms")),
            prefill_s=_from_ms(metrics.get("time_to_first_token_ms")),
            decode_s=_from_ms(metrics.get("generation_time_ms")),
        )
    elif isinstance(timings, dict):
        found = EngineTimings(
            TimingSource.ENGINE_TIMINGS,
            prefill_s=_from_ms(timings.get("prompt_ms")),
            decode_s=_from_ms(timings.get("predicted_ms")),
        )
    return _or_none(found)


def from_headers(headers: Mapping[str, str]) -> EngineTimings | None:
    """Return what the headers (lower-case names) of an answer to one prompt say; None if nothing."""
    if "x-inference-time" not in headers:
        return None
    return _or_none(
        EngineTimings(
            TimingSource.ENGINE_HEADERS,
            queue_s=_from_digits(headers.get("x-queue-time", "")),
            inference_s=_from_digits(headers["x-inference-time"]),
        )
    )


def _from_ms(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # An integer of JSON may be too large for a float.
    seconds = value / 1e3 if abs(value) < MAX_S * 1e3 else math.inf
    return seconds if 0 <= seconds < MAX_S else None


def _from_digits(text: str) -> float | None:
    text = text.strip()
    return int(text) / 1e3 if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None


def _or_none(found: EngineTimings) -> EngineTimings | None:
    return found if any(seconds is not None for seconds in found[1:]) else None
