"""Energy: the joules of the GPUs' own counters, and what they weigh in carbon.

In the store these are exact integers of the millionth part (microjoules, micrograms); the exposition divides.
"""

from typing import Final

from inferwatch_collectors.metrics.base import REQUEST, Group, Kind, Metric

MICRO: Final = 1_000_000

ENERGY_JOULES: Final = Metric(
    name="inferwatch_energy_joules_total",
    kind=Kind.COUNTER,
    group=Group.ENERGY,
    labels=REQUEST,
    unit="joules",
    scale=MICRO,
    help="GPU energy attributed to requests, in joules.",
    measured="The growth of each GPU's energy counter between two samples, spread over their time and divided, "
    "second by second, among the requests that worked in it by their weighted tokens (the weights of cost). Never "
    "power times duration of a request, which would count a shared GPU once for each that shares it. A request of "
    "less than a second has a share of that second, no measurement of its own. GPUs without a counter are left out, "
    "unless energy.from_power is set.",
)
IDLE_ENERGY_JOULES: Final = Metric(
    name="inferwatch_idle_energy_joules_total",
    kind=Kind.COUNTER,
    group=Group.ENERGY,
    unit="joules",
    scale=MICRO,
    help="GPU energy attributed to no request, in joules.",
    measured="With energy_joules_total, summed over everything, it is the growth of the GPUs' counters while they were "
    "observed. The idle part is that of idle_cost_dollars_total.",
)
CO2E_GRAMS: Final = Metric(
    name="inferwatch_co2e_grams_total",
    kind=Kind.COUNTER,
    group=Group.ENERGY,
    labels=REQUEST,
    unit="grams",
    scale=MICRO,
    help="Greenhouse gas for the energy of requests, in grams of CO2 equivalent.",
    measured="energy_joules_total times energy.pue times the configured grid intensity of that hour (UTC). "
    "Absent without energy.grid_gco2e_per_kwh.",
)
IDLE_CO2E_GRAMS: Final = Metric(
    name="inferwatch_idle_co2e_grams_total",
    kind=Kind.COUNTER,
    group=Group.ENERGY,
    unit="grams",
    scale=MICRO,
    help="Greenhouse gas for the energy attributed to no request, in grams of CO2 equivalent.",
    measured="As co2e_grams_total, of idle_energy_joules_total.",
)
