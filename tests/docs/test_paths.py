"""Files and folders that our pages name are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What a reader puts in is in capitals.
PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b")
FOLDERS = ("alerts", "bench", "collectors", "dashboards", "deploy", "docs", "proxy", "scripts", "simulator", "tests")
PAGES = [
    path
    for pattern in ("*.md", "*/README.md", "docs/**/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"
]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def named(text: str) -> set[str]:
    """Return what stands in back-ticks and begins with one of our folders; of several (`*`, `{`) their folder. What is
    hidden is made by who runs something."""
    found = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)([`*{{])", text)
    paths = {path if end == "`" else path.rpartition("/")[0] for path, end in found}
    return {path for path in paths if not PLACEHOLDER.search(path) and "/." not in path}


def test_what_is_named_is_seen() -> None:
    """Files, and folders of several; no placeholders."""
    text = "`proxy/a.py`, `docs/x/`, `alerts/rules/a-*.yml`, `alerts/runbooks/NAME.md`, `other/b.py`, `bench/.work`"
    assert named(text) == {"proxy/a.py", "docs/x/", "alerts/rules"}


@each_page
def test_it_is_there(page: Path) -> None:
    """From the root, as a reader of the repository has it."""
    assert [path for path in named(page.read_text("utf-8")) if not (ROOT / path).exists()] == []
