"""said: what the engine says of itself on two small pages, and what is made of pages that say nothing."""

import asyncio

import msgspec
import pytest

from inferwatch.config import Config
from inferwatch.settings.traffic import Upstream
from inferwatch_collectors.engine import said as said_module
from inferwatch_collectors.engine.said import MAX_MODELS, EngineSaid, Said, Served, models_of, version_of

MODELS = (
    b'{"object":"list","data":[{"id":"m","root":"/models/m-fp8","max_model_len":4096,"owned_by":"vllm"},{"id":"lora"}]}'
)


def test_version_and_models_are_read() -> None:
    """As vLLM has them; other engines leave out what they do not know."""
    assert version_of(b'{"version":"0.32.0"}') == "0.32.0"
    said = Said("0.32.0", models_of(MODELS))
    assert said.of("m") == Served("m", "/models/m-fp8", 4096)
    assert said.of("lora") == Served("lora")
    assert said.of("nobody") == Served("nobody")


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"\xff", b"[]", b"null", b'{"version":1,"data":{}}', b'{"version":"","data":[1,{"id":2},{"id":""}]}'),
        *(b'{"data":[]}', b"[" * 5000),
    ],
)
def test_what_says_nothing_is_nothing(body: bytes) -> None:
    """No page of an engine raises."""
    assert version_of(body) == ""
    assert models_of(body) == ()


def test_names_are_bounded_and_printable() -> None:
    """They are shown, and written down."""
    rows = [{"id": f"m{number}", "root": "\n" + "x" * 10_000, "max_model_len": -1} for number in range(1_000)]
    models = models_of(msgspec.json.encode({"data": rows}))
    assert len(models) == MAX_MODELS
    assert all(len(each.root) <= 128 and each.root.isprintable() and each.max_tokens == 0 for each in models)


async def test_an_engine_that_does_not_answer_has_said_what_it_last_said() -> None:
    """It is asked again soon."""
    asking = EngineSaid(Config(upstream=Upstream(url="http://127.0.0.1:1")))
    asking.said = Said("0.32.0")
    assert not await asking.ask()
    assert asking.said == Said("0.32.0")
    await asking._scraper.close()


class Pages:
    """An engine's pages, by path: status and body. The rest is not there."""

    def __init__(self, **pages: tuple[int, bytes]) -> None:
        self.pages = {"/" + name.replace("_", "/"): page for name, page in pages.items()}
        self.asked: list[str] = []

    async def page(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        return self.pages.get(path, (404, b"{}"))

    async def close(self) -> None:
        pass


class Heard:
    """Who listens to what an engine says."""

    def __init__(self) -> None:
        self.heard: list[Said | None] = []

    def asking(self) -> int:
        return 3

    def told(self, mark: int, said: Said) -> None:
        assert mark == 3
        self.heard.append(said)

    def silent(self) -> None:
        self.heard.append(None)


def asking(pages: Pages, heard: Heard) -> EngineSaid:
    found = EngineSaid(Config(), listener=heard)
    found._scraper = pages  # type: ignore[assignment]
    return found


@pytest.mark.parametrize(
    ("pages", "version"),
    [
        ({"version": (200, b'{"version":"0.32.0"}')}, "0.32.0"),
        ({"api_version": (200, b'{"version":"0.9.1"}')}, "0.9.1"),
        ({"info": (200, b'{"model_id":"m","version":"3.3.6"}')}, "3.3.6"),
        ({}, ""),
    ],
)
async def test_each_engine_has_its_version_elsewhere(pages: dict[str, tuple[int, bytes]], version: str) -> None:
    """Where it was found is asked first the next time."""
    engine, heard = Pages(**pages), Heard()
    said = asking(engine, heard)
    assert await said.ask()
    assert heard.heard == [Said(version)]
    engine.asked.clear()
    assert await said.ask()
    assert not version or engine.asked == ["/" + next(iter(pages)).replace("_", "/"), "/v1/models"]


@pytest.mark.parametrize("status", [401, 403, 408, 425, 429, 500, 503])
async def test_who_is_not_let_through_any_more_has_heard_nothing(status: int) -> None:
    """An engine that is starting or busy is no other version; but one that never let us through tells none. Busy is not
    that: after a restart of ours all references would be set aside for those of an engine without a version."""
    engine, heard = Pages(version=(200, b'{"version":"1"}')), Heard()
    said = asking(engine, heard)
    assert await said.ask()
    engine.pages["/version"] = (status, b"")
    assert not await said.ask()
    assert heard.heard == [Said("1"), None]
    assert said.said == Said("1")
    first = Heard()
    assert await asking(engine, first).ask() is (status in {401, 403})
    assert first.heard == [Said("") if status in {401, 403} else None]
    engine.pages["/version"] = (404, b"")
    assert await said.ask()
    assert heard.heard[-1] == Said("")


async def test_who_waits_has_it_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it is being asked at that moment: the answer may be of before."""
    monkeypatch.setattr(said_module, "LEAST_S", 0.0)
    engine, heard = Pages(version=(200, b'{"version":"1"}')), Heard()
    said = asking(engine, heard)
    said_page = engine.page

    async def page(path: str) -> tuple[int, bytes]:
        if len(heard.heard) == 1:
            said.ask_soon()
        return await said_page(path)

    monkeypatch.setattr(engine, "page", page)
    running = asyncio.create_task(said.run())
    async with asyncio.timeout(20):
        while len(heard.heard) < 1:
            await asyncio.sleep(0)
        said.ask_soon()
        while len(heard.heard) < 3:
            await asyncio.sleep(0)
    running.cancel()
