"""Texts that hold nobody's data and look as if they did: what a scanner must leave alone. The same ones each time."""

import hashlib
import random
import uuid
from collections.abc import Callable
from typing import Final

SIZE: Final = 1000

_ORDERS: Final = (
    "Order {} has shipped.",
    "Where is my parcel {}?",
    "invoice no. {} is overdue",
    "Ticket #{} was closed",
    "SKU {} is out of stock",
    "Your booking reference is {}.",
    "batch {} passed the test",
    "order_id={}",
)
_WORDS: Final = ("cache", "worker", "request", "index", "shard", "token", "batch", "node", "queue", "replica", "leader")
_LEVELS: Final = ("INFO", "WARN", "ERROR", "DEBUG")
_CODE: Final = (
    "for i in range({a}, {b}):\n    total += weights[i] * {f}",
    "const MAX_{w} = {a}; // was {b}",
    "if (std::{v}::{w}({a}) != 0x{h}) return -{b};",
    "assert math.isclose({v}.mean(), {f}, rel_tol=1e-{c})",
    "SELECT {v}, count(*) FROM {w} WHERE id > {b} GROUP BY 1 LIMIT {a};",
    "static const uint32_t {v}[] = {{0x{h}, {b}, {a}, {c}}};",
    "git checkout {h}{h} -- src/{v}/{w}.py",
    "{v}.{w}(timeout={f}, retries={c})  # see line {a}",
    "margin: {c}px {a}px; color: #{s}; width: calc(100% - {a}px)",
    "@{v}.{w}\ndef {w}_{c}(self) -> dict[str, int]: ...",
)


def _order(chance: random.Random) -> str:
    digits = chance.choice((8, 9, 10, 10, 11, 12, 13, 14, 16))
    number = str(chance.randrange(10 ** (digits - 1), 10**digits))
    return chance.choice(_ORDERS).format(number)


def _hash(chance: random.Random) -> str:
    digest = chance.choice((hashlib.md5, hashlib.sha1, hashlib.sha256))
    return f"{chance.choice(('sha', 'etag', 'digest', 'commit'))} {digest(chance.randbytes(16)).hexdigest()}"


def _float(chance: random.Random) -> str:
    value = chance.choice((chance.random(), chance.gauss(0, 1e4), chance.expovariate(1e-7)))
    return chance.choice((f"loss {value!r}", f"{value!r}, {chance.random()!r}", f"{value:.10f}", f"[{value:e}]"))


def _uuid(chance: random.Random) -> str:
    return f"{chance.choice(('id', 'trace', 'run', 'job'))}={uuid.UUID(bytes=chance.randbytes(16), version=4)}"


def _log(chance: random.Random) -> str:
    stamp = f"{1_700_000_000 + chance.randrange(10**8)}.{chance.randrange(1000):03}"
    return (
        f"{stamp} {chance.choice(_LEVELS)} [{chance.choice(_WORDS)}-{chance.randrange(64)}] pid={chance.randrange(65536)} "
        f"{chance.choice(_WORDS)} {chance.randrange(10**9)} took {chance.random() * 1e4:.3f} ms "
        f"bytes={chance.randrange(10**11)} offset={chance.randrange(10**13)} v{chance.randrange(20)}.{chance.randrange(99)}.{chance.randrange(99)}"
    )


def _code(chance: random.Random) -> str:
    return chance.choice(_CODE).format(
        a=chance.randrange(10**4),
        b=chance.randrange(10**9),
        c=chance.randrange(10),
        f=repr(chance.random()),
        h=f"{chance.randrange(16**8):08x}",
        s=f"{chance.randrange(16**6):06x}",
        v=chance.choice(_WORDS),
        w=chance.choice(_WORDS),
    )


KINDS: Final[dict[str, Callable[[random.Random], str]]] = {
    "order numbers": _order,
    "hashes": _hash,
    "floats": _float,
    "uuids": _uuid,
    "log lines": _log,
    "code": _code,
}


def texts(kind: str, size: int = SIZE) -> list[str]:
    """Return `size` texts of one kind."""
    chance = random.Random(kind)
    return [KINDS[kind](chance) for _ in range(size)]
