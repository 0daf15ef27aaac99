"""Embeddings of prompts through a real Inferwatch: whose they are, that they are not watched themselves, and what is said
if there are none. That a change is found is in `tests/collectors/test_drift_embeddings.py`: it takes thousands of
prompts.
"""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import MODEL, Stack, chat, client, running, send, wait_until

from inferwatch_simulator.readings import total

TENANT = "inferwatch-embeddings"
EMBEDDINGS = "inferwatch_drift_embeddings_total"
PROMPTS = 12
SECRET = "the zebra wore galoshes"


def configured(folder: Path, model: str) -> Path:
    file = folder / "inferwatch.yml"
    file.write_text(
        "drift:\n  text: true\n  votes_per_hour: 36000\n"
        f"  embeddings: {{url: own, model: {model}, per_minute: 6000}}\nengine_metrics: {{interval_s: 0.5}}\n",
        "utf-8",
    )
    return file


@pytest.fixture(scope="module", name="stack")
def _stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("embeddings")
    with running(folder, "--config", str(configured(folder, MODEL))) as stack:
        yield stack


async def test_they_are_booked_to_a_tenant_of_our_own_and_nobody_embeds_them(stack: Stack) -> None:
    """Each prompt is embedded once; drift, quality and anomalies leave those requests out, and the counts add up."""
    async with client() as session:
        deadline_s = time.monotonic() + 30
        while stack.total(EMBEDDINGS, result="ok") < PROMPTS:
            assert time.monotonic() < deadline_s, stack.scrape().samples.get(EMBEDDINGS)
            await send(session, stack.url, chat(f"{SECRET} {time.monotonic_ns()}", stream=False, max_tokens=5))
    wait_until(lambda: not stack.total("inferwatch_requests_in_flight"), "no request open")
    scrape = stack.scrape()
    ours = total(scrape, "inferwatch_requests_total", tenant="anonymous")
    assert PROMPTS <= total(scrape, EMBEDDINGS, result="ok") <= ours
    calls = total(scrape, "inferwatch_requests_total", tenant=TENANT, operation="embeddings", outcome="ok")
    assert 1 <= calls <= ours
    assert total(scrape, "inferwatch_requests_total", tenant=TENANT) == calls
    assert total(scrape, "inferwatch_tokens_total", tenant=TENANT, type="prompt") > 0
    assert total(scrape, "inferwatch_drift_judging", tenant=TENANT) == 0
    assert {dict(labels)["tenant"] for labels in scrape.samples["inferwatch_drift_reference_votes"]} == {"anonymous"}
    assert total(scrape, "inferwatch_drift_embeddings_off") == 0
    engine = stack.engine_scrape()
    wait_until(
        lambda: stack.total("inferwatch_tokens_total", type="prompt") == total(engine, "vllm:prompt_tokens_total"),
        "as many tokens booked as the engine counted",
    )


def test_no_prompt_stays_anywhere(stack: Stack) -> None:
    """Not in the log, not in the state folder."""
    assert SECRET not in stack.log
    kept = [path.read_bytes() for path in (stack.folder / "state").rglob("*") if path.is_file()]
    assert kept
    assert not any(SECRET.encode() in data for data in kept)


async def test_a_model_that_nobody_serves(tmp_path: Path) -> None:
    """Requests know nothing of it; a gauge and a line say that there are none, and why."""
    with running(tmp_path, "--config", str(configured(tmp_path, "none-such"))) as stack:
        async with client() as session:
            # A call that fails is followed by a pause of two seconds, then four.
            deadline_s = time.monotonic() + 30
            while not stack.total("inferwatch_drift_embeddings_off", reason="unserved"):
                assert time.monotonic() < deadline_s, stack.scrape().samples.get(EMBEDDINGS)
                # Each another prompt: who repeats one is of one session, and votes once.
                prompt = chat(f"{time.monotonic_ns()}", max_tokens=5)
                status, _ = await send(session, stack.url, prompt)
                assert status == 200
                await asyncio.sleep(0.2)
        assert stack.log.count("drift_embeddings_off reason=unserved") == 1
        assert stack.total(EMBEDDINGS, result="paused") > 0
        assert stack.total("inferwatch_collector_observer_errors_total") == 0
