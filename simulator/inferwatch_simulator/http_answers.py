"""Reading requests and writing answers over HTTP, with the faults that were asked for: what all personas share."""

import asyncio
from collections.abc import Mapping, Sequence

from aiohttp import HttpVersion11, web

from inferwatch_simulator import faults
from inferwatch_simulator.personas.fields import ApiError
from inferwatch_simulator.sinks import FaultySink, Sink, reset

_MAX_BODY_BYTES = 256 * 2**20  # engines have no limit; this one keeps a mad test from taking the machine


async def read_body(request: web.BaseRequest) -> bytes:
    """The whole body. aiohttp's own limit of 1 MiB is not the engine's."""
    body = bytearray()
    async for data in request.content.iter_any():
        body += data
        if len(body) > _MAX_BODY_BYTES:
            raise ApiError(413, "Request Entity Too Large", f"body is larger than {_MAX_BODY_BYTES} bytes")
    return bytes(body)


async def before_head(request: web.BaseRequest, plan: faults.FaultPlan) -> None:
    """Faults that act before there is a response. Some never return: the client has to leave."""
    transport = _transport(request)
    if "reset_before_head" in plan:
        await request.content.read()
        reset(transport)
        await _until_cancelled()
    if "garbage_head" in plan:
        transport.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        transport.close()
        await _until_cancelled()
    if "hang_before_head" in plan:
        await _until_cancelled()
    await asyncio.sleep(plan.values.get("slow_head", 0))
    status = plan.get("status")
    if status is not None:
        await request.content.read()
        kind = "InternalServerError" if status >= 500 else "BadRequestError"
        raise ApiError(status, kind, f"simulated failure with status {status}")


async def _until_cancelled() -> None:
    await asyncio.get_running_loop().create_future()


def _transport(request: web.BaseRequest) -> asyncio.Transport:
    transport = request.transport
    if transport is None:
        raise asyncio.CancelledError  # the client left between two awaits
    return transport


async def open_stream(
    request: web.BaseRequest, plan: faults.FaultPlan, headers: Mapping[str, str], failure: Sequence[bytes]
) -> tuple[web.StreamResponse, Sink]:
    """Send the head, at once and before any token, as most engines do. `failure` is what the engine says in a stream
    when it fails."""
    chunked = request.version >= HttpVersion11
    response = web.StreamResponse(headers=headers)
    if chunked:
        response.enable_chunked_encoding()
    else:
        response.force_close()
    await response.prepare(request)
    transport = _transport(request)
    if plan.shapes_stream:
        return response, FaultySink(transport, plan, failure, chunked=chunked)
    return response, Sink(transport, chunked=chunked)


async def send_body(request: web.BaseRequest, plan: faults.FaultPlan, response: web.Response) -> web.StreamResponse:
    """A plain reply, whole, or as faulty as the plan wants it."""
    body = response.body
    assert isinstance(body, bytes)
    if not plan.shapes_stream:
        return response
    partial = web.StreamResponse(headers=response.headers)
    await partial.prepare(request)
    half = len(body) // 2
    if "one_byte_writes" in plan:
        for position in range(len(body)):
            await partial.write(body[position : position + 1])
            await asyncio.sleep(0)
    elif "hang_mid_stream" in plan:
        await partial.write(body[:half])
        await _until_cancelled()
    elif plan.values.keys() & {"reset_mid_stream", "reset_mid_event", "cut_utf8"}:
        await partial.write(body[:half])
        await asyncio.sleep(0.02)  # a reset throws away what has not been sent
        reset(_transport(request))
        await _until_cancelled()
    else:
        await partial.write(body)
    await partial.write_eof()
    return partial


def plain(body: bytes, status: int, content_type: str, headers: Mapping[str, str]) -> web.Response:
    """A reply that is at hand."""
    head = {**headers, "content-length": str(len(body)), "content-type": content_type}
    return web.Response(body=body, status=status, headers=head)
