"""`inferwatch top`: once as text and as JSON, its errors, and on a terminal of its own."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import live_frame
import pytest

from inferwatch import cli

LIMIT_S = 30.0


@pytest.fixture(name="server")
def _server(frame: dict[str, Any]) -> Iterator[Any]:
    with live_frame.serving(frame) as server:
        yield server


def top(server: Any, *words: str) -> int:
    return cli.main(["top", "--admin", f"127.0.0.1:{server.server_port}", *words])


def test_once_prints_the_page(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """All rows, with neither keys nor escape sequences."""
    assert top(server, "--once", "--view", "streams", "--sort", "tok/s", "--filter", "o") == cli.EXIT_OK
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-2:]] == ["hooli", "globex"]
    assert all(line.isprintable() for line in lines)


def test_once_backwards(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The column that the view sorts by anyway, the other way round."""
    assert top(server, "--once", "--reverse") == cli.EXIT_OK
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[-3:]] == ["hooli", "acme", "globex"]


def test_json_is_the_frame(server: Any, frame: Any, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """One line."""
    assert top(server, "--json") == cli.EXIT_OK
    sys.stdout.flush()
    assert json.loads(capfdbinary.readouterr().out) == frame


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--sort", "age"], "--sort: the view tenants has no column 'age': tenant, req/s, failed/s, tok/s, "),
        (["--sort", ""], "--sort: the view tenants has no column ''"),
    ],
)
def test_a_column_that_is_not_there(
    server: Any, words: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names those that are."""
    assert top(server, "--once", *words) == cli.EXIT_USAGE
    assert capsys.readouterr().err.startswith(f"inferwatch: top: {error}")


@pytest.mark.parametrize(
    "words", [["--interval-s", "0"], ["--interval-s", "x"], ["--view", "cats"], ["--once", "--json"]]
)
def test_wrong_flags(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 2."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["top", *words])
    assert caught.value.code == cli.EXIT_USAGE
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["--once"], ["--json"]])
def test_nobody_there(words: list[str], free_port: Callable[[], int], capsys: pytest.CaptureFixture[str]) -> None:
    """It says where it asked, and what to do."""
    address = f"127.0.0.1:{free_port()}"
    assert cli.main(["top", "--admin", address, *words]) == cli.EXIT_RUNTIME
    assert capsys.readouterr().err == (
        f"inferwatch: top: no frame from the admin port {address}: connection refused; "
        "is `inferwatch serve` running there? --admin HOST:PORT names another\n"
    )


def test_a_collector_that_restarts(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Is there again soon."""
    server.replies["/live/frame"] = (503, b"")
    assert top(server, "--once") == cli.EXIT_RUNTIME
    assert capsys.readouterr().err.endswith("restarts (503); try again in a few seconds\n")


TOKEN = "a-token-of-ours-for-tests"


def test_a_token(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a file, or from the environment; without, or with another, it says what to do."""
    server.token = TOKEN
    assert top(server, "--once") == cli.EXIT_RUNTIME
    assert "it wants a token (401); give the token of the admin port: --token-file FILE, or" in capsys.readouterr().err
    monkeypatch.setenv("INFERWATCH_TOKEN", TOKEN)
    assert top(server, "--once") == cli.EXIT_OK
    file = tmp_path / "token"
    file.write_text("another-token-than-that")
    assert top(server, "--once", "--token-file", str(file)) == cli.EXIT_RUNTIME
    assert "it wants another token (401); " in capsys.readouterr().err
    file.write_text(TOKEN)
    assert top(server, "--once", "--token-file", str(file)) == cli.EXIT_OK
    file.unlink()
    assert top(server, "--once", "--token-file", str(file)) == cli.EXIT_OK  # the variable stands in for it
    monkeypatch.delenv("INFERWATCH_TOKEN")
    assert top(server, "--once", "--token-file", str(file)) == cli.EXIT_RUNTIME
    assert "access.token_file: cannot read the file: No such file or directory" in capsys.readouterr().err


def test_no_terminal(server: Any) -> None:
    """In a pipe there is nothing to draw on."""
    command = [sys.executable, "-m", "inferwatch", "top", "--admin", f"127.0.0.1:{server.server_port}"]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=LIMIT_S)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "inferwatch: top: this is no terminal; --once and --json work without a terminal\n"


class Terminal:
    """A terminal of 100 columns, or another size, with `inferwatch top` in it."""

    def __init__(self, port: int, term: str = "xterm-256color", size: tuple[int, int] = (20, 100)) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        top = [sys.executable, "-m", "inferwatch", "top", "--admin", f"127.0.0.1:{port}", "--interval-s", "0.5"]
        self.process = subprocess.Popen(
            ["env", "--default-signal=INT", *top],  # it is ignored where the tests run in a shell's background
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": term},
            start_new_session=True,
        )
        os.close(theirs)
        self.seen = ""

    def until(self, text: str) -> None:
        """Read until `text` was written."""
        deadline_s = time.monotonic() + LIMIT_S
        start = len(self.seen)
        while text not in self.seen[start:]:
            assert time.monotonic() < deadline_s, f"{text!r} not in {self.seen[start:]!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self.seen += os.read(self._ours, 65536).decode(errors="replace")

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def close(self) -> int:
        code = self.process.wait(LIMIT_S)
        os.close(self._ours)
        return code


@pytest.fixture(name="terminal")
def _terminal(server: Any) -> Iterator[Terminal]:
    terminal = Terminal(server.server_port)
    yield terminal
    if terminal.process.poll() is None:
        terminal.process.kill()
        terminal.process.wait()


@pytest.mark.parametrize("size", [(0, 0), (0, 100)])
def test_on_a_terminal_without_a_size(server: Any, size: tuple[int, int]) -> None:
    """As a program's may be: curses has one of its own for it."""
    terminal = Terminal(server.server_port, size=size)
    try:
        terminal.until("globex")
        terminal.press("q")
        assert terminal.close() == 0
    finally:
        if terminal.process.poll() is None:
            terminal.process.kill()
            terminal.process.wait()


def test_on_a_terminal(terminal: Terminal) -> None:
    """It draws, takes keys, and leaves the terminal as it was."""
    terminal.until("globex")
    terminal.press("4")
    terminal.until("H100")
    terminal.press("h")
    terminal.until("Any key goes back")
    terminal.press("q")
    terminal.until("\x1b[?1049l")  # back to the screen that was there before
    assert terminal.close() == cli.EXIT_OK


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_it_in_good_form(terminal: Terminal, number: int) -> None:
    """A killed terminal would stay without echo."""
    terminal.until("globex")
    terminal.process.send_signal(number)
    terminal.until("\x1b[?1049l")
    assert terminal.close() == cli.EXIT_OK


def test_a_terminal_that_nobody_knows(server: Any) -> None:
    """It says which."""
    terminal = Terminal(server.server_port, term="teletype-33")
    terminal.until("TERM=teletype-33 is not known here")
    assert terminal.close() == cli.EXIT_RUNTIME
