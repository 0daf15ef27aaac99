"""Write the plain manifests from the Helm chart, or check that they are up to date. Needs helm.

python -m deploy.kubernetes.render [--check] [--helm PROGRAM]

inferwatch.yaml     what `helm install` with the chart's own values would make, without rules and dashboards (build.py)
sidecar-patch.yaml  the sidecar alone, as a strategic merge patch for a Deployment or StatefulSet that you have
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
HERE: Final = ROOT / "deploy/kubernetes"
CHART: Final = ROOT / "deploy/helm/inferwatch"

ONLY_HELMS: Final = re.compile(
    r"^# Source: .*\n|^ *(app\.kubernetes\.io/managed-by|helm\.sh/chart): .*\n", re.MULTILINE
)

PATCH_HEAD: Final = """\
# Inferwatch as a native sidecar in a pod that you have:
#
#   kubectl -n inference patch deployment my-engine --patch-file deploy/kubernetes/sidecar-patch.yaml
#
# It needs the ConfigMap of inferwatch.yaml. Before you apply it: call the container as yours is called instead of
# `engine`, let your engine listen on 127.0.0.1:8000, let your Service lead to port 8080, and put the labels of the
# PodMonitor on the pod. A pod with a volume of its own keeps its counters: replace the emptyDir.
# Generated from deploy/helm/inferwatch; do not edit, run `make manifests`.
"""


def _helm(helm: str, *flags: str) -> str:
    command = [helm, "template", "inferwatch", str(CHART), "--namespace", "inference", *flags]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def manifests(helm: str) -> str:
    """Return `inferwatch.yaml`: the chart's output without what only Helm has a use for."""
    text = _helm(helm, "--set", "prometheusRule.enabled=false", "--set", "dashboards.enabled=false")
    text = ONLY_HELMS.sub("", text)
    return f"# Generated from deploy/helm/inferwatch; do not edit, run `make manifests`.\n{text}"


def sidecar_patch(helm: str) -> str:
    """Return `sidecar-patch.yaml`: of the chart's pod what is Inferwatch's."""
    flags = ("--set", "persistence.enabled=false", "--show-only", "templates/statefulset.yaml")
    pod: dict[str, Any] = yaml.safe_load(_helm(helm, *flags))["spec"]["template"]["spec"]
    engine = pod["containers"][0]
    ours = {
        "runtimeClassName": pod["runtimeClassName"],
        "terminationGracePeriodSeconds": pod["terminationGracePeriodSeconds"],
        "securityContext": pod["securityContext"],
        "initContainers": pod["initContainers"],
        "containers": [{"name": engine["name"], "lifecycle": engine["lifecycle"]}],
        "volumes": [volume for volume in pod["volumes"] if volume["name"].startswith("inferwatch-")],
    }
    return PATCH_HEAD + yaml.safe_dump({"spec": {"template": {"spec": ours}}}, sort_keys=False, width=120)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 1 if `--check` found a stale file."""
    parser = argparse.ArgumentParser(prog="python -m deploy.kubernetes.render", description="Plain manifests.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is stale")
    parser.add_argument("--helm", default="helm", help="the program (default: helm)")
    options = parser.parse_args(arguments)
    stale = 0
    for name, make in (("inferwatch.yaml", manifests), ("sidecar-patch.yaml", sidecar_patch)):
        path, text = HERE / name, make(options.helm)
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        stale += 1
        if not options.check:
            path.write_text(text, "utf-8")
        sys.stdout.write(f"{path.relative_to(ROOT)}: {'stale, run `make manifests`' if options.check else 'written'}\n")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
