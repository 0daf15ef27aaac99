"""What the engine says of itself, beside its metrics: its version, and which models it serves from where.

Two small pages, the one with the version (`/version`, or where else an engine has it) and `/v1/models`, asked once a
minute, and sooner for who waits for it. Engines that have neither say nothing, and an engine that does not answer has
said what it last said.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, Final, Protocol

import msgspec

from inferwatch.config import Config
from inferwatch_collectors.cardinality import sanitize
from inferwatch_collectors.engine.scraper import MODELS_PATH, ScrapeError, Scraper, Target

# vLLM's and trtllm-serve's, Ollama's, TGI's.
VERSION_PATHS: Final = ("/version", "/api/version", "/info")

INTERVAL_S: Final = 60.0
# An engine that is still loading is asked again soon.
RETRY_S: Final = 5.0
# However much it is waited for.
LEAST_S: Final = 1.0
TIMEOUT_S: Final = 5.0
MAX_BYTES: Final = 256 * 1024

# An engine with more adapters than this is asked for its first ones.
MAX_MODELS: Final = 100

# It is still starting, or has too much to do (as 5xx): what it tells is to be seen another time.
_NO_ANSWERS: Final = frozenset({408, 425, 429})
# It, or who is in front of it, does not let us through. One that never did tells nothing; one that did is no other.
_REFUSALS: Final = frozenset({401, 403})


class Served(msgspec.Struct, frozen=True):
    """One model, as `/v1/models` has it."""

    name: str
    root: str = ""  # where its weights are from, as vLLM and SGLang say
    max_tokens: int = 0  # its context; 0: not told


class Said(msgspec.Struct, frozen=True):
    """What an engine said. `version` is "" if it does not tell."""

    version: str = ""
    models: tuple[Served, ...] = ()

    def of(self, model: str) -> Served:
        """Return what was said of a model, or nothing."""
        return next((each for each in self.models if each.name == model), Served(model))


def version_of(body: bytes) -> str:
    """Return the version in a `/version` page, "" if there is none."""
    loaded = _object(body)
    version = loaded.get("version")
    return sanitize(version) if isinstance(version, str) and version else ""


def models_of(body: bytes) -> tuple[Served, ...]:
    """Return the models in a `/v1/models` page, in its order."""
    rows = _object(body).get("data")
    return tuple(_served(rows[:MAX_MODELS])) if isinstance(rows, list) else ()


def _served(rows: list[Any]) -> Iterator[Served]:
    for row in rows:
        name = row.get("id") if isinstance(row, dict) else None
        if isinstance(name, str) and name:
            root, tokens = row.get("root"), row.get("max_model_len")
            known = isinstance(tokens, int) and tokens > 0
            yield Served(name, sanitize(root) if isinstance(root, str) and root else "", tokens if known else 0)


def _object(body: bytes) -> dict[str, Any]:
    try:
        loaded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


class Listener(Protocol):
    """Who must know when it was asked, and what came of it."""

    def asking(self) -> int:
        """The engine is being asked. Return what `told` is to be given."""

    def told(self, mark: int, said: Said) -> None:
        """It answered; what it does not tell is ""."""

    def silent(self) -> None:
        """It did not."""


class EngineSaid:
    """Asks one engine. `said` is what it last said."""

    def __init__(self, config: Config, key: str = "", listener: Listener | None = None) -> None:
        """`key` of the engine, if there is one to be used."""
        engine = config.upstream
        self.said = Said()
        self._listener = listener
        self._soon = asyncio.Event()
        self._version_path = VERSION_PATHS[0]  # where it was last told
        self._scraper = Scraper(
            Target(
                upstream_url=engine.url,
                key=key,
                timeout_s=TIMEOUT_S,
                max_bytes=MAX_BYTES,
                tls_ca_file=engine.tls_ca_file,
                tls_verify=engine.tls_verify,
                afresh=True,
            )
        )

    async def run(self) -> None:
        """Ask for ever."""
        try:
            while True:
                self._soon.clear()  # here: who asks from now on wants to know what is so from now on
                pause_s = INTERVAL_S if await self.ask() else RETRY_S
                await asyncio.sleep(LEAST_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s - LEAST_S):
                        await self._soon.wait()
        finally:
            await self._scraper.close()

    def ask_soon(self) -> None:
        """Have it asked within LEAST_S; if it is being asked now, again after that."""
        self._soon.set()

    async def ask(self) -> bool:
        """Ask once; return whether it answered."""
        mark = 0 if self._listener is None else self._listener.asking()
        said = await self._answer()
        if said is not None:
            self.said = said
        if self._listener is not None:
            if said is None:
                self._listener.silent()
            else:
                self._listener.told(mark, said)
        return said is not None

    async def _answer(self) -> Said | None:
        try:
            version = await self._version()
            status, body = await self._scraper.page(MODELS_PATH)
        except ScrapeError:
            return None
        if version is None or status >= 500:
            return None
        return Said(version, models_of(body if status == 200 else b""))

    async def _version(self) -> str | None:
        """Return the version, "" if the engine tells none; None: it does not answer, or not to us any more."""
        for path in (self._version_path, *(each for each in VERSION_PATHS if each != self._version_path)):
            status, body = await self._scraper.page(path)
            if status >= 500 or status in _NO_ANSWERS or (status in _REFUSALS and self.said.version):
                return None
            if status == 200 and (version := version_of(body)):
                self._version_path = path
                return version
        return ""
