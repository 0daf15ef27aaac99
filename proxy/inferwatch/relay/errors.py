"""Replies of our own, in the shape the engine's clients already understand. They say whose fault it is and leak
nothing."""

from typing import Final

import msgspec

from inferwatch.record import ErrorType

_STATUS: Final = {
    ErrorType.CONNECT_FAILED: (503, "the inference server cannot be reached"),
    ErrorType.CONNECT_TIMEOUT: (504, "the inference server did not accept a connection in time"),
    ErrorType.OUT_OF_FILES: (503, "the proxy has no file descriptor left for this request"),
    ErrorType.FIRST_BYTE_TIMEOUT: (504, "the inference server did not begin its reply in time"),
    ErrorType.IDLE_TIMEOUT: (504, "the inference server stopped in the middle of its reply"),
    ErrorType.TOTAL_TIMEOUT: (504, "the request took longer than is allowed here"),
    ErrorType.UPSTREAM_RESET: (502, "the inference server closed the connection before its reply"),
    ErrorType.UPSTREAM_PROTOCOL: (502, "the inference server sent something that is not HTTP"),
    ErrorType.INTERNAL: (500, "the proxy failed"),
}

_REASON: Final = {
    400: b"Bad Request",
    401: b"Unauthorized",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Request Entity Too Large",
    417: b"Expectation Failed",
    429: b"Too Many Requests",
    500: b"Internal Server Error",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}

_TYPE: Final = {
    400: "BadRequestError",
    401: "AuthenticationError",
    413: "BadRequestError",
    500: "InternalServerError",
    502: "BadGatewayError",
    503: "ServiceUnavailableError",
    504: "GatewayTimeoutError",
}

_ANTHROPIC_TYPE: Final = {401: "authentication_error"}

# Ollama's own API, and Triton's: a message alone.
_BARE_ROUTES: Final = ("/api/chat", "/api/generate", "/api/embed", "/api/embeddings")
_TRITON: Final = "/v2/models/"

# Text Generation Inference's own API: flat errors with an `error_type`. SGLang's `/generate` has no shape of its own.
_TGI_ROUTES: Final = ("/generate", "/generate_stream")
_TGI_TYPE: Final = {400: "validation", 401: "validation", 413: "validation", 429: "overloaded"}


def for_error(error: ErrorType) -> tuple[int, str]:
    """Return status and message for a failure on the engine's side."""
    return _STATUS.get(error, _STATUS[ErrorType.INTERNAL])


def reply(status: int, message: str, path: str, *, keep_alive: bool, with_body: bool) -> bytes:
    """Return a complete reply: OpenAI's error object as vLLM fills it; the API's own on routes that have another."""
    if path.endswith("/messages"):
        kind = _ANTHROPIC_TYPE.get(status, "invalid_request_error" if status < 500 else "api_error")
        content: object = {"type": "error", "error": {"type": kind, "message": message}}
    elif (native := _native(path, message, _TGI_TYPE.get(status, "generation"))) is not None:
        content = native
    else:
        kind = _TYPE.get(status, "BadRequestError")
        content = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    return _complete(status, content, b"", keep_alive=keep_alive, with_body=with_body)


def over_budget(
    message: str, path: str, retry_after_s: int, *, spent: bool, keep_alive: bool, with_body: bool
) -> bytes:
    """Return the 429 of a budget that has no room, in the words of the API that `path` belongs to.

    `spent`: trying again before `retry_after_s` is of no use. OpenAI's and Anthropic's clients try a 429 again by
    themselves, unless `x-should-retry` forbids it.
    """
    content: object
    if path.endswith("/messages"):
        content = {"type": "error", "error": {"type": "rate_limit_error", "message": message}}
    elif (native := _native(path, message, "overloaded")) is not None:
        content = native
    else:
        kind = "insufficient_quota" if spent else "rate_limit_exceeded"
        content = {"error": {"message": message, "type": kind, "param": None, "code": "budget_exceeded"}}
    fields = b"retry-after: %d\r\nx-should-retry: %b\r\n" % (retry_after_s, b"false" if spent else b"true")
    return _complete(429, content, fields, keep_alive=keep_alive, with_body=with_body)


def _native(path: str, message: str, tgi_type: str) -> object:
    """Return the error of an API of an engine's own, None for the common ones."""
    if path.endswith(_BARE_ROUTES) or _TRITON in path:
        return {"error": message}
    return {"error": message, "error_type": tgi_type} if path.endswith(_TGI_ROUTES) else None


def _complete(status: int, content: object, fields: bytes, *, keep_alive: bool, with_body: bool) -> bytes:
    body = msgspec.json.encode(content)
    return b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b%b\r\n%b" % (
        status,
        _REASON.get(status, b"Error"),
        len(body),
        fields,
        b"" if keep_alive else b"connection: close\r\n",
        body if with_body else b"",
    )
