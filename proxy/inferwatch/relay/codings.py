"""Which compression may be offered to the engine: an answer that nobody here can inflate has no tokens."""

from functools import lru_cache
from typing import Final

from inferwatch.relay.heads import RequestHead
from inferwatch.relay.reckoning import is_asked_for

ACCEPT_ENCODING: Final = b"accept-encoding"
READABLE: Final = frozenset({b"gzip", b"x-gzip", b"deflate", b"identity"})

# Clients send the same few values with every request; bounded, because anybody may send others.
MAX_REMEMBERED: Final = 256
MAX_REMEMBERED_BYTES: Final = 128


def offer_readable(method: bytes, head: RequestHead) -> None:
    """Pass on no other, where the answer may have tokens."""
    accepted = head.named.get(ACCEPT_ENCODING, b"")
    offered = readable(accepted) if accepted else b""
    if offered != accepted and is_asked_for(method, head.path):
        head.instead(ACCEPT_ENCODING, offered)


def readable(accepted: bytes) -> bytes:
    """Return an Accept-Encoding without what we cannot read; `identity` where nothing else is left.

    A client that refuses `identity` as well gets what it asks for.
    """
    return _known(accepted) if len(accepted) <= MAX_REMEMBERED_BYTES else _readable(accepted)


def _readable(accepted: bytes) -> bytes:
    kept: list[bytes] = []
    offers: set[bytes] = set()
    refused: set[bytes] = set()
    for element in accepted.split(b","):
        coding, _, weight = element.partition(b";")
        coding = coding.strip().lower()
        if not coding or _is_zero(weight):
            refused.add(coding)
        elif coding in READABLE:
            offers.add(coding)
        else:
            continue
        kept.append(element)
    if not offers:
        if not refused.isdisjoint((b"identity", b"*")):
            return accepted
        kept = [*filter(bytes.strip, kept), b" identity"]
    return b",".join(kept).strip()


_known = lru_cache(maxsize=MAX_REMEMBERED)(_readable)


def _is_zero(parameters: bytes) -> bool:
    for parameter in parameters.split(b";"):
        name, _, value = parameter.partition(b"=")
        if name.strip().lower() == b"q":
            return value.strip().strip(b"0") in (b"", b".") and bool(value.strip())
    return False
