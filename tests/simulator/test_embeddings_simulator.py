"""The simulated engine's embeddings: the same for the same text, near for texts that are alike, counted, refused."""

import random
from typing import Any

import openai
import pytest
from subjects import prompt

from inferwatch_simulator.embeddings import DIMENSIONS, vector_of
from inferwatch_simulator.testing import Serve


def dot(left: list[float], right: list[float]) -> float:
    return sum(one * other for one, other in zip(left, right, strict=True))


def test_texts_about_one_thing_are_nearer() -> None:
    """Of length 1, whatever the text."""
    rng = random.Random(2)
    one, same, other = (vector_of(" ".join(prompt(rng, subject) for _ in range(8))) for subject in
                        ("cooking", "cooking", "networks"))  # fmt: skip
    assert dot(one, same) > dot(one, other) + 0.1
    for text in ("", "a", "\ud800", "x" * 10_000):
        assert dot(vector_of(text), vector_of(text)) == pytest.approx(1)


async def test_openais_client_reads_them_and_the_engine_counts_them(serve: Serve) -> None:
    """One vector for each text; prompt tokens, and none generated."""
    simulator = await serve()
    async with openai.AsyncOpenAI(base_url=f"{simulator.url}/v1", api_key="-") as client:
        reply = await client.embeddings.create(model="tiny", input=["two words", "three more words"])
    assert [each.embedding for each in reply.data] == [
        pytest.approx(vector_of(text), abs=1e-6) for text in ("two words", "three more words")
    ]
    assert len(reply.data[0].embedding) == DIMENSIONS
    assert (reply.usage.prompt_tokens, reply.usage.total_tokens) == (5, 5)
    totals = simulator.simulator.engine.metrics.totals()
    assert (totals.prompt_tokens, totals.completion_tokens) == (5, 0)


@pytest.mark.parametrize(
    ("body", "status"),
    [({}, 400), ({"input": []}, 400), ({"input": ""}, 400), ({"input": [1]}, 400), ({"input": "a", "model": "x"}, 404)],
)
async def test_what_it_refuses(serve: Serve, body: dict[str, Any], status: int) -> None:
    """As vLLM does."""
    simulator = await serve()
    async with simulator.session.post(f"{simulator.url}/v1/embeddings", json=body) as reply:
        assert reply.status == status
