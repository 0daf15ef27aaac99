"""Requests + idle = the bill, and = the counters' joules: over any traffic, prices, resets, crashes and replays."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferwatch.record import Outcome
from inferwatch.settings.cost import Attribution, Cost
from inferwatch.settings.energy import Energy
from inferwatch_collectors import metrics as m

LENGTH_MS = 12_000

counts = st.none() | st.integers(0, 50_000)


@st.composite
def jobs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Requests of every kind, as fields of `Job`."""
    found = []
    for number in range(draw(st.integers(0, 12))):
        sent_ms = draw(st.integers(0, LENGTH_MS))
        end_ms = sent_ms + draw(st.integers(1, LENGTH_MS))
        streams = draw(st.booleans())
        found.append(
            {
                "name": f"r{number}",
                "sent_ms": sent_ms,
                "end_ms": end_ms,
                "stream": streams,
                "first_ms": draw(st.integers(sent_ms, end_ms)) if streams else None,
                "prompt": draw(counts),
                "cached": draw(counts),
                "completion": draw(counts),
                "tenant": draw(st.sampled_from(["acme", "beta", "gamma"])),
                "model": draw(st.sampled_from(["qwen", "llama"])),
                "user": draw(st.sampled_from(["", "u1", "u2"])),
                "feature": draw(st.sampled_from(["", "search"])),
                "operation": draw(st.sampled_from(["chat", "chat", "embeddings", "other"])),
                "outcome": draw(st.sampled_from([Outcome.OK, Outcome.OK, Outcome.CLIENT_ABORT, Outcome.REJECTED])),
                "late_prompt": draw(st.booleans()),
            }
        )
    return found


amounts = st.decimals("0.000001", 90, places=6)
costs = st.builds(
    Cost,
    hourly_dollars=st.none() | amounts,
    dollars_per_kwh=st.none() | amounts,
    overhead_percent=st.decimals(0, 50, places=2),
    buffer_percent=st.decimals(0, 50, places=3),
)
attributions = st.builds(
    Attribution,
    idle=st.sampled_from(["busy", "capacity"]),
    peak_tokens_per_second=st.decimals("0.5", 5_000, places=2),
    prefill_weight=amounts,
    decode_weight=amounts,
)
energies = st.builds(Energy, pue=st.decimals(1, 2, places=2), grid_gco2e_per_kwh=st.sampled_from([381.5, ""]))
draws = st.lists(st.tuples(st.integers(0, LENGTH_MS), st.integers(0, 9_000)), max_size=4)
moments = st.lists(st.integers(1, 2 * LENGTH_MS), max_size=4)


@st.composite
def hosts(draw: st.DrawFn) -> dict[str, Any]:
    """Everything that `Host` takes."""
    watts = [(0, 300), *sorted(draw(draws))] if draw(st.booleans()) else []
    return {
        "jobs": draw(jobs()),
        "cost": draw(costs),
        "attribution": draw(attributions),
        "energy": draw(energies),
        "watts": watts,
    }


def build(host: Any, drawn: dict[str, Any]) -> Any:
    options = {name: drawn[name] for name in ("cost", "attribution", "energy")}
    machine = host.Host([host.Job(**fields) for fields in drawn["jobs"]], **options)
    machine.watts = list(drawn["watts"])
    return machine


def energy_uj(machine: Any, upto_ms: int) -> int:
    """What the GPU used from its first reading on, by the wattage alone."""
    first_ms = 500
    total = 0
    if not machine.watts:
        return 0
    for (from_ms, watts), (to_ms, _) in zip(machine.watts, [*machine.watts[1:], (upto_ms, 0)], strict=True):
        total += watts * max(0, min(to_ms, upto_ms) - max(from_ms, first_ms)) * 1000
    return total


def priced(machine: Any) -> bool:
    cost = machine.settings["cost"]
    return cost.hourly_dollars is not None or cost.dollars_per_kwh is not None


def assert_conserved(machine: Any, *, from_ms: int = 0) -> None:
    """Everything that was billed and measured is charged, idle, or not divided yet; and the sums agree."""
    undivided_dollars, undivided_uj = machine.meter.undivided
    used_uj = energy_uj(machine, machine.now_ms)
    charged, charged_uj = machine.charged_dollars, machine.total(m.ENERGY_JOULES)
    if priced(machine):
        assert charged + machine.idle_dollars + undivided_dollars == machine.bill(machine.now_ms - from_ms, used_uj)
    else:
        assert (charged, machine.idle_dollars, undivided_dollars) == (0, 0, 0)
    assert charged_uj + machine.total(m.IDLE_ENERGY_JOULES) + undivided_uj == used_uj
    for metric, total in ((m.COST_DOLLARS, charged), (m.ENERGY_JOULES, charged_uj)):
        for label in ("tenant", "model"):
            names = ("acme", "beta", "gamma", "qwen", "llama")
            assert sum(machine.total(metric, **{label: name}) for name in names) == total
    if machine.settings["energy"].grid_gco2e_per_kwh:
        micrograms = machine.total(m.CO2E_GRAMS) + machine.total(m.IDLE_CO2E_GRAMS)
        joules = charged_uj + machine.total(m.IDLE_ENERGY_JOULES)
        assert micrograms == int(joules * Decimal("381.5") * machine.settings["energy"].pue / 3_600_000)


def assert_shares_agree(machine: Any) -> None:
    """Every generating request has one share, of the same names; those of a tenant sum to its counters.

    Idle shares sum to at most idle.
    """
    by_request = [share for share in machine.shares if share.request_id]
    names = [share.request_id for share in by_request]
    if priced(machine):
        assert sorted(names) == sorted(job.name for job in machine.jobs if job.operation != "other")
    elif machine.watts:  # what ended before anybody measured anything has none
        measured = [job for job in machine.jobs if job.operation != "other" and job.end_ms > 500]
        assert sorted(names) == sorted(job.name for job in measured)
    else:
        assert machine.shares == []
    whose = {job.name: (job.tenant, job.model, job.user, job.feature) for job in machine.jobs}
    assert [(each.tenant, each.model, each.user, each.feature) for each in by_request] == [
        whose[name] for name in names
    ]
    for tenant in ("acme", "beta", "gamma"):
        own = [share for share in by_request if share.tenant == tenant]
        assert sum(share.gpu_nanodollars or 0 for share in own) == machine.total(m.COST_DOLLARS, tenant=tenant)
        assert sum(share.energy_uj or 0 for share in own) == machine.total(m.ENERGY_JOULES, tenant=tenant)
    idle = [share for share in machine.shares if not share.request_id]
    assert 0 <= sum(share.gpu_nanodollars or 0 for share in idle) <= machine.idle_dollars
    assert 0 <= sum(share.energy_uj or 0 for share in idle) <= machine.total(m.IDLE_ENERGY_JOULES)


quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(hosts())
def test_nothing_is_lost_and_nothing_is_made(host: Any, drawn: dict[str, Any]) -> None:
    """At every moment, over any traffic, prices, weights and idle bases."""
    machine = build(host, drawn)
    while machine.now_ms < 2 * LENGTH_MS:
        machine.run(machine.now_ms + 5_000)
        assert_conserved(machine)
    machine.run(3 * LENGTH_MS)
    assert_conserved(machine)
    assert_shares_agree(machine)


@quick
@given(hosts(), st.integers(2, 2 * LENGTH_MS // 500))
def test_a_reset_of_the_counter(host: Any, drawn: dict[str, Any], reset_step: int) -> None:
    """The driver is reloaded a millisecond after a reading: what was used in that one is lost, all else is found."""
    machine = build(host, drawn | {"watts": drawn["watts"] or [(0, 250)]})
    reset_ms = 500 * reset_step + 1
    machine.reset_ms = [reset_ms]
    machine.run(3 * LENGTH_MS)
    found = machine.total(m.ENERGY_JOULES) + machine.total(m.IDLE_ENERGY_JOULES) + machine.meter.undivided[1]
    assert found == energy_uj(machine, machine.now_ms) - 1_000 * watts_at(machine, reset_ms)
    assert_shares_agree(machine)


def watts_at(machine: Any, moment_ms: int) -> int:
    """Watts in the millisecond before `moment_ms`: used between the last reading and the reset, and never seen."""
    return int([watts for from_ms, watts in machine.watts if from_ms < moment_ms][-1])


@quick
@given(hosts(), moments)
def test_a_crash_changes_nothing(host: Any, drawn: dict[str, Any], crashes: list[int]) -> None:
    """Killed at any moment and begun again at once: every share and every counter is the same, to the nano-dollar."""
    calm, shaken = build(host, drawn), build(host, drawn)
    calm.run(4 * LENGTH_MS)
    for moment_ms in sorted({moment // 500 * 500 for moment in crashes}):
        shaken.run(moment_ms)
        shaken.crash(lose=False)
    shaken.run(4 * LENGTH_MS)
    assert sorted(map(str, calm.shares)) == sorted(map(str, shaken.shares))
    for metric in (m.COST_DOLLARS, m.IDLE_COST_DOLLARS, m.ENERGY_JOULES, m.IDLE_ENERGY_JOULES, m.CO2E_GRAMS):
        assert calm.total(metric) == shaken.total(metric)


@quick
@given(hosts(), st.lists(st.tuples(st.integers(1, 30), st.integers(0, 4), st.integers(0, 40_000)), max_size=4))
def test_conserved_through_lost_commits_and_absences(
    host: Any, drawn: dict[str, Any], deaths: list[tuple[int, int, int]]
) -> None:
    """Killed with seconds that were not committed, away for up to 40 s, told again by the relays: it still adds up."""
    machine = build(host, drawn)
    machine.run(1_000)
    for alive_steps, uncommitted_steps, away_ms in deaths:
        machine.run(machine.now_ms + 500 * alive_steps)
        for _ in range(uncommitted_steps):
            machine.now_ms += 500
            machine.deliver()
            if machine.watts:
                machine.meter.energy([machine.reading()])
            machine.tick()
        machine.crash(away_ms)
        machine.run(machine.now_ms + 500)
        assert_conserved(machine)
    machine.run(machine.now_ms + 8 * LENGTH_MS)
    assert_conserved(machine)
    assert_shares_agree(machine)


def test_to_the_nanodollar_over_a_day(host: Any) -> None:
    """An hourly price that no second divides evenly: 24 hours later not one nano-dollar is missing."""
    machine = host.Host([host.Job("a", 10_000, 50_000)], cost=host.rented("1.234567"))
    machine.run(86_400_000, step_ms=59_000)
    total = machine.charged_dollars + machine.idle_dollars + machine.meter.undivided[0]
    assert total == machine.bill(86_400_000) == pytest.approx(24 * 1.234567e9, abs=1)
