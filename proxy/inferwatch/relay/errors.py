"""Replies of our own, in the shape the engine's clients already understand. They say whose fault it is and leak
nothing."""

from typing import Final

import msgspec

from inferwatch.record import ErrorType

_STATUS: Final = {
    ErrorType.CONNECT_FAILED: (503, "the inference server cannot be reached"),
    ErrorType.CONNECT_TIMEOUT: (504, "the inference server did not accept a connection in time"),
    ErrorType.FIRST_BYTE_TIMEOUT: (504, "the inference server did not begin its reply in time"),
    ErrorType.IDLE_TIMEOUT: (504, "the inference server stopped in the middle of its reply"),
    ErrorType.TOTAL_TIMEOUT: (504, "the request took longer than is allowed here"),
    ErrorType.UPSTREAM_RESET: (502, "the inference server closed the connection before its reply"),
    ErrorType.UPSTREAM_PROTOCOL: (502, "the inference server sent something that is not HTTP"),
    ErrorType.INTERNAL: (500, "the proxy failed"),
}

_REASON: Final = {
    400: b"Bad Request",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Request Entity Too Large",
    417: b"Expectation Failed",
    500: b"Internal Server Error",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}

_TYPE: Final = {
    400: "BadRequestError",
    413: "BadRequestError",
    500: "InternalServerError",
    502: "BadGatewayError",
    503: "ServiceUnavailableError",
    504: "GatewayTimeoutError",
}


def for_error(error: ErrorType) -> tuple[int, str]:
    """Return status and message for a failure on the engine's side."""
    return _STATUS.get(error, _STATUS[ErrorType.INTERNAL])


def reply(status: int, message: str, path: str, *, keep_alive: bool, with_body: bool) -> bytes:
    """Return a complete reply: OpenAI's error object as vLLM fills it, Anthropic's on its route."""
    if path.endswith("/messages"):
        kind = "invalid_request_error" if status < 500 else "api_error"
        content: object = {"type": "error", "error": {"type": kind, "message": message}}
    else:
        kind = _TYPE.get(status, "BadRequestError")
        content = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    body = msgspec.json.encode(content)
    return b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b" % (
        status,
        _REASON.get(status, b"Error"),
        len(body),
        b"" if keep_alive else b"connection: close\r\n",
        body if with_body else b"",
    )
