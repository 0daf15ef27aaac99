"""Write the Kubernetes objects that carry the alert rules and the dashboards, or check that they are up to date.

python -m deploy.kubernetes.build [--check]

The Helm chart reads the same files itself (deploy/helm/inferwatch/files leads to them). What else is in this folder is
the chart's output: `make manifests`.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
HERE: Final = ROOT / "deploy/kubernetes"
NAMESPACE: Final = "inference"
LABELS: Final = {"app.kubernetes.io/name": "inferwatch"}

# What the API server takes for a ConfigMap, all keys together.
MAX_CONFIG_MAP_BYTES: Final = 1024 * 1024


class _Dumper(yaml.SafeDumper):
    """YAML as people write it: expressions of several lines as blocks."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def rules() -> Iterator[dict[str, Any]]:
    """Yield one PrometheusRule for each file of rules."""
    for path in sorted((ROOT / "alerts/rules").glob("*.yml")):
        yield {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": f"inferwatch-{path.stem}", "namespace": NAMESPACE, "labels": LABELS},
            "spec": yaml.safe_load(path.read_text("utf-8")),
        }


def dashboards() -> Iterator[dict[str, Any]]:
    """Yield one ConfigMap for each dashboard, as Grafana's dashboard sidecar looks for them.

    Raises:
        ValueError: a dashboard is too large for a ConfigMap.
    """
    for path in sorted((ROOT / "dashboards").glob("*.json")):
        text = json.dumps(json.loads(path.read_text("utf-8")), separators=(",", ":"))
        if len(text.encode()) > MAX_CONFIG_MAP_BYTES:
            raise ValueError(f"{path.name}: {len(text.encode())} bytes, a ConfigMap has at most {MAX_CONFIG_MAP_BYTES}")
        yield {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": f"inferwatch-dashboard-{path.stem}",
                "namespace": NAMESPACE,
                "labels": {**LABELS, "grafana_dashboard": "1"},
                "annotations": {"grafana_folder": "Inferwatch"},
            },
            "data": {path.name: text},
        }


def pages() -> dict[Path, str]:
    """Return the text of each generated file."""
    return {
        HERE / "rules.yaml": _dump(rules(), "For the Prometheus Operator. Generated from alerts/rules/"),
        HERE / "dashboards.yaml": _dump(
            dashboards(), "For Grafana's dashboard sidecar. Apply with --server-side. Generated from dashboards/*.json"
        ),
    }


def _dump(objects: Iterator[dict[str, Any]], about: str) -> str:
    body = yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)
    return f"# {about}; do not edit, run `make docs`.\n---\n{body}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 1 if `--check` found a stale file."""
    parser = argparse.ArgumentParser(prog="python -m deploy.kubernetes.build", description="Kubernetes objects.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is stale")
    check = parser.parse_args(arguments).check
    stale = {path: text for path, text in pages().items() if not path.is_file() or path.read_text("utf-8") != text}
    for path, text in stale.items():
        if not check:
            path.write_text(text, "utf-8")
        sys.stdout.write(f"{path.relative_to(ROOT)}: {'stale, run `make docs`' if check else 'written'}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
