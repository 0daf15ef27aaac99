"""What `inferwatch demo` can show: who sends what when, how the engine does, what Inferwatch is told. Data, and pure.

Time is that of the traffic: the sum of the drawn pauses, so that one seed gives one sequence of requests, however fast
the machine. A round of phases begins again at its end, or its last phase stays.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from inferwatch_simulator.profiles import DEMO, Profile, Range, Tenant, Workload

_ACME, _GLOBEX, _INITECH, _HOOLI = DEMO.tenants

# Hooli's client again, now without anybody looking at what comes back: refused, it asks again five times a second.
_STUBBORN_HOOLI: Final = msgspec.structs.replace(
    _HOOLI,
    share=1.5,
    workloads=(msgspec.structs.replace(_HOOLI.workloads[0], retries=60, retry_ms=200),),
)

# Short questions, many of them, each its own conversation: a reference needs a thousand.
_QUESTIONS: Final = Workload(
    kind="chat", feature="assistant", prompt_tokens=Range(20, 60), max_tokens=Range(8, 24), streamed=0.5
)
# A template that has grown: the same users, prompts four times as long and answers to match.
_LONG_QUESTIONS: Final = msgspec.structs.replace(_QUESTIONS, prompt_tokens=Range(120, 260), max_tokens=Range(40, 90))


def _with(tenant: Tenant, *workloads: Workload, share: float | None = None) -> Tenant:
    return msgspec.structs.replace(tenant, workloads=workloads, share=tenant.share if share is None else share)


def _longer(workload: Workload) -> Workload:
    low, high = workload.prompt_tokens.low, workload.prompt_tokens.high
    return msgspec.structs.replace(workload, prompt_tokens=Range(4 * low, 4 * high))


_DRIFTED_ACME: Final = _with(_ACME, *(_longer(each) if each.kind == "chat" else each for each in _ACME.workloads))


class Phase(NamedTuple):
    """A part of a round.

    Args:
        begins_s: from the beginning of the round.
        says: what happens, for whoever looks.
        tenants: who sends.
        rate: times the demo's rate.
        speed: of the engine; below 1 its GPUs are too hot.
    """

    begins_s: float
    says: str
    tenants: tuple[Tenant, ...]
    rate: float = 1.0
    speed: float = 1.0


class Scenario(NamedTuple):
    """A demonstration.

    Args:
        help: what it shows, in half a line.
        rate: conversations per second, unless the command line says otherwise.
        round_s: after which the phases begin again; 0: the last one stays.
        budgets: rules, as in the configuration.
        learns: the tenant whose reference for drift is pinned when it has been learnt, or "".
    """

    name: str
    help: str
    rate: float
    phases: tuple[Phase, ...]
    round_s: float = 0.0
    budgets: tuple[dict[str, Any], ...] = ()
    learns: str = ""

    def at(self, at_s: float) -> Phase:
        """Return the phase at a moment."""
        within_s = at_s % self.round_s if self.round_s else at_s
        return [phase for phase in self.phases if phase.begins_s <= within_s][-1]

    def profile(self, at_s: float) -> tuple[Profile, float]:
        """Return who sends at a moment, and how many times the usual rate."""
        phase = self.at(at_s)
        return Profile(name=self.name, tenants=phase.tenants), phase.rate


def _tokens_a_minute(name: str, tenant: str, limit: int) -> dict[str, Any]:
    """Return a budget that is whole again a minute later: nobody wants to wait for tomorrow."""
    rule = {"name": name, "tenant": tenant, "limit": limit, "unit": "tokens", "on_limit": "reject"}
    return {**rule, "period": "rolling", "window_s": 60}


_DAILY: Final = {"name": "daily", "per": ["tenant"], "limit": 5, "unit": "dollars", "period": "day"}

# An hour of the day takes ten seconds.
_HOUR_S: Final = 10.0
_USUAL: Final = (_ACME, _GLOBEX, _INITECH)


def _day() -> tuple[Phase, ...]:
    hours: Sequence[tuple[int, str, tuple[Tenant, ...], float, float]] = (
        (6, "the first people come to work", _USUAL, 0.6, 1.0),
        (8, "the morning: chats, documents, coding agents", _USUAL, 1.2, 1.0),
        (10, "hooli's export puts its whole knowledge base into each prompt", (*_USUAL, _STUBBORN_HOOLI), 1.2, 1.0),
        (12, "lunch", _USUAL, 0.7, 1.0),
        (13, "the afternoon", _USUAL, 1.2, 1.0),
        (14, "a bad hour: the GPU is too hot, and a quarter as fast", _USUAL, 1.0, 0.25),
        (15, "well again", _USUAL, 1.1, 1.0),
        (16, "acme has changed its prompts: they are four times as long", (_DRIFTED_ACME, _GLOBEX, _INITECH), 1.0, 1.0),
        (19, "the evening", _USUAL, 0.5, 1.0),
        (23, "the night: hooli's export alone, and an agent or two", (_GLOBEX, _HOOLI), 0.2, 1.0),
    )
    return tuple(
        Phase((hour - 6) * _HOUR_S, f"{hour:02d}:00  {says}", tenants, rate, speed)
        for hour, says, tenants, rate, speed in hours
    )


SCENARIOS: Final = (
    Scenario(
        "day",
        "a day in four minutes: rush hours, a client gone wrong, a bad hour, prompts that change",
        6.0,
        _day(),
        round_s=24 * _HOUR_S,
        budgets=(_DAILY, _tokens_a_minute("hooli-tokens", "hooli", 150_000)),
        learns="acme",
    ),
    Scenario(
        "runaway",
        "one client without an end: huge prompts, a spent budget, hundreds of tries",
        6.0,
        (
            Phase(0.0, "an ordinary morning", _USUAL),
            Phase(5.0, "hooli's export begins, and does not take no for an answer", (*_USUAL, _STUBBORN_HOOLI)),
        ),
        budgets=(_DAILY, _tokens_a_minute("hooli-tokens", "hooli", 60_000)),
    ),
    Scenario(
        "budget",
        "budgets of all tenants that run out within a minute, and come back",
        8.0,
        (Phase(0.0, "each tenant has 20,000 tokens a minute", (*_USUAL, _HOOLI)),),
        budgets=(_DAILY, {**_tokens_a_minute("tokens", "*", 20_000), "per": ["tenant"]}),
    ),
    Scenario(
        "degraded",
        "an engine that is a quarter as fast every other half minute, on a GPU that is too hot",
        6.0,
        (
            Phase(0.0, "all is well", _USUAL),
            Phase(30.0, "the GPU is too hot, and a quarter as fast", _USUAL, speed=0.25),
        ),
        round_s=60.0,
    ),
    Scenario(
        "drift",
        "a reference is learnt for two and a half minutes, then prompts and answers change",
        13.0,
        (
            Phase(0.0, "acme's requests are learnt: a thousand, at most ten a second", (_with(_ACME, _QUESTIONS),)),
            Phase(150.0, "acme has changed its prompts: four times as long", (_with(_ACME, _LONG_QUESTIONS),)),
        ),
        learns="acme",
    ),
    Scenario("steady", "the same mix all the time", 6.0, (Phase(0.0, "the same all the time", DEMO.tenants),)),
)

BY_NAME: Final = {scenario.name: scenario for scenario in SCENARIOS}


def tenants(scenario: Scenario) -> dict[str, str]:
    """Return the API key of each tenant of a scenario, by name."""
    return {tenant.name: tenant.api_key for phase in scenario.phases for tenant in phase.tenants}


def settings(scenario: Scenario, key_files: dict[str, str]) -> dict[str, Any]:
    """Return the configuration that Inferwatch is started with; `key_files` by tenant."""
    return {
        "gpu": {"source": "simulated"},
        "cost": {"gpus": 1, "hourly_dollars": 3.5},
        "tenants": {"known": [{"name": name, "keys_file": file} for name, file in key_files.items()]},
        "prices": {"rules": [{"model": "*", "input": 0.10, "cached_input": 0.05, "output": 0.40}]},
        "budgets": {"rules": list(scenario.budgets)},
        # As soon as drift can be told at all.
        "drift": {"votes_per_hour": 36_000, "reference_requests_min": 1_000},
    }
