"""Who may use the admin port: a token in a header for programs, a cookie made of it for browsers. No I/O, no clock.

A cookie says until when it is good, signed with the token's digest: nothing is kept of who came in, a restarted
collector knows it again, and a new token ends it. Whatever a peer sends is compared in constant time.

State: the digests, which a reload replaces, and counts of what was refused.
"""

import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import urlsplit

from inferwatch.admin_token import digest

# A screen on a wall is signed in again once a week.
SESSION_S: Final = 7 * 86_400

# Probes carry no token: a kubelet could not keep one, and what they are told is one word.
# Votes come with a token of their own (`feedback`): who may vote may not do all the rest.
OPEN_PATHS: Final = frozenset(
    {"/healthz", "/readyz", "/feedback", "/login", "/live/live.css", "/live/login.js", "/live/icon.svg"}
)
METRICS_PATH: Final = "/metrics"

Refusal = Literal["", "no_token", "wrong_token", "other_site"]
REFUSALS: Final[tuple[Refusal, ...]] = ("no_token", "wrong_token", "other_site")

_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_BEARER: Final = "bearer "

_IPV4: Final = re.compile(r"\d+\.\d+\.\d+\.\d+")  # no name ends with a number


class Access:
    """Judges requests. Without tokens only what another site's page sends is refused."""

    def __init__(self, digests: Mapping[str, str] | None = None) -> None:
        self._admin = ""
        self._metrics = ""
        self.refused: Counter[str] = Counter()
        self.use(digests or {})

    def use(self, digests: Mapping[str, str]) -> None:
        """Take up the digests of `admin_token.digests`."""
        self._admin, self._metrics = digests.get("admin", ""), digests.get("metrics", "")

    @property
    def is_guarded(self) -> bool:
        """Whether a token is asked for."""
        return bool(self._admin)

    def refusal(self, path: str, headers: Mapping[str, str], cookie: str, unix_s: float) -> Refusal:
        """Return why a request is not served, "" if it is. `cookie` is the session's, "" without one."""
        if not self._admin or path in OPEN_PATHS:
            return ""
        given = headers.get("Authorization", "")
        if given[: len(_BEARER)].lower() == _BEARER:
            token = given[len(_BEARER) :].strip()
            known = self.is_token(token)
            if path == METRICS_PATH and self._metrics:
                known |= hmac.compare_digest(digest(token), self._metrics)
            return "" if known else "wrong_token"
        if cookie:
            return "" if self._is_session(cookie, unix_s) else "wrong_token"
        return "no_token"

    def is_token(self, token: str) -> bool:
        """Whether that is the admin port's token."""
        return hmac.compare_digest(digest(token), self._admin)

    def session(self, unix_s: float) -> str:
        """Return a cookie for who has shown the token."""
        until = str(int(unix_s) + SESSION_S)
        return f"{until}.{self._signed(until)}"

    def _is_session(self, cookie: str, unix_s: float) -> bool:
        until, _, signature = cookie.partition(".")
        if not hmac.compare_digest(signature.encode("utf-8", "surrogateescape"), self._signed(until).encode()):
            return False
        return unix_s < int(until)  # digits: we have signed it

    def _signed(self, until: str) -> str:
        return hmac.new(
            self._admin.encode(), f"page until {until}".encode("utf-8", "surrogateescape"), hashlib.sha256
        ).hexdigest()


def is_from_elsewhere(method: str, headers: Mapping[str, str], host: str) -> bool:
    """Whether a page of another site makes a browser send this. Asking is harmless: the browser keeps the answer.

    Browsers say where a request comes from; programs do not. `Sec-Fetch-Site` is believed first, because a proxy in
    front of us may change `Host`, which `Origin` is compared with.
    """
    if method in _READING:
        return False
    site = headers.get("Sec-Fetch-Site", "")
    if site:
        return site not in ("same-origin", "none")
    origin = headers.get("Origin", "")
    try:
        return bool(origin) and urlsplit(origin).netloc != host
    except ValueError:  # no browser of ours sends what is no URL
        return True


def is_rebound(method: str, headers: Mapping[str, str], name: str) -> bool:
    """Whether this may come from a page of a site whose name was made to lead here (DNS rebinding): to its browser that
    is a page of ours. Asking is not told apart from what programs do, who may know us by any name.

    A site needs a name with a dot, which no address and not `localhost` is.
    """
    if method in _READING or not ("Origin" in headers or "Sec-Fetch-Site" in headers):
        return False
    name = name.lower().removesuffix(".")
    return ":" not in name and "." in name and not name.endswith(".localhost") and not _IPV4.fullmatch(name)


def split_host(host: str) -> tuple[str, int | None] | None:
    """Return the name, or address without brackets, and the port of a `Host` header; None if it is none."""
    try:
        parts = urlsplit(f"//{host}")
        name, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    return (name, port) if name and parts.netloc == host and "@" not in host else None
