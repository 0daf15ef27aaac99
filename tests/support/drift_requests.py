"""Requests as drift gets them: the relay's `Open` and body, then the record."""

from typing import Any

from inferwatch.record import RequestRecord
from inferwatch.tap import Open
from inferwatch_collectors.dialects.base import Dialect
from inferwatch_collectors.dialects.openai_chat import OPENAI_CHAT
from inferwatch_collectors.dialects.unknown import UNKNOWN
from inferwatch_collectors.drift.hearing import Hearing
from inferwatch_collectors.drift.watch import DriftWatch


def open_of(body: bytes = b"", **fields: Any) -> Open:
    """Return how a request begins."""
    known: dict[str, Any] = {
        "id": 1, "request_id": "r", "wall_ns": 0, "arrival_ns": 0, "sent_ns": 0, "method": "POST", "path": "/",
        "tenant": "acme", "model": "m", "stream": True, "asked_usage": False, "choices": 1, "headers": {},
        "body": body, "body_bytes": len(body),
    }  # fmt: skip
    return Open(**known | fields)


def answered(
    watch: DriftWatch, record: RequestRecord, body: bytes = b"", dialect: Dialect = OPENAI_CHAT
) -> Hearing | None:
    """Let a request begin and end; return who heard it, before it is told the end."""
    opened = open_of(
        body,
        request_id=record.request_id,
        tenant=record.tenant,
        model=record.model,
        session=record.session,
        user=record.user,
    )
    hearing = watch.opened(opened, UNKNOWN if record.operation == "other" else dialect)
    watch.record(record)
    return hearing
