"""What the demo's scenarios say of themselves, and that one seed gives one sequence of requests."""

import asyncio
from typing import Any

import msgspec
import pytest
from aiohttp import web

from inferwatch import config
from inferwatch_simulator import load
from inferwatch_simulator.gpus import NAME, SimulatedGpu
from inferwatch_simulator.scenarios import BY_NAME, SCENARIOS, Scenario, settings, tenants
from inferwatch_simulator.testing import Serve

EVERY = pytest.mark.parametrize("scenario", SCENARIOS, ids=list(BY_NAME))


@EVERY
def test_it_is_a_configuration(scenario: Scenario, tmp_path: Any) -> None:
    """Of those keys that the running Inferwatch takes, with a key file for everybody who sends."""
    files = dict.fromkeys(tenants(scenario), "/somewhere")
    file = tmp_path / "inferwatch.yml"
    file.write_bytes(msgspec.yaml.encode(settings(scenario, files)))
    loaded = config.load(str(file), environ={})
    assert {tenant.name for tenant in loaded.tenants.known} == set(files)
    assert loaded.gpu.source == "simulated"
    if scenario.learns:
        assert scenario.learns in files


@EVERY
def test_there_is_a_phase_at_any_moment(scenario: Scenario) -> None:
    """From the first second; a round comes again, otherwise the last phase stays."""
    assert scenario.phases[0].begins_s == 0
    assert list(scenario.phases) == sorted(scenario.phases, key=lambda phase: phase.begins_s)
    for phase in scenario.phases:
        assert scenario.at(phase.begins_s) is phase
    later_s = 3 * scenario.round_s if scenario.round_s else 1e6
    assert scenario.at(later_s) is scenario.phases[0 if scenario.round_s else -1]


def test_the_day_has_all_that_a_day_has() -> None:
    """People, agents, documents; a client gone wrong, a bad hour, prompts that change, a budget with an end."""
    day = BY_NAME["day"]
    kinds = {load.kind for phase in day.phases for tenant in phase.tenants for load in tenant.workloads}
    assert {"chat", "retrieval", "agent"} <= kinds
    assert any(load.retries for phase in day.phases for tenant in phase.tenants for load in tenant.workloads)
    assert min(phase.speed for phase in day.phases) < 1
    assert any(rule["tenant"] == "hooli" for rule in day.budgets if "tenant" in rule)


def test_in_the_day_drift_is_for_patient_people() -> None:
    """Acme has not the conversations of a reference before the third day."""
    day = BY_NAME["day"]
    ends = [*(phase.begins_s for phase in day.phases[1:]), day.round_s]
    conversations = 0.0
    for phase, end_s in zip(day.phases, ends, strict=True):
        shares = {tenant.name: tenant.share for tenant in phase.tenants}
        share = shares.get(day.learns, 0.0) / sum(shares.values())
        conversations += day.rate * phase.rate * (end_s - phase.begins_s) * share
    assert conversations == pytest.approx(440, abs=20)
    assert 2 * conversations < settings(day, {})["drift"]["reference_requests_min"] < 3 * conversations


async def _first_requests(seed: int, free_port: Any) -> dict[str, bytes]:
    """Return the first body of each session that the runaway scenario sends to somebody who refuses everything."""
    seen: dict[str, bytes] = {}
    stop = asyncio.Event()

    async def refuse(request: web.Request) -> web.Response:
        seen.setdefault(request.headers["x-inferwatch-session"], await request.read())
        if len(seen) >= 40:
            stop.set()
        return web.Response(status=429)

    app = web.Application()
    app.router.add_post("/v1/{name:.*}", refuse)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    # A moment of this traffic is a hundredth of a second.
    plan = lambda at_s: BY_NAME["runaway"].profile(100 * at_s)  # noqa: E731
    await load.drive(f"http://127.0.0.1:{port}", plan, stop, seed, rate=400.0, model="m")
    await runner.cleanup()
    return seen


async def test_the_same_seed_is_the_same_traffic(free_port: Any) -> None:
    """Byte for byte; another seed is other traffic."""
    first, again, other = [await _first_requests(seed, free_port) for seed in (3, 3, 4)]
    both = set(first) & set(again)
    assert len(both) >= 30
    assert all(first[session] == again[session] for session in both)
    shared = set(first) & set(other)
    assert not shared or any(first[session] != other[session] for session in shared)


async def test_who_is_refused_asks_again(free_port: Any) -> None:
    """So often as the workload says, the very same bytes."""
    tries: list[bytes] = []
    stop = asyncio.Event()

    async def refuse(request: web.Request) -> web.Response:
        tries.append(await request.read())
        return web.Response(status=429)

    app = web.Application()
    app.router.add_post("/v1/{name:.*}", refuse)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    hooli = BY_NAME["runaway"].phases[1].tenants[-1]
    workload = msgspec.structs.replace(hooli.workloads[0], retries=4, retry_ms=1)
    only = load.Profile(name="one", tenants=(msgspec.structs.replace(hooli, workloads=(workload,)),))

    def once(at_s: float) -> tuple[load.Profile, float]:
        return only, 1.0 if at_s == 0 else 1e-9

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        driving = group.create_task(load.drive(f"http://127.0.0.1:{port}", once, stop, 1, rate=100.0, model="m"))
        while len(tries) < 5:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        stop.set()
    await runner.cleanup()
    assert len(tries) == 5
    assert len(set(tries)) == 1
    assert (driving.result().requests, driving.result().refused) == (5, 5)


def test_the_gpu_does_what_the_engine_does() -> None:
    """Idle it draws little, busy more, and more with a larger batch; its energy is the sum of that, and never falls."""
    gpu = SimulatedGpu(0.0)
    idle = gpu.read(1.0, busy_s=0.0, batch=0, cache=0.0, speed=1.0)
    busy = gpu.read(2.0, busy_s=1.0, batch=16, cache=0.1, speed=1.0)
    full = gpu.read(3.0, busy_s=2.0, batch=200, cache=0.9, speed=1.0)
    assert [reading["utilization"] for reading in (idle, busy, full)] == [0.0, 1.0, 1.0]
    assert idle["power_mw"] < busy["power_mw"] < full["power_mw"] <= full["power_limit_mw"]
    assert full["energy_mj"] - busy["energy_mj"] == pytest.approx(full["power_mw"], abs=2)
    assert full["memory_used"] > busy["memory_used"] > idle["memory_used"]
    assert full["memory_used"] < full["memory_total"]
    assert "imulated" in NAME


def test_a_hot_gpu_is_slow_and_says_why() -> None:
    """The clock is held down for heat, for as long as it lasts."""
    gpu = SimulatedGpu(0.0)
    well = gpu.read(1.0, busy_s=1.0, batch=16, cache=0.1, speed=1.0)
    hot = gpu.read(3.0, busy_s=3.0, batch=16, cache=0.1, speed=0.25)
    assert (well["clock_events"], hot["clock_events"]) == ([], ["hw_thermal"])
    assert hot["clock_event_ns"]["hw_thermal"] == 2_000_000_000
    assert hot["temperature_c"] > well["temperature_c"]
    assert hot["sm_hz"] < well["sm_hz"]


def test_two_readers_are_told_the_same() -> None:
    """A second one, just after the first, does not find a GPU that was idle since."""
    gpu = SimulatedGpu(0.0)
    first = gpu.read(1.0, busy_s=1.0, batch=16, cache=0.1, speed=1.0)
    assert gpu.read(1.05, busy_s=1.0, batch=0, cache=0.0, speed=1.0) == first


async def test_the_engine_is_slowed_down_by_command(serve: Serve) -> None:
    """Each step takes as many times longer, a prompt's and an answer's; what is no speed is refused, and changes nothing."""
    client = await serve()
    before = client.simulator.engine.scheduler.limits
    async with load.aiohttp.ClientSession() as session:
        for body, status in (({"speed": 0.25}, 200), ({"speed": 0}, 400), ({"speed": "fast"}, 400), ({}, 400)):
            async with session.post(f"{client.url}/simulator/speed", json=body) as reply:
                assert reply.status == status
        async with session.get(f"{client.url}/simulator/gpu") as reply:
            assert (await reply.json())["clock_events"] == ["hw_thermal"]
    now = client.simulator.engine.scheduler.limits
    assert now.prefill_tokens_per_s == pytest.approx(before.prefill_tokens_per_s / 4)
    assert now.decode_step_s_base == pytest.approx(before.decode_step_s_base * 4)
    assert now.decode_step_s_per_seq == pytest.approx(before.decode_step_s_per_seq * 4)
