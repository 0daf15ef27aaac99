"""The memory for keys and values: blocks, counted, with the prompt blocks shared by prefix.

No block holds anything here; only who counts on it matters. A block is in one of four conditions:

- plain free: nobody's, remembers nothing;
- private: one sequence's, for tokens that were not (or not yet) offered for sharing;
- shared: a full block of prompt tokens under its prefix hash, counted on by one sequence or more;
- retained: a shared block nobody counts on at the moment. It is free for anybody, oldest first, and until taken it
  answers look-ups. This is what makes the second turn of a chat cheap.

`used` counts private and shared blocks. The invariants `used + retained <= capacity` and "every reference is given
back" are what the property tests hold on to.
"""

from collections import OrderedDict
from collections.abc import Sequence

BLOCK_TOKENS = 16  # vLLM's default block size


def blocks_for(tokens: int) -> int:
    """Blocks needed for that many tokens."""
    return -(-tokens // BLOCK_TOKENS)


class Holding:
    """The blocks one sequence counts on: shared ones by hash, private ones by number."""

    __slots__ = ("private", "shared")

    def __init__(self) -> None:
        self.shared: list[int] = []
        self.private = 0

    @property
    def blocks(self) -> int:
        return len(self.shared) + self.private


class KvCache:
    """A pool of `capacity` blocks."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._private = 0
        self._shared: dict[int, int] = {}  # prefix hash -> sequences that count on it, at least one
        self._retained: OrderedDict[int, None] = OrderedDict()  # oldest first

    @property
    def used(self) -> int:
        """Blocks somebody counts on."""
        return self._private + len(self._shared)

    @property
    def free(self) -> int:
        """Blocks to be had, retained ones included."""
        return self.capacity - self.used

    @property
    def usage_ratio(self) -> float:
        return self.used / self.capacity

    def longest_prefix(self, hashes: Sequence[int]) -> int:
        """How many of the leading `hashes` are present."""
        for count, prefix_hash in enumerate(hashes):
            if prefix_hash not in self._shared and prefix_hash not in self._retained:
                return count
        return len(hashes)

    def claim_prefix(self, holding: Holding, hashes: Sequence[int]) -> None:
        """Count on blocks that `longest_prefix` found; takes no plain free block, but may un-retain some."""
        for prefix_hash in hashes:
            if prefix_hash in self._shared:
                self._shared[prefix_hash] += 1
            else:
                del self._retained[prefix_hash]
                self._shared[prefix_hash] = 1
            holding.shared.append(prefix_hash)

    def unclaimed(self, hashes: Sequence[int]) -> int:
        """How many of these present blocks would leave `free` when claimed."""
        return sum(1 for prefix_hash in hashes if prefix_hash not in self._shared)

    def grow(self, holding: Holding, blocks: int) -> bool:
        """Bring the holding up to `blocks`; False, changing nothing, if there are not enough."""
        wanted = blocks - holding.blocks
        if wanted <= 0:
            return True
        if wanted > self.free:
            return False
        self._private += wanted
        holding.private += wanted
        while self.used + len(self._retained) > self.capacity:
            self._retained.popitem(last=False)
        return True

    def share(self, holding: Holding, hashes: Sequence[int]) -> None:
        """Offer the sequence's full prompt blocks, all of `hashes` in order, for sharing.

        A hash that another sequence computed meanwhile stays private here: the same content is held twice, as in vLLM.
        """
        for prefix_hash in hashes[len(holding.shared) :]:
            if prefix_hash in self._shared or prefix_hash in self._retained:
                return
            self._private -= 1
            holding.private -= 1
            self._shared[prefix_hash] = 1
            holding.shared.append(prefix_hash)

    def release(self, holding: Holding) -> None:
        """Give everything back. The tail of a prefix is taken first later: without its head it is of no use."""
        self._private -= holding.private
        holding.private = 0
        for prefix_hash in reversed(holding.shared):
            left = self._shared[prefix_hash] - 1
            if left:
                self._shared[prefix_hash] = left
            else:
                del self._shared[prefix_hash]
                self._retained[prefix_hash] = None
        holding.shared.clear()
