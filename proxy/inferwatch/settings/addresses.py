"""What addresses may be: the engine's, and ours beside each other. Faults begin with the key, in one line."""

from urllib.parse import urlsplit


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
