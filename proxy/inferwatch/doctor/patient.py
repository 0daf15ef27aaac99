"""What every check gets: the configuration, a client, and what an earlier look at the engine has shown."""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec

from inferwatch import admin_token
from inferwatch.config import Config, ConfigError, reachable_address
from inferwatch.http_words import why

# A page that takes longer will not be read by a probe or a scraper either.
TIMEOUT_S: Final = 5.0

# Of any answer: enough for the metrics of an engine with many adapters.
MAX_BYTES: Final = 4 * 1024 * 1024


class Reply(msgspec.Struct, frozen=True):
    """An answer over HTTP. `status` is 0 if there was none; then `error` says why."""

    status: int = 0
    body: bytes = b""
    headers: dict[str, str] = {}  # by lower-case name
    error: str = ""

    @property
    def json(self) -> Any:
        """The body as JSON; None if it is none."""
        try:
            return msgspec.json.decode(self.body)
        except (ValueError, RecursionError):
            return None


@dataclass(slots=True)
class Options:
    """What the command line says."""

    request: bool = True  # may ask the engine for one token
    api_key: str = ""  # for the engine
    prometheus: str = ""  # URL of a Prometheus that should scrape us


class TlsFiles(NamedTuple):
    """PEM files: whom to trust in place of those that the system does, and who we are. "": none."""

    ca: str = ""
    certificate: str = ""
    key: str = ""


class Patient:
    """One host under examination."""

    def __init__(self, config: Config, options: Options, session: aiohttp.ClientSession) -> None:
        self.config = config
        self.options = options
        self._session = session

    async def get(self, url: str, **headers: str) -> Reply:
        """GET `url`. Never raises: no answer is a finding, too."""
        return await self._ask("GET", url, None, headers)

    async def post(self, url: str, headers: dict[str, str], files: TlsFiles) -> Reply:
        """POST nothing to `url`, and go nowhere else. Never raises, either."""
        try:
            tls = await asyncio.to_thread(_context, files) if any(files) else True
        except OSError as error:  # ssl.SSLError is one
            return Reply(error=f"the files of certificates: {error.strerror or 'no PEM'}")
        return await self._ask("POST", url, None, headers, tls, redirects=False)

    async def post_json(self, url: str, headers: dict[str, str], body: Any) -> Reply:
        """POST `body` to `url`, and go nowhere else. Never raises, either."""
        return await self._ask("POST", url, body, headers, redirects=False)

    @property
    def admin_url(self) -> str:
        """Where an Inferwatch with this configuration has its admin port."""
        where, port = reachable_address("admin", self.config.admin)
        return f"http://{f'[{where}]' if ':' in where else where}:{port}"

    async def admin(self, path: str) -> Reply:
        """GET `path` of our own admin port, with its token if we can read it."""
        try:
            headers = await asyncio.to_thread(admin_token.headers, self.config.access)
        except ConfigError:
            headers = {}  # `machine.access` says so
        return await self._ask("GET", self.admin_url + path, None, headers)

    async def engine(self, path: str, body: Any = None, *, key: str | None = None) -> Reply:
        """GET `path` of the engine, or POST `body` there, with `key`, "" for none; else with the one we were given."""
        key = self.options.api_key if key is None else key
        headers = {"authorization": f"Bearer {key}"} if key else {}
        url = self.config.upstream.url.rstrip("/") + path
        return await self._ask("GET" if body is None else "POST", url, body, headers, self._tls())

    def _tls(self) -> ssl.SSLContext | bool:
        upstream = self.config.upstream
        if not upstream.tls:
            return True
        context = ssl.create_default_context(cafile=upstream.tls_ca_file or None)
        if not upstream.tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    async def _ask(
        self,
        method: str,
        url: str,
        body: Any,
        headers: dict[str, str],
        tls: ssl.SSLContext | bool = True,
        *,
        redirects: bool = True,
    ) -> Reply:
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._session.request(
                    method, url, json=body, headers=headers, ssl=tls, allow_redirects=redirects
                ) as reply,
            ):
                data = await reply.content.read(MAX_BYTES)
                while len(data) < MAX_BYTES and (more := await reply.content.read(MAX_BYTES - len(data))):
                    data += more
                headers_got = {name.lower(): value for name, value in reply.headers.items()}
                return Reply(reply.status, data, headers_got)
        except TimeoutError:
            return Reply(error=f"no answer within {TIMEOUT_S:.0f} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Reply(error=why(error))


def _context(files: TlsFiles) -> ssl.SSLContext:
    """Blocking.

    Raises:
        OSError: a file cannot be read, or holds none of what it should.
    """
    context = ssl.create_default_context(cafile=files.ca or None)
    if files.certificate:
        context.load_cert_chain(files.certificate, files.key or None)
    return context
