"""Who sent a request: a name that is safe to store, never the key itself."""

import hashlib
import ipaddress
from typing import Final, Protocol

from inferwatch.relay.heads import RequestHead

ANONYMOUS: Final = "anonymous"

# 40 bits: a collision among 10,000 keys has a chance of 1 in 20,000, and the label stays short.
HASH_BYTES: Final = 5

# 64 bits: users are many more than keys.
PERSON_HASH_BYTES: Final = 8
MAX_HASHED_BYTES: Final = 1024

# Names given in headers become labels and columns.
MAX_NAME_BYTES: Final = 128

_KEY_HEADERS: Final = (b"authorization", b"x-api-key", b"api-key")

# Distinct keys whose hash is remembered; a client that sends random keys must not fill memory.
MAX_REMEMBERED: Final = 4096
MAX_REMEMBERED_BYTES: Final = 4096  # a JWT is two kilobytes


class Peer(Protocol):
    """Whoever sent the request; looked at only when it matters."""

    @property
    def remote(self) -> str | None: ...


class Identity:
    """Keyed hashes of API keys, and names from trusted peers."""

    def __init__(self, secret: bytes, trusted_peers: tuple[str, ...]) -> None:
        if len(secret) < 16:
            raise ValueError(f"secret of {len(secret)} bytes, expected at least 16")
        self._secret = hashlib.blake2b(secret, digest_size=32, person=b"inferwatch-key").digest()
        self._trusted = [ipaddress.ip_network(peer, strict=False) for peer in trusted_peers]
        self._hashes: dict[bytes, str] = {}
        self._peers: dict[str, bool] = {}

    def tenant(self, head: RequestHead, peer: "Peer") -> str:
        """Return the tenant's name: from the header of a trusted peer, else the hash of the API key."""
        named = head.ours.get(b"tenant")
        if named and self._is_trusted(peer.remote):
            return clean(named)
        for header in _KEY_HEADERS:
            key = head.named.get(header)
            if key:
                return self._hashes.get(key) or self._hash(key)
        return ANONYMOUS

    def pseudonym(self, kind: bytes, value: bytes | None) -> str:
        """Return the keyed hash of a user or a session: the same person can be followed without being known."""
        if not value:
            return ""
        digest = hashlib.blake2b(value[:MAX_HASHED_BYTES], digest_size=PERSON_HASH_BYTES, key=self._secret, person=kind)
        return digest.hexdigest()

    def _hash(self, field: bytes) -> str:
        scheme, _, rest = field.partition(b" ")
        key = rest.strip() if scheme.lower() == b"bearer" else field.strip()
        digest = hashlib.blake2b(key, digest_size=HASH_BYTES, key=self._secret).hexdigest()
        tenant = f"key-{digest}"
        if len(field) <= MAX_REMEMBERED_BYTES:
            if len(self._hashes) >= MAX_REMEMBERED:
                self._hashes.clear()
            self._hashes[field] = tenant
        return tenant

    def _is_trusted(self, remote: str | None) -> bool:
        if not self._trusted or not remote:
            return False
        known = self._peers.get(remote)
        if known is None:
            try:
                address = ipaddress.ip_address(remote)
            except ValueError:
                return False
            # A dual-stack listener shows IPv4 peers as ::ffff:10.0.0.1.
            address = getattr(address, "ipv4_mapped", None) or address
            known = any(address in network for network in self._trusted)
            if len(self._peers) >= MAX_REMEMBERED:
                self._peers.clear()
            self._peers[remote] = known
        return known


def clean(value: bytes) -> str:
    """Return a header value as a name: printable, bounded."""
    text = value[:MAX_NAME_BYTES].decode("utf-8", "replace").strip()
    return "".join(char if char.isprintable() else "?" for char in text)
