"""What the deployment tests work with: commands, a Docker client, a sidecar and its engine in containers."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import stack

ROOT = Path(__file__).parents[2]
PROVISIONED = ROOT / ".venv-deploy"
TOOLS = PROVISIONED / "tools"
BASE = "inferwatch-test-base"
IMAGE = "inferwatch-test"
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


# What was measured, for the end of the run.
FIGURES: list[str] = []


def say(text: str) -> None:
    """Note a figure."""
    FIGURES.append(text)


def run(*command: str | Path, env: dict[str, str] | None = None, timeout_s: float = 300, data: bytes = b"") -> str:
    """Run and return stdout; a failure shows what the command said."""
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **(env or {})},
        input=data,
        capture_output=True,
        check=False,
        timeout=timeout_s,
        cwd=ROOT,
    )
    assert done.returncode == 0, f"{command}: {done.stdout.decode()[-3000:]}\n{done.stderr.decode()[-3000:]}"
    return done.stdout.decode()


class Docker:
    """A client of the daemon that the tests use."""

    def __init__(self, host: str) -> None:
        self.env = {"DOCKER_HOST": host, "DOCKER_BUILDKIT": "1"}
        # Debian's own client: newer ones build with a plugin that may not be there.
        self.client = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"

    def __call__(self, *words: str, data: bytes = b"", timeout_s: float = 300) -> str:
        return run(self.client, *words, env=self.env, data=data, timeout_s=timeout_s)

    def popen(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self.client, *words], env={**os.environ, **self.env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def load_base(self) -> None:
        with (PROVISIONED / "base.tar").open("rb") as file:
            subprocess.run(
                [self.client, "import", "-", BASE],
                stdin=file,
                env={**os.environ, **self.env},
                check=True,
                capture_output=True,
                timeout=120,
            )

    def inspect(self, name: str) -> dict[str, Any]:
        (found,) = json.loads(self("inspect", name))
        return dict(found)

    def state(self, name: str) -> dict[str, Any]:
        return dict(self.inspect(name)["State"])

    def healthy(self, name: str) -> bool:
        return bool(self.state(name)["Health"]["Status"] == "healthy")


class Pod:
    """An engine and the sidecar before it, both containers in the host's network, so that they share 127.0.0.1."""

    def __init__(self, docker: Docker, name: str) -> None:
        self.docker = docker
        self.engine_name, self.name = f"{name}-engine", name
        self.engine_port, self.port, self.admin_port = stack.free_ports(3)
        self.url, self.admin = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.admin_port}"

    def start(self, *flags: str) -> None:
        common = ("run", "--detach", "--network", "host", *HARDENED)
        self.docker(*common, "--name", self.engine_name, IMAGE, "simulate", "--port", str(self.engine_port))
        settings = {
            "INFERWATCH__UPSTREAM__URL": f"http://127.0.0.1:{self.engine_port}",
            "INFERWATCH__LISTEN": f"127.0.0.1:{self.port}",
            "INFERWATCH__ADMIN": f"127.0.0.1:{self.admin_port}",
            "INFERWATCH__DRAIN__TIMEOUT_S": "60",
        }
        environment = [word for name, value in settings.items() for word in ("--env", f"{name}={value}")]
        self.docker(*common, "--name", self.name, *environment, *flags, IMAGE)

    def ready(self) -> bool:
        return stack.status(f"{self.admin}/readyz") == 200

    def logs(self) -> str:
        return self.docker("logs", self.name)
