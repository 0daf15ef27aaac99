"""What the collector itself asks the engine, as both planes know it: whose those requests are, and how the relay knows
them.

The collector asks through our own data port, as any client, so that its requests are admitted, counted, booked and
charged like all others, once. Their tenant is TENANT for the canary's probes, EMBEDDINGS_TENANT for the embeddings of
the drift detector. Those names cannot be claimed by a header alone: the request brings a proof that only who has the
secret of this installation can make, and each is good for one name.
"""

import hashlib
from typing import Final

TENANT: Final = "inferwatch-canary"
EMBEDDINGS_TENANT: Final = "inferwatch-embeddings"

# Nobody watches us watching.
OWN: Final = frozenset({TENANT, EMBEDDINGS_TENANT})

# The header with the proof, as clients write it, and without what all of ours begin with.
HEADER: Final = "x-inferwatch-canary"
FIELD: Final = b"canary"

# Another use of the secret must not give a related hash (blake2b's `person`).
_USES: Final = {TENANT: b"inferwatch-cnry", EMBEDDINGS_TENANT: b"inferwatch-embd"}
_BYTES: Final = 32


def proof(secret: bytes, tenant: str = TENANT) -> str:
    """Return what a request of one of OWN carries. `secret` is that of the installation."""
    key = hashlib.blake2b(secret, digest_size=_BYTES).digest()
    return hashlib.blake2b(digest_size=_BYTES, key=key, person=_USES[tenant]).hexdigest()
