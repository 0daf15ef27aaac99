"""What addresses may be: the engine's, and ours beside each other. Faults begin with the key, in one line."""

import ipaddress
from typing import Final
from urllib.parse import urlsplit

Address = tuple[str, int]

_NAMES: Final = {"localhost": ("127.0.0.1", "::1")}


def upstream_fault(url: str) -> str:
    """Return what is wrong with `upstream.url`, or "". Never quotes what may be a password."""
    if "@" in url:
        # Clients send their own keys, which are relayed; one of ours in the URL would reach the engine with no request.
        return "upstream.url: holds a user or a password, which the engine would not get; give `http://host:port`"
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        usable = parts.scheme in ("http", "https") and bool(host) and parts.path in ("", "/") and parts.port != 0
        usable = usable and not parts.query and not parts.fragment
        usable = usable and not any(char.isspace() or not char.isprintable() for char in url)
    except ValueError:
        usable = False
    return "" if usable else f"upstream.url: expected `http://host:port` without a path, got `{url}`"


def clash(listen: Address, admin: Address, upstream: Address, *, alone: bool = True) -> str:
    """Return what is wrong with our ports beside each other and beside the engine's, or "".

    Names other than localhost are not looked up: the name of this host may be the engine's elsewhere. Not `alone`, with
    several relays on the port, an engine may have it on an address of its own beside us.
    """
    if _same(listen, admin):
        return f"admin: port {admin[1]} is that of `listen`; the data port and the admin port are two"
    if _same(listen, upstream, alone=alone):
        return f"upstream.url: port {upstream[1]} here is that of `listen`: requests would go round; name the engine's"
    return ""


def _same(ours: Address, other: Address, *, alone: bool = True) -> bool:
    """Tell whether what comes to `other` reaches who listens at `ours`. Port 0 is one that is free."""
    if ours[1] != other[1] or not ours[1]:
        return False
    mine = [each for each in _ips(ours[0]) if alone or not each.is_unspecified]
    return ours[0] == other[0] or any(_hears(each, its) for each in mine for its in _ips(other[0]))


def _ips(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        return [ipaddress.ip_address(text) for text in _NAMES.get(host.lower(), (host,))]
    except ValueError:
        return []


def _hears(
    mine: ipaddress.IPv4Address | ipaddress.IPv6Address, its: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> bool:
    """Tell whether a socket at `mine` gets what is sent to `its`, from this host. `::` takes IPv4 as well."""
    if mine.is_unspecified:
        return (its.is_loopback or its.is_unspecified) and mine.version >= its.version
    return mine == its or (its.is_unspecified and mine.is_loopback and mine.version == its.version)
