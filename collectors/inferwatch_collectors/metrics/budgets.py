"""Budgets: what may be spent, what has been, what will be.

Series of accounts exist for budgets whose `per` has no user; of each budget the fullest ones (see the meter's bound).
"""

from typing import Final

from inferwatch_collectors.metrics.base import Group, Kind, Metric

ACCOUNT: Final = ("budget", "tenant", "feature", "model")
MEASURED_ACCOUNT: Final = (*ACCOUNT, "unit")

_PER: Final = "Labels that the budget's `per` does not name are empty."

BUDGET_LIMIT_DOLLARS: Final = Metric(
    name="inferwatch_budget_limit_dollars",
    kind=Kind.GAUGE,
    group=Group.BUDGETS,
    labels=ACCOUNT,
    unit="dollars",
    help="The limit of an account, of budgets in dollars.",
    measured=_PER,
)
BUDGET_SPENT_DOLLARS: Final = Metric(
    name="inferwatch_budget_spent_dollars",
    kind=Kind.GAUGE,
    group=Group.BUDGETS,
    labels=ACCOUNT,
    unit="dollars",
    help="What an account has spent in its present period or window, of budgets in dollars.",
    measured="With what running streams are known to have spent, from the last tenths of a second (half a second while "
    "less than half of the limit could be gone). A request counts in the period in which it arrived.",
)
BUDGET_LIMIT: Final = Metric(
    name="inferwatch_budget_limit",
    kind=Kind.GAUGE,
    group=Group.BUDGETS,
    labels=MEASURED_ACCOUNT,
    help="The limit of an account, of budgets in other units.",
    measured=_PER,
)
BUDGET_SPENT: Final = Metric(
    name="inferwatch_budget_spent",
    kind=Kind.GAUGE,
    group=Group.BUDGETS,
    labels=MEASURED_ACCOUNT,
    help="What an account has spent in its present period or window, of budgets in other units.",
    measured="As budget_spent_dollars. GPU seconds and joules are estimated from tokens until a request's part of the "
    "machine is known.",
)
BUDGET_PERIOD: Final = Metric(
    name="inferwatch_budget_period_seconds",
    kind=Kind.GAUGE,
    group=Group.BUDGETS,
    labels=("budget",),
    unit="seconds",
    help="Length of a budget's present period, or of its window.",
    measured="Spending at an even rate uses up the limit in just this time: what burn rates are told by.",
)
BUDGET_RESERVED: Final = Metric(
    name="inferwatch_budget_reserved",
    kind=Kind.GAUGE,
    group=Group.BUDGETS,
    labels=(*MEASURED_ACCOUNT, "bound"),
    help="What open requests of an account hold beside what they are known to have spent, in the budget's unit.",
    measured="bound expected: what they are expected to need; high: the most that they can need.",
)
BUDGET_FORECAST_RATIO: Final = Metric(
    name="inferwatch_budget_forecast_ratio",
    kind=Kind.GAUGE,
    group=Group.BUDGETS,
    labels=(*ACCOUNT, "bound"),
    unit="ratio",
    help="What an account will have spent at the end of its period, as a part of the limit.",
    measured="By its own spending by the hour of the week; low and high span 80 %. Absent for rolling budgets and "
    "before a whole hour is known. Renewed about once a minute.",
)
BUDGET_EXHAUSTION: Final = Metric(
    name="inferwatch_budget_exhaustion_seconds",
    kind=Kind.GAUGE,
    group=Group.BUDGETS,
    labels=(*ACCOUNT, "bound"),
    unit="seconds",
    help="Time until an account's limit is reached.",
    measured="By the same forecast; bound expected, and high for the early case. Absent where the limit is not reached "
    "within the period.",
)
BUDGET_THRESHOLD: Final = Metric(
    name="inferwatch_budget_threshold_reached",
    kind=Kind.GAUGE,
    group=Group.BUDGETS,
    labels=(*ACCOUNT, "percent"),
    help="1 if this much of the limit is spent, else 0.",
    measured="For each of the budget's warn_percent.",
)
BUDGET_ACCOUNTS: Final = Metric(
    name="inferwatch_budget_accounts",
    kind=Kind.GAUGE,
    group=Group.BUDGETS,
    labels=("budget", "state"),
    help="Accounts of a budget by state, also of those that have no series of their own.",
    measured="ok; warned: a threshold below 100 % is reached; spent: the limit is.",
)
BUDGET_DECISIONS: Final = Metric(
    name="inferwatch_budget_decisions_total",
    kind=Kind.COUNTER,
    group=Group.BUDGETS,
    labels=("budget", "decision"),
    help="What became of requests at a budget.",
    measured="admitted, rejected; would_reject: observed only; cut: streams told to end. Counted by the relays as they "
    "decide; a request that fits several budgets counts in each, one that another of them refused only there.",
)
BUDGET_UNCHECKED: Final = Metric(
    name="inferwatch_budget_unchecked_total",
    kind=Kind.COUNTER,
    group=Group.BUDGETS,
    labels=("reason",),
    help="Times that a request was not held against a budget as it should have been.",
    measured="history: of requests that came before what had been spent was read from the ledger, for a budget that is "
    "new; accounts: there were more accounts than budgets.max_accounts; collector_silent: what running requests "
    "hold was left out, since nobody had settled it for 10 s; unmeasured: GPU time or energy that no measurement "
    "followed; lock: a process stood still with the lock "
    "of the accounts for longer than budgets.max_lock_wait_s.",
)
BUDGET_ELSEWHERE: Final = Metric(
    name="inferwatch_budget_elsewhere",
    kind=Kind.GAUGE,
    group=Group.BUDGETS,
    labels=MEASURED_ACCOUNT,
    help="What other hosts have spent of a shared account, in the budget's unit.",
    measured="As Redis last told; a part of budget_spent and budget_spent_dollars.",
)
BUDGET_LEASE: Final = Metric(
    name="inferwatch_budget_lease",
    kind=Kind.GAUGE,
    group=Group.BUDGETS,
    labels=MEASURED_ACCOUNT,
    help="What this host may still spend of a shared account before it is lent more, in the budget's unit.",
    measured="With what open requests hold. Absent before it was lent anything in the period.",
)
BUDGET_REDIS_UP: Final = Metric(
    name="inferwatch_budget_redis_up",
    kind=Kind.GAUGE,
    group=Group.BUDGETS,
    help="1 while the Redis of shared budgets answers, else 0.",
    measured="0 after two reports without an answer, and before the first one. Absent where none is configured, like "
    "the other budget_redis metrics.",
)
BUDGET_REDIS_SILENCE: Final = Metric(
    name="inferwatch_budget_redis_silence_seconds",
    kind=Kind.GAUGE,
    group=Group.BUDGETS,
    unit="seconds",
    help="Time since Redis was last heard: so old is what this host knows of the others.",
    measured="Counted from the sending of the last request that was answered. Absent before the first answer.",
)
BUDGET_REDIS_FROZEN: Final = Metric(
    name="inferwatch_budget_redis_frozen",
    kind=Kind.GAUGE,
    group=Group.BUDGETS,
    help="1 while Redis lends nothing, because it was started lately and may have forgotten something, else 0.",
    measured="As of the last answer.",
)
BUDGET_REDIS_UNREPORTED: Final = Metric(
    name="inferwatch_budget_redis_unreported_accounts",
    kind=Kind.GAUGE,
    group=Group.BUDGETS,
    help="Shared accounts of which this host has something to tell Redis.",
    measured="After an outage it falls to 0 within some reports.",
)
BUDGET_REDIS_EXCHANGES: Final = Metric(
    name="inferwatch_budget_redis_exchanges_total",
    kind=Kind.COUNTER,
    group=Group.BUDGETS,
    help="Answers of Redis about shared budgets.",
    measured="Each is for all accounts that were due.",
)
BUDGET_REDIS_FAILURES: Final = Metric(
    name="inferwatch_budget_redis_failures_total",
    kind=Kind.COUNTER,
    group=Group.BUDGETS,
    labels=("reason",),
    help="Times that Redis gave no answer that could be used.",
    measured="timeout; connection; refused: wrong user, password or rights; answer: not what our script says; fenced: "
    "it did not know this host any more, or two hosts have copies of one ledger.",
)
BUDGET_REDIS_OUTAGES: Final = Metric(
    name="inferwatch_budget_redis_outages_total",
    kind=Kind.COUNTER,
    group=Group.BUDGETS,
    help="Times that Redis stopped answering.",
    measured="However many tries failed until it was back.",
)
