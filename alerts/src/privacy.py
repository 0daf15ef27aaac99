"""Content that should have been looked at for personal data and was not. It is not kept, so nobody is hurt."""

from typing import Final

from alerts.src.alert import HOST, HOST_LABELS, Alert, Case, Group
from alerts.src.shapes import grown, share

_BY: Final = "job, instance"


def _requests(result: str) -> str:
    return f'inferwatch_privacy_requests_total{{{HOST}, result="{result}"}}'


def _unkept(name: str, result: str, why: str, *silent: Case) -> Alert:
    """Return the ticket of content that is not kept for one reason, again and again."""
    return Alert(
        name=name,
        severity="ticket",
        expr=grown(f'inferwatch_privacy_requests_total{{result="{result}"}}', "15m", _BY) + " > 0",
        for_="5m",
        keep="15m",
        summary=f"Some traces of {{{{ $labels.instance }}}} have no content: {why}",
        value="{{ $value | humanize }} requests in 15 minutes",
        dashboard="inferwatch-fleet",
        fires=(
            Case(series={_requests(result): "0+1x60"}, at="45m", labels=HOST_LABELS, value="15 requests in 15 minutes"),
        ),
        silent=silent,
    )


# `cut` and `overflow` are bounds that somebody chose.
DROPPED: Final = _unkept(
    "InferwatchContentDropped",
    "failed",
    "the search for personal data failed, and nothing of those users' texts was kept",
    Case(series={_requests("failed"): "7x60"}, at="45m", says="a fault, long ago"),
    Case(series={_requests("kept"): "0+9x60", _requests("cut"): "0+2x60"}, at="45m", says="long texts that are cut"),
)

SLOW: Final = _unkept(
    "InferwatchContentScanSlow",
    "timeout",
    "looking for personal data in a user's text took longer than its budget",
    Case(series={_requests("timeout"): "7x60"}, at="45m", says="texts of long ago"),
)

OVERFLOW: Final = Alert(
    name="InferwatchContentOverflow",
    severity="ticket",
    expr=share(
        'inferwatch_privacy_requests_total{result="overflow"}',
        "inferwatch_privacy_requests_total",
        above=0.05,
        window="1h",
        by=_BY,
    ),
    for_="15m",
    keep="1h",
    summary="Content of users' requests on {{ $labels.instance }} is missing in traces: more is sampled "
    "than is looked at",
    value="{{ $value | humanizePercentage }} of what was sampled",
    dashboard="inferwatch-fleet",
    fires=(
        Case(
            series={_requests("overflow"): "0+1x150", _requests("kept"): "0+3x150"},
            at="120m",
            labels=HOST_LABELS,
            value="25% of what was sampled",
        ),
    ),
    silent=(
        Case(series={_requests("overflow"): "0 0 9 9x150", _requests("kept"): "0+30x150"}, at="50m", says="one burst"),
    ),
)

KEY: Final = Alert(
    name="InferwatchPseudonymKey",
    severity="ticket",
    expr=f"min by ({_BY}) (inferwatch_privacy_key_current) == 0",
    for_="15m",
    summary="Pseudonyms of users in traces of {{ $labels.instance }} are made with another key than the last of "
    "privacy.key_file: it was rotated without a restart, or cannot be read",
    dashboard="inferwatch-fleet",
    fires=(Case(series={f"inferwatch_privacy_key_current{{{HOST}}}": "1x5 0x40"}, at="30m", labels=HOST_LABELS),),
    silent=(
        Case(series={f"inferwatch_privacy_key_current{{{HOST}}}": "1x5 0x10 1x40"}, at="30m", says="rotated in time"),
    ),
)


def group() -> Group:
    """Return the rule file."""
    return Group(
        name="privacy",
        about="What is personal in content that is kept.",
        alerts=(DROPPED, SLOW, OVERFLOW, KEY),
    )
