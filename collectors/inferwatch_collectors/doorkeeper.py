"""The admin port's door over HTTP: the check before each route, and the form with which a browser signs in."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs

from aiohttp import web

from inferwatch_collectors.access import SESSION_S, Access, Refusal, is_from_elsewhere, is_rebound, split_host

PAGE: Final = Path(__file__).with_name("live") / "static" / "login.html"

DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_MARK: Final = b"<!-- said -->"
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_REMEDY: Final = "a token is needed: `Authorization: Bearer TOKEN`, the first line of the file in `access.token_file`\n"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def cookie_name(request: web.Request) -> str:
    """Return the name of the session's cookie. Browsers keep cookies by host, whatever the port: several Inferwatches
    behind tunnels to one host must not sign each other out."""
    _, port = split_host(request.host) or ("", None)
    return f"inferwatch-{port or DEFAULT_PORTS[request.scheme]}"


def refusal(access: Access, request: web.Request) -> Refusal:
    """Return why `request` is not served, "" if it is."""
    cookie = request.cookies.get(cookie_name(request), "") if access.is_guarded else ""
    return access.refusal(request.path, request.headers, cookie, time.time())


def is_signed_in(access: Access, request: web.Request) -> bool:
    """Whether the page would be shown."""
    return access.refusal("/", request.headers, request.cookies.get(cookie_name(request), ""), time.time()) == ""


def admits(access: Access, request: web.Request) -> bool:
    """Whether `request`, which was served once, still would be."""
    return refusal(access, request) == ""


class Doorkeeper:
    """The middleware and the routes of signing in and out."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._page = b""

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/login", self._form),
            web.post("/login", self._sign_in),
            web.post("/logout", self._sign_out),
        ]

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Serve `request` only if it may come in."""
        host = split_host(request.host)
        if host is None:
            self._access.refused["other_site"] += 1
            return web.Response(status=400, text="Host: expected a name or an address, and perhaps a port\n")
        if is_from_elsewhere(request.method, request.headers, request.host) or (
            not self._access.is_guarded and is_rebound(request.method, request.headers, host[0])
        ):
            self._access.refused["other_site"] += 1
            return web.Response(status=403, text="a page of another site asked for this\n")
        reason = refusal(self._access, request)
        if not reason:
            return await handler(request)
        if request.path == "/" and "text/html" in request.headers.get("Accept", ""):
            return _sent_on("/login")  # the fragment, which holds the view, goes with it
        self._access.refused[reason] += 1
        headers = {"WWW-Authenticate": 'Bearer realm="inferwatch"', "Cache-Control": "no-store"}
        return web.Response(status=401, text=_REMEDY, headers=headers)

    async def _form(self, request: web.Request) -> web.Response:
        if is_signed_in(self._access, request):
            return _sent_on("/")
        return await self._shown(200, b"")

    async def _shown(self, status: int, said: bytes) -> web.Response:
        self._page = self._page or await asyncio.to_thread(PAGE.read_bytes)
        body = self._page.replace(_MARK, said)
        return web.Response(status=status, body=body, content_type="text/html", charset="utf-8", headers=_HEADERS)

    async def _sign_in(self, request: web.Request) -> web.Response:
        form = parse_qs((await request.read()).decode("utf-8", "replace"))
        token = form.get("token", [""])[0].strip()
        answer = _sent_on("/")
        if self._access.is_guarded:
            if not self._access.is_token(token):
                self._access.refused["wrong_token"] += 1
                return await self._shown(403, b"That is not the token.")
            self._set(answer, request, self._access.session(time.time()), SESSION_S)
        return answer

    async def _sign_out(self, request: web.Request) -> web.Response:
        answer = _sent_on("/login")
        self._set(answer, request, "", 0)
        return answer

    def _set(self, answer: web.Response, request: web.Request, session: str, max_age_s: int) -> None:
        answer.set_cookie(
            cookie_name(request),
            session,
            max_age=max_age_s,
            path="/",
            httponly=True,
            samesite="Lax",  # else who follows a link from elsewhere, as from a dashboard, seems not to have signed in
            secure=request.headers.get("X-Forwarded-Proto") == "https",
        )


def _sent_on(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path, "Cache-Control": "no-store"})
