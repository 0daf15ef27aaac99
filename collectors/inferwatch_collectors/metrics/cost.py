"""Cost: what requests cost, and what the machine cost while it had nothing to do.

In the store these are exact integers of nano-dollars (`NANO` a dollar), so that sums add up for ever; the exposition
divides. Add integers only.
"""

from typing import Final

from inferwatch_collectors.metrics.base import REQUEST, Group, Kind, Metric

NANO: Final = 1_000_000_000

# Values of the label `basis`.
BASIS_GPU: Final = "gpu"
BASIS_PRICE: Final = "price"

COST_DOLLARS: Final = Metric(
    name="inferwatch_cost_dollars_total",
    kind=Kind.COUNTER,
    group=Group.COST,
    labels=(*REQUEST, "basis"),
    unit="dollars",
    scale=NANO,
    help="What requests cost, in dollars, by basis.",
    measured="Basis price: tokens times the configured price, counted when a request finishes. "
    "Basis gpu: the machine's bill of each second, divided among the requests that worked in it by their weighted "
    "tokens, counted when all of that second's work is known (some 2 s later; up to 2 min where plain replies or "
    "waiting prompts were under way). Never add the two.",
)
IDLE_COST_DOLLARS: Final = Metric(
    name="inferwatch_idle_cost_dollars_total",
    kind=Kind.COUNTER,
    group=Group.COST,
    unit="dollars",
    scale=NANO,
    help="What the machine cost while it was idle, in dollars.",
    measured="With cost_dollars_total of basis gpu, summed over everything, it is the bill, to the nano-dollar. "
    "Idle basis busy: the part of each second in which no request was with the engine; basis capacity: "
    "what the weighted tokens fell short of the configured peak.",
)
UNOBSERVED_SECONDS: Final = Metric(
    name="inferwatch_unobserved_seconds_total",
    kind=Kind.COUNTER,
    group=Group.COST,
    unit="seconds",
    scale=NANO,
    help="Time in which nobody was there to divide the machine's cost.",
    measured="Gaps of more than 60 s between two lives of the collector: not in any cost. Shorter gaps are billed.",
)
ATTRIBUTION_CUT: Final = Metric(
    name="inferwatch_attribution_cut_total",
    kind=Kind.COUNTER,
    group=Group.COST,
    labels=("reason",),
    help="Where the division of cost and energy had to go without a token count.",
    measured="horizon: seconds divided before all work in them was known, since a request was open for more than "
    "2 min (it was charged by its time, like the average of the others); memory: the same because of too much at "
    "once; unknown: requests that ended without any token count, charged in the same way; "
    "late: requests told of after their time had been divided (charged nothing); "
    "accounts: requests not followed because too many were open; "
    "abandoned: open requests that nobody closed after a restart; "
    "energy_reading: readings of an energy counter that cannot be (a new baseline was taken).",
)
LEARNED_PREFILL_WEIGHT: Final = Metric(
    name="inferwatch_learned_prefill_weight",
    kind=Kind.GAUGE,
    group=Group.COST,
    help="The time a prompt token takes, in completion tokens, as learned from this host's own traffic.",
    measured="Regularised least squares of busy time over prompt and completion tokens of each second, half forgotten "
    "in about two hours. Absent before 5 busy minutes. Used only with attribution.weights: learned.",
)
