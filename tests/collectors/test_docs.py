"""The generated pages are what the code says."""

from pathlib import Path

import pytest

from inferwatch_collectors import docs
from inferwatch_collectors.metrics import LABELS, TABLE


@pytest.mark.parametrize("path", [path for path, _ in docs.PAGES])
def test_committed_page_is_up_to_date(path: str) -> None:
    """`make docs` writes it; a change of the table or of the configuration without it fails here."""
    assert path not in docs.stale(docs.ROOT)


def test_every_metric_and_label_is_on_the_page() -> None:
    """With its help, and for a histogram every bound."""
    page = docs.metrics_page()
    for metric in TABLE:
        assert f"### `{metric.name}`\n\n{metric.help}" in page
        if metric.buckets is not None:
            assert metric.buckets.reason in page
            assert ", ".join(f"{bound:.10g}" for bound in metric.buckets.bounds) in page
    for label in LABELS:
        assert f"| `{label}` |" in page


def test_check_tells_what_is_stale_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 and the paths, for pages missing or changed."""
    assert docs.main(["--check", "--root", str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines() == [f"{path}: stale, run `make docs`" for path, _ in docs.PAGES]
    assert list(tmp_path.iterdir()) == []


def test_pages_are_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second run has nothing to do, and a check then passes."""
    assert docs.main(["--root", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(docs.PAGES)
    assert docs.main(["--root", str(tmp_path)]) == 0
    assert docs.main(["--check", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""


def test_a_page_edited_by_hand_is_stale(tmp_path: Path) -> None:
    """Only that page."""
    docs.write(tmp_path)
    (tmp_path / "docs/metrics.md").write_text("# Metrics\n", "utf-8")
    assert docs.stale(tmp_path) == ["docs/metrics.md"]
