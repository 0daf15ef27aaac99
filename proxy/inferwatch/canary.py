"""The canary probe as both planes know it: whose its requests are, and how the relay knows them.

The collector asks the engine through our own data port, as any client, so that its requests are admitted, counted,
booked and charged like all others, once. Their tenant is TENANT. That name cannot be claimed by a header alone: the
request brings a proof that only who has the secret of this installation can make, and it is good for this name alone.
"""

import hashlib
from typing import Final

TENANT: Final = "inferwatch-canary"

# The header with the proof, as clients write it, and without what all of ours begin with.
HEADER: Final = "x-inferwatch-canary"
FIELD: Final = b"canary"

# Another use of the secret must not give a related hash (blake2b's `person`).
_USE: Final = b"inferwatch-cnry"
_BYTES: Final = 32


def proof(secret: bytes) -> str:
    """Return what a request of the canary carries. `secret` is that of the installation."""
    key = hashlib.blake2b(secret, digest_size=_BYTES).digest()
    return hashlib.blake2b(digest_size=_BYTES, key=key, person=_USE).hexdigest()
