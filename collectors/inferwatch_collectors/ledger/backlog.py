"""What waits for a commit: a list as a rule, compressed blocks when the disk does not take anything for long.

The bound is on items, and it is kept by giving up the oldest. Measured on requests as a service has them, a waiting one
takes about 2 kB as an object and 0.2 kB in a block (`bench/ledger.py`).
"""

import zlib
from collections import deque
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)

# Twice this many are held as objects: more than one commit ever has while the disk keeps up. A block costs some 5 ms.
BLOCK_ITEMS: Final = 1_000

# zlib's fastest: the next levels take twice the time for 10 % less.
LEVEL: Final = 1

_encode: Final = msgspec.msgpack.Encoder().encode


class Backlog(Generic[S]):
    """A bounded queue. May be walked through several times; unpacked is one block at a time."""

    def __init__(self, kind: type[S], max_items: int) -> None:
        self._kind = kind
        self._decode = msgspec.msgpack.Decoder(list[kind]).decode  # type: ignore[valid-type]
        self._max_items = max_items
        self.blocks: deque[tuple[int, bytes]] = deque()
        self.packed = 0  # items in the blocks
        self.recent: list[S] = []

    def __len__(self) -> int:
        return self.packed + len(self.recent)

    def __iter__(self) -> Iterator[S]:
        for _, block in self.blocks:
            yield from self._decode(zlib.decompress(block))
        yield from self.recent

    @property
    def packed_bytes(self) -> int:
        """What the blocks take."""
        return sum(len(block) for _, block in self.blocks)

    def append(self, item: S) -> None:
        recent = self.recent
        recent.append(item)
        if len(recent) >= 2 * BLOCK_ITEMS:
            self.pack(recent[:BLOCK_ITEMS])
            del recent[:BLOCK_ITEMS]

    def take(self) -> "Backlog[S]":
        """Return everything, and be empty."""
        taken = Backlog(self._kind, self._max_items)
        taken.blocks, taken.packed, taken.recent = self.blocks, self.packed, self.recent
        self.blocks, self.packed, self.recent = deque(), 0, []
        return taken

    def put_back(self, older: "Backlog[S]") -> None:
        """Have `older`, which was taken, before all that came since."""
        if self.blocks and older.recent:
            # Rare: so much came during one commit that it was packed. The order matters more than full blocks.
            older.pack(older.recent)
            older.recent = []
        self.blocks = older.blocks + self.blocks
        self.packed += older.packed
        self.recent = older.recent + self.recent

    def cut(self) -> int:
        """Give up the oldest above the bound; return how many."""
        lost = 0
        while (excess := len(self) - self._max_items) > 0:
            if self.blocks:
                count, block = self.blocks.popleft()
                self.packed -= count
                kept = self._decode(zlib.decompress(block))[excess:] if excess < count else []
                if kept:
                    self.blocks.appendleft((len(kept), self._packed_block(kept)))
                    self.packed += len(kept)
                lost += count - len(kept)
            else:
                del self.recent[:excess]
                lost += excess
        return lost

    def pack(self, items: list[S]) -> None:
        """Add a block of `items`."""
        self.blocks.append((len(items), self._packed_block(items)))
        self.packed += len(items)

    @staticmethod
    def _packed_block(items: list[S]) -> bytes:
        return zlib.compress(_encode(items), LEVEL)
