"""The image runs as in production: no root, nothing writable but its volume, and everybody's stream ends whole."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import threading
import time
from collections.abc import Callable

import pytest
import stack
from machine import HARDENED, Docker, Pod, say

import inferwatch

# Decode steps of the simulator take 8 ms; long enough to be open when the container is stopped, and no longer.
LONG_ANSWER_TOKENS = 400


class Stream(threading.Thread):
    """A client with an open stream. `text` is what it has got, `error` why it ended early."""

    def __init__(self, pod: Pod) -> None:
        super().__init__()
        self._pod = pod
        self.text = b""
        self.error = ""
        self.begun = threading.Event()
        self.start()
        assert self.begun.wait(20), "no first byte"

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._pod.port, timeout=60)
        body = json.dumps(stack.chat(max_tokens=LONG_ANSWER_TOKENS))
        try:
            connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
            reply = connection.getresponse()
            while data := reply.read1():
                self.text += data
                self.begun.set()
        except (OSError, http.client.HTTPException) as error:
            self.error = repr(error)
        finally:
            connection.close()

    def ended_whole(self) -> bool:
        self.join(60)
        return not self.error and self.text.endswith(b"data: [DONE]\n\n")


def ask(pod: Pod) -> dict[str, object]:
    connection = http.client.HTTPConnection("127.0.0.1", pod.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/chat/completions", json.dumps(stack.chat(stream=False)))
        return dict(json.loads(connection.getresponse().read()))


def test_it_runs_without_root_and_says_what_it_is(docker: Docker, image: str) -> None:
    """User, state, health check, labels; nothing that a shell of the base would have to start."""
    config = docker.inspect(image)["Config"]

    assert config["User"] == "10001:0"
    assert config["Entrypoint"] == ["inferwatch"]
    assert config["Cmd"] == ["serve"]
    assert config["Healthcheck"]["Test"] == ["CMD", "inferwatch", "healthcheck"]
    assert config["Volumes"] == {"/var/lib/inferwatch": {}}
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert docker("run", "--rm", image, "version") == f"inferwatch {inferwatch.__version__}\n"


def test_nothing_to_build_or_install_with_is_left(docker: Docker, image: str) -> None:
    """No compiler, no pip, no build backend; and no trace of the secrets of the build."""
    script = """
        for tool in cc gcc make pip pip3 uv hatchling; do command -v $tool && echo "has $tool"; done
        for module in pip ensurepip setuptools hatchling pytest; do
          for python in python3 /usr/bin/python3; do $python -c "import $module" 2>/dev/null && echo "imports $module"; done
        done
        find / -xdev \\( -name 'ca.pem' -o -name 'pip.conf' -o -name '*.whl' \\) 2>/dev/null
        find /opt/inferwatch -perm /6002 -not -type l
        exit 0
    """
    assert docker("run", "--rm", "--entrypoint", "sh", image, "-c", script) == ""
    history = docker("history", "--no-trunc", image)
    assert "BEGIN CERTIFICATE" not in history


@pytest.mark.parametrize("user", ["10001:0", "1234567:0"])
def test_it_serves_with_a_read_only_file_system(pod: Callable[..., Pod], docker: Docker, user: str) -> None:
    """Traffic is passed on and booked, the health check is healthy, whatever the user (OpenShift gives any)."""
    started_s = time.monotonic()
    server = pod("--user", user)
    start_s = time.monotonic() - started_s

    answer = ask(server)
    stream = Stream(server)
    assert stream.ended_whole(), stream.error
    stack.wait_until(lambda: docker.healthy(server.name), "the health check", 40)
    report = docker("exec", server.name, "inferwatch", "report", "--by", "model", "--format", "json")

    assert answer["object"] == "chat.completion"
    assert stack.MODEL in report
    assert docker("exec", server.name, "id", "-u").strip() == user.partition(":")[0]
    outside = docker("exec", server.name, "sh", "-c", "touch /etc/x /opt/inferwatch/x /tmp/x 2>&1 || true")
    assert outside.count("Read-only file system") == 3
    say(f"start (engine and sidecar, docker run to ready, user {user}): {start_s:.1f} s")


def test_sigterm_lets_the_open_stream_end(pod: Callable[..., Pod], docker: Docker) -> None:
    """As process 1 it gets its signals, drains, takes nobody new, and leaves with 0 and its books written."""
    server = pod()
    stream = Stream(server)

    stop = docker.popen("stop", "--time", "60", server.name)
    stack.wait_until(lambda: stack.status(f"{server.url}/v1/models") == 0, "a closed data port", 20)
    assert stream.is_alive(), "the stream was over before the port was closed"

    assert stream.ended_whole(), stream.error
    assert stop.wait(60) == 0
    assert docker.state(server.name)["ExitCode"] == 0
    records = [json.loads(line) for line in server.logs().splitlines() if line.startswith("{")]
    assert [record["outcome"] for record in records if record["stream"]] == ["ok"]


def test_a_pod_goes_in_the_right_order(pod: Callable[..., Pod], docker: Docker) -> None:
    """The hooks of the chart: the sidecar drains at once, the engine's hook holds it until the last stream is done."""
    server = pod()
    stream = Stream(server)
    hook = f"while (exec 3<>/dev/tcp/127.0.0.1/{server.admin_port}) 2>/dev/null; do sleep 1; done"

    engine_hook = docker.popen("exec", server.engine_name, "bash", "-c", hook)
    docker("exec", server.name, "sh", "-c", "kill -TERM 1")

    assert stream.ended_whole(), stream.error
    assert engine_hook.wait(30) == 0
    assert docker.state(server.name)["ExitCode"] == 0
    assert not docker.state(server.name)["Running"]
    docker("stop", "--time", "10", server.engine_name)
    assert docker.state(server.engine_name)["ExitCode"] == 0


def test_the_ledger_survives_the_container(pod: Callable[..., Pod], docker: Docker) -> None:
    """A new container with the same volume goes on counting where the old one stopped."""
    volume = docker("volume", "create").strip()
    try:
        first = pod("--volume", f"{volume}:/var/lib/inferwatch")
        ask(first)
        docker("stop", "--time", "30", first.name)
        second = pod("--volume", f"{volume}:/var/lib/inferwatch")
        ask(second)

        def booked() -> float:
            return stack.total(second_scrape(second), "inferwatch_requests_total", operation="chat")

        stack.wait_until(lambda: booked() == 2, "two booked requests", 20, lambda: f"{booked()}")
    finally:
        docker("rm", "--force", first.name, second.name)
        docker("volume", "rm", volume)


def second_scrape(server: Pod) -> stack.Scrape:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.admin_port, timeout=10)) as connection:
        connection.request("GET", "/metrics")
        return stack.parse(connection.getresponse().read().decode(), time.monotonic())


def test_a_wrong_configuration_is_one_line_and_exit_2(docker: Docker, image: str) -> None:
    """What an orchestrator shows of a container that cannot start names the key."""
    done = subprocess.run(
        [docker.client, "run", "--rm", *HARDENED, "--env", "INFERWATCH__WORKERS=none", image],
        env=docker.env, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert done.returncode == 2
    assert done.stderr == "inferwatch: workers: expected `int`, got `str` (environment INFERWATCH__WORKERS)\n"
