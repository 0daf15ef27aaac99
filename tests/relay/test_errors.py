"""errors: replies of our own."""

import msgspec
import pytest

from inferwatch.record import ErrorType
from inferwatch.relay import errors


def split(reply: bytes) -> tuple[bytes, bytes]:
    head, _, body = reply.partition(b"\r\n\r\n")
    return head + b"\r\n", body


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ErrorType.CONNECT_FAILED, 503),
        (ErrorType.CONNECT_TIMEOUT, 504),
        (ErrorType.OUT_OF_FILES, 503),
        (ErrorType.FIRST_BYTE_TIMEOUT, 504),
        (ErrorType.TOTAL_TIMEOUT, 504),
        (ErrorType.UPSTREAM_RESET, 502),
        (ErrorType.UPSTREAM_PROTOCOL, 502),
        (ErrorType.NO_FINISH, 500),
    ],
)
def test_status_says_whose_fault_it_is(error: ErrorType, status: int) -> None:
    """503: nobody there; 504: too slow; 502: there, but broken; 500: ours."""
    assert errors.for_error(error)[0] == status


@pytest.mark.parametrize("status", [400, 405, 408, 413, 500, 502, 503, 504])
def test_body_has_the_shape_of_vllms_errors(status: int) -> None:
    """Clients parse `error.message`, `type`, `param`, `code`."""
    head, body = split(errors.reply(status, "what", "/v1/chat/completions", keep_alive=True, with_body=True))
    error = msgspec.json.decode(body)["error"]
    assert error == {"message": "what", "type": error["type"], "param": None, "code": status}
    assert error["type"].endswith("Error")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"content-length: %d\r\n" % len(body) in head
    assert b"content-type: application/json\r\n" in head
    assert b"connection" not in head


@pytest.mark.parametrize(("status", "kind"), [(400, "invalid_request_error"), (502, "api_error")])
def test_anthropic_route_has_anthropics_shape(status: int, kind: str) -> None:
    """Behind any prefix."""
    _, body = split(errors.reply(status, "what", "/v1/messages", keep_alive=True, with_body=True))
    assert msgspec.json.decode(body) == {"type": "error", "error": {"type": kind, "message": "what"}}


def test_head_request_gets_the_length_without_the_body() -> None:
    """As for any reply to HEAD."""
    head, body = split(errors.reply(503, "what", "/", keep_alive=False, with_body=False))
    full = split(errors.reply(503, "what", "/", keep_alive=False, with_body=True))
    assert (head, body) == (full[0], b"")
    assert b"connection: close\r\n" in head
