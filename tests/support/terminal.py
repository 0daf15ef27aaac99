"""A real terminal for tests: a tmux server of its own, into which keys are sent and whose screen is read."""

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

LIMIT_S = 30.0


class Terminal:
    """One window with one command in it. The socket is in `folder`, so that nobody's tmux is touched."""

    def __init__(self, folder: Path, *command: str, columns: int = 120, rows: int = 40) -> None:
        assert shutil.which("tmux"), "no tmux here: make test-services installs it"
        self._socket = folder / "tmux"
        self._exit = folder / "exit-code"
        shell = f"{shlex.join(command)}; echo $? > {shlex.quote(str(self._exit))}; sleep 600"
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), shell)

    def screen(self) -> str:
        """Return what is on the screen, without colours."""
        return self._tmux("capture-pane", "-p")

    def keys(self, *keys: str) -> None:
        """Press keys, by tmux's names for those that have one."""
        self._tmux("send-keys", *keys)

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def until(self, wanted: Callable[[str], object] | str) -> str:
        """Wait until the screen has a text, or fits; return it."""
        deadline_s = time.monotonic() + LIMIT_S
        while True:
            screen = self.screen()
            if wanted in screen if isinstance(wanted, str) else wanted(screen):
                return screen
            assert time.monotonic() < deadline_s, f"not within {LIMIT_S} s; the screen:\n{screen}"
            time.sleep(0.1)

    def exit_code(self) -> int:
        """Wait for the command's end."""
        deadline_s = time.monotonic() + LIMIT_S
        while not (self._exit.exists() and (text := self._exit.read_text())):
            assert time.monotonic() < deadline_s, f"still running; the screen:\n{self.screen()}"
            time.sleep(0.1)
        return int(text)

    def close(self) -> None:
        self._tmux("kill-server")

    def _tmux(self, *words: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name not in ("TMUX", "TMUX_PANE")}
        done = subprocess.run(
            ["tmux", "-S", str(self._socket), *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=LIMIT_S,
            env={**environment, "LC_ALL": "C.UTF-8"},
        )
        return done.stdout
