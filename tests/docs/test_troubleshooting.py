"""The page for when something is wrong knows everything that can be said to be wrong."""

import re
from pathlib import Path

import pytest

from inferwatch.doctor import finding

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
SOURCES = [
    path.read_text("utf-8") for folder in ("proxy", "collectors") for path in sorted((ROOT / folder).rglob("*.py"))
]
EVENTS = {
    name
    for source in SOURCES
    for name in re.findall(r'(?:\b|_)log\.(?:warning|error)\(\s*f?"([a-z]+(?:_[a-z]+)*)\b', source)
}


def rows(heading: str) -> list[str]:
    """Return the first columns of a section's table."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]


def test_every_check_of_the_doctor_is_there() -> None:
    """By the name under which it is shown."""
    assert finding.Finding.__struct_fields__[0] == "check"
    folder = ROOT / "proxy/inferwatch/doctor"
    names = {name for path in folder.glob("*.py") for name in re.findall(r'check="([a-z ]+)"', path.read_text("utf-8"))}
    told = PAGE.partition("## It does not start")[0]
    assert {name for name in names if f"`{name}`" not in told} == set()
    assert {name.strip(" `") for name in rows("What the doctor looks at")} <= names


def test_every_warning_and_error_of_the_log_is_there() -> None:
    """And none that nobody writes."""
    told = {name for row in rows("What the log says") for name in re.findall(r"`([a-z_]+)`", row)}
    assert len(EVENTS) > 40
    assert EVENTS - told == set()
    assert {name for name in told if not any(name in source for source in SOURCES)} == set()


@pytest.mark.parametrize("row", rows("It does not start"))
def test_messages_are_those_of_the_code(row: str) -> None:
    """Each quoted piece of a line is somewhere in the sources, its key a key."""
    for piece in re.findall(r"`([^`]+)`", row):
        words = piece.partition(": ")[2] or piece
        found = any(words.rstrip(":") in source for source in SOURCES)
        assert found or words.rstrip(":").split(".")[0] in "".join(SOURCES), piece
