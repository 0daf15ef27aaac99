"""`healthcheck`: what runs is asked where it is, whatever has become of its configuration since."""

from __future__ import annotations

import http.server
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferwatch import cli, config, host


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no state folder of the developer's reaches these tests."""
    for name in list(os.environ):
        if name.startswith(config.ENV_PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))


@pytest.fixture(name="state")
def _state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


def exit_of(*words: str) -> int:
    return cli.main(list(words))


class Health(http.server.BaseHTTPRequestHandler):
    """Answers every path with the status that the server carries."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture(name="admin")
def _admin() -> Iterator[http.server.HTTPServer]:
    with http.server.HTTPServer(("127.0.0.1", 0), Health) as server:
        server.status = 200  # type: ignore[attr-defined]
        server.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_healthcheck_is_0_when_healthz_says_200(admin: http.server.HTTPServer) -> None:
    """It asks /healthz on the admin port of the configuration."""
    assert exit_of("healthcheck", "--admin", f"127.0.0.1:{admin.server_port}") == cli.EXIT_OK

    assert admin.asked == ["/healthz"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("host", ["0.0.0.0", ""])
def test_healthcheck_of_all_interfaces_asks_this_host(admin: http.server.HTTPServer, host: str) -> None:
    """A wildcard is no address to connect to."""
    assert exit_of("healthcheck", "--admin", f"{host}:{admin.server_port}") == cli.EXIT_OK


def test_healthcheck_is_1_when_the_data_path_is_dead(
    admin: http.server.HTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not a usage error: the container runtime should restart it."""
    admin.status = 503  # type: ignore[attr-defined]

    assert exit_of("healthcheck", "--admin", f"127.0.0.1:{admin.server_port}") == cli.EXIT_RUNTIME

    assert capsys.readouterr().err == "inferwatch: not healthy: /healthz answered 503\n"


def test_healthcheck_is_1_when_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    """A port on which nobody listens is named, with the reason, in one line."""
    assert exit_of("healthcheck", "--admin", "127.0.0.1:1", "--timeout-s", "1") == cli.EXIT_RUNTIME

    error = capsys.readouterr().err
    assert error.startswith("inferwatch: no answer on the admin port 127.0.0.1:1: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "text",
    [
        "upstream: {url: nonsense}\n",
        "limits: [\n",
        "workers: 0\n",
        "admin: nowhere\n",
        "admin: 127.0.0.1:1\n",
        "listen: 7\n",
    ],
)
def test_the_file_may_have_become_worse(admin: http.server.HTTPServer, state: Path, tmp_path: Path, text: str) -> None:
    """The instance goes on with what it has, and says in its state folder where it is: nobody should restart it."""
    host.note_admin(state, ("127.0.0.1", admin.server_port))
    file = tmp_path / "inferwatch.yml"
    file.write_text(text)

    assert exit_of("healthcheck", "--config", str(file), "--state-dir", str(state)) == cli.EXIT_OK
    assert admin.asked == ["/healthz"]  # type: ignore[attr-defined]


def test_other_keys_are_not_read(admin: http.server.HTTPServer, tmp_path: Path) -> None:
    """Also where nobody noted anything."""
    file = tmp_path / "inferwatch.yml"
    file.write_text(f"admin: 127.0.0.1:{admin.server_port}\nupstream: {{url: nonsense}}\nlimit: 3\n")

    assert exit_of("healthcheck", "--config", str(file)) == cli.EXIT_OK


@pytest.mark.parametrize("by", ["file", "environment"])
def test_the_state_folder_is_the_configurations(
    admin: http.server.HTTPServer, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Wherever it is named."""
    host.note_admin(state, ("127.0.0.1", admin.server_port))
    words = ["healthcheck"]
    if by == "file":
        (tmp_path / "inferwatch.yml").write_text(f"state_dir: {state}\nworkers: 0\n")
        words += ["--config", str(tmp_path / "inferwatch.yml")]
    else:
        monkeypatch.setenv("INFERWATCH__STATE_DIR", str(state))

    assert exit_of(*words) == cli.EXIT_OK


def test_the_flag_is_asked_before_the_note(admin: http.server.HTTPServer, state: Path) -> None:
    """Who says where to ask, means it."""
    host.note_admin(state, ("127.0.0.1", admin.server_port))
    flags = ["--state-dir", str(state), "--admin", "127.0.0.1:1"]

    assert exit_of("healthcheck", *flags) == cli.EXIT_RUNTIME


@pytest.mark.parametrize("text", ["", "no address\n", "127.0.0.1:\u0663\n"])
def test_a_note_that_is_none(admin: http.server.HTTPServer, state: Path, text: str) -> None:
    """Is not heeded."""
    (state / host.ADMIN_NOTE).write_text(text)
    admin_flag = f"127.0.0.1:{admin.server_port}"
    (state / "inferwatch.yml").write_text(f"admin: {admin_flag}\n")

    words = ["healthcheck", "--state-dir", str(state), "--config", str(state / "inferwatch.yml")]
    assert exit_of(*words) == cli.EXIT_OK


@pytest.mark.parametrize(
    ("text", "fault"),
    [("limits: [\n", "not YAML"), ("admin: nowhere\n", "inferwatch: admin: expected `host:port`, got `nowhere`\n")],
)
def test_a_configuration_that_does_not_say_where_is_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str, fault: str
) -> None:
    """One line names what is wrong; the default port was tried."""
    monkeypatch.setattr("inferwatch.healthcheck._ask", lambda *_: (False, "no answer"))
    file = tmp_path / "inferwatch.yml"
    file.write_text(text)

    assert exit_of("healthcheck", "--config", str(file)) == cli.EXIT_USAGE
    error = capsys.readouterr().err
    assert fault in error
    assert error.count("\n") == 1


def test_a_note_that_was_left_behind(
    admin: http.server.HTTPServer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody answers where it says, since its instance was killed: then what is said elsewhere counts."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host.note_admin(state, taken.getsockname()[:2])
        assert exit_of("healthcheck", "--state-dir", str(state)) == cli.EXIT_RUNTIME
        monkeypatch.setenv("INFERWATCH__ADMIN", f"127.0.0.1:{admin.server_port}")
        assert exit_of("healthcheck", "--state-dir", str(state)) == cli.EXIT_OK


def test_a_note_is_made_read_and_taken_away(state: Path) -> None:
    """IPv6 is in brackets; a folder that cannot be written has none, and no error."""
    host.note_admin(state, ("::1", 9480))
    assert host.noted_admin(state) == "[::1]:9480"
    host.forget_admin(state)
    assert host.noted_admin(state) == ""
    assert list(state.iterdir()) == []
    host.note_admin(state / "nowhere", ("::1", 9480))
