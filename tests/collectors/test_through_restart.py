"""through_restart: what is handed to the last commit, whatever goes wrong; a ledger that was damaged is begun anew."""

from types import SimpleNamespace
from typing import Any

import pytest

from inferwatch_collectors import through_restart
from inferwatch_collectors.ledger.base import LedgerError, LedgerFault
from inferwatch_collectors.metric_store import Restored

ROWS = [("inferwatch_requests_total", b"", b"")]


class Drift:
    """Three streams, of which one cannot be written."""

    def __init__(self) -> None:
        self.unwritten = 0

    def finish(self) -> None:
        self.unwritten = 3

    def write_one(self) -> None:
        self.unwritten -= 1
        if self.unwritten == 1:
            raise OverflowError("ann")


class Parts:
    """Those that know something; `order` is in which they were told."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.faults: list[str] = []
        self.rows: Any = None
        self.recorder = SimpleNamespace(restore=self._restore, observer_error=self.faults.append)
        self.meter = SimpleNamespace(restore=self._told("meter"))
        self.budgets = SimpleNamespace(restore=self._told("budgets"))
        self.anomalies = SimpleNamespace(resume=self._told("anomalies"))
        self.canary = SimpleNamespace(resume=self._told("canary"), finish=self._told("canary finish"))
        self.drift: Any = SimpleNamespace(resume=self._told("drift"), tick=self._told("drift tick"))

    def _told(self, name: str) -> Any:
        return lambda *_: self.order.append(name)

    def _restore(self, rows: Any, *, now_s: float) -> Restored:
        self.order.append("counters")
        self.rows = rows
        return Restored(0, 0, (("old_total", "there is no such metric"),))


class Ledger:
    """One whose file is damaged when it is first read."""

    def __init__(self, faults: int) -> None:
        self._faults = faults

    async def load_metrics(self) -> Any:
        self._faults -= 1
        if self._faults >= 0:
            raise LedgerError(LedgerFault.CORRUPT, "malformed")
        return ROWS


@pytest.mark.parametrize("faults", [0, 1])
async def test_counters_come_before_who_reads_them(faults: int, caplog: pytest.LogCaptureFixture) -> None:
    """Also from the file that was begun in the place of a damaged one; what does not fit is told."""
    parts: Any = Parts()
    ledger: Any = Ledger(faults)
    await through_restart.take_up(parts, ledger)
    assert parts.rows is ROWS
    assert parts.order == ["counters", "meter", "budgets", "anomalies", "drift", "drift tick", "canary"]
    assert [line.split()[0] for line in caplog.messages] == ["ledger_unreadable"] * faults + ["metric_not_restored"]


async def test_a_ledger_that_stays_unreadable_is_told() -> None:
    """Nothing is counted from nothing."""
    parts: Any = Parts()
    ledger: Any = Ledger(2)
    with pytest.raises(LedgerError):
        await through_restart.take_up(parts, ledger)
    assert parts.order == []


async def test_a_fault_costs_one_stream_and_not_the_last_commit(caplog: pytest.LogCaptureFixture) -> None:
    """It is counted, and the others are written."""
    parts: Any = Parts()
    parts.drift = Drift()
    await through_restart.write_down(parts)
    assert parts.order == ["canary finish"]
    assert (parts.drift.unwritten, parts.faults) == (0, ["drift"])
    assert "drift_not_written_down" not in caplog.text


async def test_who_does_not_come_to_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The end does not wait for longer."""
    monkeypatch.setattr(through_restart, "WRITE_S", 0.0)
    parts: Any = Parts()
    parts.drift = Drift()
    await through_restart.write_down(parts)
    assert "drift_not_written_down streams=3" in caplog.messages
