"""A record as a row keeps it: its values without their names, which would be more than half of the bytes.

The names are written down once a file, as a *shape*; each row begins with the number of its shape. So a record reads
back under any later version: a field that is gone is left out, one that is new has its default.
"""

import sqlite3
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from inferwatch.record import RequestRecord

FIELDS: Final = RequestRecord.__struct_fields__

# What `unpack` and `value` raise of a row that is not as it was written.
DAMAGED: Final = (msgspec.MsgspecError, ValueError, LookupError, TypeError, RecursionError)

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_values: Final = msgspec.msgpack.Decoder(list[Any]).decode
_decode_named: Final = msgspec.msgpack.Decoder(RequestRecord).decode


def _is_named(blob: bytes) -> bool:
    """True for a row of schema 1, which is a map: msgpack says so in its first byte."""
    return blob[0] & 0xF0 == 0x80 or blob[0] in (0xDE, 0xDF)


class Shapes:
    """The shapes that one file has, and the number of today's."""

    def __init__(self, known: Mapping[int, tuple[str, ...]], current: int = 0) -> None:
        """`current` is 0 for who only reads."""
        self._known = dict(known)
        self._current = current

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> "Shapes":
        """Return the shapes in the file."""
        rows = connection.execute("SELECT shape, fields FROM record_shapes").fetchall()
        known = {shape: tuple(fields.split(",")) for shape, fields in rows}
        return cls(known, next((shape for shape, fields in known.items() if fields == FIELDS), 0))

    @classmethod
    def written(cls, connection: sqlite3.Connection) -> "Shapes":
        """Return the shapes in the file, today's among them. Within a transaction of the caller's."""
        connection.execute("INSERT OR IGNORE INTO record_shapes (fields) VALUES (?)", (",".join(FIELDS),))
        return cls.read(connection)

    @property
    def writable(self) -> bool:
        """True if today's shape is in the file."""
        return self._current > 0

    def pack(self, record: RequestRecord) -> bytes:
        """Return what a row keeps."""
        return _encode((self._current, *msgspec.structs.astuple(record)))

    def unpack(self, blob: bytes) -> RequestRecord:
        """Return the record in a row."""
        if _is_named(blob):
            return _decode_named(blob)
        shape, *values = _decode_values(blob)
        return msgspec.convert(dict(zip(self._known[shape], values, strict=True)), RequestRecord)

    def value(self, blob: bytes, name: str) -> Any:
        """Return one value of the record in a row, as msgpack has it, without making the rest; None: it has none."""
        if _is_named(blob):
            return getattr(_decode_named(blob), name)
        shape, *values = _decode_values(blob)
        fields = self._known[shape]
        return values[fields.index(name)] if name in fields else None
