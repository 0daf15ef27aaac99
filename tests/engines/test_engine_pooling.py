"""What a real vLLM reads and does not answer in tokens: embeddings, rerank, score, pooling, classify.

The tiny model serves it, turned by vLLM into one that embeds, and into one that classifies.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from engine_cases import MODEL, words
from engine_counters import Tokens, at_rest, booked_after, booked_tokens
from engine_process import Figures, is_provisioned, running_inferwatch, running_vllm
from engine_wire import Reply, Request, exchange

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

EMBEDDINGS = "/v1/embeddings"
RERANK = {"query": "which way", "documents": ["left and right", "up", "down the river"]}
MANY = 300  # as bytes, some 30 kB of reply head: several times what is mirrored of one
BATCH = 2048  # the longest list that OpenAI takes; as numbers a reply of 5 MB here


class Case(NamedTuple):
    """A request, and where vLLM says how many tokens it read; `told` is "" where it says so nowhere."""

    name: str
    path: str
    body: dict[str, Any]
    told: str = "final_usage"


EMBEDS = (
    Case("text", EMBEDDINGS, {"input": "the quick proxy"}),
    Case("texts", EMBEDDINGS, {"input": ["the quick proxy", "counts", "every token once"]}),
    Case("token ids", EMBEDDINGS, {"input": [450, 285, 10, 90]}),
    Case("lists of token ids", EMBEDDINGS, {"input": [[450, 285, 10], [90, 313]]}),
    Case("a chat", EMBEDDINGS, {"messages": [{"role": "user", "content": "hi there"}]}),
    Case("cut to fit", EMBEDDINGS, {"input": words(5000), "truncate_prompt_tokens": 100}),
    Case("asked to stream", EMBEDDINGS, {"input": "it does not", "stream": True}),
    Case("base64", EMBEDDINGS, {"input": ["the quick", "proxy"], "encoding_format": "base64"}),
    Case("a long list", EMBEDDINGS, {"input": [words(3, seed=i) for i in range(BATCH)]}),
    Case("bytes", EMBEDDINGS, {"input": ["the quick", "proxy"], "encoding_format": "bytes"}, "headers"),
    Case("bytes of many", EMBEDDINGS, {"input": ["the quick proxy"] * MANY, "encoding_format": "bytes"}, "headers"),
    Case("bytes alone", EMBEDDINGS, {"input": ["the quick", "proxy"], "encoding_format": "bytes_only"}, ""),
    Case("cohere's embed", "/v2/embed", {"texts": ["the quick", "proxy"], "embedding_types": ["float"]}),
    Case("score", "/v1/score", {"text_1": "which way", "text_2": ["left", "right or wrong"]}),
    Case("score of one pair", "/score", {"text_1": "which way", "text_2": "left"}),
    Case("rerank", "/rerank", RERANK),
    Case("rerank of jina", "/v1/rerank", {**RERANK, "top_n": 1}),
    Case("rerank of cohere", "/v2/rerank", RERANK),
    Case("pooling", "/pooling", {"input": ["the quick", "proxy"]}),
    Case("pooling as bytes", "/pooling", {"input": "the quick", "encoding_format": "bytes"}, "headers"),
    Case("sagemaker", "/invocations", {"input": ["the quick", "proxy"]}),
)
CLASSIFIES = (
    Case("classify", "/classify", {"input": "the quick proxy"}),
    Case("classify several", "/classify", {"input": ["the quick", "proxy"]}),
)
REFUSED = (
    Case("nothing to embed", EMBEDDINGS, {"input": []}),
    Case("an empty text", EMBEDDINGS, {"input": ""}),
    Case("too long", EMBEDDINGS, {"input": words(5000)}),
    Case("no such model", EMBEDDINGS, {"input": "a", "model": "none"}),
    Case("no such encoding", EMBEDDINGS, {"input": "a", "encoding_format": "gzip"}),
    Case("no input", EMBEDDINGS, {}),
    Case("no documents", "/v1/rerank", {"query": "a"}),
    Case("no such route with this model", "/v1/chat/completions", {"messages": []}),
)


class Place(NamedTuple):
    """An engine and Inferwatch before it."""

    engine: str
    proxy: str
    admin: str

    async def moved(self, case: Case) -> tuple[Reply, Tokens, Tokens]:
        """Send the request; return the reply, what the engine counted, and what was booked."""
        counted, booked = await at_rest(self.engine), await booked_tokens(self.admin)
        reply = await exchange(self.proxy, Request.post(case.path, {"model": MODEL, **case.body}))
        counted = await at_rest(self.engine) - counted
        return reply, counted, await booked_after(self.admin, booked.requests + 1) - booked


def _place(tmp_path_factory: pytest.TempPathFactory, convert: str) -> Iterator[Place]:
    if os.environ.get("INFERWATCH_TEST_VLLM"):
        pytest.skip("needs engines of its own, which pool")
    if not is_provisioned():
        pytest.fail("no vLLM here: run make test-engines, which installs it")
    state = tmp_path_factory.mktemp(convert)
    with (
        running_vllm("--runner", "pooling", "--convert", convert) as engine,
        running_inferwatch(engine, state) as (proxy, admin),
    ):
        yield Place(engine, proxy, admin)


@pytest.fixture(scope="module", name="embedder")
def _embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    yield from _place(tmp_path_factory, "embed")


@pytest.fixture(scope="module", name="classifier")
def _classifier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    yield from _place(tmp_path_factory, "classify")


async def _is_booked_exactly(place: Place, case: Case, figures: Figures) -> None:
    reply, counted, booked = await place.moved(case)
    assert reply.status == 200, reply.body[:300]
    assert counted.prompt > 0
    figures.append((f"pooling, {case.name}: prompt tokens vLLM / booked", f"{counted.prompt} / {booked.prompt}"))
    assert (booked.outcomes or {})["ok"] == 1
    assert booked.completion == counted.completion == 0
    if case.told:
        assert booked.prompt == counted.prompt
        assert set(booked.sources or {}) == {case.told}
    else:
        assert booked.prompt == 0
        assert not booked.sources


@pytest.mark.parametrize("case", EMBEDS, ids=[case.name for case in EMBEDS])
async def test_what_is_embedded_is_booked_exactly(embedder: Place, case: Case, figures: Figures) -> None:
    """The difference to vLLM's own counter is 0 wherever it tells the count; where it does not, nothing is guessed."""
    await _is_booked_exactly(embedder, case, figures)


@pytest.mark.parametrize("case", CLASSIFIES, ids=[case.name for case in CLASSIFIES])
async def test_what_is_classified_is_booked_exactly(classifier: Place, case: Case, figures: Figures) -> None:
    """As embeddings are."""
    await _is_booked_exactly(classifier, case, figures)


@pytest.mark.parametrize("case", REFUSED, ids=[case.name for case in REFUSED])
async def test_what_is_refused_costs_nothing(embedder: Place, case: Case) -> None:
    """The client gets the engine's own words, the books a refusal without tokens."""
    reply, counted, booked = await embedder.moved(case)
    direct = await exchange(embedder.engine, Request.post(case.path, {"model": MODEL, **case.body}))
    assert (reply.status, reply.body) == (direct.status, direct.body)
    assert 400 <= reply.status < 500
    assert (counted.prompt, booked.prompt, booked.outcomes) == (0, 0, {"rejected": 1})
