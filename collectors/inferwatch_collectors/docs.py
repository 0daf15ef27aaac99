"""Write the generated reference pages, or check that they are up to date.

python -m inferwatch_collectors.docs [--check] [--root DIR]
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from inferwatch import config_pages
from inferwatch_collectors.engine_docs import engines_page
from inferwatch_collectors.metrics import LABELS, TABLE, Group, Kind, Metric
from inferwatch_collectors.quickstart_docs import engines_quickstart

# The repository, when run from a checkout; an installed package has no pages to write.
ROOT: Final = Path(__file__).resolve().parents[2]


def metrics_page() -> str:
    """Return `docs/metrics.md`."""
    return "\n".join(_metrics_lines()) + "\n"


def _metrics_lines() -> Iterator[str]:
    yield from (
        "# Metrics",
        "",
        "Generated from `collectors/inferwatch_collectors/metrics/`; do not edit.",
        "",
        "Names, labels and bucket bounds are a public contract.",
        "A value that is not known is not exported: no series, rather than 0 or the last reading.",
        "Counters and histograms continue after a restart, also after `kill -9`, as long as the ledger is there;",
        "gauges begin anew.",
        "`/metrics` speaks the Prometheus text format 0.0.4 and OpenMetrics 1.0;",
        "the latter has trace ids as exemplars on the latency histograms of finished requests.",
        "",
        "If the bounds of a histogram change between versions, its counts are kept where every new bound was a bound",
        "before; otherwise it begins at 0, which Prometheus takes for a counter reset.",
        "",
        "## Labels",
        "",
        "| label | values |",
        "|---|---|",
    )
    for label, meaning in LABELS.items():
        yield f"| `{label}` | {meaning} |"
    yield from (
        "",
        "Models, tenants and their combinations are limited (`metrics.max_models`, `metrics.max_tenants`);",
        "what is above the limit is counted under `other`, and `inferwatch_cardinality_folded_total` counts how often.",
        "Series of a combination that nobody used for a day are retired; if it comes back they begin at 0.",
        "A combination of model, tenant and operation has at most some 180 series.",
    )
    for group in Group:
        yield from ("", f"## {group.value}")
        for metric in TABLE:
            if metric.group is group:
                yield from _metric_lines(metric)


def _metric_lines(metric: Metric) -> Iterator[str]:
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
    unit = f", {metric.unit}" if metric.unit else ""
    yield from ("", f"### `{metric.name}`", "", metric.help)
    if metric.measured:
        yield metric.measured
    yield from ("", f"- {metric.kind.value}{unit}; labels: {labels}; since {metric.since}")
    if metric.kind is Kind.HISTOGRAM and metric.buckets is not None:
        bounds = ", ".join(f"{bound:.10g}" for bound in metric.buckets.bounds)
        yield f"- buckets: {bounds}. {metric.buckets.reason}"
    if metric.semconv or metric.note:
        twin = f"`{metric.semconv}`" if metric.semconv else "no twin"
        yield f"- OpenTelemetry: {twin}" + (f"; {metric.note}" if metric.note else "")


# (path from the root, text): add a page here and it is written, checked and tested.
PAGES: Final[tuple[tuple[str, Callable[[], str]], ...]] = (
    ("docs/metrics.md", metrics_page),
    ("docs/configuration.md", config_pages.reference),
    ("docs/engines.md", engines_page),
    ("docs/quickstart/engines.md", engines_quickstart),
)


def stale(root: Path) -> list[str]:
    """Return the paths of the pages under `root` that are missing or differ from what would be written."""
    return [path for path, make in PAGES if not (root / path).is_file() or (root / path).read_text("utf-8") != make()]


def write(root: Path) -> list[str]:
    """Write the pages that are stale; return their paths."""
    paths = stale(root)
    for path, make in PAGES:
        if path in paths:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(make(), "utf-8")
    return paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 1 if `--check` found a stale page."""
    parser = argparse.ArgumentParser(prog="python -m inferwatch_collectors.docs", description="Generated pages.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is stale")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    options = parser.parse_args(arguments)
    paths = stale(options.root) if options.check else write(options.root)
    for path in paths:
        sys.stdout.write(f"{path}: {'stale, run `make docs`' if options.check else 'written'}\n")
    return 1 if options.check and paths else 0


if __name__ == "__main__":
    sys.exit(main())
