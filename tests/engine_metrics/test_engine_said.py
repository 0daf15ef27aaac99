"""said: what the engine says of itself on two small pages, and what is made of pages that say nothing."""

import msgspec
import pytest

from inferwatch.config import Config
from inferwatch.settings.traffic import Upstream
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
