"""Newline-delimited JSON, cut out of a byte stream that may be split anywhere: one record a line.

A record is handed out by the read that brings its line end; what the end of the body leaves without one is the last.
After a hole nothing up to the next line end is known to be whole, except that the rest of a record never is: it closes
more than it opens. So the first line after it is a record just if it is valid JSON.
"""

from typing import Final

import msgspec

from inferwatch_collectors.dialects.sse import MAX_EVENT_BYTES

_decode_raw: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class LineParser:
    """Incremental parser. Feed any split of the bytes; holds at most `max_record_bytes`."""

    __slots__ = ("_max", "_partial", "_resyncing", "_size", "_skipping", "oversized")

    def __init__(self, max_record_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_record_bytes
        self._partial: list[bytes] = []
        self._size = 0
        self._skipping = False  # inside a record above the limit
        self._resyncing = False
        self.oversized = 0  # records given up because of their size

    def feed(self, data: bytes) -> list[bytes]:
        """Return the records completed by `data`."""
        *lines, rest = data.split(b"\n")
        records = [record for line in lines if (record := self._end(line)) is not None]
        self._keep(rest)
        return records

    def resync(self) -> None:
        """Bytes are missing here: forget the record that has begun."""
        self._partial.clear()
        self._size = 0
        self._skipping = False
        self._resyncing = True

    def finish(self) -> list[bytes]:
        """Return the record that the end of the body left without its line end, if there is one."""
        last = self._end(b"")
        return [] if last is None else [last]

    def _end(self, line: bytes) -> bytes | None:
        self._keep(line)
        whole = b"".join(self._partial).strip()
        skipped, resynced = self._skipping, self._resyncing
        self._partial.clear()
        self._size = 0
        self._skipping = self._resyncing = False
        if skipped or not whole or (resynced and not _is_object(whole)):
            return None
        return whole

    def _keep(self, piece: bytes) -> None:
        if self._skipping or not piece:
            return
        self._size += len(piece)
        if self._size > self._max:
            self.oversized += 1
            self._skipping = True
            self._partial.clear()
            return
        self._partial.append(piece)


def _is_object(line: bytes) -> bool:
    try:
        _decode_raw(line)
    except (ValueError, RecursionError):
        return False
    return True
