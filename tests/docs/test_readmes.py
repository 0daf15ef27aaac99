"""The tables of modules in the packages' READMEs: each module and folder has its row, and none is left over."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Folders whose modules have rows of their own.
TOLD_ONE_BY_ONE = {"relay"}

each_package = pytest.mark.parametrize(
    "package",
    [ROOT / "proxy/inferwatch", ROOT / "collectors/inferwatch_collectors", ROOT / "simulator/inferwatch_simulator"],
    ids=lambda package: package.name,
)


def parts(folder: Path, before: str = "") -> set[str]:
    """Return the modules and folders below `folder`, as the tables name them."""
    found: set[str] = set()
    for path in folder.iterdir():
        if path.is_dir() and path.name in TOLD_ONE_BY_ONE:
            found |= parts(path, f"{path.name}/")
        elif path.is_dir() and (path / "__init__.py").exists():
            found.add(f"{before}{path.name}/")
        elif path.suffix == ".py" and not path.name.startswith("__"):
            found.add(f"{before}{path.name}")
    return found


@each_package
def test_each_module_has_a_row(package: Path) -> None:
    """One, so that nobody looks in two places."""
    rows = [
        line.split("|")[1] for line in (package.parent / "README.md").read_text("utf-8").splitlines() if "|" in line
    ]
    told = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert sorted(told) == sorted(parts(package))
