"""The unit is correct for systemd, leaves little to attack, and what it forbids is nothing that Inferwatch needs."""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import stack
from machine import ROOT, Pod, run

from inferwatch.config import Config

UNIT = ROOT / "deploy/systemd/inferwatch.service"

# systemd's own scale from 0 to 10, "OK" below 2; what is left is the network and the GPUs.
MAX_EXPOSURE = 1.6

_PR_SET_MDWE = 65
_REFUSE_EXEC_GAIN = 1


def settings() -> list[tuple[str, str]]:
    """The unit's settings in their order."""
    return re.findall(r"^([A-Z]\w+)=(.*)$", UNIT.read_text(), flags=re.MULTILINE)


def test_systemd_has_no_complaint(tmp_path: Path) -> None:
    """No unknown setting, no bad value; the program is the one of this environment."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/inferwatch/bin/", f"{Path(sys.executable).parent}/"))

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_little_is_exposed() -> None:
    """By systemd's own reckoning."""
    threshold = f"--threshold={MAX_EXPOSURE * 10:.0f}"
    run("systemd-analyze", "security", "--offline=yes", "--no-pager", threshold, UNIT)


def test_it_waits_longer_than_a_drain() -> None:
    """TimeoutStopSec covers the default drain and 20 s for the books; a wrong configuration is not tried again."""
    unit = dict(settings())
    drain = Config().drain

    assert int(unit["TimeoutStopSec"]) >= drain.delay_s + drain.timeout_s + 20
    assert unit["KillMode"] == "mixed"
    assert unit["RestartPreventExitStatus"] == "2"


def test_it_serves_under_the_units_system_calls(pod: Callable[..., Pod], tmp_path: Path) -> None:
    """SystemCallFilter as a seccomp profile, in a container: it starts, serves, drains."""
    allowed: set[str] = set()
    for name, value in settings():
        if name == "SystemCallFilter":
            calls = {call for group in value.removeprefix("~").split() for call in expand(group)}
            allowed = allowed - calls if value.startswith("~") else allowed | calls
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": sorted(allowed), "action": "SCMP_ACT_ALLOW"}],
    }
    (tmp_path / "profile.json").write_text(json.dumps(profile))

    server = pod("--security-opt", f"seccomp={tmp_path}/profile.json")

    assert stack.status(f"{server.url}/v1/models") == 200
    server.docker("stop", "--time", "60", server.name)
    assert server.docker.state(server.name)["ExitCode"] == 0
    assert "Traceback" not in server.logs()


def expand(group: str) -> set[str]:
    """The system calls of one of systemd's groups."""
    if not group.startswith("@"):
        return {group}
    lines = run("systemd-analyze", "--no-pager", "syscall-filter", group).splitlines()[1:]
    names = {line.strip() for line in lines if line.strip() and not line.strip().startswith("#")}
    return {call for name in names for call in expand(name)}


def test_it_serves_without_memory_that_is_writable_and_executable(tmp_path: Path) -> None:
    """MemoryDenyWriteExecute, by the kernel's own switch for it; ctypes, which NVML is read with, lives with that."""

    def deny() -> None:
        assert ctypes.CDLL(None).prctl(_PR_SET_MDWE, _REFUSE_EXEC_GAIN, 0, 0, 0) == 0

    assert dict(settings())["MemoryDenyWriteExecute"] == "yes"
    done = subprocess.run(
        [sys.executable, "-c", "import ctypes, pynvml; print(ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 3)())"],
        preexec_fn=deny, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout == "3\n", done.stderr
