"""The real Prometheus and Alertmanager for tests, on free ports, with everything they keep in one folder."""

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from stack import free_ports, status, wait_until

ROOT = Path(__file__).parents[2]
RULES = ROOT / "alerts" / "rules"


def program(*names: str) -> str:
    """Return the path of a program; Debian gives some another name."""
    for name in names:
        if path := shutil.which(name):
            return path
    pytest.fail(
        f"{names[0]} is not installed: run make test-services, or install prometheus and prometheus-alertmanager"
    )


class Server:
    """A process with a log and an address."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        [self.port] = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def _start(self, command: Sequence[str]) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        wait_until(lambda: status(f"{self.url}/-/ready") == 200, command[0], 30, lambda: self.log[-1000:])

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def get(self, path: str, **query: Any) -> Any:
        """Return `data` of an API's answer, or all of it."""
        text = urllib.parse.urlencode(query, doseq=True)
        with urllib.request.urlopen(f"{self.url}{path}?{text}", timeout=60) as reply:
            content = json.loads(reply.read())
        return content.get("data", content) if isinstance(content, dict) else content

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class Prometheus(Server):
    """Scrapes `targets` each second under job inferwatch, and evaluates the rule files of a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "prometheus")

    def start(
        self, targets: dict[str, str], *, rules: Path = RULES, alertmanager: str = "", interval: str = "1s"
    ) -> None:
        """Start. `targets` maps the label `instance` to host:port."""
        config: dict[str, Any] = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": [f"{rules}/*.yml"],
            "scrape_configs": [
                {
                    "job_name": "inferwatch",
                    "static_configs": [
                        {"targets": [address], "labels": {"instance": name}} for name, address in targets.items()
                    ],
                }
            ],
        }
        if alertmanager:
            config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
        path = self.folder / "prometheus.yml"
        path.write_text(yaml.safe_dump(config), "utf-8")
        self._start(
            [
                program("prometheus"),
                f"--config.file={path}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--enable-feature=exemplar-storage",
                "--rules.alert.resend-delay=2s",  # what fires before Alertmanager is known is lost, until it is sent again
            ]
        )

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the present result of an expression."""
        found: list[dict[str, Any]] = self.get("/api/v1/query", query=expr)["result"]
        return found

    def over_time(self, expr: str, start_s: float, end_s: float, step_s: float) -> list[dict[str, Any]]:
        """Return the result of an expression at each step."""
        found: list[dict[str, Any]] = self.get(
            "/api/v1/query_range", query=expr, start=start_s, end=end_s, step=step_s
        )["result"]
        return found

    def values_of(self, label: str, selector: str) -> list[str]:
        """Return the values of a label, as Grafana's label_values(selector, label) does."""
        found: list[str] = self.get(f"/api/v1/label/{label}/values", **{"match[]": selector})
        return found


class Alertmanager(Server):
    """Runs a configuration."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "alertmanager")

    def start(self, config: dict[str, Any]) -> None:
        """Start; files that the configuration names lie in `folder`."""
        path = self.folder / "alertmanager.yml"
        path.write_text(yaml.safe_dump(config), "utf-8")
        self._start(
            [
                program("prometheus-alertmanager", "alertmanager"),
                f"--config.file={path}",
                f"--storage.path={self.folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--cluster.listen-address=",
            ]
        )


@contextmanager
def closing(*servers: Any) -> Iterator[None]:
    """Close all of them, the last one first."""
    try:
        yield
    finally:
        for server in reversed(servers):
            server.close()
