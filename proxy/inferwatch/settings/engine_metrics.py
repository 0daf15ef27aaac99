"""The engine's own metrics: where they are, and how often they are read."""

from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from inferwatch.settings.base import MAX_SECONDS, Count, Seconds


class EngineMetrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the engine says of itself."""

    enabled: Annotated[bool, Meta(description="Scrape the engine's metrics and compare its counts with ours.")] = True
    url: Annotated[
        str,
        Meta(
            description="Its Prometheus text, as a whole URL; empty: found under `upstream.url`. Needed for Triton, "
            "which has it on a port of its own. TLS settings are those of `upstream`."
        ),
    ] = ""
    interval_s: Annotated[
        float,
        Meta(
            ge=0.1,
            le=MAX_SECONDS,
            description="Between two scrapes. One keeps vLLM's event loop busy for some 35 ms.",
        ),
    ] = 5.0
    timeout_s: Annotated[Seconds, Meta(description="For one scrape; a busy engine answers late.")] = 4.0
    max_bytes: Annotated[Count, Meta(description="Longest answer that is read. vLLM's has some 60 kB per model.")] = (
        4 * 1024 * 1024
    )


def fault(section: EngineMetrics) -> str:
    """Return what is wrong with the section, in one line that names the key; "" if nothing."""
    url = section.url
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not parts.fragment
        usable = usable and not any(char.isspace() or not char.isprintable() for char in url)
    except ValueError:
        return "engine_metrics.url: it is no URL"
    if "@" in parts.netloc:  # it would be shown by /config, and in the log
        return "engine_metrics.url: it holds a user name or a password"
    shown = "" if "@" in url else f", got `{url}`"
    return "" if usable else f"engine_metrics.url: expected `http://host:port/path`{shown}"
