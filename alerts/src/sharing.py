"""Budgets that several hosts share: the Redis between them, and what is wrong where it does not know a host."""

from typing import Final

from alerts.src.alert import HOST, HOST_LABELS, Alert, Case, Group

_FENCED: Final = f'inferwatch_budget_redis_failures_total{{{HOST}, reason="fenced"}}'

REDIS_AWAY: Final = Alert(
    name="InferwatchBudgetRedisAway",
    severity="ticket",
    team="serving",
    expr="inferwatch_budget_redis_up == 0",
    # A restart, and the lease after it in which nothing is lent, pass without anybody's doing.
    for_="5m",
    summary="{{ $labels.instance }} does not reach the Redis of shared budgets: users go on with what "
    "was lent to it, and may then be refused",
    dashboard="inferwatch-tenants",
    fires=(Case(series={f"inferwatch_budget_redis_up{{{HOST}}}": "1x10 0x20"}, at="20m", labels=HOST_LABELS),),
    silent=(
        Case(series={f"inferwatch_budget_redis_up{{{HOST}}}": "1x10 0x3 1x20"}, at="14m", says="restarted"),
        Case(series={f"inferwatch_budget_redis_up{{{HOST}}}": "1x30"}, at="20m", says="it is there"),
    ),
)

FENCED: Final = Alert(
    name="InferwatchBudgetHostsAlike",
    severity="ticket",
    team="serving",
    # Once is a Redis that has lost its data, or a host that was taken for dead.
    expr='increase(inferwatch_budget_redis_failures_total{reason="fenced"}[15m]) > 10',
    for_="0s",
    keep="15m",
    summary="{{ $labels.instance }} and another host say that they are one: what tenants spend there may not be held "
    "against their budget",
    value="{{ $value | humanize }} times in 15 minutes",
    dashboard="inferwatch-tenants",
    fires=(
        Case(
            series={_FENCED: "0+2x60"},
            at="30m",
            labels={**HOST_LABELS, "reason": "fenced"},
            value="30 times in 15 minutes",
        ),
    ),
    silent=(Case(series={_FENCED: "0x10 2x50"}, at="20m", says="a Redis that forgot us, and a host that came back"),),
)


def group() -> Group:
    """Return the group of shared budgets."""
    return Group(name="sharing", about="Budgets that hosts share.", alerts=(REDIS_AWAY, FENCED))
