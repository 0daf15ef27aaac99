"""The measures of time of this subsystem, and why each is what it is."""

from typing import Final

NS_PER_S: Final = 1_000_000_000

# What is divided at once. Shorter than most requests, longer than a scheduling step of an engine.
INTERVAL_NS: Final = NS_PER_S

# The relays' copies come in batches of 0.1 s; a collector that catches up may be a second behind.
LAG_NS: Final = 2 * NS_PER_S

# A stream that stands still this long does no work that could still be told.
STALL_NS: Final = 10 * NS_PER_S

# How long a second waits for the token counts of requests whose work is known only at their end. Most plain replies
# take less; each waiting second is kept in memory and in the ledger.
HORIZON_NS: Final = 120 * NS_PER_S

# A collector that was killed is back within seconds, an upgraded container within a minute, and the machine was paid
# for meanwhile. A longer gap is somebody who switched Inferwatch off.
MAX_GAP_NS: Final = 60 * NS_PER_S

# After a restart relays come back at once, or a second later, and tell what they have.
RETURN_NS: Final = 5 * NS_PER_S
