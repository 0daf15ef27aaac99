"""The live page: where it gets from what is not in memory."""

from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta


class Live(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The page on the admin port."""

    prometheus_url: Annotated[
        str,
        Meta(
            description="A Prometheus that scrapes us and evaluates our rules, as `http://prometheus:9090`: active "
            "alerts, and what is older than six hours, come from there. It is asked only while somebody looks at the "
            "page, by us, never by the browser. Empty: the page has neither."
        ),
    ] = ""
    prometheus_token_file: Annotated[
        str, Meta(description="File whose first line is sent to that Prometheus as `Authorization: Bearer …`.")
    ] = ""
    instance: Annotated[
        str,
        Meta(
            description="This host's label `instance` in that Prometheus. Empty: charts and alerts are of all hosts "
            "that it scrapes."
        ),
    ] = ""


def fault(live: Live) -> str:
    """Return what is wrong with `live`, beginning with the key, or "". Never quotes what may be a password."""
    if not live.prometheus_url:
        for name in ("prometheus_token_file", "instance"):
            if getattr(live, name):
                return f"live.{name}: needs `live.prometheus_url`"
        return ""
    try:
        parts = urlsplit(live.prometheus_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        usable = usable and not parts.query and not parts.fragment
        usable = usable and not any(char.isspace() or not char.isprintable() for char in live.prometheus_url)
        holds_user = "@" in parts.netloc
    except ValueError:
        usable = holds_user = False
    if not usable:
        return "live.prometheus_url: expected `http://host:port`, with a path if there is one"
    if holds_user:  # it would be shown by /config
        return "live.prometheus_url: holds a user or a password; use `live.prometheus_token_file`"
    return ""
