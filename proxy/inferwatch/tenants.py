"""Whose API key is it: a table of keyed hashes, made where keys are read, asked where requests come in.

Keys are read in one place (`read_table`, in the supervisor, at the start and at each reload), hashed at once, and
dropped. What travels to the relays, and all that they hold, is a `TenantTable`: names, and hashes under the secret of
this installation. Nobody gets a key out of it, and without the secret nobody can even try one.

A key is looked up by its hash in a dict. How long that takes depends on the hash alone, which a stranger cannot
predict: there is nothing to learn from timing.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

from inferwatch import secret_file
from inferwatch.config import ConfigError
from inferwatch.settings.tenants import HASH_PREFIX, KnownTenant, Tenants

# Header fields that carry a key, the first with one wins.
KEY_FIELDS: Final = (b"authorization", b"x-api-key", b"api-key")

# Some 40 bytes each in the one message that tells a relay: with the configuration it stays below 1 MiB.
MAX_KEYS: Final = 10_000
MAX_FILE_BYTES: Final = 1024 * 1024
MAX_KEY_BYTES: Final = 1024

# 128 bits: no two keys of a table collide.
DIGEST_BYTES: Final = 16

# 40 bits: a collision among 10,000 unknown keys has a chance of 1 in 20,000, and the label stays short.
LABEL_BYTES: Final = 5

MIN_SECRET_BYTES: Final = 16

# Two uses of one secret must not give related hashes (blake2b's `person`).
_SECRET_USE: Final = b"inferwatch-key"
_TABLE_USE: Final = b"inferwatch-tkey"

# No key begins like that: it has no blank.
_REMARK: Final = b"# "


class Tenant(NamedTuple):
    """A key of a configured tenant."""

    name: str


class Unknown(NamedTuple):
    """A key that is nobody's."""

    label: str  # keyed hash, the same for the same key: `key-…`


class TenantTable(msgspec.Struct, frozen=True, kw_only=True):
    """What a relay is told: plain data, fit for the control channel. Holds no key."""

    names: tuple[str, ...] = ()
    owners: dict[str, int] = {}  # hash of a key, in hex -> index in `names`
    reject_unknown: bool = False

    def __repr__(self) -> str:
        return f"TenantTable({len(self.names)} tenants, {len(self.owners)} keys)"


class TenantDirectory:
    """Answers whose a key is."""

    __slots__ = ("_names", "_owners", "_secret", "reject_unknown")

    def __init__(self, table: TenantTable, secret: bytes) -> None:
        """`secret` is that of the installation, at least 16 bytes; the table was made under the same.

        Raises:
            ValueError: the secret is too short.
        """
        self._secret = _derived(secret)
        self._names = table.names
        self._owners = {bytes.fromhex(digest): index for digest, index in table.owners.items()}
        self.reject_unknown = table.reject_unknown

    def __repr__(self) -> str:
        return f"TenantDirectory({len(self._names)} tenants, {len(self._owners)} keys)"

    def lookup(self, fields: Mapping[bytes, bytes]) -> Tenant | Unknown | None:
        """Return who sent a request with these header fields (names in lower case); None: it has no key."""
        key = api_key(fields)
        return None if key is None else self.whose(key)

    def whose(self, key: bytes) -> Tenant | Unknown:
        """Return the tenant of a key, or the label of an unknown one."""
        owner = self._owners.get(_digest(key, self._secret)) if self._owners else None
        if owner is not None:
            return Tenant(self._names[owner])
        label = hashlib.blake2b(key, digest_size=LABEL_BYTES, key=self._secret).hexdigest()
        return Unknown(f"{HASH_PREFIX}{label}")

    def refuses(self, found: Tenant | Unknown | None) -> bool:
        """Tell whether a request of this sender gets a 401: no tenant's key, where only tenants are let in."""
        return self.reject_unknown and not isinstance(found, Tenant)


def api_key(fields: Mapping[bytes, bytes]) -> bytes | None:
    """Return the API key in header fields (names in lower case), without `Bearer`; None if there is none."""
    for field in KEY_FIELDS:
        value = fields.get(field, b"").strip()
        scheme, blank, rest = value.partition(b" ")
        key = rest.strip() if blank and scheme.lower() == b"bearer" else value
        if key and key.lower() != b"bearer":
            return key
    return None


def read_table(tenants: Tenants, secret: bytes, environ: Mapping[str, str] | None = None) -> TenantTable:
    """Read all keys and return the table of their hashes. Blocking.

    Raises:
        ConfigError: naming the key of the configuration, never a secret: a file or variable cannot be read or holds no
            key, a line is no key, two tenants have the same key, or there are too many.
        ValueError: the secret is too short.
    """
    derived = _derived(secret)
    owners: dict[str, int] = {}
    for index, tenant in enumerate(tenants.known):
        for place, key in _keys_of(index, tenant, os.environ if environ is None else environ):
            owner = owners.setdefault(_digest(key, derived).hex(), index)
            if owner != index:
                raise ConfigError(f"{place} is a key of `{tenants.known[owner].name}` too")
        if len(owners) > MAX_KEYS:
            raise ConfigError(f"tenants.known: more than {MAX_KEYS} keys")
    return TenantTable(
        names=tuple(tenant.name for tenant in tenants.known),
        owners=owners,
        reject_unknown=tenants.unknown_keys == "reject",
    )


def _keys_of(index: int, tenant: KnownTenant, environ: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """Yield (where it is written, key) for each key of a tenant."""
    if tenant.keys_file:
        here = f"tenants.known[{index}].keys_file"
        lines = secret_file.whole(here, tenant.keys_file, MAX_FILE_BYTES).splitlines()
        keys = [(number, line.strip()) for number, line in enumerate(lines, 1) if not line.startswith(_REMARK)]
        yield from _checked(here, "line", [(number, key) for number, key in keys if key])
    if tenant.key_env:
        here = f"tenants.known[{index}].key_env"
        if tenant.key_env not in environ:
            raise ConfigError(f"{here}: there is no such environment variable")
        words = environ[tenant.key_env].encode("utf-8", "surrogateescape").split()
        yield from _checked(here, "word", list(enumerate(words, 1)))


def _checked(here: str, unit: str, keys: list[tuple[int, bytes]]) -> Iterator[tuple[str, bytes]]:
    if not keys:
        raise ConfigError(f"{here}: holds no key")
    for number, key in keys:
        place = f"{here}: {unit} {number}"
        # What a header field may hold: others would never match, and most of them are a file of another kind.
        if len(key) > MAX_KEY_BYTES or not all(0x21 <= byte <= 0x7E for byte in key):
            raise ConfigError(f"{place} is no key: expected 1 to {MAX_KEY_BYTES} ASCII characters without blanks")
        yield place, key


def _derived(secret: bytes) -> bytes:
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"secret of {len(secret)} bytes, expected at least {MIN_SECRET_BYTES}")
    return hashlib.blake2b(secret, digest_size=32, person=_SECRET_USE).digest()


def _digest(key: bytes, derived: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=DIGEST_BYTES, key=derived, person=_TABLE_USE).digest()
