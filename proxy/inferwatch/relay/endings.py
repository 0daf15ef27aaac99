"""How a request ended: what is still said to the client, and what is booked of it.

The books say what happened to the client: a refusal, a reply, one that broke off, an error of ours in the place of one,
or that it hung up.
"""

from typing import NamedTuple

from inferwatch.record import ErrorType, Outcome
from inferwatch.relay import errors
from inferwatch.relay.client_request import Request
from inferwatch.relay.exchange import Exchange, Refusal
from inferwatch.relay.upstream import SWITCHING_PROTOCOLS


class Ending(NamedTuple):
    """What is booked, and whether the client's connection goes on."""

    outcome: Outcome
    error: ErrorType
    keep_alive: bool = False


def last_word(exchange: Exchange, request: Request) -> Ending:
    """Tell the client what is left to tell of an exchange that is finished."""
    refusal = exchange.refusal
    if refusal is not None and not exchange.head_written:
        keep_alive = _write_error(exchange, request, refusal.status, refusal.message, refusal)
        return Ending(Outcome.REJECTED, refusal.error, keep_alive)
    if exchange.error is ErrorType.NONE:
        return Ending(Outcome.OK, ErrorType.NONE, exchange.client_keep_alive)
    if exchange.well_ended:
        return Ending(Outcome.STREAM_ERROR, exchange.error, exchange.client_keep_alive)
    if exchange.head_written:
        # The client must see what the engine did: a reply that breaks off.
        exchange.transport.close()
        return Ending(Outcome.STREAM_ERROR, exchange.error)
    keep_alive = _write_error(exchange, request, *errors.for_error(exchange.error))
    return Ending(Outcome.UPSTREAM_ERROR, exchange.error, keep_alive)


def hung_up(exchange: Exchange, *, by_fault: bool, cutting: bool) -> Ending:
    """Return what is booked when the client's connection is gone. `by_fault`: of ours; `cutting`: we are shutting down,
    and its time is over."""
    if exchange.status == SWITCHING_PROTOCOLS:
        return Ending(Outcome.OK, ErrorType.NONE)
    if exchange.error is not ErrorType.NONE and exchange.head_written:
        return Ending(Outcome.STREAM_ERROR, exchange.error)
    if by_fault:
        return Ending(Outcome.INTERRUPTED, ErrorType.INTERNAL)
    return Ending(Outcome.INTERRUPTED if cutting else Outcome.CLIENT_ABORT, ErrorType.NONE)


def _write_error(
    exchange: Exchange, request: Request, status: int, message: str, refusal: Refusal | None = None
) -> bool:
    """Say it, and whether the connection goes on."""
    exchange.status = status
    exchange.head_written = True
    keep_alive = exchange.client_keep_alive and request.complete
    if not exchange.transport.is_closing():
        path, with_body = request.head.path, not exchange.is_head_request
        if refusal is not None and refusal.error is ErrorType.BUDGET:
            reply = errors.over_budget(
                *(message, path, refusal.retry_after_s),
                spent=refusal.spent,
                keep_alive=keep_alive,
                with_body=with_body,
            )
        else:
            reply = errors.reply(status, message, path, keep_alive=keep_alive, with_body=with_body)
        exchange.transport.write(reply)
    return keep_alive
