"""Retention: what is coarser is kept as long as what is finer, or longer."""

import pytest

from inferwatch.settings.observing import Ledger, ledger_fault


@pytest.mark.parametrize(
    ("days", "fault"),
    [
        ((35, 400, 0), ""),
        ((35, 0, 0), ""),
        ((35, 35, 35), ""),
        (
            (35, 34, 0),
            "ledger.hour_retention_days: expected 0 or at least `ledger.retention_days`, which is 35, got 34",
        ),
        (
            (35, 400, 365),
            "ledger.day_retention_days: expected 0 or at least `ledger.hour_retention_days`, which is 400, got 365",
        ),
        (
            (35, 0, 365),
            "ledger.day_retention_days: expected 0 or at least `ledger.hour_retention_days`, which is for ever, got 365",
        ),
    ],
)
def test_retention(days: tuple[int, int, int], fault: str) -> None:
    """0 is for ever; a fault names the key, the other key, and both values."""
    requests, hours, whole_days = days
    section = Ledger(retention_days=requests, hour_retention_days=hours, day_retention_days=whole_days)
    assert ledger_fault(section) == fault
