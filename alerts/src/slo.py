"""Service levels: how fast each model's error budget burns, and who is told.

Good and bad events are rated over 5 minutes once, summed over tenants and hosts; every longer window is a mean of those
few series, so that a rule over three days costs as little as one over an hour. A model's promise is divided out where
the burn rate is recorded, and so one rule per window is for all models.
"""

from typing import Final, NamedTuple

from alerts.src.alert import Alert, Case, Group, Record
from alerts.src.promises import PROMISES, TIMED, Name, Promise

BAD: Final = "model_slo:inferwatch_bad_events:rate5m"
EVENTS: Final = "model_slo:inferwatch_events:rate5m"
BURN: Final = "model_slo:inferwatch_burn_rate"

# What the engine or we did wrong. The rest is the client's (engine_4xx, malformed_request, request_too_large,
# unknown_key) or somebody's decision (budget, loop).
OUR_FAULTS: Final = (
    "connect_failed|connect_timeout|out_of_files|first_byte_timeout|idle_timeout|total_timeout|upstream_reset|"
    "upstream_protocol|engine_5xx|engine_event|no_finish|relay_died|internal"
)


class Window(NamedTuple):
    """A pair of windows: the long one says that it matters, the short one that it still goes on."""

    long: str
    short: str
    factor: float
    for_: str
    severity: str


# Google's SRE workbook, chapter 5, for 30 days: 2 % of the budget in an hour, 5 % in six, 10 % in a day or in three.
WINDOWS: Final = (
    Window("1h", "5m", 14.4, "2m", "page"),
    Window("6h", "30m", 6, "5m", "page"),
    Window("1d", "2h", 3, "1h", "ticket"),
    Window("3d", "6h", 1, "3h", "ticket"),
)
_SECONDS: Final = {"1h": 3_600, "6h": 21_600, "1d": 86_400, "3d": 259_200}


class Kind(NamedTuple):
    """How an objective is spoken of, and which histories test it."""

    name: Name
    alert: str
    summary: str
    dashboard: str
    within: str


KINDS: Final = (
    Kind(
        "availability",
        "InferwatchAvailabilityBurn",
        "Requests to {{ $labels.model }} fail: at this rate the error budget is gone early",
        "inferwatch-oncall",
        "10m",
    ),
    Kind(
        "ttft",
        "InferwatchFirstTokenBurn",
        "Users of {{ $labels.model }} wait too long for the first token",
        "inferwatch-oncall",
        "15m",
    ),
    Kind(
        "itl",
        "InferwatchTokenGapBurn",
        "Answers of {{ $labels.model }} come too slowly, or stall while they are read",
        "inferwatch-oncall",
        "15m",
    ),
)


def _exact(value: float) -> str:
    """Return a number without the noise of binary fractions."""
    return f"{value:.10g}"


def le(threshold_s: float) -> str:
    """Return a bound as it stands in the label `le`."""
    return repr(float(threshold_s))


def _bad(name: Name, matcher: str, promise: Promise) -> str:
    if name == "availability":
        return (
            f'sum by (model) (\n  rate(inferwatch_request_errors_total{{{matcher}, error_type=~"{OUR_FAULTS}"}}[5m])\n)'
        )
    metric = TIMED[name].name
    assert promise.threshold_s is not None
    slow = (
        f"sum by (model) (rate({metric}_count{{{matcher}}}[5m]))\n"
        "-\n"
        f'sum by (model) (rate({metric}_bucket{{{matcher}, le="{le(promise.threshold_s)}"}}[5m]))'
    )
    return f"{slow}\n{_timed_out(matcher)}" if name == "ttft" else slow


def _events(name: Name, matcher: str) -> str:
    if name == "availability":
        return f'sum by (model) (rate(inferwatch_requests_total{{{matcher}, outcome!="rejected"}}[5m]))'
    events = f"sum by (model) (rate({TIMED[name].name}_count{{{matcher}}}[5m]))"
    return f"{events}\n{_timed_out(matcher)}" if name == "ttft" else events


def _timed_out(matcher: str) -> str:
    """Return what adds the streams that never had a first token; a model without any adds 0."""
    missing = f'inferwatch_first_token_missing_total{{{matcher}, reason="timeout"}}'
    return (
        "+\n"
        "(\n"
        f"  sum by (model) (rate({missing}[5m]))\n"
        "  or\n"
        f"  0 * sum by (model) (rate(inferwatch_time_to_first_token_seconds_count{{{matcher}}}[5m]))\n"
        ")"
    )


def records() -> tuple[Record, ...]:
    """Return what is recorded: for all models, and again for each that was promised something else."""
    found = []
    own = sorted(PROMISES.models)
    for kind in KINDS:
        others = "|".join(model for model in own if kind.name in PROMISES.models[model])
        targets: list[tuple[str, str | None]] = [(f'model!~"{others}"' if others else 'model!=""', None)]
        targets += [(f'model="{model}"', model) for model in own if kind.name in PROMISES.models[model]]
        for matcher, model in targets:
            promise = PROMISES.of(kind.name, model)
            labels = {"slo": kind.name, **({"model": model} if model is not None else {})}
            found.append(Record(record=BAD, expr=_bad(kind.name, matcher, promise), labels=labels))
            found.append(Record(record=EVENTS, expr=_events(kind.name, matcher), labels=labels))
            found += _burns(kind.name, matcher, promise, labels)
    return tuple(found)


def _burns(name: Name, matcher: str, promise: Promise, labels: dict[str, str]) -> list[Record]:
    assert promise.objective is not None
    budget = _exact(1 - promise.objective)
    select = f'{{slo="{name}", {matcher}}}'
    found = [Record(record=f"{BURN}:5m", expr=f"{BAD}{select}\n/\n{EVENTS}{select}\n/ {budget}", labels=labels)]
    for window in sorted({each for pair in WINDOWS for each in (pair.long, pair.short)} - {"5m"}):
        expr = f"sum_over_time({BAD}{select}[{window}])\n/\nsum_over_time({EVENTS}{select}[{window}])\n/ {budget}"
        found.append(Record(record=f"{BURN}:{window}", expr=expr, labels=labels))
    return found


def _alerts() -> tuple[Alert, ...]:
    return tuple(_alert(kind, window) for kind in KINDS for window in WINDOWS)


def _alert(kind: Kind, window: Window) -> Alert:
    select = f'{{slo="{kind.name}"}}'
    least = PROMISES.slos[kind.name].min_bad_events
    expr = (
        f"{BURN}:{window.long}{select} > {_exact(window.factor)}\n"
        "and\n"
        f"{BURN}:{window.short}{select} > {_exact(window.factor)}\n"
        "and\n"
        f"avg_over_time({BAD}{select}[{window.long}]) * {_SECONDS[window.long]} >= {least}"
    )
    return Alert(
        name=kind.alert,
        severity="page" if window.severity == "page" else "ticket",
        expr=expr,
        for_=window.for_,
        within=kind.within if window is WINDOWS[0] else ("" if window.severity == "ticket" else "3h"),
        summary=kind.summary,
        dashboard=kind.dashboard,
        labels={"window": window.long},
        fires=(_burning(kind, window),),
        # Long histories take promtool long; what differs between windows is the rate.
        silent=(
            _just_below(kind, window),
            *((_few(kind, window), _over(kind, window)) if window is WINDOWS[0] else ()),
        ),
    )


# --- the histories that test them ---

# Requests, first tokens or tokens a minute.
_PER_MINUTE: Final = {"availability": 6_000, "ttft": 600, "itl": 6_000}


def _minutes(duration: str) -> int:
    return int(duration[:-1]) * {"m": 1, "h": 60, "d": 1440}[duration[-1]]


def _history_minutes(window: Window) -> int:
    """Return how long a history must be: a window that is filled in part is judged by what is in it."""
    return min(_minutes(window.long), _minutes("2h")) + _minutes(window.for_) + 15


def _share(kind: Kind, window: Window, times: float) -> float:
    """Return the share of bad events that burns `times` the window's factor."""
    objective = PROMISES.slos[kind.name].objective
    assert objective is not None
    return min(1.0, (1 - objective) * window.factor * times)


def _history(kind: Kind, *parts: tuple[float, float, int]) -> dict[str, str]:
    """Return the series of phases of (events a minute, share of bad ones, minutes)."""

    def counter(of: int) -> str:
        value = 0.0
        words = []
        for per_minute, share, minutes in parts:
            step = per_minute * (1.0, share, 1 - share)[of]
            words.append(f"{value:g}+{step:g}x{minutes - 1}")
            value += step * minutes
        return " ".join(words)

    labels = 'model="m", tenant="t", operation="chat"'
    if kind.name == "availability":
        return {
            f'inferwatch_requests_total{{{labels}, outcome="ok"}}': counter(2),
            f'inferwatch_requests_total{{{labels}, outcome="upstream_error"}}': counter(1),
            'inferwatch_request_errors_total{model="m", error_type="engine_5xx"}': counter(1),
        }
    metric = TIMED[kind.name].name
    threshold_s = PROMISES.slos[kind.name].threshold_s
    assert threshold_s is not None
    return {
        f"{metric}_count{{{labels}}}": counter(0),
        f'{metric}_bucket{{{labels}, le="{le(threshold_s)}"}}': counter(2),
    }


def _burning(kind: Kind, window: Window) -> Case:
    minutes = _history_minutes(window)
    series = _history(kind, (_PER_MINUTE[kind.name], _share(kind, window, 1.1), minutes))
    labels = {"model": "m", "slo": kind.name}
    return Case(series=series, at=f"{minutes - 1}m", labels=labels, says=f"a tenth above the rate, for {window.long}")


def _just_below(kind: Kind, window: Window) -> Case:
    minutes = _history_minutes(window)
    series = _history(kind, (_PER_MINUTE[kind.name], _share(kind, window, 0.9), minutes))
    return Case(series=series, at=f"{minutes - 1}m", says="a tenth below the rate")


def _few(kind: Kind, window: Window) -> Case:
    least = PROMISES.slos[kind.name].min_bad_events
    assert least is not None
    minutes = _history_minutes(window)
    share = _share(kind, window, 1.1)
    per_minute = least * 0.5 / _minutes(window.long) / share
    series = _history(kind, (per_minute, share, minutes))
    return Case(series=series, at=f"{minutes - 1}m", says="so few that it may be chance")


def _over(kind: Kind, window: Window) -> Case:
    """It was bad, and is good again: the long window still says so, the short one does not."""
    bad, good = min(_minutes(window.long), _minutes("2h")), _minutes(window.short) + 10
    rate = _PER_MINUTE[kind.name]
    series = _history(kind, (rate, _share(kind, window, 1.5), bad), (rate, 0.0, good))
    return Case(series=series, at=f"{bad + good - 1}m", says="over and done with")


def group() -> Group:
    return Group(
        name="slo",
        about="How fast each model's error budget burns (alerts/slo.yml says what was promised).",
        records=records(),
        alerts=_alerts(),
        interval="1m",
    )
