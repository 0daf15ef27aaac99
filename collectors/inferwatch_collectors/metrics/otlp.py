"""Export by OTLP, and what was looked for in content."""

from typing import Final

from inferwatch_collectors.metrics.base import Group, Kind, Metric

OTLP_ITEMS: Final = Metric(
    name="inferwatch_otlp_items_total",
    kind=Kind.COUNTER,
    group=Group.OTLP,
    labels=("signal", "result"),
    help="Spans, log records and collections of metrics handed to the OTLP exporter, by what became of them.",
    measured="`exported`: the endpoint took them. `failed`: it did not in OTEL_EXPORTER_OTLP_TIMEOUT, and they are "
    "gone. `dropped`: the queue was full.",
)
OTLP_QUEUE: Final = Metric(
    name="inferwatch_otlp_queue_items",
    kind=Kind.GAUGE,
    group=Group.OTLP,
    labels=("signal",),
    help="Spans and log records that wait for the exporter.",
    measured="At most OTEL_BSP_MAX_QUEUE_SIZE or OTEL_BLRP_MAX_QUEUE_SIZE.",
)
PRIVACY_REQUESTS: Final = Metric(
    name="inferwatch_privacy_requests_total",
    kind=Kind.COUNTER,
    group=Group.OTLP,
    labels=("result",),
    help="Exported requests whose content was looked at, by what became of it.",
    measured="`kept`; `cut`: kept up to a bound, or without an answer of which a part was missing, or without the end "
    "of one that broke off. Nothing was kept: `timeout`, `failed`: the scanner did not finish; `overflow`: too much "
    "content was held already.",
)
PRIVACY_KEY: Final = Metric(
    name="inferwatch_privacy_key_current",
    kind=Kind.GAUGE,
    group=Group.OTLP,
    labels=(),
    help="Whether pseudonyms of traces are made with the last key of privacy.key_file.",
    measured="0: the file ends with another key, and Inferwatch was not restarted, or it cannot be used any more. "
    "Looked at once a minute while spans are made. Absent where no content is kept.",
)
PRIVACY_FOUND: Final = Metric(
    name="inferwatch_privacy_found_total",
    kind=Kind.COUNTER,
    group=Group.OTLP,
    labels=("entity",),
    help="Personal data found in content, by kind.",
    measured="Counted per place in a text, in the requests whose content is kept.",
)
