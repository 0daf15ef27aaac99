"""Break messages in the ways in which messages break: a seeded mutator for HTTP/1."""

import random
from collections.abc import Sequence

# Bytes and lines that parsers disagree on.
TOKENS: Sequence[bytes] = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\0",
    b"\x7f",
    b"\xff",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"-1",
    b"0x5",
    b"+5",
    b"99999999999999999999",
    b"ffffffffffffffff",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"content-length:5 \r\n",
    b"Content-Length : 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b"Transfer-Encoding:\x0bchunked\r\n",
    b"transfer-encoding: gzip, chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"Upgrade: h2c\r\n",
    b"Expect: 100-continue\r\n",
    b"Trailer: X-T\r\n",
    b" folded: line\r\n",
    b"Host: other\r\n",
    b"Set-Cookie: a=b\r\n",
    b"X-Inferwatch-Tenant: x\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad",
    b',"usage":{"completion_tokens":1}',
    b"data: [DONE]\n\n",
)


def mutate(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return a seed after one to four accidents; one in twenty is left whole."""
    data = bytearray(chance.choice(seeds))
    if chance.random() < 0.05:
        return bytes(data)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 4))):
        _accident(chance, data, seeds)
    return bytes(data[:20_000])


def _accident(chance: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    at = chance.randrange(len(data) + 1)
    end = min(len(data), at + chance.choice((1, 1, 2, 5, 20, 100)))
    kind = chance.randrange(9)
    if kind == 0 and data:
        data[at % len(data)] ^= 1 << chance.randrange(8)
    elif kind == 1 and data:
        data[at % len(data)] = chance.randrange(256)
    elif kind == 2:
        del data[at:end]
    elif kind == 3:
        data[at:at] = data[at:end]
    elif kind == 4:
        data[at:at] = chance.choice(TOKENS)
    elif kind == 5:
        del data[at:]
    elif kind == 6:
        other = chance.choice(seeds)
        data[at:] = other[chance.randrange(len(other)) :]
    elif kind == 7:
        _insert_line(chance, data)
    else:
        _change_digit(chance, data)


def _insert_line(chance: random.Random, data: bytearray) -> None:
    """A header line where header lines are."""
    ends = [at + 2 for at in range(len(data) - 1) if data[at : at + 2] == b"\r\n"]
    if ends:
        at = chance.choice(ends[:12])
        data[at:at] = chance.choice(TOKENS)


def _change_digit(chance: random.Random, data: bytearray) -> None:
    """A length, a status, a chunk size."""
    digits = [at for at, byte in enumerate(data) if 0x30 <= byte <= 0x39]
    if digits:
        data[chance.choice(digits)] = 0x30 + chance.randrange(10)


def pieces(chance: random.Random, data: bytes) -> list[bytes]:
    """Cut into a few reads."""
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice((0, 0, 1, 2, 5))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if end > start]
