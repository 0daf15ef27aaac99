"""Reading the client's body: whole if it is small, from its beginning if it is to be passed on as it comes."""

import asyncio

from aiohttp import web

from inferwatch.record import ErrorType
from inferwatch.relay.exchange import RefusedError
from inferwatch.settings.traffic import Limits


class ClientGoneError(Exception):
    """The client hung up while we read its body; aiohttp says so on the body before it cancels the handler."""


async def read(request: web.BaseRequest, limits: Limits) -> tuple[bytes, bool]:
    """Return the body and True, or its beginning and False if it is longer than what is buffered.

    Raises:
        RefusedError: too large, too slow, or not well-formed.
        ClientGoneError: nobody is there any more.
    """
    content = request.content
    if content.is_eof():  # came with the head, as small ones do
        whole = await content.readany() if not content.at_eof() else b""
        check_size(len(whole), limits)
        return whole, True
    parts: list[bytes] = []
    size = 0
    while not content.at_eof():
        part = await read_some(request, limits)
        parts.append(part)
        size += len(part)
        check_size(size, limits)
        if size > limits.buffer_request_bytes:
            return b"".join(parts), False
    return b"".join(parts), True


async def read_some(request: web.BaseRequest, limits: Limits) -> bytes:
    """Return what has arrived, waiting for it if need be. Raises as `read`."""
    try:
        async with asyncio.timeout(limits.client_idle_s):
            return await request.content.readany()
    except TimeoutError:
        raise RefusedError(408, "the request body did not arrive in time", ErrorType.MALFORMED_REQUEST) from None
    except OSError:
        raise ClientGoneError from None
    except web.RequestPayloadError:
        raise RefusedError(400, "the request body is not well-formed HTTP", ErrorType.MALFORMED_REQUEST) from None


def check_size(size: int, limits: Limits) -> None:
    """Raise RefusedError for a body above the limit."""
    if size > limits.max_request_bytes:
        message = f"request body of at least {size} bytes, expected no more than {limits.max_request_bytes}"
        raise RefusedError(413, message, ErrorType.REQUEST_TOO_LARGE)


def chunk(data: bytes) -> bytes:
    """Frame a part of a body; nothing for nothing, which would be the end."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
