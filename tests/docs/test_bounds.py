"""What bounds cut off is told where people look: beside the metric, and on the page of bounds."""

import re
from pathlib import Path

import pytest

from inferwatch_collectors import metrics as m
from inferwatch_collectors.dialects.base import CUT_REASONS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/topics/memory-and-bounds.md").read_text("utf-8")
REASONS = {
    reason
    for path in (ROOT / "collectors").rglob("*.py")
    for reason in re.findall(r'\bvitals\.cut\("(\w+)"', path.read_text("utf-8"))
} | set(CUT_REASONS)


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_each_reason_is_told(reason: str) -> None:
    """By its name, as a word."""
    assert re.search(rf"\b{reason}\b", m.COLLECTOR_CUT.measured)
    assert re.search(rf"\b{reason}\b", PAGE)


def test_there_are_some_and_no_others() -> None:
    """What the page or the metric names is counted somewhere."""
    assert len(REASONS) > 20
    told = set(re.findall(r'collector_cut_total\{reason="(\w+)"', PAGE))
    assert told <= REASONS
    assert set(re.findall(r"(\w+)(?=(?:, \w+)*: )", m.COLLECTOR_CUT.measured)) <= REASONS
