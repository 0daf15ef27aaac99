"""Budgets that several hosts keep together: the Redis through which they do."""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

SCHEMES: Final = ("redis", "rediss", "unix")

_NAMESPACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# Half of a budget is for those who ask; all hosts' initial shares together are at most the other half.
MAX_INITIAL_PERCENT: Final = 50


class Redis(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where hosts meet. Without an address each host keeps its own budgets."""

    url: Annotated[
        str,
        Meta(
            description="Redis through which hosts share budgets, without a password: `redis://host:6379/0`, "
            "`rediss://…` (TLS), `unix:///path`. Empty, like the two below: each host keeps budgets of its own."
        ),
    ] = ""
    url_file: Annotated[
        str, Meta(description="File whose first line is the address, with user and password if it has them.")
    ] = ""
    url_env: Annotated[
        str, Meta(description="Environment variable that holds the address, with user and password if it has them.")
    ] = ""
    tls_ca_file: Annotated[
        str, Meta(description="CA certificates (PEM) to check a `rediss://` server with; empty: the system's.")
    ] = ""
    namespace: Annotated[
        str,
        Meta(
            description="What all keys in Redis begin with, in braces. Hosts with the same one share, and must have "
            "the same budgets."
        ),
    ] = "inferwatch"
    when_away: Annotated[
        Literal["lease", "reject", "allow"],
        Meta(
            description="While Redis does not answer: `lease` goes on with what was lent last, until that is spent; "
            "`reject` also gives that up when it has expired, so that nothing is overspent even by a host that is cut "
            "off; `allow` lets each host spend all that was left when Redis was last heard of."
        ),
    ] = "lease"
    initial_percent: Annotated[
        Decimal,
        Meta(
            description="Part of each budget that a host may spend before it has asked for more. Of all hosts "
            "together at most 50; hosts beyond that get less.",
        ),
    ] = Decimal(2)
    lease_s: Annotated[
        float,
        Meta(
            ge=1,
            le=3600,
            description="How long a host may be silent before what it was lent and has not spent goes back.",
        ),
    ] = 15.0
    report_interval_s: Annotated[
        float, Meta(ge=0.1, le=60, description="How often spending is told; at most a quarter of `lease_s`.")
    ] = 1.0
    timeout_s: Annotated[float, Meta(ge=0.01, le=30, description="How long an answer may take.")] = 0.5

    @property
    def is_used(self) -> bool:
        """Whether budgets are shared."""
        return bool(self.url or self.url_file or self.url_env)

    @property
    def initial_ppm(self) -> int:
        """The initial share, in millionths of a limit."""
        return int(self.initial_percent * 10_000)


def faults(redis: Redis) -> Iterator[str]:
    """Yield what is wrong, each beginning with the key. Never quotes what may be a password."""
    if sum(bool(each) for each in (redis.url, redis.url_file, redis.url_env)) > 1:
        yield "url: only one of `url`, `url_file` and `url_env` can be given"
    if redis.url and (problem := url_fault(redis.url)):
        yield f"url: {problem}"
    elif "@" in redis.url:
        yield "url: holds a user or a password; write it into a file and name that in `url_file`, or use `url_env`"
    if redis.url_env and not _VARIABLE.fullmatch(redis.url_env):
        yield "url_env: expected the name of an environment variable"
    if not _NAMESPACE.fullmatch(redis.namespace):
        yield "namespace: expected 1 to 64 letters, digits, `-`, `_`, `.` and `:`, a letter or digit first"
    if not redis.initial_percent.is_finite() or not 0 <= redis.initial_percent <= MAX_INITIAL_PERCENT:
        yield f"initial_percent: expected 0 to {MAX_INITIAL_PERCENT}, got {redis.initial_percent}"
    if redis.report_interval_s > redis.lease_s / 4:
        yield f"report_interval_s: expected at most a quarter of lease_s ({redis.lease_s / 4:g})"


def url_fault(url: str) -> str:
    """Return what is wrong with the address of a Redis, or "". Does not repeat it."""
    try:
        parts = urlsplit(url)
        place = parts.path if parts.scheme == "unix" else parts.hostname
        usable = parts.scheme in SCHEMES and bool(place) and parts.port != 0 and url.isprintable() and " " not in url
    except ValueError:
        usable = False
    return "" if usable else "expected `redis://host:port/number`, `rediss://…` or `unix:///path`"
