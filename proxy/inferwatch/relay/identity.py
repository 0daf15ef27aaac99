"""Who sent a request: a name that is safe to store, never the key itself."""

import hashlib
import hmac
import ipaddress
from typing import Final, NamedTuple, Protocol

from inferwatch import canary
from inferwatch.relay.heads import RequestHead
from inferwatch.tenants import Tenant, TenantDirectory, TenantTable

ANONYMOUS: Final = "anonymous"

# 64 bits: users are many more than keys.
PERSON_HASH_BYTES: Final = 8
MAX_HASHED_BYTES: Final = 1024

# Names given in headers become labels and columns.
MAX_NAME_BYTES: Final = 128

# What load balancers and kubelets ask without a key, and browsers before they send one (CORS); as vLLM's own guard.
_OPEN_PATHS: Final = ("/health", "/ping", "/healthz", "/readyz")
_PREFLIGHT: Final = b"OPTIONS"

# Addresses of which it is remembered whether they are trusted.
MAX_REMEMBERED: Final = 4096


class Peer(Protocol):
    """Whoever sent the request; looked at only when it matters."""

    @property
    def remote(self) -> str | None: ...


class Who(NamedTuple):
    """The sender of a request."""

    tenant: str
    welcome: bool = True  # False: only tenants are let in, and this is none


class Identity:
    """Configured names and keyed hashes of API keys, and names from trusted peers."""

    def __init__(self, secret: bytes, trusted_peers: tuple[str, ...], table: TenantTable | None = None) -> None:
        """`table` knows the configured tenants' keys.

        Raises:
            ValueError: the secret is too short.
        """
        self._directory = TenantDirectory(table or TenantTable(), secret)
        self._secret = hashlib.blake2b(secret, digest_size=32, person=b"inferwatch-key").digest()
        self._own = tuple((canary.proof(secret, tenant).encode(), tenant) for tenant in sorted(canary.OWN))
        self._trusted = [ipaddress.ip_network(peer, strict=False) for peer in trusted_peers]
        self._peers: dict[str, bool] = {}

    def who(self, head: RequestHead, peer: "Peer") -> Who:
        """Return the sender: named by a trusted peer, else by its API key (its tenant's name, or the key's hash)."""
        if head.ours:
            named = head.ours.get(b"tenant")
            if named and self._is_trusted(peer.remote):
                return Who(clean(named))
            given = head.ours.get(canary.FIELD)
            if given is not None:
                for proof, tenant in self._own:
                    if hmac.compare_digest(given, proof):
                        return Who(tenant)
        found = self._directory.lookup(head.named)
        welcome = not self._directory.refuses(found)
        if found is None:
            return Who(ANONYMOUS, welcome)
        return Who(found.name if isinstance(found, Tenant) else found.label, welcome)

    def lets_in(self, who: Who, method: bytes, path: str) -> bool:
        """Tell whether the request may pass; what carries no key by its nature always may."""
        return who.welcome or method == _PREFLIGHT or path in _OPEN_PATHS

    def pseudonym(self, kind: bytes, value: bytes | None) -> str:
        """Return the keyed hash of a user or a session: the same person can be followed without being known."""
        if not value:
            return ""
        digest = hashlib.blake2b(value[:MAX_HASHED_BYTES], digest_size=PERSON_HASH_BYTES, key=self._secret, person=kind)
        return digest.hexdigest()

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
