"""Votes on requests: who may, on what, once, and durable."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from inferwatch.admin_token import digest
from inferwatch.record import Outcome, RequestRecord
from inferwatch.settings.privacy import Privacy, TenantPrivacy
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import CardinalityGuard
from inferwatch_collectors.feedback import service as service_module
from inferwatch_collectors.feedback.comments import Comments
from inferwatch_collectors.feedback.service import FeedbackService
from inferwatch_collectors.ledger.base import LedgerError, LedgerFault
from inferwatch_collectors.ledger.sqlite import FILE_NAME, SqliteLedger
from inferwatch_collectors.ledger.vote import Asked
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.privacy.base import ScanTimeoutError
from inferwatch_collectors.privacy.redaction import Redactor
from inferwatch_collectors.report.query import Query
from inferwatch_collectors.report.reading import reading, usage

TOKEN = "0123456789abcdef"
DIGESTS = {"feedback": digest(TOKEN)}
NOW_NS = 1_790_000_000 * 10**9
KEYS = Path(__file__).parents[1] / "testdata" / "config" / "privacy.keys"


def record(request_id: str = "r1", **changes: Any) -> RequestRecord:
    fixed: dict[str, Any] = {
        "request_id": request_id, "wall_ns": NOW_NS, "tenant": "acme", "model": "llama", "operation": "chat",
        "route": "/v1/chat/completions", "method": "POST", "stream": True, "outcome": Outcome.OK, "status": 200,
        "duration_s": 1.0, "engine_model": "llama-8b-v2", "engine_id": f"chatcmpl-{request_id}",
    }  # fmt: skip
    return RequestRecord(**fixed | changes)


class Desk:
    """A service before a ledger of its own."""

    def __init__(self, folder: Path, ledger: SqliteLedger) -> None:
        self.file = folder / FILE_NAME
        self.ledger = ledger
        self.store = MetricStore()
        self.open: dict[str, Asked] = {}
        self.waiting: list[RequestRecord] = []
        self.stuck = False
        self.faults: list[str] = []
        self.service: FeedbackService

    def serve(self, privacy: Privacy | None = None) -> None:
        self.service = FeedbackService(
            DIGESTS,
            self.ledger,
            Comments(privacy or Privacy(), self.faults.append),
            self.store,
            CardinalityGuard(),
            still_open=self.open.get,
            flush=self.flush,
        )

    async def flush(self, timeout_s: float) -> bool:
        if self.stuck:
            return False
        await self.ledger.commit(self.waiting, [])
        return True

    async def vote(self, request_id: str = "r1", **fields: Any) -> tuple[int, str]:
        reply = await self.service.take(json.dumps({"request_id": request_id} | fields).encode(), NOW_NS, 1.0)
        return reply.status, reply.result

    def thumbs(self, **counted: int) -> dict[tuple[str, ...], float]:
        return {("llama", "acme", thumb): counted.get(thumb, 0) for thumb in ("up", "down", "none")}

    def counted(self) -> dict[tuple[str, ...], float]:
        return {
            labels: self.store.counter(m.FEEDBACK_VOTES, labels).value for labels in self.store.series(m.FEEDBACK_VOTES)
        }

    def rows(self) -> list[tuple[Any, ...]]:
        query = "SELECT request_id, tenant, model, variant, thumb, score, label, comment FROM feedback"
        with sqlite3.connect(self.file) as reader:
            return reader.execute(query).fetchall()

    async def opinions(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._opinions)

    def _opinions(self) -> list[dict[str, Any]]:
        query = Query.of({"from": "2026-09-01", "to": "2026-12-31", "by": "model"}, NOW_NS / 1e9)
        with reading(self.file) as connection:
            return [
                {name: getattr(each, name) for name in each.__struct_fields__}
                for each in usage(connection, query).opinions
            ]


@pytest.fixture(name="desk")
async def _desk(tmp_path: Path) -> AsyncIterator[Desk]:
    ledger = await SqliteLedger.open(tmp_path)
    desk = Desk(tmp_path, ledger)
    desk.serve()
    await ledger.commit([record()], [])
    yield desk
    desk.service.close()
    await ledger.close()


def waiting_for(digests: dict[str, str]) -> FeedbackService:
    """A service of which no vote is expected."""
    return FeedbackService(
        digests, None, None, None, None, still_open=None, flush=None,  # type: ignore[arg-type]
    )  # fmt: skip


def test_only_the_token_lets_in() -> None:
    """Whole, and under its scheme; every other try is counted."""
    service = waiting_for(DIGESTS)
    assert service.may({"Authorization": f"Bearer {TOKEN}"})
    assert service.may({"Authorization": f"bearer  {TOKEN} "})
    for given in ("", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", "Bearer ", "Bearer \udcff"):
        assert not service.may({"Authorization": given})
    assert service.results["refused"] == 7


@pytest.mark.parametrize("digests", [{}, {"feedback": ""}, {"admin": digest(TOKEN)}])
@pytest.mark.parametrize("given", [None, "", "Bearer ", "Bearer", "bearer  ", f"Bearer {TOKEN}"])
def test_without_a_token_nobody_is_let_in(digests: dict[str, str], given: str | None) -> None:
    """Nothing is not equal to nothing, and the admin port's token is another one."""
    service = waiting_for(digests)
    assert not service.may({} if given is None else {"Authorization": given})
    assert service.results["refused"] == 1


def test_the_token_changes_with_a_reload() -> None:
    """The old one lets nobody in any more."""
    service = waiting_for(DIGESTS)
    service.use({"feedback": digest("another-token-of-ours")})
    assert not service.may({"Authorization": f"Bearer {TOKEN}"})
    assert service.may({"Authorization": "Bearer another-token-of-ours"})


async def test_a_vote_is_joined_to_who_gave_the_answer(desk: Desk) -> None:
    """Tenant, model, and the model as the engine calls it, from the request's own row."""
    assert await desk.vote(thumb="down", score=0.25, label="wrong") == (200, "taken")
    assert desk.rows() == [("r1", "acme", "llama", "llama-8b-v2", "down", 0.25, "wrong", "")]
    assert desk.counted() == desk.thumbs(down=1)  # all of them: a share of one vote has a value


async def test_another_vote_replaces_the_one_before_and_the_same_changes_nothing(desk: Desk) -> None:
    """The report has the last; the counter has each request once."""
    assert await desk.vote(thumb="down") == (200, "taken")
    assert await desk.vote(thumb="down") == (200, "repeated")
    assert await desk.vote(thumb="up") == (200, "replaced")
    assert desk.counted() == desk.thumbs(down=1)  # all of them: a share of one vote has a value
    assert (await desk.opinions()) == [
        {"model": "llama", "variant": "llama-8b-v2", "votes": 1, "up": 1, "down": 0, "score": None}
    ]


async def test_the_engines_id_names_the_request_too(desk: Desk) -> None:
    """It is what a client has in its hands: the `id` of the answer."""
    desk.service.record(record())
    assert await desk.vote("chatcmpl-r1", thumb="up") == (200, "taken")
    assert desk.rows()[0][0] == "r1"
    assert await desk.vote("chatcmpl-r2", thumb="up") == (404, "unknown")


async def test_engine_ids_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten."""
    monkeypatch.setattr(service_module, "MAX_ENGINE_IDS", 2)
    await desk.ledger.commit([record("r2"), record("r3")], [])
    for each in ("r1", "r2", "r3"):
        desk.service.record(record(each))
    assert await desk.vote("chatcmpl-r1", thumb="up") == (404, "unknown")
    assert await desk.vote("chatcmpl-r2", thumb="up") == (200, "taken")


async def test_a_vote_may_come_before_the_answer_is_over(desk: Desk) -> None:
    """Somebody has read enough. Which model it was is known when the request has its row."""
    desk.open["r9"] = Asked("acme", "llama", "chat", None)
    assert await desk.vote("r9", thumb="down", score=0.5) == (200, "taken")
    assert (await desk.opinions())[0]["variant"] == ""
    await desk.ledger.commit([record("r9")], [])
    assert (await desk.opinions())[0] == {
        "model": "llama", "variant": "llama-8b-v2", "votes": 1, "up": 0, "down": 1, "score": 0.5,
    }  # fmt: skip


async def test_a_vote_may_come_before_the_request_is_committed(desk: Desk) -> None:
    """Then it is committed first."""
    desk.waiting = [record("r5")]
    assert await desk.vote("r5", thumb="up") == (200, "taken")


async def test_a_request_that_is_gone_is_unknown(desk: Desk) -> None:
    """Pruned, or never here: the caller is told, and nothing is kept."""
    assert await desk.vote("nobody", thumb="up") == (404, "unknown")
    assert desk.rows() == []
    assert desk.service.results["unknown"] == 1


async def test_votes_go_with_their_time(tmp_path: Path) -> None:
    """After `ledger.retention_days`, and above `ledger.max_rows`."""
    ledger = await SqliteLedger.open(tmp_path, retention_days=1, max_rows=3)
    desk = Desk(tmp_path, ledger)
    desk.serve()
    await ledger.commit([record(f"r{number}") for number in range(5)], [])
    for number in range(5):
        await desk.vote(f"r{number}", thumb="up")
    await ledger.retain(NOW_NS)
    assert [row[0] for row in desk.rows()] == ["r2", "r3", "r4"]
    await ledger.retain(NOW_NS + 2 * 86_400 * 10**9)
    assert desk.rows() == []
    desk.service.close()
    await ledger.close()


async def test_a_failing_disk_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """503: whoever votes may try again."""

    async def fail(*_: object) -> None:
        raise LedgerError(LedgerFault.FULL, "full")

    monkeypatch.setattr(desk.ledger, "vote", fail)
    assert await desk.vote(thumb="up") == (503, "failed")
    assert desk.counted() == {}


async def test_a_request_that_cannot_be_written_down_yet_is_not_unknown(desk: Desk) -> None:
    """While the disk fails, who votes on an answer of just now may try again, and is not told that there is none."""
    desk.waiting, desk.stuck = [record("r5")], True
    assert await desk.vote("r5", thumb="up") == (503, "failed")
    assert await desk.vote(thumb="up") == (200, "taken")  # it has its row
    desk.stuck = False
    assert await desk.vote("r5", thumb="up") == (200, "taken")
    assert desk.service.results["unknown"] == 0


async def test_too_many_at_once_are_sent_away(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded, and counted."""
    monkeypatch.setattr(service_module, "MAX_UNDER_WAY", 2)
    replies = await asyncio.gather(*(desk.vote(thumb="up") for _ in range(5)))
    assert sorted(status for status, _ in replies) == [200, 200, 429, 429, 429]
    assert desk.service.results["busy"] == 3


# --- comments are content

COMMENT = "Ask ann.lee@example.com, she knows."


async def test_without_content_no_comment_is_kept(desk: Desk) -> None:
    """The default: it is read, counted, and gone."""
    await desk.vote(thumb="down", comment=COMMENT)
    assert desk.rows()[0][-1] == ""
    assert desk.service.comments.results == {"dropped": 1}


@pytest.mark.parametrize(("mode", "holds"), [("hashed", "Ask <EMAIL:"), ("fingerprint", "")])
async def test_comments_are_kept_as_content_is(desk: Desk, mode: Any, holds: str) -> None:
    """Pseudonyms in place of people, or a keyed hash of all of it; by tenant."""
    desk.serve(Privacy(content="none", key_file=str(KEYS), tenants=(TenantPrivacy(tenant="acme", content=mode),)))
    await desk.vote(thumb="down", comment=COMMENT)
    kept = desk.rows()[0][-1]
    assert kept.startswith(holds)
    assert kept
    assert "ann.lee" not in kept
    assert desk.service.comments.results == {"kept": 1}


async def test_what_cannot_be_looked_at_is_not_kept(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan that gives up has not said that there is nobody in it."""

    def give_up(*_: object, **__: object) -> None:
        raise ScanTimeoutError

    monkeypatch.setattr(Redactor, "hashed", give_up)
    desk.serve(Privacy(content="hashed", key_file=str(KEYS)))
    await desk.vote(thumb="down", comment=COMMENT)
    assert desk.rows()[0][-1] == ""
    assert desk.service.comments.results == {"failed": 1}


async def test_a_fault_in_looking_costs_the_comment_and_not_the_vote(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug of ours is counted, and quotes nobody."""

    def stumble(self: Redactor, text: str, *_: object, **__: object) -> None:
        raise KeyError(text)

    monkeypatch.setattr(Redactor, "hashed", stumble)
    desk.serve(Privacy(content="hashed", key_file=str(KEYS)))
    assert await desk.vote(thumb="down", comment=COMMENT) == (200, "taken")
    assert desk.rows()[0][4:] == ("down", None, "", "")
    assert desk.service.comments.results == {"failed": 1}
    assert desk.faults == ["comment"]
    assert "observer_fault stage=comment error=KeyError" in caplog.text
    assert "ann.lee" not in caplog.text


async def test_a_key_that_is_gone_costs_the_comment_and_not_the_vote(desk: Desk, tmp_path: Path) -> None:
    """It was there at the start."""
    desk.serve(Privacy(content="hashed", key_file=str(tmp_path / "gone")))
    assert await desk.vote(thumb="up", comment=COMMENT) == (200, "taken")
    assert desk.rows()[0][-1] == ""
    assert desk.service.comments.results == {"failed": 1}
    assert desk.faults == ["comment"]
