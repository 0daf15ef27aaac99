"""What the engine says of itself, beside its metrics: its version, and which models it serves from where.

Two small pages (`/version`, `/v1/models`), asked once a minute; engines that have neither say nothing, and an engine
that does not answer has said what it last said.
"""

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from inferwatch.config import Config
from inferwatch_collectors.cardinality import sanitize
from inferwatch_collectors.engine.scraper import MODELS_PATH, ScrapeError, Scraper, Target

VERSION_PATH: Final = "/version"

INTERVAL_S: Final = 60.0
# An engine that is still loading is asked again soon.
RETRY_S: Final = 5.0
TIMEOUT_S: Final = 5.0
MAX_BYTES: Final = 256 * 1024

# An engine with more adapters than this is asked for its first ones.
MAX_MODELS: Final = 100


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


class EngineSaid:
    """Asks one engine. `said` is what it last said."""

    def __init__(self, config: Config, key: str = "") -> None:
        """`key` of the engine, if there is one to be used."""
        engine = config.upstream
        self.said = Said()
        self._scraper = Scraper(
            Target(
                upstream_url=engine.url,
                key=key,
                timeout_s=TIMEOUT_S,
                max_bytes=MAX_BYTES,
                tls_ca_file=engine.tls_ca_file,
                tls_verify=engine.tls_verify,
            )
        )

    async def run(self) -> None:
        """Ask for ever."""
        try:
            while True:
                await asyncio.sleep(INTERVAL_S if await self.ask() else RETRY_S)
        finally:
            await self._scraper.close()

    async def ask(self) -> bool:
        """Ask once; return whether it answered."""
        try:
            pages = [await self._scraper.page(path) for path in (VERSION_PATH, MODELS_PATH)]
        except ScrapeError:
            return False
        if any(status >= 500 for status, _ in pages):  # it is still starting
            return False
        version, models = (body if status == 200 else b"" for status, body in pages)
        self.said = Said(version_of(version), models_of(models))
        return True
