"""Who may use the admin port, by rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.admin_token import digest
from inferwatch_collectors.access import (
    OPEN_PATHS,
    SESSION_S,
    Access,
    Refusal,
    is_from_elsewhere,
    is_rebound,
    split_host,
)

TOKEN = "0123456789abcdef"
SCRAPE = "a-token-for-scrapes"
NOW_S = 1_700_000_000.0

GUARDED = {"admin": digest(TOKEN)}
BOTH = {**GUARDED, "metrics": digest(SCRAPE)}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("digests", "path", "headers", "refusal"),
    [
        ({}, "/usage", {}, ""),
        ({}, "/usage", bearer("anything"), ""),
        (GUARDED, "/usage", {}, "no_token"),
        (GUARDED, "/usage", bearer(TOKEN), ""),
        (GUARDED, "/usage", {"Authorization": f"bearer  {TOKEN}"}, ""),
        (GUARDED, "/usage", bearer(TOKEN + "0"), "wrong_token"),
        (GUARDED, "/usage", bearer(""), "wrong_token"),
        (GUARDED, "/usage", {"Authorization": f"Basic {TOKEN}"}, "no_token"),
        (GUARDED, "/metrics", {}, "no_token"),
        (GUARDED, "/metrics", bearer(SCRAPE), "wrong_token"),
        (GUARDED, "/-/reload", {}, "no_token"),
        (GUARDED, "/live/events", {}, "no_token"),
        (GUARDED, "/no/such/path", {}, "no_token"),
        (BOTH, "/metrics", bearer(SCRAPE), ""),
        (BOTH, "/metrics", bearer(TOKEN), ""),
        (BOTH, "/usage", bearer(SCRAPE), "wrong_token"),
        (BOTH, "/metrics/", bearer(SCRAPE), "wrong_token"),
    ],
)
def test_tokens(digests: dict[str, str], path: str, headers: dict[str, str], refusal: Refusal) -> None:
    """The admin's opens everything, the one for scrapes /metrics alone; without any the port is open."""
    assert Access(digests).refusal(path, headers, "", NOW_S) == refusal


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
def test_probes_and_signing_in_need_none(path: str) -> None:
    """And nothing of a tenant is there."""
    assert Access(GUARDED).refusal(path, {}, "", NOW_S) == ""


def test_a_session_is_good_for_a_week_and_for_one_token() -> None:
    """It ends by itself, with a new token at once; a restarted collector knows it."""
    access = Access(GUARDED)
    session = access.session(NOW_S)
    assert access.refusal("/", {}, session, NOW_S) == ""
    assert Access(GUARDED).refusal("/", {}, session, NOW_S + SESSION_S - 1) == ""
    assert access.refusal("/", {}, session, NOW_S + SESSION_S + 1) == "wrong_token"
    access.use({"admin": digest("another-token-of-ours")})
    assert access.refusal("/", {}, session, NOW_S) == "wrong_token"
    access.use({})
    assert access.refusal("/", {}, session, NOW_S) == ""


def test_a_session_cannot_be_made_longer() -> None:
    """The time is signed."""
    access = Access(GUARDED)
    until, _, signature = access.session(NOW_S).partition(".")
    longer = f"{int(until) + 1}.{signature}"
    assert access.refusal("/", {}, longer, NOW_S) == "wrong_token"


def test_whoever_has_no_token_makes_no_session() -> None:
    """One that was signed while the port was open, or with another token, opens nothing."""
    for digests in ({}, {"admin": digest("another-token-of-ours")}):
        assert Access(GUARDED).refusal("/", {}, Access(digests).session(NOW_S), NOW_S) == "wrong_token"


@given(st.text(min_size=1))
def test_whatever_is_sent_is_refused_and_breaks_nothing(text: str) -> None:
    """As a token, as a cookie, in any shape that a header can have."""
    sent = text.encode("utf-8", "replace").decode("utf-8", "surrogateescape")
    for raw in (sent, f"9.{sent}", f"{sent}.9", b"\xff\xfe".decode("utf-8", "surrogateescape") + sent):
        assert Access(GUARDED).refusal("/", {"Authorization": f"Bearer {raw}"}, "", NOW_S) == "wrong_token"
        assert Access(GUARDED).refusal("/", {}, raw, NOW_S) == "wrong_token"


@pytest.mark.parametrize(
    ("method", "headers", "elsewhere"),
    [
        ("POST", {}, False),
        ("POST", {"Origin": "http://here:9480"}, False),
        ("POST", {"Origin": "http://here:3000"}, True),
        ("POST", {"Origin": "null"}, True),
        ("POST", {"Sec-Fetch-Site": "same-origin", "Origin": "https://proxy"}, False),
        ("POST", {"Sec-Fetch-Site": "none"}, False),
        ("POST", {"Sec-Fetch-Site": "same-site", "Origin": "http://here:9480"}, True),
        ("POST", {"Sec-Fetch-Site": "cross-site"}, True),
        ("DELETE", {"Origin": "http://there"}, True),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Origin": "http://there"}, False),
        ("POST", {"Origin": "http://["}, True),
        ("POST", {"Origin": "http://[x]:9480"}, True),
    ],
)
def test_pages_of_other_sites(method: str, headers: dict[str, str], elsewhere: bool) -> None:
    """They may not make a browser change anything here; another port of this host is another site."""
    assert is_from_elsewhere(method, headers, "here:9480") is elsewhere


@pytest.mark.parametrize(
    ("name", "rebound"),
    [
        ("evil.example", True),
        ("EVIL.example.", True),
        ("127.0.0.1.evil.example", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("localhost", False),
        ("host.localhost", False),
        ("inferwatch", False),  # a container's, or this host's: no site has a name without a dot
    ],
)
def test_a_name_that_was_made_to_lead_here(name: str, rebound: bool) -> None:
    """What a browser would change there is refused; what asks, and what no browser sends, is not told apart."""
    assert is_rebound("POST", {"Origin": f"http://{name}:9480"}, name) is rebound
    assert is_rebound("POST", {"Sec-Fetch-Site": "same-origin"}, name) is rebound
    assert not is_rebound("POST", {}, name)
    assert not is_rebound("GET", {"Origin": f"http://{name}:9480"}, name)


@pytest.mark.parametrize(
    ("host", "parts"),
    [
        ("here", ("here", None)),
        ("inferwatch.ns.svc:9480", ("inferwatch.ns.svc", 9480)),
        ("[::1]:9480", ("::1", 9480)),
        *((text, None) for text in ("", "[", "[::1", "a:b", "a:99999", "a/b", "u@a", ":80", "::1")),
    ],
)
def test_a_host_as_clients_name_it(host: str, parts: tuple[str, int | None] | None) -> None:
    """Or None."""
    assert split_host(host) == parts
