"""Every query of every panel and rule returns data on a real Prometheus that scrapes the real thing.

Panels are filled with All, and with single values of each variable they use: some value must return data. A rule is
read as what it looks at: each of its selectors must return data. What cannot be brought about here in minutes is named,
with its reason; and a name that returns data after all fails, so that the list cannot rot.
"""

import json
import math
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nvml_stand_in
import pytest
from alerts.src import build
from drawing import Series, draw_board
from fleet import Fleet, Watched
from mishaps import live
from monitoring import ROOT, Prometheus, closing
from promql import selectors

FILES = sorted((ROOT / "dashboards").glob("*.json"))
STEP_S = 2

# A scrape that came too late on a machine with other work leaves nothing for a second. What has no data never has.
GAP_S = 15.0

_HISTORY = "judged after three days of a tenant's own history at the least (anomalies.min_history_hours)"
_SHARED = "each host here keeps its budgets alone; tests/services/test_shared_budgets_hold.py has them"

_REQUEST = 'job=~"$job", instance=~"$instance", model=~"$model", tenant=~"$tenant"'  # as panels select

# What has no data here, each with the reason: a metric, or a selector of it. tests/golden has all metrics.
ABSENT = {
    **{
        f"inferwatch_drift_{name}": "judged when a reference of thousands of requests has been learnt"
        for name in ("evidence", "detected", "signals_total", "features_off", "psi", "wasserstein")
    },
    "inferwatch_drift_engine_changes_total": "the engine stays the same; tests/e2e/test_drift_versions.py has that",
    "inferwatch_drift_embeddings_": "off unless they are configured",
    "inferwatch_canary_": "off unless it is configured",
    f'inferwatch_quality_signs_total{{{_REQUEST}, sign="loop_cut"}}': "off by default; tests/e2e/test_loops_are_cut.py cuts",
    "inferwatch_privacy_": "counted where traces carry content; tests/e2e/test_canary.py has that",
    'inferwatch_tokens_by_source_total{source="chunk_estimate", type="completion"}': "this vLLM counts every chunk",
    "inferwatch_budget_redis_": _SHARED,
    "inferwatch_budget_elsewhere": _SHARED,
    "inferwatch_budget_lease": _SHARED,
    "inferwatch_spend_expected_hour": _HISTORY,
    'inferwatch_spend_anomaly_evidence{kind!="retry_storm"}': _HISTORY,
    "inferwatch_learned_prefill_weight": "learnt in five busy minutes",
    "inferwatch_collector_observer_errors_total": "counts bugs of ours; none is known",
    "inferwatch_requests_without_usage_total": "every answer of a vLLM has a count, its own or one made from its chunks",
    'inferwatch_first_token_missing_total{reason="empty", tenant!="inferwatch-canary"}': "no engine that we simulate answers well with nothing",
}


# These have data only if the hour happened to turn while this ran.
SOMETIMES = ("inferwatch_spend_last_hour", "inferwatch_budget_forecast_ratio", "inferwatch_budget_exhaustion_seconds")


# Windows of an hour become six minutes, and groups are evaluated every 5 s.
DIVISOR = 10


@pytest.fixture(scope="session", name="watched")
def _watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("w")
    rules = folder / "rules"
    rules.mkdir()
    assert build.main(["--rules-to", str(rules), "--divisor", str(DIVISOR)]) == 0
    hosts = Fleet(folder, nvml_stand_in.build(folder))
    prometheus = Prometheus(folder)
    with closing(hosts, prometheus):
        hosts.start()
        prometheus.start(hosts.targets, rules=rules)
        watched = Watched(hosts, prometheus)
        live(watched)
        time.sleep(16)  # the slowest group has seen it all
        watched.end_s = time.time()
        yield watched


@pytest.fixture(scope="session", name="pictures")
def _pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where panels are drawn: INFERWATCH_PICTURES, or a folder that goes away."""
    folder = Path(os.environ.get("INFERWATCH_PICTURES") or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in board["panels"]:
        yield from panel["panels"] if panel["type"] == "row" else [panel]


def filled(expr: str, values: dict[str, str], watched: Watched) -> str:
    """Return a query as Grafana sends it."""
    span_s = max(60, round(watched.end_s - watched.start_s))
    expr = expr.replace("$__rate_interval", "20s").replace("$__range", f"{span_s}s")
    return re.sub(r"\$(\w+)", lambda match: values[match[1]], expr)


def variables(board: dict[str, Any], watched: Watched) -> dict[str, list[str]]:
    """Return the values of each variable, as Grafana would offer them."""
    found: dict[str, list[str]] = {}
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
            assert match is not None
            everything = dict.fromkeys(("job", "instance", "model", "tenant"), ".*")
            found[variable["name"]] = watched.prometheus.values_of(match[2], filled(match[1], everything, watched))
    return found


def fetch(watched: Watched, target: dict[str, Any], expr: str) -> list[Series]:
    """Return the series of a query that have a number at least once."""
    if target.get("instant"):
        answers = [(each["metric"], [each["value"]]) for each in watched.prometheus.query(expr)]
    else:
        found = watched.prometheus.over_time(expr, watched.start_s, watched.end_s, STEP_S)
        answers = [(each["metric"], each["values"]) for each in found]
    series = []
    for labels, pairs in answers:
        values = [float(value) for _, value in pairs]
        if any(math.isfinite(value) for value in values):
            series.append((_name(target, labels), [at - watched.start_s for at, _ in pairs], values))
    return series


def fetch_any(watched: Watched, target: dict[str, Any], exprs: list[str]) -> list[Series]:
    """Return what the first of these queries returns that has data; none may have it just now, so they are asked again."""
    until_s = time.monotonic() + (GAP_S if target.get("instant") and unexpected(target["expr"], []) else 0)
    while True:
        for expr in exprs:
            if found := fetch(watched, target, expr):
                return found
        if time.monotonic() >= until_s:
            return []
        time.sleep(1)


def _name(target: dict[str, Any], labels: dict[str, str]) -> str:
    legend = target.get("legendFormat", "__auto")
    if target.get("format") == "table":
        named = ", ".join(f"{key}={value}" for key, value in sorted(labels.items()) if key != "__name__")
        return f"{legend}: {named}"
    if legend == "__auto":
        return ", ".join(f"{value}" for key, value in sorted(labels.items()) if key != "__name__") or "value"
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], ""), legend)


def excused(expr: str) -> bool:
    return any(found.metric.startswith(tuple(ABSENT)) or str(found) in ABSENT for found in selectors(expr))


def unexpected(expr: str, found: list[Any]) -> bool:
    """Whether there is no data where there should be, or some where a reason says that there is none."""
    if any(each.metric in SOMETIMES for each in selectors(expr)):
        return False
    return bool(found) == excused(expr)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_panel_shows_data(file: Path, watched: Watched, pictures: Path) -> None:
    """Each query with All, and for each variable with a single value; the answers are drawn."""
    board = json.loads(file.read_text("utf-8"))
    offered = variables(board, watched)
    assert all(offered.values()), offered
    everything = dict.fromkeys(offered, ".*")
    empty, counted = [], 0
    results: dict[int, list[Series]] = {}
    for panel in panels(board):
        results[panel["id"]] = []
        for target in panel["targets"]:
            counted += 1
            found = fetch_any(watched, target, [filled(target["expr"], everything, watched)])
            results[panel["id"]] += found
            where = f"{panel['title']}: {target['expr']}"
            if unexpected(target["expr"], found):
                empty.append(where)
            if not found:
                continue
            for name in sorted(set(re.findall(r"\$(\w+)", target["expr"])) & set(offered)):
                single = [filled(target["expr"], everything | {name: value}, watched) for value in offered[name]]
                if not fetch_any(watched, target, single):
                    empty.append(f"{where} with a single {name}")
    drawn = [panel for panel in panels(board) if results[panel["id"]]]
    draw_board(board, drawn, results, pictures / f"{file.stem}.png")
    print(f"{file.stem}: {counted} queries, {len(empty)} without data, pictures in {pictures}")
    assert not empty, "\n".join(empty)


RULES = [(group.name, rule) for group in build.groups() for rule in (*group.records, *group.alerts)]


@pytest.mark.timeout(300)
def test_every_rule_looks_at_data(watched: Watched) -> None:
    """Each selector of each expression had a value at some time; and each record was made."""
    empty = set()
    looked = set()
    for _, rule in RULES:
        for found in (*selectors(rule.expr), *selectors(getattr(rule, "record", ""))):
            looked.add(str(found))
    for selector in sorted(looked):
        values = watched.prometheus.over_time(selector, watched.start_s, watched.end_s, STEP_S)
        if unexpected(selector, values):
            empty.add(selector)
    print(f"{len(RULES)} rules look at {len(looked)} selectors")
    assert empty == set()


@pytest.mark.timeout(300)
def test_queries_of_runbooks_are_taken(watched: Watched) -> None:
    """Prometheus understands each; what they find is another matter on a healthy host."""
    for file in sorted((ROOT / "alerts" / "runbooks").glob("*.md")):
        for block in re.findall(r"```promql\n(.*?)```", file.read_text("utf-8"), re.DOTALL):
            watched.prometheus.query(filled(block, {"model": "simulated-8b"}, watched))


def test_no_rule_fails(watched: Watched) -> None:
    """Prometheus evaluated each without an error."""
    for group in watched.prometheus.get("/api/v1/rules")["groups"]:
        for rule in group["rules"]:
            assert rule["health"] == "ok", (rule["name"], rule.get("lastError"))
