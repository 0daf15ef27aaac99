"""Stdout that cannot be written: one line, exit code 1, no traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inferwatch.output import refused

COMMANDS = [
    ["version"],
    ["check-config"],
    ["check-config", "--print-default"],
    ["completion", "bash"],
    ["doctor", "--json", "--no-request", "--admin", "127.0.0.1:1", "--upstream", "http://127.0.0.1:1"],
]


def run(words: list[str], out: int, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    environ = {name: text for name, text in os.environ.items() if not name.startswith("INFERWATCH")}
    return subprocess.run(
        [sys.executable, "-m", "inferwatch", *words],
        stdout=out,
        stderr=subprocess.PIPE,
        env={**environ, "XDG_STATE_HOME": str(tmp_path)},
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_full_disk_is_one_line(words: list[str], tmp_path: Path) -> None:
    """Whether it is noticed at the first write or at the end."""
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = run(words, full, tmp_path)
    finally:
        os.close(full)
    assert (done.returncode, done.stderr) == (1, "inferwatch: stdout: No space left on device\n")


@pytest.mark.parametrize("words", COMMANDS[:4], ids=" ".join)
def test_a_reader_that_has_left_is_no_news(words: list[str], tmp_path: Path) -> None:
    """`| head` has what it wanted."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run(words, writer, tmp_path)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("error", "is_stdout"),
    [
        (OSError(errno.ENOSPC, "full"), True),
        (OSError(errno.ENOSPC, "full", "/var/lib/file"), False),
        (OSError(errno.ECONNREFUSED, "refused"), False),
    ],
)
def test_other_faults_are_not_stdouts(error: OSError, is_stdout: bool) -> None:
    """A fault that we do not know keeps its traceback."""
    assert refused(error) is is_stdout
