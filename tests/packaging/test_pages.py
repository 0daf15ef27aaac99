"""The pages that people read name only what is there: files, settings, metrics, commands, make targets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from inferwatch import cli
from inferwatch.config import Config
from inferwatch.config import keys as declared_keys
from inferwatch_collectors.metrics import TABLE

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "docs/topics/*.md", "proxy/*.md", "collectors/*.md", "simulator/*.md")
    for path in ROOT.glob(pattern)
)

README_LINES = 150  # it orients; more belongs into docs/

METRICS = {metric.name for metric in TABLE}
KEYS = {key for key, _ in declared_keys()}
SECTIONS = {key.partition(".")[0] for key in KEYS if "." in key}

page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def code_in(text: str) -> list[str]:
    """Return what stands in back-ticks, without fenced blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def headings(text: str) -> set[str]:
    """Return what links to the headings of a page end with."""
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@page
def test_links_lead_somewhere(path: Path) -> None:
    """Each relative link is a file or a folder of the repository, and a heading of it if it says so."""
    for target in re.findall(r"\]\(([^)\s]+)", path.read_text(encoding="utf-8")):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, heading = target.partition("#")
        found = path.parent / file if file else path
        assert found.exists(), target
        if heading:
            assert heading in headings(found.read_text(encoding="utf-8")), target


@page
def test_metrics_that_are_named_exist(path: Path) -> None:
    """A name with the prefix is a metric, also where a suffix or labels follow."""
    for word in code_in(path.read_text(encoding="utf-8")):
        for name in re.findall(r"\binferwatch_[a-z0-9_]+", word):
            known = name in METRICS or name.removesuffix("_bucket") in METRICS
            assert known or name in {"inferwatch_collectors", "inferwatch_simulator"}, name


@page
def test_settings_that_are_named_exist(path: Path) -> None:
    """`section.key` in back-ticks is a key, `section.*` a section."""
    for word in code_in(path.read_text(encoding="utf-8")):
        found = re.fullmatch(r"([a-z_]+)\.([a-z_]+|\*)(: .*)?", word)
        if found is None or found[1] not in SECTIONS or found[2] in ("json", "key", "md", "py", "sock"):  # a file
            continue
        key = f"{found[1]}.{found[2]}"
        assert found[2] == "*" or key in KEYS or any(each.startswith(f"{key}.") for each in KEYS), word


def test_the_readme_is_short_and_lists_every_command() -> None:
    """Who reads it once knows where everything is."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    assert len(text.splitlines()) <= README_LINES
    for name in cli.COMMANDS:
        assert f"`{name}`" in text


def test_every_make_target_that_is_named_exists() -> None:
    """`make something` in a page is in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for path in PAGES:
        for name in re.findall(r"(?:^| |`)make ([a-z-]+)(?:`|  |,| \()", path.read_text(encoding="utf-8")):
            assert name in targets, (path.name, name)


def test_the_defaults_that_the_pages_tell_are_the_defaults() -> None:
    """Ports in the guides are those of a bare `inferwatch serve`."""
    operations = (ROOT / "docs/topics/operations.md").read_text(encoding="utf-8")

    for value in (Config().listen, Config().admin, Config().upstream.url):
        assert f"`{value}`" in operations


def test_ci_runs_what_contributors_run() -> None:
    """`.ci/run` is the make targets, in the order that CONTRIBUTING tells, and can be executed."""
    script = ROOT / ".ci/run"

    assert script.stat().st_mode & 0o100
    (steps,) = re.findall(r"^steps=\((.*)\)$", script.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert steps.split() == ["test", "check", "test-services", "test-image", "test-engines"]
    told = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert "runs test, check, test-services, test-image and test-engines in this order" in told
