"""Which request tries again what failed before."""

from typing import Any

import pytest
from otlp_records import Make

from inferwatch.record import Outcome
from inferwatch.tap import Open
from inferwatch_collectors.otlp import retries as of_retries
from inferwatch_collectors.otlp.retries import Retries

BODY = b'{"messages":[{"content":"hi"}]}'


def opened(request_id: str, **changes: Any) -> Open:
    fields: dict[str, Any] = {
        "id": 1, "request_id": request_id, "wall_ns": 0, "arrival_ns": 0, "sent_ns": 0, "method": "POST", "path": "/",
        "tenant": "acme", "model": "m", "stream": True, "asked_usage": False, "choices": 1, "headers": {},
        "body": BODY, "body_bytes": len(BODY),
    }  # fmt: skip
    return Open(**fields | changes)


def story(
    record: Make, *, again_after_s: float = 1.0, first: Outcome = Outcome.UPSTREAM_ERROR, **changes: Any
) -> object:
    retries = Retries()
    retries.opened(opened("one"))
    assert retries.booked(record(request_id="one", outcome=first, duration_s=2.0)) is None
    retries.opened(opened("two", **changes))
    return retries.booked(record(request_id="two", wall_ns=record().wall_ns + int((2.0 + again_after_s) * 1e9)))


def test_the_same_body_of_the_same_tenant_soon_after_a_failure(record: Make) -> None:
    """Is a retry of it."""
    found = story(record)

    assert found is not None
    assert found.span_id == record().span_id


def test_what_is_no_retry(record: Make) -> None:
    """A success before it, another body, another tenant, a minute, a body of which a part is missing."""
    assert story(record, first=Outcome.OK) is None
    assert story(record, body=b"other", body_bytes=5) is None
    assert story(record, tenant="beta") is None
    assert story(record, again_after_s=61.0) is None
    assert story(record, body_bytes=len(BODY) + 1) is None


def test_a_third_try_links_to_the_second(record: Make) -> None:
    """A chain, not a star."""
    retries = Retries()
    for number, span in enumerate(("1" * 16, "2" * 16, "3" * 16)):
        retries.opened(opened(f"r{number}"))
        wall_ns = record().wall_ns + number * 1_500_000_000
        found = retries.booked(
            record(request_id=f"r{number}", span_id=span, wall_ns=wall_ns, outcome=Outcome.UPSTREAM_ERROR)
        )
    assert found is not None
    assert found.span_id == "2" * 16


def test_what_is_remembered_is_bounded(record: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that are not booked, and failures that nobody tries again; what is forgotten too early is counted."""
    monkeypatch.setattr(of_retries, "MAX_REMEMBERED", 10)
    retries = Retries()
    for number in range(13):
        retries.opened(opened(f"r{number}"))
    assert len(retries._open) == 10
    assert retries.cut == 3

    for number in range(15):
        body = str(number).encode()
        retries.opened(opened(f"f{number}", body=body, body_bytes=len(body)))
        retries.booked(record(request_id=f"f{number}", outcome=Outcome.STREAM_ERROR))
    assert len(retries._failed) == 10
    before = retries.cut

    much_later_ns = record().wall_ns + 100 * 10**9
    retries.opened(opened("late", body=b"late", body_bytes=4))
    retries.booked(record(request_id="late", outcome=Outcome.STREAM_ERROR, wall_ns=much_later_ns))
    assert len(retries._failed) == 10
    assert retries.cut == before  # the failure that went was out of time
