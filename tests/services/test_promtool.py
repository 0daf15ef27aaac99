"""The rules before Prometheus's own tools: syntax, and for each alert histories in which it fires and is silent."""

import subprocess
from pathlib import Path

import pytest
import yaml
from alerts.src import build
from monitoring import ROOT, program

TESTS = sorted((ROOT / "alerts" / "tests").glob("*.yml"))


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout + done.stderr


def test_rules_are_well_formed() -> None:
    """promtool finds no fault and no two rules alike."""
    told = run(
        program("promtool"), "check", "rules", "--lint=all", *map(str, (ROOT / "alerts" / "rules").glob("*.yml"))
    )
    assert "duplicate" not in told


def test_rules_on_a_faster_clock_are_well_formed(tmp_path: Path) -> None:
    """Those that the end-to-end tests run, too."""
    assert build.main(["--rules-to", str(tmp_path), "--divisor", "60"]) == 0
    run(program("promtool"), "check", "rules", *map(str, tmp_path.glob("*.yml")))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_alerts_fire_and_are_silent(file: Path) -> None:
    """promtool test rules, as anybody can run it."""
    run(program("promtool"), "test", "rules", str(file))


def test_each_alert_is_tested_on_both_sides() -> None:
    """The files that promtool runs hold a firing and a silent history of each rule."""
    names = [test["name"] for file in TESTS for test in yaml.safe_load(file.read_text("utf-8"))["tests"]]
    for alert in build.alerts():
        assert any(name.startswith(f"{alert.name} fires") for name in names)
        silent = any(name.startswith(f"{alert.name} is silent") for name in names)
        assert silent or alert.name == "InferwatchWatchdog"


def test_a_test_of_an_alert_can_fail(tmp_path: Path) -> None:
    """With a threshold turned round, promtool complains: these tests are no decoration."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "tests").mkdir()
    for file in (ROOT / "alerts" / "rules").glob("*.yml"):
        text = file.read_text("utf-8").replace("inferwatch_upstream_up == 0", "inferwatch_upstream_up == 1")
        (tmp_path / "rules" / file.name).write_text(text, "utf-8")
    tests = tmp_path / "tests" / "engine.yml"
    tests.write_text((ROOT / "alerts" / "tests" / "engine.yml").read_text("utf-8"), "utf-8")
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(tests)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != 0
    assert "InferwatchEngineDown" in done.stdout + done.stderr


# --- Alertmanager ---

CONFIG = str(ROOT / "alerts" / "alertmanager.yml")


def test_alertmanager_takes_its_configuration() -> None:
    """amtool check-config, with the templates."""
    told = run(program("amtool"), "check-config", CONFIG)
    assert "1 templates" in told


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ({"severity": "page", "team": "serving"}, "page,none"),
        ({"severity": "page", "team": "finance"}, "page,finance"),
        ({"severity": "ticket", "team": "serving"}, "ticket"),
        ({"severity": "ticket", "team": "finance"}, "finance"),
        ({"severity": "notice", "team": "finance"}, "finance"),
        ({"severity": "none", "team": "serving", "alertname": "InferwatchWatchdog"}, "watchdog"),
    ],
    ids=str,
)
def test_routes(labels: dict[str, str], receivers: str) -> None:
    """Who is told of what, by Alertmanager's own routing."""
    words = [f"{key}={value}" for key, value in labels.items()]
    done = subprocess.run(
        [program("amtool"), "config", "routes", "test", f"--config.file={CONFIG}", *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.strip() == receivers
