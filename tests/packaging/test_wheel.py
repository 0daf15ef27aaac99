"""The distribution: builds from its own sdist, installs into an empty environment, and runs from anywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path

import pytest

import inferwatch

ROOT = Path(__file__).parents[2]
PACKAGES = {"inferwatch", "inferwatch_collectors", "inferwatch_simulator"}

# What `pip install inferwatch` may bring along, itself included: people read this list before they trust it.
MAX_PACKAGES = 20

# How uv says that there is no network; a test of packaging is not a test of that.
NO_INDEX = ("Failed to fetch", "error sending request", "Network unreachable", "dns error")


def uv() -> str:
    """Return the uv of this environment."""
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        pytest.fail("no uv here: run make test, which installs it")
    return found


def run(*command: str | Path, cwd: Path) -> str:
    """Run and return stdout; without a package index the test is skipped, but never in CI."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=clean, capture_output=True, text=True, check=False, timeout=110
    )
    if done.returncode and "CI" not in os.environ and any(sign in done.stderr for sign in NO_INDEX):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(name="wheel", scope="module")
def _wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist, as an index would do it."""
    folder = tmp_path_factory.mktemp("dist")
    run(uv(), "build", "--quiet", "--out-dir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(name="installed", scope="module")
def _installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh environment with nothing in it but the wheel and what it asks for."""
    venv = tmp_path_factory.mktemp("plain") / "venv"
    run(uv(), "venv", "--quiet", "--python", sys.executable, venv, cwd=wheel.parent)
    run(uv(), "pip", "install", "--quiet", "--python", venv / "bin/python", wheel, cwd=wheel.parent)
    yield venv
    shutil.rmtree(venv)


def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel: Path) -> None:
    """No `proxy` or `collectors` at the top, which would overwrite somebody else's; each package is typed."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    top = {name.partition("/")[0] for name in names}
    assert top == PACKAGES | {f"inferwatch-{inferwatch.__version__}.dist-info"}
    for package in PACKAGES:
        assert f"{package}/py.typed" in names
    assert not [name for name in names if name.rpartition("/")[2].startswith(("test_", "conftest"))]
    assert [name for name in names if name.endswith("licenses/LICENSE")]


def test_every_module_of_the_source_is_in_the_wheel(wheel: Path) -> None:
    """What works from a checkout works when installed."""
    source = {
        str(path.relative_to(ROOT / folder))
        for folder in ("proxy", "collectors", "simulator")
        for path in (ROOT / folder).rglob("*.py")
    }
    with zipfile.ZipFile(wheel) as archive:
        assert source == {name for name in archive.namelist() if name.endswith(".py")}


def test_a_plain_install_is_small_and_runs_from_another_folder(installed: Path, tmp_path: Path) -> None:
    """At most MAX_PACKAGES packages; the command is there, and says the version of the distribution."""
    listed = json.loads(
        run(uv(), "pip", "list", "--format", "json", "--python", installed / "bin/python", cwd=tmp_path)
    )
    names = {entry["name"] for entry in listed}

    assert "inferwatch" in names
    assert len(names) <= MAX_PACKAGES, sorted(names)
    assert run(installed / "bin/inferwatch", "version", cwd=tmp_path) == f"inferwatch {inferwatch.__version__}\n"


@pytest.mark.parametrize("module", ["inferwatch.relay", "inferwatch_collectors"])
def test_what_the_supervisor_starts_is_there(installed: Path, tmp_path: Path, module: str) -> None:
    """Both planes start from the installed packages, without anything of the checkout."""
    out = run(installed / "bin/python", "-P", "-m", module, "--help", cwd=tmp_path)

    assert "--control-fd" in out


def test_the_metadata_says_what_the_command_says() -> None:
    """One version, in one place; one command; a licence."""
    here = Distribution.from_name("inferwatch")

    assert here.version == inferwatch.__version__
    assert {entry.name: entry.value for entry in here.entry_points} == {"inferwatch": "inferwatch.cli:main"}
    assert here.metadata["License-Expression"] == "Apache-2.0"
