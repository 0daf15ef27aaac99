"""The data path: the engine, the clients, and what may pass."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from inferwatch.settings.base import MAX_SECONDS, Count, Seconds


class Upstream(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The inference server behind us."""

    url: Annotated[str, Meta(description="Where the engine listens: `http://host:port` or `https://host:port`.")] = (
        "http://127.0.0.1:8000"
    )
    engine: Annotated[
        Literal[
            "auto",
            "vllm",
            "tgi",
            "sglang",
            "trtllm",
            "triton",
            "llamacpp",
            "ollama",
            "transformers",
            "anthropic",
            "openai",
            "unknown",
        ],
        Meta(
            description="What the engine is ([engines.md](engines.md)). `auto` asks it; `unknown` forwards and asks it "
            "for nothing."
        ),
    ] = "auto"
    connect_timeout_s: Annotated[Seconds, Meta(description="To open a connection; then the client gets a 504.")] = 10.0
    first_byte_timeout_s: Annotated[
        Seconds,
        Meta(description="From the end of the request to the reply's head. A plain reply has no head before its end."),
    ] = 3600.0
    idle_timeout_s: Annotated[
        Seconds, Meta(description="Between two reads of a reply, or while the engine takes nothing of a long request.")
    ] = 600.0
    total_timeout_s: Annotated[Seconds, Meta(description="For a request from end to end.")] = 86400.0
    max_idle_connections: Annotated[int, Meta(ge=0, description="Kept open for the next request, per worker.")] = 256
    idle_connection_s: Annotated[
        Seconds, Meta(description="A pooled connection is closed after this; uvicorn itself closes at 5 s.")
    ] = 4.0
    tls_ca_file: Annotated[str, Meta(description="Trusts this CA instead of the system's, for `https`.")] = ""
    tls_verify: Annotated[bool, Meta(description="Check the engine's certificate.")] = True

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def tls(self) -> bool:
        return urlsplit(self.url).scheme == "https"


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """TLS towards the clients."""

    cert_file: Annotated[str, Meta(description="PEM certificate chain; empty: plain HTTP.")] = ""
    key_file: Annotated[str, Meta(description="PEM key of that certificate.")] = ""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a client may send."""

    max_request_bytes: Annotated[Count, Meta(description="Largest request body; above it the client gets a 413.")] = (
        256 * 1024 * 1024
    )
    buffer_request_bytes: Annotated[
        Count,
        Meta(description="Bodies up to this are read whole before they are sent on (and can be sent again)."),
    ] = 1024 * 1024
    max_header_bytes: Annotated[Count, Meta(description="Longest request line or header field.")] = 256 * 1024
    max_headers: Annotated[Count, Meta(description="Most header fields in a request.")] = 256
    client_idle_s: Annotated[Seconds, Meta(description="An idle keep-alive connection of a client is closed.")] = 75.0


class Usage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Asking the engine for token counts that the client did not ask for."""

    ask: Annotated[
        bool, Meta(description="Ask engines that can for continuous usage, and take it out of the reply again.")
    ] = True


class Tap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """From the relay to the collector."""

    flush_interval_s: Annotated[Seconds, Meta(description="Copies are sent in batches this often.")] = 0.1
    max_pending_bytes: Annotated[
        Count,
        Meta(description="Copies waiting for the collector, per worker; above it copies are dropped and counted."),
    ] = 32 * 1024 * 1024
    max_pending_closes: Annotated[
        Count,
        Meta(
            description="Finished requests in memory until they are acknowledged, per worker; above it they are in the "
            "spool file only, to which each is copied while there is no collector."
        ),
    ] = 10_000
    max_spool_bytes: Annotated[Count, Meta(description="Largest spool file, per worker.")] = 1024 * 1024 * 1024
    max_body_bytes: Annotated[int, Meta(ge=0, description="Longest part of a request body that is mirrored.")] = (
        4 * 1024 * 1024
    )


class Drain(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What happens at SIGTERM."""

    delay_s: Annotated[
        float,
        Meta(ge=0, le=MAX_SECONDS, description="Not ready, but still accepting: time for load balancers to notice."),
    ] = 0.0
    timeout_s: Annotated[
        Seconds, Meta(description="Open requests may take this long to finish; then they are cut.")
    ] = 600.0
