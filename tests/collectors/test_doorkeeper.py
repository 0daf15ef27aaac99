"""The admin port's door over HTTP."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from inferwatch.admin_token import digest
from inferwatch_collectors.access import Access
from inferwatch_collectors.doorkeeper import Doorkeeper, admits

TOKEN = "0123456789abcdef"
HTML = {"Accept": "text/html"}


@pytest.fixture(name="access")
def _access() -> Access:
    return Access({"admin": digest(TOKEN)})


@pytest.fixture(name="url")
async def _url(access: Access) -> AsyncIterator[str]:
    async with serving(access) as url:
        yield url


@contextlib.asynccontextmanager
async def serving(access: Access) -> AsyncIterator[str]:
    """An admin port's door with rooms behind it."""
    door = Doorkeeper(access)

    async def secret(_: web.Request) -> web.Response:
        return web.Response(text="money")

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while admits(access, request):
            await response.write(b"tick\n")
            await asyncio.sleep(0.01)
        return response

    app = web.Application(middlewares=[door.check])
    app.add_routes([*door.routes(), web.get("/", secret), web.post("/-/reload", secret), web.get("/stream", stream)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield "http://127.0.0.1:{1}".format(*runner.addresses[0])
    await runner.cleanup()


@pytest.fixture(name="session")
async def _session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:  # unsafe: by address
        yield session


async def test_programs_bring_a_header(url: str, session: aiohttp.ClientSession, access: Access) -> None:
    """Without it they are told what is missing; each refusal is counted by its reason."""
    async with session.get(url) as reply:
        assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, 'Bearer realm="inferwatch"')
        assert "access.token_file" in await reply.text()
    async with session.get(url, headers={"Authorization": "Bearer wrong"}) as reply:
        assert reply.status == 401
    async with session.post(f"{url}/-/reload", headers={"Authorization": f"Bearer {TOKEN}"}) as reply:
        assert await reply.text() == "money"
    assert access.refused == {"no_token": 1, "wrong_token": 1}


async def test_browsers_sign_in(url: str, session: aiohttp.ClientSession, access: Access) -> None:
    """They are sent to a form, and back; the cookie is for this site alone, and no script can read it."""
    async with session.get(url, headers=HTML) as reply:
        assert reply.url.path == "/login"
        assert "That is not the token" not in await reply.text()
    async with session.post(f"{url}/login", data={"token": "wrong"}) as reply:
        assert reply.status == 403
        assert "That is not the token" in await reply.text()
    async with session.post(f"{url}/login", data={"token": TOKEN}, allow_redirects=False) as reply:
        assert (reply.status, reply.headers["Location"]) == (303, "/")
        cookie = reply.headers["Set-Cookie"]
        assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
        assert TOKEN not in cookie
    for path in ("/", "/login"):  # who has signed in already is sent on
        async with session.get(f"{url}{path}", headers=HTML) as reply:
            assert (await reply.text(), reply.url.path) == ("money", "/")
    assert access.refused == {"wrong_token": 1}


async def test_browsers_sign_out(url: str, session: aiohttp.ClientSession) -> None:
    """The cookie is gone."""
    async with session.post(f"{url}/login", data={"token": TOKEN}):
        pass
    async with session.post(f"{url}/logout", headers=HTML) as reply:
        assert reply.url.path == "/login"
    async with session.get(url) as reply:
        assert reply.status == 401


async def test_cookies_of_other_ports_are_not_ours(url: str, session: aiohttp.ClientSession) -> None:
    """Two Inferwatches behind tunnels to one host do not sign each other out, nor in."""
    async with serving(Access({"admin": digest(TOKEN[::-1])})) as other:
        async with session.post(f"{url}/login", data={"token": TOKEN}) as reply:
            assert await reply.text() == "money"
        async with session.get(other) as reply:
            assert reply.status == 401
        async with session.post(f"{other}/login", data={"token": TOKEN[::-1]}) as reply:
            assert await reply.text() == "money"
        ports = {URL(each).port for each in (url, other)}
        assert {cookie.key for cookie in session.cookie_jar} == {f"inferwatch-{port}" for port in ports}
        async with session.post(f"{other}/logout"):
            pass
        async with session.get(other) as reply:
            assert reply.status == 401
    async with session.get(url) as reply:
        assert await reply.text() == "money"


async def test_a_page_of_another_site(url: str, session: aiohttp.ClientSession, access: Access) -> None:
    """It cannot make a browser reload, also where no token is asked for."""
    access.use({})
    async with session.post(f"{url}/-/reload", headers={"Origin": "http://elsewhere"}) as reply:
        assert reply.status == 403
    async with session.post(f"{url}/-/reload") as reply:
        assert reply.status == 200
    async with session.post(f"{url}/-/reload", headers={"Origin": "http://[", "Host": "evil.example"}) as reply:
        assert reply.status == 403
    assert access.refused == {"other_site": 2}


async def test_a_page_whose_name_was_made_to_lead_here(
    url: str, session: aiohttp.ClientSession, access: Access
) -> None:
    """To its browser it is a page of ours. Without a token it changes nothing; with one it has none."""
    headers = {"Origin": "http://evil.example:9480", "Host": "evil.example:9480"}
    access.use({})
    async with session.post(f"{url}/-/reload", headers=headers) as reply:
        assert reply.status == 403
    assert access.refused == {"other_site": 1}
    async with session.get(url, headers={"Host": "inferwatch.monitoring.svc"}) as reply:
        assert await reply.text() == "money"
    access.use({"admin": digest(TOKEN)})
    async with session.post(f"{url}/-/reload", headers={**headers, "Authorization": f"Bearer {TOKEN}"}) as reply:
        assert reply.status == 200


@pytest.mark.parametrize("host", ["[", "a:b", "a:99999", "u@a"])
async def test_a_host_that_is_none(url: str, session: aiohttp.ClientSession, access: Access, host: str) -> None:
    """A refusal that is counted, and no fault of ours."""
    async with session.get(f"{url}/login", headers={"Host": host}) as reply:
        assert reply.status == 400
    assert access.refused == {"other_site": 1}


async def test_a_form_in_two_writes(url: str, access: Access) -> None:
    """As a slow browser, or a proxy, sends it: all of it is read."""
    reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
    body = f"token={TOKEN}".encode()
    writer.write(b"POST /login HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body[:10]))
    await writer.drain()
    await asyncio.sleep(0.05)  # the first part is read before the other is there
    writer.write(body[10:])
    assert (await reader.readline()).split()[1] == b"303"
    writer.close()
    assert access.refused == {}


async def test_what_runs_ends_with_its_token(url: str, session: aiohttp.ClientSession, access: Access) -> None:
    """A stream of frames stops when the token is changed."""
    async with session.get(f"{url}/stream", headers={"Authorization": f"Bearer {TOKEN}"}) as reply:
        assert await reply.content.readline() == b"tick\n"
        access.use({"admin": digest("another-token-of-ours")})
        assert set((await reply.read()).split()) <= {b"tick"}


async def test_a_port_without_tokens_has_nothing_to_sign_in_to(
    url: str, session: aiohttp.ClientSession, access: Access
) -> None:
    """Whoever comes is sent on, without a cookie."""
    access.use({})
    async with session.post(f"{url}/login", data={"token": "anything"}) as reply:
        assert await reply.text() == "money"
    assert len(session.cookie_jar) == 0


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"token", b"token=" + b"x" * 100_000, b"token=%00%ff"])
async def test_forms_of_any_kind(url: str, session: aiohttp.ClientSession, body: bytes) -> None:
    """Refused, whatever it is."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    async with session.post(f"{url}/login", data=body, headers=headers) as reply:
        assert reply.status == 403
