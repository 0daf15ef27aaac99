"""The canary's probes through a real Inferwatch: whose they are, and what becomes of them without an engine.

A change of the weights is for `tests/engines`, where there are some.
"""

import json
import urllib.request
from collections.abc import Iterator

import pytest
from stack import Stack, chat, client, running, send, wait_until

from inferwatch_simulator.readings import total

TENANT = "inferwatch-canary"
PROBES = "inferwatch_canary_probes_total"


@pytest.fixture(scope="module", name="stack")
def _stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("canary")
    config = folder / "inferwatch.yml"
    config.write_text("canary: {enabled: true, interval_s: 0.05}\nengine_metrics: {interval_s: 0.5}\n", "utf-8")
    with running(folder, "--config", str(config)) as stack:
        yield stack


async def test_what_probes_cost_is_the_canarys(stack: Stack) -> None:
    """Its tokens are booked, each once, to that tenant alone; drift, quality and anomalies leave it out."""
    wait_until(
        lambda: stack.total(PROBES, result="ok") >= 20, "probes", detail=lambda: str(stack.scrape().samples[PROBES])
    )
    async with client() as session:
        await send(session, stack.url, chat(stream=False))
    wait_until(lambda: stack.total("inferwatch_requests_total", tenant="anonymous") >= 1, "the other request")
    # On a slow machine probes find the engine busy with that request a few times in a row.
    wait_until(lambda: stack.total("inferwatch_canary_off") == 0, "a probe that is answered")
    scrape = stack.scrape()
    assert total(scrape, "inferwatch_canary_judging") == 0
    assert total(scrape, "inferwatch_canary_reference_replies") >= 20
    requests = total(scrape, "inferwatch_requests_total", tenant=TENANT, outcome="ok")
    assert requests >= 20
    assert total(scrape, "inferwatch_tokens_total", tenant=TENANT, type="completion") == requests
    assert total(scrape, "inferwatch_quality_signs_total", tenant=TENANT) == 0
    with urllib.request.urlopen(f"{stack.admin}/drift", timeout=10) as reply:
        report = json.load(reply)
    assert [each["state"] for each in report["canary"]["models"]] == ["learning"]
    assert {each["tenant"] for each in report["streams"]} == {"anonymous"}


def test_nobody_else_is_that_tenant(stack: Stack) -> None:
    """The name alone, or a guess at the proof, is an anonymous client's."""
    before = stack.total("inferwatch_requests_total", tenant="anonymous")
    for name, value in (("x-inferwatch-tenant", TENANT), ("x-inferwatch-canary", "0" * 64)):
        request = urllib.request.Request(f"{stack.url}/v1/models", headers={name: value})
        with urllib.request.urlopen(request, timeout=10) as reply:
            assert reply.status == 200
    wait_until(lambda: stack.total("inferwatch_requests_total", tenant="anonymous") >= before + 2, "two requests more")


def test_it_stops_when_the_engine_does_and_says_why(stack: Stack) -> None:
    """A line when it goes off, not one for each try; no prompt and no proof is in the log."""
    assert stack.simulator is not None
    stack.simulator.kill()
    wait_until(lambda: stack.total("inferwatch_canary_off", reason="down") == 1, "the canary off")
    assert stack.total("inferwatch_canary_evidence") == 0
    assert stack.log.count("canary_off reason=down") == 1
    assert "capital of France" not in stack.log
    assert "fibonacci" not in stack.log
