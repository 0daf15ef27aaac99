"""What stands in place of a value: the same for the same value, and nothing to anybody without the key.

`<EMAIL:k1.228:mzxw6ytboi2gk3tf>` is the kind, the key's id and epoch, and 80 bits of a keyed hash over kind and
canonical form. A hash without a key would hide nothing: all telephone numbers of a country are hashed in hours.
"""

import base64
import hashlib
import hmac
import re
from typing import Final, NamedTuple

from inferwatch_collectors.privacy.keys import Derived, Keys

# Among a billion values of one tenant and epoch, two are alike with a chance of one in two million.
TOKEN_BYTES: Final = 10
FINGERPRINT_BYTES: Final = 16

_TOKEN: Final = re.compile(r"<([A-Z][A-Z0-9_]{0,39}):([a-z0-9]{1,16}(?:\.\d{1,9})?):([a-z2-7]{16})>")


class Origin(NamedTuple):
    """Where a pseudonym is from."""

    entity: str
    key_id: str
    known: bool  # its key is still there


class Pseudonyms:
    """Makes them, and tells of old ones where they are from."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def token(self, tenant: str, wall_s: float, entity: str, canonical: str) -> str:
        """Return what stands in place of a value."""
        return _token(self._keys.of(tenant, wall_s), entity, canonical)

    def fingerprint(self, tenant: str, wall_s: float, text: str) -> str:
        """Return a keyed hash of a whole text, with the id of its key."""
        derived = self._keys.of(tenant, wall_s)
        return f"{derived.key_id}:{_hash(derived, 'fingerprint', text, FINGERPRINT_BYTES)}"

    def origin(self, token: str) -> Origin | None:
        """Return where `token` is from; None if it is no pseudonym."""
        match = _TOKEN.fullmatch(token)
        return None if match is None else Origin(match[1], match[2], self._keys.knows(match[2]))

    def confirms(self, token: str, tenant: str, canonical: str) -> bool:
        """Tell whether `token` stands for that value of that tenant. Only who has the key can ask."""
        match = _TOKEN.fullmatch(token)
        derived = None if match is None else self._keys.again(tenant, match[2])
        if match is None or derived is None:
            return False
        return hmac.compare_digest(token, _token(derived, match[1], canonical))


def _token(derived: Derived, entity: str, canonical: str) -> str:
    return f"<{entity}:{derived.key_id}:{_hash(derived, entity, canonical, TOKEN_BYTES)}>"


def _hash(derived: Derived, kind: str, value: str, size: int) -> str:
    data = f"{kind}\x1f{value}".encode("utf-8", "replace")
    digest = hashlib.blake2b(data, digest_size=size, key=derived.key).digest()
    return base64.b32encode(digest).decode().rstrip("=").lower()
