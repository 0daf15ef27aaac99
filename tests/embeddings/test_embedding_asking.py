"""asking: what is sent to an endpoint, and what becomes of each answer it can give."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from embedding_endpoint import DIMENSIONS, Endpoint, vector
from hypothesis import given
from hypothesis import strategies as st

from inferwatch import canary
from inferwatch.settings.embeddings import OWN, Embeddings
from inferwatch_collectors.embeddings.asking import MAX_REPLY_BYTES, REASONS, EmbeddingError, read
from inferwatch_collectors.embeddings.asking import Endpoint as Asker
from inferwatch_collectors.embeddings.sketch import MAX_DIMENSIONS

SECRET = b"a secret of the installation"


def asker(url: str, own_url: str = "", **settings: Any) -> Asker:
    return Asker(Embeddings(url=url, model="e5", **settings), own_url, secret=SECRET)


async def reason(of: Asker) -> str:
    """Return why nothing comes of asking for two texts."""
    try:
        with pytest.raises(EmbeddingError) as caught:
            await of.embed(["one", "two"])
    finally:
        await of.close()
    assert caught.value.reason in REASONS
    return caught.value.reason


async def test_a_vector_for_each_text(endpoint: Endpoint) -> None:
    """One call, of OpenAI's kind; no proof and no cookie goes to somebody else's endpoint."""
    mine = asker(endpoint.url)
    found = await mine.embed(["one", "two"])
    await mine.close()
    assert (found.model, found.vectors) == ("e5", [vector("one"), vector("two")])
    assert endpoint.asked == [{"path": "/v1/embeddings", "model": "e5", "input": ["one", "two"]}]
    assert not {canary.HEADER, "authorization", "cookie"} & {name.lower() for name in endpoint.headers[0]}


async def test_the_token_of_a_file_or_of_a_variable(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is read for each call."""
    file = tmp_path / "token"
    mine = asker(endpoint.url + "/behind/", token_file=str(file))
    for token in ("first", "second"):
        file.write_text(token + "\n", "utf-8")
        await mine.embed(["one"])
    await mine.close()
    monkeypatch.setenv("EMBEDDER_KEY", "third\n")
    mine = asker(endpoint.url, key_env="EMBEDDER_KEY")
    await mine.embed(["one"])
    await mine.close()
    assert [each["authorization"] for each in endpoint.headers] == ["Bearer first", "Bearer second", "Bearer third"]
    assert endpoint.asked[0]["path"] == "/behind/v1/embeddings"
    file.unlink()
    assert await reason(asker(endpoint.url, token_file=str(file))) == "token"


def test_a_variable_that_is_not_set(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Is told, by its name."""
    monkeypatch.delenv("EMBEDDER_KEY", raising=False)
    asker("http://127.0.0.1:1", key_env="EMBEDDER_KEY")
    assert caplog.messages == ["key_missing key=drift.embeddings.key_env variable=EMBEDDER_KEY"]


@pytest.mark.parametrize("url", [OWN, "ours"])
async def test_through_our_own_port_it_is_a_tenant_of_our_own(endpoint: Endpoint, url: str) -> None:
    """By the word, or by our own address."""
    mine = asker(endpoint.url if url == "ours" else url, endpoint.url)
    assert mine.is_own
    await mine.embed(["one"])
    await mine.close()
    assert endpoint.headers[0][canary.HEADER] == canary.proof(SECRET, canary.EMBEDDINGS_TENANT)


async def test_a_data_port_that_is_not_known() -> None:
    """Nobody is asked."""
    assert await reason(asker(OWN, "")) == "no_port"


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, "refused"), (429, "refused"), (404, "unserved"), (503, "down"), (400, "status"), (307, "status")],
)
async def test_an_endpoint_that_refuses(endpoint: Endpoint, status: int, expected: str) -> None:
    """By status; nobody follows it elsewhere."""
    endpoint.says({"error": "no"}, status)
    assert await reason(asker(endpoint.url)) == expected


async def test_an_endpoint_that_is_away_or_slow(endpoint: Endpoint) -> None:
    """No connection; no answer within the time-out."""

    async def never(_: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError

    endpoint.answer = never
    assert await reason(asker(endpoint.url, timeout_s=0.05)) == "timeout"
    assert await reason(asker("http://127.0.0.1:1")) == "connect"


async def test_an_answer_that_does_not_end(endpoint: Endpoint) -> None:
    """No more than MAX_REPLY_BYTES are kept."""
    endpoint.says(b" " * (MAX_REPLY_BYTES + 1))
    assert await reason(asker(endpoint.url)) == "too_large"


def reply(*vectors: Any, **more: Any) -> bytes:
    return json.dumps({"data": [{"embedding": each} for each in vectors], **more}).encode()


GOOD = [0.5] * DIMENSIONS


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"data": null}',
        b"\xff\xfe",
        b"[" * 100_000,
        reply(GOOD),
        reply(GOOD, GOOD, GOOD),
        reply(GOOD, GOOD[1:]),
        reply([], []),
        reply([1.0] * (MAX_DIMENSIONS + 1), [1.0] * (MAX_DIMENSIONS + 1)),
        reply(GOOD, [float("nan")] * DIMENSIONS),
        reply(GOOD, ["1.0"] * DIMENSIONS),
        reply(GOOD, [None] * DIMENSIONS),
        reply("aGVsbG8=", "aGVsbG8="),
        b'{"data": [{"index": 0, "embedding": [1,2,3,4,5,6,7,8]}, {"index": 0, "embedding": [1,2,3,4,5,6,7,8]}]}',
        b'{"data": [{"index": 1, "embedding": [1,2,3,4,5,6,7,8]}, {"index": 2, "embedding": [1,2,3,4,5,6,7,8]}]}',
    ],
)
def test_what_is_no_answer_is_malformed(body: bytes) -> None:
    """Not JSON, too few, too many, of several sizes, of none, of no numbers, or whose is whose is not known."""
    with pytest.raises(EmbeddingError, match="malformed"):
        read(body, 2, "e5")


def test_the_order_is_what_the_endpoint_says() -> None:
    """By `index`, or as they come; the model is what it calls itself."""
    body = {"model": "E5-large", "data": [{"index": 1, "embedding": [2] * 8}, {"index": 0, "embedding": [1] * 8}]}
    found = read(json.dumps(body).encode(), 2, "e5")
    assert (found.model, [each[0] for each in found.vectors]) == ("E5-large", [1.0, 2.0])
    assert read(reply(GOOD, model=None), 1, "e5").model == "e5"


@given(st.binary(max_size=200) | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_nothing_an_endpoint_sends_is_a_fault(body: bytes | str) -> None:
    """It is read, or it is malformed."""
    with pytest.raises(EmbeddingError):
        read(body if isinstance(body, bytes) else body.encode("utf-8", "replace"), 1, "e5")
