"""The traffic generator."""

import asyncio

import pytest

from inferwatch_simulator.load import Counts, drive, request_body
from inferwatch_simulator.profiles import BRISK, PROFILES, Range, Tenant, Workload
from inferwatch_simulator.testing import Serve, SimulatorClient
from inferwatch_simulator.text import Dice


async def drive_until(client: SimulatorClient, conversations: int, profile: str = "brisk", seed: int = 1) -> Counts:
    """Traffic until the engine's HTTP counter has seen enough; then the open requests finish."""
    stop = asyncio.Event()
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        driving = tasks.create_task(drive(client.url, profile, stop, seed, rate=200.0))
        while await client.metric("http_requests_total", method="POST") < conversations:
            await asyncio.sleep(0.02)
        stop.set()
    return driving.result()


async def test_traffic_is_of_all_kinds(serve: Serve) -> None:
    """Replies, refusals and hang-ups all happen, nothing fails, and every request has one outcome."""
    client = await serve(speed=20.0)
    counts = await drive_until(client, 150)
    assert min(counts.ok, counts.refused, counts.hung_up, counts.events, counts.completion_tokens) > 0
    assert counts.failed == 0
    assert counts.requests == counts.ok + counts.refused + counts.hung_up
    assert sum(counts.by_tenant.values()) == counts.requests
    assert set(counts.by_tenant) == {"acme", "globex"}


async def test_what_is_told_is_what_the_engine_counted(serve: Serve) -> None:
    """The engine has generated at least all tokens that replies told of, and finished every request that was ok."""
    client = await serve(speed=20.0)
    counts = await drive_until(client, 100)
    assert await client.metric("vllm:generation_tokens_total") >= counts.completion_tokens
    assert await client.metric("vllm:request_success_total") >= counts.ok
    assert client.simulator.engine.scheduler.idle


async def test_concurrency_is_bounded(serve: Serve) -> None:
    """Conversations beyond the limit are skipped and counted, not queued."""
    client = await serve(speed=1.0, decode_step_ms_base=50.0)
    stop = asyncio.Event()
    workload = Workload(kind="chat", feature="f", max_tokens=Range(5, 5))
    tenants = (Tenant(name="t", api_key="k", share=1, users=1, workloads=(workload,)),)
    profile = type(BRISK)(name="narrow", tenants=tenants, max_concurrent=3)
    async with asyncio.TaskGroup() as tasks:
        driving = tasks.create_task(drive(client.url, profile, stop, 1, rate=500.0))
        async with asyncio.timeout(20):
            while client.simulator.engine.unfinished < 3:
                await asyncio.sleep(0.01)
        for _ in range(5):
            await asyncio.sleep(0.02)
            assert client.simulator.engine.unfinished <= 3
        stop.set()
    assert driving.result().skipped > 0


async def test_unknown_profile_is_named() -> None:
    """A misspelt profile is an error at once."""
    with pytest.raises(KeyError, match="nope"):
        await drive("http://127.0.0.1:1", "nope", asyncio.Event(), 0, 1.0)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())
def test_profile_is_usable(profile: object) -> None:
    """Keys are distinct, and every workload's requests can be built."""
    assert isinstance(profile, type(BRISK))
    keys = [tenant.api_key for tenant in profile.tenants]
    assert len(keys) == len(set(keys))
    for tenant in profile.tenants:
        for workload in tenant.workloads:
            path, body = request_body(workload, [{"role": "user", "content": "x"}], "m", Dice(1))
            assert path.startswith("/v1/")
            assert "model" in body


def test_demo_has_a_tenant_whose_prompts_are_huge() -> None:
    """The misconfigured client that drains budgets is part of the demonstration."""
    largest = {
        tenant.name: max(workload.prompt_tokens.high for workload in tenant.workloads)
        for tenant in PROFILES["demo"].tenants
    }
    assert max(largest.values()) > 3 * sorted(largest.values())[-2]
