"""Answers that say of themselves, or whose users say, that they were of no use. Tickets: each may be meant so, and what
hurts at once burns a service level. Each looks at a share, of enough requests for one to mean something."""

from typing import Final

from alerts.src.alert import HOST, Alert, Case, Group
from alerts.src.shapes import grown, share

from inferwatch import canary

_MODEL: Final = f'{HOST}, model="m", tenant="acme"'
_BOARD: Final = "inferwatch-quality"
# The canary's probes have no signs; where there is little traffic they would be most of the requests.
_REQUESTS: Final = (
    f'inferwatch_requests_total{{outcome=~"ok|client_abort", operation!="other", tenant!="{canary.TENANT}"}}'
)
_PROBES: Final = (
    f'inferwatch_requests_total{{{HOST}, model="m", tenant="{canary.TENANT}", '
    'operation="text_completion", outcome="ok"}'
)
_HEARD: Final = "inferwatch_quality_heard_total"
_SPANS: Final = {"1h": "hour", "30m": "30 minutes"}


def _signs(sign: str) -> str:
    return f'inferwatch_quality_signs_total{{sign=~"{sign}"}}'


def _ticket(
    name: str,
    signs: str,
    of: str,
    *,
    above: float,
    least: int,
    what: str,
    summary: str,
    fires: tuple[Case, ...],
    silent: tuple[Case, ...],
    for_: str = "15m",
    window: str = "1h",
    times_usual: float = 0,
) -> Alert:
    """Return the alert of a sign that is in too large a share of `what`: above so much of at least so many, and, with
    `times_usual`, of so many times its own share in three days."""
    expr = share(signs, of, above=above, least=least, window=window)
    if times_usual:
        now, usual = (f"({grown(signs, each)} / {grown(of, each)})" for each in (window, "3d"))
        expr += f"\nand\n{now} > {times_usual:g} * {usual}"
    return Alert(
        name=name,
        severity="ticket",
        expr=expr,
        for_=for_,
        summary=summary,
        value=f"{{{{ $value | humanizePercentage }}}} of the {what} of the last {_SPANS[window]}",
        dashboard=_BOARD,
        fires=fires,
        silent=silent,
    )


def _series(sign: str, signs: str, of: str, requests: str) -> dict[str, str]:
    base = f'{_MODEL}, operation="chat", outcome="ok"' if of == _REQUESTS else _MODEL
    return {
        f'inferwatch_quality_signs_total{{{_MODEL}, sign="{sign}"}}': signs,
        f"{of.partition('{')[0]}{{{base}}}": requests,
    }


LOOPS: Final = _ticket(
    "InferwatchLoops",
    _signs("loop|repetition"),
    _HEARD,
    above=0.01, least=5,
    for_="10m",
    what="answers",
    summary="Users of {{ $labels.model }} get answers that repeat themselves without an end",
    fires=(
        Case(series=_series("loop", "0+1x120", _HEARD, "0+20x120"), at="90m", labels={"model": "m"},
             value="5% of the answers of the last hour"),
    ),
    silent=(
        Case(series=_series("loop", "0+1x120", _HEARD, "0+200x120"), at="90m", says="one in two hundred"),
        Case(series=_series("loop", "0 1 2 3 4x120", _HEARD, "0+1x120"), at="50m", says="four of them"),
    ),
)  # fmt: skip

REFUSALS: Final = _ticket(
    "InferwatchRefusals",
    _signs("refusal"),
    _HEARD,
    # How often a model refuses is its own: coders hardly do, advisers do every day.
    above=0.05, least=20, times_usual=2,
    what="answers",
    summary="{{ $labels.model }} refuses to answer its users much more often than it used to",
    fires=(
        Case(series=_series("refusal", "0+1x2000 2000+15x120", _HEARD, "0+50x2120"), at="2090m", labels={"model": "m"},
             value="30% of the answers of the last hour", says="from 2 % to 30 %"),
    ),
    silent=(
        Case(series=_series("refusal", "0+15x2120", _HEARD, "0+50x2120"), at="2090m", says="it always did"),
        Case(series=_series("refusal", "0+1x2000 2000+2x120", _HEARD, "0+50x2120"), at="2090m", says="one in 25"),
    ),
)  # fmt: skip

CUT_ANSWERS: Final = _ticket(
    "InferwatchAnswersCut",
    _signs("truncated"),
    _REQUESTS,
    above=0.2, least=20, times_usual=2,
    what="requests",
    summary="Answers of {{ $labels.model }} are cut by the length limit much more often than they used to be",
    fires=(
        Case(series=_series("truncated", "0+1x2000 2000+20x120", _REQUESTS, "0+50x2120"), at="2090m",
             labels={"model": "m"}, value="40% of the requests of the last hour", says="from 2 % to 40 %"),
        Case(series=_series("truncated", "0+1x2000 2000+20x120", _REQUESTS, "0+50x2120") | {_PROBES: "0+200x2120"},
             at="2090m", labels={"model": "m"}, value="40% of the requests of the last hour", says="beside a canary"),
    ),
    silent=(
        Case(series=_series("truncated", "0+20x2120", _REQUESTS, "0+50x2120"), at="2090m",
             says="clients who ask for a few tokens on purpose"),
    ),
)  # fmt: skip

ASKED_AGAIN: Final = _ticket(
    "InferwatchAskedAgain",
    _signs("retry|regeneration"),
    _HEARD,
    above=0.2, least=50,
    what="requests",
    summary="Users of {{ $labels.model }} ask the same again within a minute: they were not content, or got nothing",
    fires=(
        Case(series=_series("regeneration", "0+5x120", _HEARD, "0+20x120"), at="90m", labels={"model": "m"},
             value="25% of the requests of the last hour"),
    ),
    silent=(
        Case(series=_series("regeneration", "0+2x120", _HEARD, "0+20x120"), at="90m", says="one in ten"),
    ),
)  # fmt: skip

ABANDONED: Final = _ticket(
    "InferwatchAnswersAbandoned",
    _signs("abandoned"),
    _REQUESTS,
    above=0.3, least=20, times_usual=1.5,
    what="requests",
    summary="Users of {{ $labels.model }} hang up in the midst of their answers, more often than they used to",
    fires=(
        Case(series=_series("abandoned", "0+1x2000 2000+20x120", _REQUESTS, "0+50x2120"), at="2090m",
             labels={"model": "m"}, value="40% of the requests of the last hour", says="from 2 % to 40 %"),
    ),
    silent=(
        Case(series=_series("abandoned", "0+20x2120", _REQUESTS, "0+50x2120"), at="2090m",
             says="completions in an editor, where people type on"),
    ),
)  # fmt: skip

STALLS: Final = _ticket(
    "InferwatchStalls",
    _signs("stalled"),
    _REQUESTS,
    above=0.05, least=10,
    window="30m",
    for_="10m",
    what="requests",
    summary="Answers of {{ $labels.model }} stand still for many seconds while users read them",
    fires=(
        Case(series=_series("stalled", "0+5x90", _REQUESTS, "0+50x90"), at="60m", labels={"model": "m"},
             value="10% of the requests of the last 30 minutes"),
    ),
    silent=(
        Case(series=_series("stalled", "0+1x90", _REQUESTS, "0+50x90"), at="60m", says="one in fifty"),
    ),
)  # fmt: skip

_VOTES: Final = "inferwatch_feedback_votes_total"

THUMBS_DOWN: Final = Alert(
    name="InferwatchThumbsDown",
    severity="ticket",
    expr=share(f'{_VOTES}{{thumb="down"}}', f'{_VOTES}{{thumb=~"up|down"}}', above=0.5, least=20, window="1d"),
    for_="1h",
    summary="Most users of {{ $labels.model }} who vote on its answers vote them down",
    value="{{ $value | humanizePercentage }} of the votes of the last day",
    dashboard=_BOARD,
    fires=(
        Case(
            series={
                f'{_VOTES}{{{_MODEL}, thumb="down"}}': "0+3x1600",
                f'{_VOTES}{{{_MODEL}, thumb="up"}}': "0+1x1600",
            },
            at="1590m",
            labels={"model": "m"},
            value="75% of the votes of the last day",
        ),
    ),
    silent=(
        Case(
            series={
                f'{_VOTES}{{{_MODEL}, thumb="down"}}': "0+1x1600",
                f'{_VOTES}{{{_MODEL}, thumb="up"}}': "0+3x1600",
            },
            at="1590m",
            says="one in four",
        ),
        Case(
            series={f'{_VOTES}{{{_MODEL}, thumb="down"}}': "0 1 2 3x1600"},
            at="1590m",
            says="three people",
        ),
    ),
)


def group() -> Group:
    return Group(
        name="quality",
        about="Answers that were of no use, and users who say so.",
        alerts=(LOOPS, REFUSALS, CUT_ANSWERS, ASKED_AGAIN, ABANDONED, STALLS, THUMBS_DOWN),
    )
