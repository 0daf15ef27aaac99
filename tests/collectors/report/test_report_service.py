"""`/usage`: the same report over HTTP, off the loop, and never too many at a time."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from inferwatch_collectors.report import service as service_module
from inferwatch_collectors.report.building import PriceBasis
from inferwatch_collectors.report.service import MAX_REPORTS, UsageService


async def test_json_unless_said_otherwise(sampled: Any, basis: PriceBasis, nothing_blocks: None) -> None:
    """The report as JSON, without a blocking call on the loop."""
    service = UsageService(sampled.path, lambda: basis)
    answer = await service.answer({"by": "tenant"}, sampled.now_s)
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert json.loads(answer.text)["total"]["requests"] == 5
    service.close()


@pytest.mark.parametrize(
    ("name", "content_type", "words"),
    [
        ("csv", "text/csv", "tenant,acme"),
        ("markdown", "text/markdown", "## By tenant"),
        ("table", "text/plain", "By tenant"),
    ],
)
async def test_formats(sampled: Any, basis: PriceBasis, name: str, content_type: str, words: str) -> None:
    """The other formats of the command."""
    service = UsageService(sampled.path, lambda: basis)
    answer = await service.answer({"format": name}, sampled.now_s)
    assert (answer.status, answer.content_type) == (200, content_type)
    assert words in answer.text
    service.close()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"format": "pdf"}, "format: expected one of table, json, csv, markdown\n"),
        ({"from": "then"}, "from: expected a day"),
        ({"colour": "red"}, "colour: there is no such parameter"),
    ],
)
async def test_bad_requests(shop: Any, parameters: dict[str, str], message: str) -> None:
    """400, with one line that names the parameter."""
    service = UsageService(shop.path, PriceBasis)
    answer = await service.answer(parameters, shop.now_s)
    assert answer.status == 400
    assert answer.text.startswith(message)
    service.close()


async def test_a_day_is_included_however_it_is_written(sampled: Any, basis: PriceBasis) -> None:
    """20260303 is 2026-03-03."""
    service = UsageService(sampled.path, lambda: basis)
    answers = [
        await service.answer({"from": "2026-03-01", "to": to}, sampled.now_s) for to in ("2026-03-03", "20260303")
    ]
    assert answers[0] == answers[1]
    service.close()


@pytest.mark.parametrize("path", [None, Path("nowhere.sqlite3")])
async def test_without_a_ledger(path: Path | None) -> None:
    """503: there is nothing to report from."""
    service = UsageService(path, PriceBasis)
    assert (await service.answer({}, 1.8e9)).status == 503
    service.close()


async def test_why_there_is_no_ledger() -> None:
    """Is said in the words of who could not open it."""
    service = UsageService(None, PriceBasis, "/state/ledger.sqlite3: Is a directory")
    told = "the ledger is in memory only: /state/ledger.sqlite3: Is a directory\n"
    assert (await service.answer({}, 1.8e9)).text == told
    service.close()


async def test_no_more_than_a_few(sampled: Any, basis: PriceBasis, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes while enough are under way is refused at once; afterwards there is room again."""
    gate = threading.Event()
    real = service_module.usage

    def slow(*arguments: Any) -> Any:
        assert gate.wait(30)
        return real(*arguments)

    monkeypatch.setattr(service_module, "usage", slow)
    service = UsageService(sampled.path, lambda: basis)
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(service.answer({}, sampled.now_s)) for _ in range(MAX_REPORTS)]
        await asyncio.sleep(0)
        assert (await service.answer({}, sampled.now_s)).status == 503
        gate.set()
    assert {task.result().status for task in waiting} == {200}
    assert (await service.answer({}, sampled.now_s)).status == 200
    service.close()
