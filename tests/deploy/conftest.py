"""A Docker daemon of our own, and the image, built from deploy/Dockerfile on a base that debootstrap made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stack

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode keeps the folder off the path; helpers live beside this

from machine import BASE, FIGURES, IMAGE, PROVISIONED, Docker, Pod, run, say

CA_BUNDLES = (os.environ.get("PIP_CERT"), os.environ.get("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt")


def pytest_configure(config: pytest.Config) -> None:
    if not (PROVISIONED / ".provisioned").exists():
        pytest.exit("tests/deploy is not provisioned: run `make test-image`", returncode=2)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for line in FIGURES:
        terminalreporter.write_line(line)


@pytest.fixture(name="docker", scope="session")
def _docker() -> Iterator[Docker]:
    """Started here and stopped at the end, with folders and a socket of its own."""
    folder = Path(tempfile.mkdtemp(prefix="inferwatch-docker-"))
    host = f"unix://{folder}/docker.sock"
    log = (folder / "log").open("wb")
    daemon = subprocess.Popen(
        ["dockerd", "--host", host, "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec"),
         "--pidfile", str(folder / "pid"), "--shutdown-timeout", "5", "--bridge", "none"],
        stdout=log, stderr=log,
    )  # fmt: skip
    docker = Docker(host)
    try:
        stack.wait_until(
            lambda: (folder / "docker.sock").exists() and _succeeds(docker, "info"),
            "the Docker daemon",
            60,
            lambda: (folder / "log").read_text(errors="replace")[-3000:],
        )
        docker.load_base()
        yield docker
    finally:
        daemon.terminate()
        daemon.wait(60)
        log.close()
        subprocess.run(
            ["umount", str(folder / "exec/netns/default")], capture_output=True, check=False
        )  # dockerd forgets
        shutil.rmtree(folder, ignore_errors=True)


def _succeeds(docker: Docker, *words: str) -> bool:
    try:
        docker(*words)
    except AssertionError:
        return False
    return True


@pytest.fixture(name="image", scope="session")
def _image(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image. This machine's package index and CA go in as secrets, which leave no trace in it."""
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "pip.conf").write_text(_pip_configuration())
    bundle = next(path for path in CA_BUNDLES if path and Path(path).is_file())
    started_s = time.monotonic()
    docker(
        "build", "--network", "host", "-f", "deploy/Dockerfile", "-t", IMAGE, "--build-arg", f"BASE={BASE}",
        "--secret", f"id=pip.conf,src={folder}/pip.conf", "--secret", f"id=ca.pem,src={bundle}", ".",
        timeout_s=400,
    )  # fmt: skip
    size, base = (docker.inspect(name)["Size"] / 1e6 for name in (IMAGE, BASE))
    say(
        f"image: {size:.0f} MB, {size - base:.0f} MB of them on top of the base, built in {time.monotonic() - started_s:.0f} s"
    )
    return IMAGE


def _pip_configuration() -> str:
    """What pip is told on this machine about its index, with the CA bundle where the build finds it."""
    listed = run(sys.executable, "-m", "pip", "config", "list").splitlines()
    wanted = {"index-url", "extra-index-url", "trusted-host"}
    lines = []
    for line in listed:
        name, _, value = line.partition("=")
        if (key := name.rpartition(".")[2]) in wanted:
            lines.append(f"{key} = {value.strip(chr(39))}")
    return "\n".join(["[global]", "cert = /run/secrets/ca.pem", *lines, ""])


@pytest.fixture(name="pod")
def _pod(docker: Docker, image: str, request: pytest.FixtureRequest) -> Iterator[Callable[..., Pod]]:
    """Starts pods; they are removed at the end, with the volumes that they made."""
    pods: list[Pod] = []

    def start(*flags: str) -> Pod:
        pods.append(Pod(docker, f"pod-{os.getpid()}-{len(pods)}-{request.node.originalname.replace('_', '-')[:40]}"))
        pods[-1].start(*flags)
        stack.wait_until(pods[-1].ready, "the sidecar", 60, pods[-1].logs)
        return pods[-1]

    yield start
    for pod in pods:
        docker("rm", "--force", "--volumes", pod.name, pod.engine_name)
