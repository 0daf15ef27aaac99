"""The disk fills up: the traffic does not notice, and every record is there once when there is space again."""

import asyncio
import contextlib
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import Stack, chat, client, running, send, wait_until

from inferwatch_simulator.readings import total

COLLECTOR = "inferwatch_collectors"
PENDING = "inferwatch_ledger_pending_records"
DURABLE = "inferwatch_ledger_durable"

# Room for the ledger, its journal and what this test books; the smallest that SQLite is comfortable in.
DISK = "8m"


@pytest.fixture(name="disk")
def _disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own for the state folder."""
    folder = tmp_path / "state"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "none", folder], check=False)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk; test_journal and test_sqlite_store refuse commits without one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(name="stack")
def _stack(disk: Path, tmp_path: Path) -> Iterator[Stack]:
    with running(tmp_path) as stack:
        yield stack


def fill(disk: Path) -> Path:
    """Take all the space there is."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    return filler


async def load(stack: Stack, start: int, count: int) -> None:
    """So many requests, a few at a time; each must be answered in full."""
    async with client() as session:
        limit = asyncio.Semaphore(20)

        async def one(number: int) -> None:
            async with limit:
                headers = {"x-inferwatch-feature": f"request-{number}"}
                code, body = await send(session, stack.url, chat(f"{number}", max_tokens=5), headers=headers)
                assert (code, body.endswith(b"data: [DONE]\n\n")) == (200, True)

        await asyncio.gather(*(one(number) for number in range(start, start + count)))


def features(disk: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(disk / "ledger.sqlite3")) as reader:
        query = "SELECT feature, requests FROM usage_day JOIN usage_keys USING (key)"
        return [feature for feature, requests in reader.execute(query) for _ in range(requests)]


async def test_a_full_disk(stack: Stack, disk: Path) -> None:
    """Traffic goes on, a metric and one log line say what is the matter; then every request is in the ledger once."""
    await load(stack, 0, 50)
    filler = fill(disk)
    await load(stack, 50, 600)
    wait_until(lambda: stack.total(DURABLE) == 0, "the metric")
    assert stack.total(PENDING) > 0
    assert stack.log.count("ledger_failed") == 1
    assert "fault=full" in stack.log

    filler.unlink()
    wait_until(lambda: stack.total(DURABLE) == 1, "the recovery")
    await load(stack, 650, 50)
    scrape = stack.settled(700)
    wait_until(lambda: stack.total(PENDING) == 0, "the last commit")
    assert sorted(features(disk)) == sorted(f"request-{number}" for number in range(700))
    assert total(scrape, "inferwatch_collector_cut_total", reason="ledger_records") == 0
    assert total(scrape, "inferwatch_tap_lost_total") == 0


async def test_the_collector_dies_on_a_full_disk(stack: Stack, disk: Path) -> None:
    """The next one opens the ledger as it is, hears again what was not committed, and goes on from the same counters."""
    await load(stack, 0, 50)
    stack.settled(50)
    filler = fill(disk)
    await load(stack, 50, 200)
    wait_until(lambda: stack.total(DURABLE) == 0, "the metric")
    stack.kill(COLLECTOR)
    stack.settled(250)
    assert stack.total(DURABLE) == 0
    await load(stack, 250, 50)

    filler.unlink()
    wait_until(lambda: stack.total(DURABLE) == 1, "the recovery")
    scrape = stack.settled(300)
    assert total(scrape, "inferwatch_requests_total") == 300
    assert sorted(features(disk)) == sorted(f"request-{number}" for number in range(300))
