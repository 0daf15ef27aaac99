"""The compose stack: valid and hardened in every profile, and what can run here runs, with traffic and alerts."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stack
import yaml
from machine import BASE, ROOT, TOOLS, Docker, run, say

FILE = ROOT / "docker-compose.yml"
EXAMPLE = ROOT / ".env.example"

ALWAYS = {"prometheus", "alertmanager", "grafana", "otel-collector", "traces"}
PROFILES = {
    "": {"inferwatch", "simulator", "traffic"},
    "demo": {"inferwatch", "simulator", "traffic"},
    "vllm": {"inferwatch-vllm", "vllm"},
    "tgi": {"inferwatch-tgi", "tgi"},
}
ENGINES = {"vllm", "tgi"}

# What the public images would be; here Debian's programs on the base, with the folders that those images have.
STAND_INS = {
    "prometheus": ("/usr/bin/prometheus", "/prometheus"),
    "alertmanager": ("/usr/bin/prometheus-alertmanager", "/alertmanager"),
}
# Debian's Alertmanager reads its own templates from here; the public one has them inside.
SHARED = Path("/usr/share/prometheus/alertmanager")


def compose(*words: str, env: dict[str, str] | None = None, timeout_s: float = 120) -> str:
    """Run Compose with the repository's file, and nothing of the developer's own .env."""
    return run(TOOLS / "docker-compose", "--file", FILE, *words, env=env, timeout_s=timeout_s)


def config(profile: str, *flags: str) -> dict[str, Any]:
    chosen = ("--profile", profile) if profile else ()
    text = compose("--env-file", "/dev/null", *flags, *chosen, "config", "--format", "json")
    return dict(json.loads(text))


every_profile = pytest.mark.parametrize("profile", PROFILES)


@every_profile
def test_each_profile_has_its_engine_and_its_sidecar(profile: str) -> None:
    """Without a profile it is the demo; no profile brings another's engine along."""
    assert set(config(profile)["services"]) == ALWAYS | PROFILES[profile]


def test_the_environment_chooses_as_the_flag_does() -> None:
    """COMPOSE_PROFILES in .env is the same as --profile."""
    for profile in ("demo", "vllm", "tgi"):
        listed = compose("--env-file", "/dev/null", "config", "--services", env={"COMPOSE_PROFILES": profile})
        assert set(listed.split()) == ALWAYS | PROFILES[profile]


@every_profile
def test_every_service_is_bounded_and_hardened(profile: str) -> None:
    """Read-only but for engines, no capability, no new privileges, bounded memory and logs, a tag on each image."""
    for name, service in config(profile)["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["mem_limit"]) > 0, name
        assert service["logging"]["options"]["max-size"], name
        assert service["restart"] == "unless-stopped", name
        assert not service["image"].endswith((":latest", "/")), name
        assert ":" in service["image"].rpartition("/")[2], name
        assert "privileged" not in service, name
        if name not in ENGINES:
            assert service["read_only"] is True, name
            assert float(service["cpus"]) > 0, name


@every_profile
def test_every_service_has_a_health_check_or_a_reason(profile: str) -> None:
    """The sidecar's comes with its image; two have none, and docker-compose.yml says why."""
    for name, service in config(profile)["services"].items():
        check = service.get("healthcheck", {})
        if name.startswith("inferwatch"):
            assert not check, name
        elif check.get("disable"):
            assert re.search(
                rf"^  {name}:\n(?:    .*\n)*    healthcheck: {{disable: true}} # \S", FILE.read_text(), re.MULTILINE
            )
        else:
            assert check["test"][0] == "CMD", name


@every_profile
def test_only_clients_port_is_open_to_others(profile: str) -> None:
    """Whatever has no password is published on 127.0.0.1; an engine is not published at all."""
    for name, service in config(profile)["services"].items():
        open_ports = [port["target"] for port in service.get("ports", ()) if port.get("host_ip") != "127.0.0.1"]
        assert open_ports == ([8080] if name.startswith("inferwatch") else []), name


@every_profile
def test_the_sidecar_never_waits_and_drains_in_time(profile: str) -> None:
    """It depends on nobody, reserves no GPU, and is given longer than its configuration lets a drain take."""
    (name,) = (name for name in PROFILES[profile] if name.startswith("inferwatch"))
    sidecar = config(profile)["services"][name]
    mounted = next(
        volume["source"] for volume in sidecar["volumes"] if volume["target"] == "/etc/inferwatch/config.yml"
    )
    drain_s = yaml.safe_load(Path(mounted).read_text())["drain"]["timeout_s"]

    assert "depends_on" not in sidecar
    assert "deploy" not in sidecar
    assert sidecar["stop_grace_period"] == "2m30s"
    assert drain_s + 20 <= 150


@every_profile
def test_what_is_mounted_is_in_the_repository(profile: str) -> None:
    """Else Docker would make an empty folder of that name."""
    for name, service in config(profile)["services"].items():
        for volume in service.get("volumes", ()):
            if volume["type"] == "bind":
                assert Path(volume["source"]).exists(), (name, volume["source"])
                assert volume["read_only"] is True, (name, volume["source"])


def test_the_example_tells_every_setting_and_its_default() -> None:
    """.env.example has each variable of docker-compose.yml with the value that it has without .env."""
    used = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", FILE.read_text()))
    told = dict(re.findall(r"^([A-Z_]+)=(.*)$", EXAMPLE.read_text(), flags=re.MULTILINE))

    assert told.pop("COMPOSE_PROFILES") == "demo"
    assert told == used
    assert "${" not in re.sub(r"\$\{[A-Z_]+:-[^}]*\}", "", FILE.read_text())


class Running:
    """The demo, with stand-ins for the images that are elsewhere."""

    def __init__(self, docker: Docker) -> None:
        ports = stack.free_ports(4)
        self.url, self.admin, self.prometheus, self.alertmanager = (f"http://127.0.0.1:{port}" for port in ports)
        self._env = {
            **docker.env,
            "COMPOSE_PROJECT_NAME": f"inferwatch-test-{os.getpid()}",
            "INFERWATCH_IMAGE": "inferwatch-test",
            "INFERWATCH_LISTEN": f"127.0.0.1:{ports[0]}",
            "INFERWATCH_ADMIN_PORT": str(ports[1]),
            "PROMETHEUS_PORT": str(ports[2]),
            "ALERTMANAGER_PORT": str(ports[3]),
            **{f"{name.upper()}_IMAGE": f"inferwatch-test-{name}" for name in STAND_INS},
        }

    def compose(self, *words: str) -> str:
        return compose("--env-file", "/dev/null", *words, env=self._env, timeout_s=200)

    def health(self) -> dict[str, str]:
        lines = self.compose("ps", "--all", "--format", "json").splitlines()
        return {entry["Service"]: entry["Health"] or entry["State"] for entry in map(json.loads, lines)}

    def query(self, promql: str) -> dict[str, float]:
        """Value by `job` of an instant query."""
        reply = get(f"{self.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': promql})}")
        return {series["metric"].get("job", ""): float(series["value"][1]) for series in reply["data"]["result"]}


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as reply:
        return json.loads(reply.read())


@pytest.fixture(name="demo", scope="module")
def _demo(docker: Docker, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    for name, (program, data) in STAND_INS.items():
        folder = tmp_path_factory.mktemp(name)
        (folder / name).write_bytes(Path(program).read_bytes())
        shutil.copytree(SHARED, folder / "shared")
        (folder / "Dockerfile").write_text(
            f"FROM {BASE}\nCOPY --chmod=0755 {name} /bin/{name}\nCOPY shared {SHARED}\n"
            f"RUN ln -s /bin/busybox /usr/local/bin/wget && install -d -o 65534 {data}\n"
            f'USER 65534\nVOLUME {data}\nWORKDIR {data}\nENTRYPOINT ["/bin/{name}"]\n'
        )
        docker("build", "--network", "host", "-t", f"inferwatch-test-{name}", str(folder))
    running = Running(docker)
    started_s = time.monotonic()
    try:
        running.compose("up", "--detach", "--no-build", *PROFILES[""], *STAND_INS)
        stack.wait_until(
            lambda: running.health() == {**dict.fromkeys(PROFILES[""] | set(STAND_INS), "healthy"), "traffic": "running"},
            "a healthy stack", 90, lambda: f"{running.health()}\n{running.compose('logs', '--tail', '20')}",
        )  # fmt: skip
        say(f"compose: demo, Prometheus and Alertmanager healthy {time.monotonic() - started_s:.0f} s after `up`")
        yield running
    finally:
        running.compose("down", "--volumes", "--timeout", "20")


def test_the_demo_has_traffic_and_prometheus_sees_it(demo: Running) -> None:
    """Tokens of named tenants arrive in Prometheus under the job that rules and dashboards expect."""
    tokens = 'sum by (job) (inferwatch_tokens_total{type="completion", tenant=~"acme|globex|initech"}) > 0'
    stack.wait_until(
        lambda: "inferwatch" in demo.query(tokens), "tokens in Prometheus", 60,
        lambda: f"{demo.query('sum by (job) (inferwatch_requests_total)')}\n{demo.compose('logs', '--tail', '30')}",
    )  # fmt: skip

    reached = dict.fromkeys(("inferwatch", "prometheus", "alertmanager"), 1.0)
    stack.wait_until(lambda: demo.query("up == 1") == reached, "all targets up", 40, lambda: f"{demo.query('up')}")
    assert demo.query("sum by (job) (inferwatch_budget_limit_dollars)")["inferwatch"] > 0


def test_prometheus_has_our_rules_and_tells_our_alertmanager(demo: Running) -> None:
    """Each file of alerts/rules is loaded and evaluates; what fires reaches Alertmanager."""
    names = {
        group["name"]
        for path in (ROOT / "alerts/rules").glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
    }
    loaded = get(f"{demo.prometheus}/api/v1/rules")["data"]["groups"]

    assert names
    assert {group["name"] for group in loaded} == names
    assert [rule["name"] for group in loaded for rule in group["rules"] if rule["health"] == "err"] == []
    stack.wait_until(
        lambda: "InferwatchWatchdog" in {alert["labels"]["alertname"] for alert in get(f"{demo.alertmanager}/api/v2/alerts")},
        "the watchdog in Alertmanager", 90,
    )  # fmt: skip


def test_a_reload_takes_up_a_changed_configuration(demo: Running) -> None:
    """SIGHUP reaches process 1 through Compose."""
    demo.compose("kill", "--signal", "HUP", "inferwatch")

    stack.wait_until(lambda: "inferwatch.supervisor reloaded" in demo.compose("logs", "inferwatch"), "a reload", 20)


def test_stopping_the_sidecar_drains_it(demo: Running) -> None:
    """`docker compose stop` lets what is open finish, within the grace period, and exits with 0."""
    demo.compose("stop", "inferwatch")

    (entry,) = (json.loads(line) for line in demo.compose("ps", "--all", "--format", "json", "inferwatch").splitlines())
    assert entry["ExitCode"] == 0
