"""What holds for every dashboard: it loads, says what it shows, and shows what exists. Real data is in tests/services."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from alerts.src import build as rules
from dashboards.src import build
from dashboards.src.panels import BOARDS
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from promql import bad_labels, selectors, unknown

from inferwatch_collectors.metrics import TABLE

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "dashboards").glob("*.json"))
RECORDED = {record.record for group in rules.groups() for record in group.records}

# Metrics that no panel and no rule uses yet, by the beginning of their names, each with the reason.
UNUSED: dict[str, str] = {}

# Grafana's names of units, as far as they are used here: a wrong one is shown as text behind each number.
UNITS = {
    *("none", "short", "s", "reqps", "percentunit", "currencyUSD", "bytes", "Bps", "watt", "joule", "celsius", "hertz"),
    *("massg", "bool_on_off"),
}

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def load(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return content


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield all panels, those of closed rows included, without the rows."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def queries(board: dict[str, Any]) -> Iterator[str]:
    for panel in panels(board):
        yield from (target["expr"] for target in panel["targets"])


@each_file
def test_board_loads_into_grafanas_own_model(file: Path) -> None:
    """Read by the classes made from Grafana's schema and written again, nothing is lost or added."""
    board = load(file)
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(board)))
    assert again == board


@each_file
def test_panels_say_what_they_show(file: Path) -> None:
    """A title, a description, a unit, the chosen data source, and a name for each line where there are several."""
    board = load(file)
    titles = [panel["title"] for panel in panels(board)]
    assert len(titles) == len(set(titles))
    for panel in panels(board):
        defaults = panel["fieldConfig"]["defaults"]
        assert len(panel["description"]) >= 10, panel["title"]
        assert defaults["unit"] in UNITS, panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "$datasource"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        if len(panel["targets"]) > 1:
            assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


@each_file
def test_panels_lie_beside_each_other(file: Path) -> None:
    """Within the 24 columns, and none upon another."""
    taken: set[tuple[int, int]] = set()
    for panel in panels(load(file)):
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


@each_file
def test_queries_use_what_exists(file: Path) -> None:
    """Metrics of the table with labels that they have, records of our own rules, and variables of the board."""
    board = load(file)
    known = {variable["name"] for variable in board["templating"]["list"]} | {"__rate_interval", "__range"}
    for expr in queries(board):
        assert not unknown(expr, RECORDED)
        assert not bad_labels(expr)
        assert set(re.findall(r"\$\{?(\w+)", expr)) <= known, expr


def test_every_metric_is_used_or_has_a_reason() -> None:
    """What is measured is shown, or told, to somebody."""
    used = {found.metric for file in FILES for expr in queries(load(file)) for found in selectors(expr)}
    for group in rules.groups():
        for rule in (*group.records, *group.alerts):
            used |= {found.metric for found in selectors(rule.expr)}
    unused = {metric.name for metric in TABLE if metric.name not in used}
    assert not {name for name in unused if not name.startswith(tuple(UNUSED))}
    assert all(any(name.startswith(prefix) for name in unused) for prefix in UNUSED)  # a reason that is past goes
    assert used >= RECORDED


def test_boards_are_up_to_date() -> None:
    """`make docs` would change nothing, and every file is made by it."""
    made = dict(build.pages())
    assert set(made) == {f"dashboards/{file.name}" for file in FILES}
    for name, text in made.items():
        assert (ROOT / name).read_text("utf-8") == text


def test_links_lead_somewhere() -> None:
    """Boards link to boards that exist, by variables that those have; alerts open one of them."""
    boards = {load(file)["uid"]: load(file) for file in FILES}
    assert set(boards) == set(BOARDS)
    for board in boards.values():
        for uid, query in re.findall(r"/d/([\w-]+)\?([^\"]*)", json.dumps(board)):
            variables = {variable["name"] for variable in boards[uid]["templating"]["list"]}
            assert set(re.findall(r"var-(\w+)=", query)) <= variables
    assert {alert.dashboard for alert in rules.alerts()} <= set(boards)


def test_provisioning_names_the_same_sources() -> None:
    """Points on latency graphs open traces of a data source that is there."""
    folder = ROOT / "dashboards" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "inferwatch.yml").read_text("utf-8"))["datasources"]
    by_uid = {source["uid"]: source for source in sources}
    prometheus = by_uid["inferwatch-prometheus"]
    assert prometheus["isDefault"]
    for destination in prometheus["jsonData"]["exemplarTraceIdDestinations"]:
        assert destination["name"] == "trace_id"  # as collectors/…/exposition.py names it
        assert destination["datasourceUid"] in by_uid
    providers = yaml.safe_load((folder / "dashboards" / "inferwatch.yml").read_text("utf-8"))["providers"]
    assert [provider["type"] for provider in providers] == ["file"]
