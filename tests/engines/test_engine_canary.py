"""The canary against a real vLLM: a thousand probes of the same model under load and no alarm, then other weights under
the same name, noticed within twenty probes and by nothing else."""

from __future__ import annotations

import asyncio
import json
import random
import string
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from engine_counters import STATISTICS_LAG_S, Samples, at_rest, booked_tokens, engine_tokens, scrape, until
from engine_process import Engine, Figures, other_weights, running_inferwatch, running_vllm
from engine_wire import Request, exchange

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

TENANT = "inferwatch-canary"
PROBES = 1_000
NOTICED = 20
# While it learns and for a thousand probes more; users' requests make batches of one to five.
CLIENTS = 4
# With a reference of their own for the users' requests, which is to stay silent.
DRIFT_VOTES = 2_000

SETTINGS = f"""
upstream:
  url: URL
canary:
  enabled: true
  interval_s: 0.05
  timeout_s: 60
  reference_probes_min: 600
drift:
  votes_per_hour: 36000
  reference_requests_min: {DRIFT_VOTES // 2}
engine_metrics:
  interval_s: 0.5
"""


def replies(samples: Samples) -> float:
    return samples("inferwatch_canary_probes_total", result="ok")


async def post(admin_url: str, path: str) -> bytes:
    answer = await exchange(admin_url, Request("POST", path))
    assert answer.status == 200, answer.body
    return answer.body


async def report(admin_url: str) -> Any:
    return json.loads((await exchange(admin_url, Request("GET", "/drift"))).body)


@asynccontextmanager
async def load(url: str) -> AsyncIterator[None]:
    """Users: prompts and answers of random lengths, a few at a time."""

    leaving = asyncio.Event()

    async def user(seed: int) -> None:
        rng = random.Random(seed)
        while not leaving.is_set():
            prompt = "".join(rng.choices(string.ascii_lowercase + " ", k=rng.randint(20, 400)))
            body = {"model": "tiny", "prompt": prompt, "max_tokens": rng.randint(1, 8), "stream": rng.random() < 0.5}
            await exchange(url, Request.post("/v1/completions", body))
            await asyncio.sleep(rng.expovariate(50))

    async with asyncio.TaskGroup() as group:
        for seed in range(CLIENTS):
            group.create_task(user(seed))
        yield
        leaving.set()


async def test_other_weights_are_noticed_and_nothing_else_is(engine: Engine, tmp_path: Path, figures: Figures) -> None:
    """Users' drift stays silent, what probes cost is the canary's, and every token is booked once."""
    config = tmp_path / "inferwatch.yml"
    config.write_text(SETTINGS.replace("URL", engine.url), encoding="utf-8")
    before = await at_rest(engine.url)
    with running_inferwatch(engine.url, tmp_path / "state", config=config) as (url, admin_url):
        async with load(url):
            await until(admin_url, lambda now: replies(now) >= 600, "600 probes", 180)
            await post(admin_url, f"/drift/pin?model=tiny&tenant={TENANT}")
            learnt = replies(await scrape(admin_url))
            votes = "inferwatch_drift_reference_votes"
            await until(admin_url, lambda now: now(votes) >= DRIFT_VOTES, "votes of users", 300)
            await post(admin_url, "/drift/pin?model=tiny&tenant=anonymous")
            await until(admin_url, lambda now: replies(now) >= learnt + PROBES, f"{PROBES} probes", 300)
            same = await scrape(admin_url)
            told = await report(admin_url)
        assert same("inferwatch_canary_signals_total") == 0, told
        assert same("inferwatch_canary_evidence") < 1
        assert [each["tenant"] for each in told["streams"]] == ["anonymous"]
        own = await scrape(admin_url)
        assert own("inferwatch_tokens_total", tenant=TENANT, type="completion") == own(
            "inferwatch_requests_total", tenant=TENANT
        )
        # The canary goes on: what the engine has counted is between what was booked a little before and after.
        first = await booked_tokens(admin_url)
        await asyncio.sleep(STATISTICS_LAG_S)
        counted = await engine_tokens(engine.url) - before
        await asyncio.sleep(2 * STATISTICS_LAG_S)
        last = await booked_tokens(admin_url)
        assert first.prompt <= counted.prompt <= last.prompt
        assert first.completion <= counted.completion <= last.completion

        with running_vllm("--max-num-seqs", "8", model=other_weights(tmp_path / "other-model", 1)) as other:
            begun = replies(await scrape(admin_url))
            signals = "inferwatch_canary_signals_total"
            config.write_text(SETTINGS.replace("URL", other), encoding="utf-8")
            async with load(url):
                await post(admin_url, "/-/reload")
                await until(admin_url, lambda now: now(signals) > 0, "the signal", 60)
                noticed = replies(await scrape(admin_url)) - begun
                await until(admin_url, lambda now: replies(now) >= begun + 100, "a hundred probes more", 60)
            after = await scrape(admin_url)
            told = await report(admin_url)
        assert noticed <= NOTICED
        assert after(signals) == 1
        assert after("inferwatch_drift_signals_total") == 0
        assert after("inferwatch_spend_anomaly_signals_total") == 0
        model = told["canary"]["models"][0]
        assert model["state"] == "changed"
    figures += [
        ("canary: probes of the same model under load, alarms", f"{replies(same) - learnt:.0f}, 0"),
        ("canary: evidence after them", f"{same('inferwatch_canary_evidence'):.3g} weeks"),
        ("canary: usual distance", f"{same('inferwatch_canary_usual_distance_nats'):.3g} nats"),
        (
            "canary: other weights noticed after",
            f"{noticed:.0f} probes at most, {model['distance_nats']:.2f} nats away",
        ),
        ("canary: users' drift meanwhile", f"{after('inferwatch_drift_evidence'):.3g} weeks"),
    ]
