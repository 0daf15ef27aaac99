"""What a lane touches of the mirror: one small object that all streams share, so that it is always at hand."""

from typing import Final

from inferwatch import tap

# A frame's own cost beside its data, for the bound on memory.
READ_OVERHEAD_BYTES: Final = 100

# A bound that is always exceeded: whoever wants to add something must ask the mirror.
CLOSED: Final = -1


class Outbox:
    """Copies that wait for the next batch.

    Who adds one adds its size, perhaps with its framing, and READ_OVERHEAD_BYTES to `pending_bytes`. Where that is
    above `bound_bytes` before, `Mirror.make_room` says whether it may.
    """

    __slots__ = ("bound_bytes", "pending_bytes", "reads")

    def __init__(self) -> None:
        self.reads: list[tap.Read] = []
        self.pending_bytes = 0
        self.bound_bytes = CLOSED  # unless there is a collector, and the next batch is due
