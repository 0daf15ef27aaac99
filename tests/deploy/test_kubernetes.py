"""The chart and the plain manifests: valid for Kubernetes, and a sidecar that cannot harm the engine beside it."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from machine import PROVISIONED, ROOT, TOOLS, run

CHART = ROOT / "deploy/helm/inferwatch"
MANIFESTS = ROOT / "deploy/kubernetes"
HELM = str(TOOLS / "helm")

# The first with native sidecars switched on, and the newest with a schema.
VERSIONS = ("1.29", "1.37")

VALUES = {
    "default": [],
    "demo": ["--values", str(CHART / "values-demo.yaml")],
    "tgi": ["--values", str(CHART / "values-tgi.yaml")],
    "everything": [
        "--set", "replicas=3,secretName=keys,image.digest=sha256:" + "0" * 64,
        "--set", "persistence.enabled=false,gpu.visibleDevices=GPU-0,drain.timeoutSeconds=600",
        "--set", "config.cost.gpus=2,config.cost.hourly_dollars=2.5,podMonitor.labels.release=prometheus",
        "--set", "nodeSelector.gpu=h100,podLabels.team=ml,podAnnotations.a=b,imagePullSecrets[0].name=registry",
    ],
}  # fmt: skip
every_value = pytest.mark.parametrize("name", VALUES)


def template(*flags: str) -> str:
    return run(HELM, "template", "watch", CHART, "--namespace", "inference", *flags)


def objects(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(text) if document]


def pod_of(text: str) -> dict[str, Any]:
    (found,) = [document for document in objects(text) if document["kind"] == "StatefulSet"]
    return dict(found["spec"]["template"]["spec"])


def validate(version: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    command = [PROVISIONED / "bin/python", ROOT / "tests/deploy/validate.py", version, *paths]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@every_value
@pytest.mark.parametrize("version", VERSIONS)
def test_what_helm_makes_is_valid(name: str, version: str, tmp_path: Path) -> None:
    """Each object has only fields that the API (or the Prometheus Operator) knows, of the right type."""
    (tmp_path / "rendered.yaml").write_text(template(*VALUES[name], "--kube-version", version))

    done = validate(version, tmp_path / "rendered.yaml")

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_the_plain_manifests_are_valid(version: str) -> None:
    """Also those that no chart makes."""
    done = validate(
        version, *(MANIFESTS / f"{name}.yaml" for name in ("namespace", "inferwatch", "rules", "dashboards"))
    )

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("right", "wrong"), [("readinessProbe:", "readynessProbe:"), ("targetLabel: job", "targetLable: job")]
)
def test_the_validation_finds_a_typing_error(right: str, wrong: str, tmp_path: Path) -> None:
    """Else the tests above would show nothing."""
    (tmp_path / "wrong.yaml").write_text(template().replace(right, wrong))

    assert validate("1.37", tmp_path / "wrong.yaml").returncode == 1


def test_the_plain_manifests_are_the_charts() -> None:
    """One source: `make manifests` would change nothing, and kubectl can put the folder together."""
    run(ROOT / ".venv/bin/python", "-m", "deploy.kubernetes.render", "--check", "--helm", HELM)
    assert len(objects(run(TOOLS / "kubectl", "kustomize", MANIFESTS))) > 10


def test_helm_lint_has_no_complaint() -> None:
    """Nor about the other values files."""
    for flags in VALUES.values():
        run(HELM, "lint", "--strict", CHART, *flags)


@every_value
def test_the_sidecar_starts_first_and_waits_for_nobody(name: str) -> None:
    """A native sidecar whose startup is the data path alone: an engine that loads for minutes does not hold it up."""
    (sidecar,) = pod_of(template(*VALUES[name]))["initContainers"]

    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["startupProbe"]["httpGet"] == {"path": "/healthz", "port": "admin"}
    assert sidecar["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "admin"}
    assert sidecar["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "admin"}
    assert {"name": "admin", "containerPort": 9480} in sidecar["ports"]
    assert {"name": "INFERWATCH__ADMIN", "value": "0.0.0.0:9480"} in sidecar["env"]


@every_value
def test_the_sidecar_takes_no_gpu_and_has_no_rights(name: str) -> None:
    """Not one GPU less for the engine; no root, nothing writable but its volumes, no token for the API."""
    pod = pod_of(template(*VALUES[name]))
    (sidecar,) = pod["initContainers"]
    context = sidecar["securityContext"]

    assert "nvidia.com/gpu" not in json.dumps(sidecar)
    assert "cpu" not in sidecar["resources"]["limits"]
    assert (context["runAsNonRoot"], context["readOnlyRootFilesystem"]) == (True, True)
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert pod["automountServiceAccountToken"] is False


def test_only_the_engine_asks_for_gpus() -> None:
    """And the sidecar's own resources cannot be made to."""
    assert pod_of(template())["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 1}
    assert "nvidia.com/gpu" not in template(*VALUES["demo"])
    with pytest.raises(AssertionError, match="nvidia"):
        template("--set", r"resources.limits.nvidia\.com/gpu=1")


@every_value
def test_the_grace_period_covers_the_drain(name: str) -> None:
    """Delay, open requests, 20 s for the books, and then the engine's own end fit in."""
    pod = pod_of(template(*VALUES[name]))
    env = {entry["name"]: entry["value"] for entry in pod["initContainers"][0]["env"]}
    drain_s = int(env["INFERWATCH__DRAIN__DELAY_S"]) + int(env["INFERWATCH__DRAIN__TIMEOUT_S"])

    assert pod["terminationGracePeriodSeconds"] >= drain_s + 20 + 10


def test_the_hooks_are_those_that_the_image_is_tested_with() -> None:
    """The sidecar drains when the pod begins to go; the engine stays until the admin port is closed."""
    pod = pod_of(template())
    engine_hook = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]

    assert pod["initContainers"][0]["lifecycle"]["preStop"]["exec"]["command"] == ["sh", "-c", "kill -TERM 1"]
    assert engine_hook == [
        "bash", "-c", "while (exec 3<>/dev/tcp/127.0.0.1/9480) 2>/dev/null; do sleep 1; done",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "wrong", ["gpu.access=all", "drain.timeoutSeconds=0", "image.digest=latest", "no_such_key=1", "replicas=many"]
)
def test_wrong_values_are_refused(wrong: str) -> None:
    """By name, before anything reaches the cluster."""
    with pytest.raises(AssertionError, match=wrong.split("=", maxsplit=1)[0].rsplit(".", maxsplit=1)[-1]):
        template("--set", wrong)


def test_rules_and_dashboards_are_the_repositorys(tmp_path: Path) -> None:
    """The chart, also when packaged, carries each rule and each dashboard, and nothing else of those folders."""
    run(HELM, "package", CHART, "--destination", tmp_path)
    (package,) = tmp_path.glob("*.tgz")
    with tarfile.open(package) as archive:
        names = {name.removeprefix("inferwatch/files/") for name in archive.getnames() if "/files/" in name}
    rules = {path.name: yaml.safe_load(path.read_text()) for path in (ROOT / "alerts/rules").glob("*.yml")}
    boards = {path.name: json.loads(path.read_text()) for path in (ROOT / "dashboards").glob("*.json")}

    assert rules
    assert boards
    assert names == {f"rules/{name}" for name in rules} | {f"dashboards/{name}" for name in boards}

    made = objects(run(HELM, "template", "watch", package))
    specs = [document["spec"] for document in made if document["kind"] == "PrometheusRule"]
    carried = [document["data"] for document in made if "dashboard" in document["metadata"]["name"]]
    assert sorted(map(canonical, specs)) == sorted(map(canonical, rules.values()))
    assert {name: json.loads(text) for data in carried for name, text in data.items()} == boards


def canonical(value: Any) -> str:
    """One text for what is equal: Helm orders keys its own way."""
    return json.dumps(value, sort_keys=True)
