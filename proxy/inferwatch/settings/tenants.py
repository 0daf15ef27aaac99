"""Who pays: tenants by the API keys they hold. The configuration names where keys are, it never holds one."""

import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

# What a hash of an unknown key looks like, and what stands for nobody: a tenant of that name could not be told apart.
HASH_PREFIX: Final = "key-"
RESERVED: Final = frozenset({"anonymous", "other", "unknown"})

# A label value, and a column in each row of the ledger.
MAX_NAME_BYTES: Final = 128

# The table of tenants travels to each relay in one line of the control channel.
MAX_TENANTS: Final = 1000

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class KnownTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One tenant. Without keys it can still be named by a trusted peer, and have prices and budgets."""

    name: Annotated[str, Meta(description="Name in metrics and reports. Required.")]
    keys_file: Annotated[
        str,
        Meta(
            description="File with the tenant's API keys, one a line; lines that begin with `# ` are remarks. "
            "To rotate: add the new key, reload, and take the old one out when nobody uses it."
        ),
    ] = ""
    key_env: Annotated[
        str,
        Meta(description="Environment variable with its API keys, divided by blanks. Changes need a restart."),
    ] = ""


class Tenants(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which API key is whose."""

    known: Annotated[tuple[KnownTenant, ...], Meta(description="The tenants that have a name.")] = ()
    unknown_keys: Annotated[
        Literal["allow", "reject"],
        Meta(
            description="A request with a key that is nobody's, or without one: `allow` lets it pass under a keyed "
            "hash or as `anonymous`, `reject` answers 401."
        ),
    ] = "allow"


def fault(tenants: Tenants) -> str:
    """Return what is wrong with `tenants`, beginning with the key, or "". Never quotes what may be a secret."""
    return next(_faults(tenants), "")


def _faults(tenants: Tenants) -> Iterator[str]:
    if len(tenants.known) > MAX_TENANTS:
        yield f"tenants.known: {len(tenants.known)} tenants, expected at most {MAX_TENANTS}"
    seen: set[str] = set()
    for index, tenant in enumerate(tenants.known):
        if problem := _name_fault(tenant.name, seen):
            yield f"tenants.known[{index}].name: {problem}"
        seen.add(tenant.name)
        # Somebody may have put the key itself here; then neither an error nor the shown configuration may repeat it.
        if tenant.key_env and not _VARIABLE.fullmatch(tenant.key_env):
            yield f"tenants.known[{index}].key_env: expected the name of an environment variable"


def _name_fault(name: str, seen: set[str]) -> str:
    size = len(name.encode("utf-8", "replace"))
    if not name or not name.isprintable() or name != name.strip() or size > MAX_NAME_BYTES:
        return f"expected 1 to {MAX_NAME_BYTES} bytes, printable, without blanks around"
    if name in RESERVED or name.startswith(HASH_PREFIX):
        return f"`{name}` is reserved for requests that no tenant is known of"
    return f"`{name}` is written twice" if name in seen else ""
