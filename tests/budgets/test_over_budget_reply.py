"""errors.over_budget: the 429, in the client's own words."""

from typing import Any

import msgspec
import pytest

from inferwatch.relay import errors


def reply(path: str, **changes: Any) -> tuple[bytes, Any]:
    fields: dict[str, Any] = {"spent": True, "keep_alive": True, "with_body": True}
    whole = errors.over_budget("it is spent", path, 3600, **fields | changes)
    head, _, body = whole.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    return head + b"\r\n", msgspec.json.decode(body) if body else None


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/chat/completions",
            {
                "error": {
                    "message": "it is spent",
                    "type": "insufficient_quota",
                    "param": None,
                    "code": "budget_exceeded",
                }
            },
        ),
        ("/v1/messages", {"type": "error", "error": {"type": "rate_limit_error", "message": "it is spent"}}),
        ("/generate", {"error": "it is spent", "error_type": "overloaded"}),
        ("/generate_stream", {"error": "it is spent", "error_type": "overloaded"}),
        ("/api/chat", {"error": "it is spent"}),
        ("/v2/models/m/generate", {"error": "it is spent"}),
    ],
)
def test_the_body_is_that_of_the_api(path: str, body: dict[str, Any]) -> None:
    """OpenAI's, Anthropic's, TGI's own."""
    assert reply(path)[1] == body


@pytest.mark.parametrize(("spent", "again"), [(True, b"false"), (False, b"true")])
def test_a_client_is_told_when_to_come_again_and_whether_to_try_before(spent: bool, again: bytes) -> None:
    """SDKs try a 429 again by themselves; for a budget that is spent until next month that is of no use."""
    head, body = reply("/v1/chat/completions", spent=spent)
    assert b"\r\nretry-after: 3600\r\n" in head
    assert b"\r\nx-should-retry: %b\r\n" % again in head
    assert body["error"]["type"] == ("insufficient_quota" if spent else "rate_limit_exceeded")


def test_a_head_request_gets_no_body_and_an_ended_connection_is_announced() -> None:
    """As with all of our replies."""
    head, body = reply("/v1/chat/completions", with_body=False, keep_alive=False)
    assert body is None
    assert b"\r\nconnection: close\r\n" in head
