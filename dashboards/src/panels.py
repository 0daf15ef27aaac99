"""Panels as data, and how Grafana is told of them. A board is a list of rows, a row a list of panels of a few lines.

    series("Requests", total("inferwatch_requests_total", by="outcome"), "reqps", "How requests ended.")

A panel's queries are PromQL with three kinds of words of Grafana's: `$job` and the like (the variables at the top),
`$__rate_interval`, and `$__range`. Widths are of 24 columns; panels flow from left to right.
"""

import json
from typing import Any, Final, Literal

import msgspec
from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import stat as stat_builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models import prometheus as prometheus_models

# What each query of a kind of metric is narrowed to. Records over all hosts have a model alone.
HOST: Final = 'job=~"$job", instance=~"$instance"'
MODEL: Final = f'{HOST}, model=~"$model"'
TENANT: Final = f'{HOST}, tenant=~"$tenant"'
REQUEST: Final = f'{MODEL}, tenant=~"$tenant"'

Kind = Literal["series", "stack", "stat", "bars", "table", "heatmap"]

# Grafana's own red, yellow and green.
GOOD, FAIR, BAD = "green", "yellow", "red"

# In the order of the menu of every board.
BOARDS: Final = {
    "inferwatch-service": "Inferwatch / Service",
    "inferwatch-oncall": "Inferwatch / On-call triage",
    "inferwatch-tenants": "Inferwatch / Tenants and cost",
    "inferwatch-quality": "Inferwatch / Quality and drift",
    "inferwatch-engine": "Inferwatch / GPU and engine",
    "inferwatch-fleet": "Inferwatch / Fleet",
}


class Query(msgspec.Struct, frozen=True):
    """PromQL, and how its series are named (`{{label}}`)."""

    expr: str
    legend: str = ""


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """One panel.

    Args:
        unit: Grafana's name of it, as `s`, `reqps`, `percentunit`, `currencyUSD`.
        about: the description behind the (i): what it shows and what to make of it.
        steps: (from, colour) of what is to be coloured.
        links: (text, address) offered at each series; `${__field.labels.model}` is its label.
        exemplars: whether traces are shown as points.
        most: the largest value there can be.
    """

    kind: Kind
    title: str
    queries: tuple[Query, ...]
    unit: str
    about: str
    width: int = 8
    height: int = 8
    steps: tuple[tuple[float, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    exemplars: bool = False
    most: float | None = None


class Row(msgspec.Struct, frozen=True):
    """Panels under a heading; `closed` ones are opened by who needs them."""

    title: str
    panels: tuple[Panel, ...]
    closed: bool = False


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """A dashboard. `variables` are some of job, instance, model, tenant, in this order."""

    uid: str
    about: str
    rows: tuple[Row, ...]
    variables: tuple[str, ...] = ("job", "instance", "model", "tenant")
    last: str = "now-3h"


# --- panels of the usual kinds ---


def _queries(given: Query | str | tuple[Query | str, ...]) -> tuple[Query, ...]:
    found = given if isinstance(given, tuple) else (given,)
    return tuple(each if isinstance(each, Query) else Query(each) for each in found)


def series(title: str, given: Query | str | tuple[Query | str, ...], unit: str, about: str, **more: Any) -> Panel:
    """Lines over time."""
    return Panel(kind="series", title=title, queries=_queries(given), unit=unit, about=about, **more)


def stack(title: str, given: Query | str | tuple[Query | str, ...], unit: str, about: str, **more: Any) -> Panel:
    """Areas over time, one upon the other: parts of a whole."""
    return Panel(kind="stack", title=title, queries=_queries(given), unit=unit, about=about, **more)


def stat(title: str, given: Query | str | tuple[Query | str, ...], unit: str, about: str, **more: Any) -> Panel:
    """A number, coloured by `steps`."""
    more = {"width": 4, "height": 4, **more}
    return Panel(kind="stat", title=title, queries=_queries(given), unit=unit, about=about, **more)


def bars(title: str, given: Query | str | tuple[Query | str, ...], unit: str, about: str, **more: Any) -> Panel:
    """The present values as bars, to compare them."""
    return Panel(kind="bars", title=title, queries=_queries(given), unit=unit, about=about, **more)


def rows_of(title: str, given: Query | str | tuple[Query | str, ...], unit: str, about: str, **more: Any) -> Panel:
    """The present values as a table; each query is a column by its legend."""
    return Panel(kind="table", title=title, queries=_queries(given), unit=unit, about=about, **{"width": 24, **more})


def spread(title: str, metric: str, where: str, unit: str, about: str, **more: Any) -> Panel:
    """A histogram over time as a heatmap."""
    query = Query(f"sum by (le) (increase({metric}_bucket{{{where}}}[$__rate_interval]))", "{{le}}")
    return Panel(kind="heatmap", title=title, queries=(query,), unit=unit, about=about, **more)


def percentiles(title: str, metric: str, where: str, unit: str, about: str, **more: Any) -> Panel:
    """Median, 90th and 99th percentile of a histogram over time, with traces as points."""
    queries = tuple(Query(quantile(share, metric, where), name) for share, name in _PERCENTILES)
    exemplars = unit == "s"
    return Panel(
        kind="series", title=title, queries=queries, unit=unit, about=about, **{"exemplars": exemplars, **more}
    )


_PERCENTILES: Final = ((0.5, "median"), (0.9, "90 %"), (0.99, "99 %"))


# --- queries of the usual kinds ---


def quantile(share: float, metric: str, where: str, by: str = "") -> str:
    """Return a percentile of a histogram."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{{{where}}}[$__rate_interval])))"


def total(metric: str, where: str, by: str = "", *, what: str = "", legend: str = "") -> Query:
    """Return the rate of a counter, summed but for `by`, and named by that and `what` it is; or by `legend`."""
    rate = f"rate({metric}{{{where}}}[$__rate_interval])"
    return Query(f"sum by ({by}) ({rate})" if by else f"sum({rate})", legend or _named(by, what))


def counted(metric: str, where: str, by: str = "", *, what: str = "", legend: str = "") -> Query:
    """Return how much a counter grew in the time shown, likewise."""
    grown = f"increase({metric}{{{where}}}[$__range])"
    return Query(f"sum by ({by}) ({grown})" if by else f"sum({grown})", legend or _named(by, what))


def value(metric: str, where: str, by: str = "", *, how: str = "sum", what: str = "", legend: str = "") -> Query:
    """Return a gauge, taken together but for `by`, likewise."""
    found = f"{metric}{{{where}}}"
    return Query(f"{how} by ({by}) ({found})" if by else found, legend or _named(by, what))


def ratio(part: str, whole: str, by: str) -> Query:
    """Return the rate of one counter over that of another, for each `by`. Both as selectors."""
    parts = (f"sum by ({by}) (rate({each}[$__rate_interval]))" for each in (part, whole))
    return Query(" / ".join(parts), _named(by))


def _named(by: str, what: str = "") -> str:
    names = " · ".join(f"{{{{{label.strip()}}}}}" for label in by.split(",")) if by else ""
    return f"{names} {what}".strip()


# --- Grafana's own form ---

_LABEL_METRICS: Final = {
    "job": "label_values(inferwatch_build_info, job)",
    "instance": 'label_values(inferwatch_build_info{job=~"$job"}, instance)',
    "model": f"label_values(inferwatch_requests_total{{{HOST}}}, model)",
    "tenant": f"label_values(inferwatch_requests_total{{{HOST}}}, tenant)",
}
_COLUMNS: Final = 24


def to_json(board: Board) -> str:
    """Return a board as Grafana loads it (classic schema)."""
    made = (
        dashboard.Dashboard(BOARDS[board.uid])
        .uid(board.uid)
        .description(board.about)
        .tags(["inferwatch"])
        .time(board.last, "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .editable()
    )
    for link in _menu():
        made = made.link(link)
    for variable in _variables(board):
        made = made.with_variable(variable)
    made = made.annotation(_alerts_annotation())
    content: dict[str, Any] = json.loads(JSONEncoder(sort_keys=True).encode(made.build()))
    content["panels"] = list(_placed(board))
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _menu() -> list[dashboard.DashboardLink]:
    boards = dashboard.DashboardLink("Inferwatch").type(models.DashboardLinkType.DASHBOARDS).tags(["inferwatch"])
    return [boards.as_dropdown(True).keep_time(True).include_vars(True)]


def _variables(board: Board) -> list[Any]:
    source = dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    found: list[Any] = [source]
    for name in board.variables:
        query = dashboard.QueryVariable(name).label(name.capitalize()).query(_LABEL_METRICS[name])
        query = query.datasource(common_models.DataSourceRef(type_val="prometheus", uid="$datasource"))
        query = query.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
        everything = models.VariableOption(text="All", value="$__all", selected=True)
        found.append(query.include_all(True).all_value(".*").multi(True).current(everything))
    return found


def _alerts_annotation() -> dashboard.AnnotationQuery:
    """Pages, where they began, on every graph."""
    query = dashboard.AnnotationQuery().name("Pages").enable(True).icon_color("red")
    query = query.datasource(common_models.DataSourceRef(type_val="prometheus", uid="$datasource"))
    return query.expr('ALERTS{alertname=~"Inferwatch.*", alertstate="firing", severity="page"}')


def _placed(board: Board) -> list[dict[str, Any]]:
    """Return the panels with places and numbers; those of a closed row lie in it."""
    found: list[dict[str, Any]] = []
    number, y = 1, 0
    for row in board.rows:
        heading: dict[str, Any] = {
            "type": "row",
            "title": row.title,
            "collapsed": row.closed,
            "id": number,
            "gridPos": {"h": 1, "w": _COLUMNS, "x": 0, "y": y},
            "panels": [],
        }
        number, y = number + 1, y + 1
        x = height = 0
        inside: list[dict[str, Any]] = []
        for panel in row.panels:
            if x + panel.width > _COLUMNS:
                x, y, height = 0, y + height, 0
            made = _built(panel)
            made["id"] = number
            made["gridPos"] = {"h": panel.height, "w": panel.width, "x": x, "y": y}
            inside.append(made)
            number, x, height = number + 1, x + panel.width, max(height, panel.height)
        y += height
        if row.closed:
            found.append(heading | {"panels": inside})
        else:
            found += [heading, *inside]
    return found


def _built(panel: Panel) -> dict[str, Any]:
    made = _BUILDERS[panel.kind](panel)
    made = made.title(panel.title).description(panel.about).unit(panel.unit)
    made = made.datasource(common_models.DataSourceRef(type_val="prometheus", uid="$datasource"))
    if panel.kind != "heatmap":
        if not panel.unit.startswith("dateTime"):
            made = made.min(0)
        if panel.most is not None:
            made = made.max(panel.most)
        steps = [models.Threshold(value=start, color=colour) for start, colour in panel.steps]
        if steps:
            made = made.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    if panel.links:
        links = [dashboard.DashboardLink(text).url(address).target_blank(False) for text, address in panel.links]
        made = made.data_links(links)
    for index, query in enumerate(panel.queries):
        made = made.with_target(_target(panel, query, index))
    content: dict[str, Any] = json.loads(JSONEncoder(sort_keys=True).encode(made.build()))
    return content


def _target(panel: Panel, query: Query, index: int) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(query.expr).legend_format(query.legend or "__auto").ref_id(chr(ord("A") + index))
    if panel.kind in ("stat", "bars"):
        return made.instant()
    if panel.kind == "table":
        return made.instant().format(prometheus_models.PromQueryFormat.TABLE)
    if panel.kind == "heatmap":
        return made.range().format(prometheus_models.PromQueryFormat.HEATMAP)
    return made.range().exemplar(panel.exemplars)


def _lines(panel: Panel) -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(True).display_mode(common_models.LegendDisplayMode.LIST)
    tooltip = common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI)
    tooltip = tooltip.sort(common_models.SortOrder.DESCENDING)
    made = timeseries.Panel().legend(legend.placement(common_models.LegendPlacement.BOTTOM)).tooltip(tooltip)
    made = made.line_width(1).fill_opacity(8).show_points(common_models.VisibilityMode.NEVER)
    if panel.steps:
        style = common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED)
        made = made.thresholds_style(style)
    return made


def _areas(panel: Panel) -> timeseries.Panel:
    stacking = common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A")
    return _lines(panel).fill_opacity(40).stacking(stacking)


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


def _stat(panel: Panel) -> stat_builder.Panel:
    colour = common_models.BigValueColorMode.BACKGROUND if panel.steps else common_models.BigValueColorMode.NONE
    made = stat_builder.Panel().reduce_options(_last()).color_mode(colour)
    return made.graph_mode(common_models.BigValueGraphMode.NONE)


def _bars(_panel: Panel) -> bargauge.Panel:
    made = bargauge.Panel().reduce_options(_last()).orientation(common_models.VizOrientation.HORIZONTAL)
    return made.display_mode(common_models.BarGaugeDisplayMode.GRADIENT)


def _table(panel: Panel) -> table.Panel:
    """One row for each set of labels; times and what Prometheus adds are left out."""
    made = table.Panel().cell_height(common_models.TableCellHeight.SM)
    if len(panel.queries) > 1:
        made = made.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    names = {f"Value #{chr(ord('A') + index)}": query.legend for index, query in enumerate(panel.queries)}
    names |= {"Value": panel.queries[0].legend or "value"} if len(panel.queries) == 1 else {}
    options = {"excludeByName": {"Time": True, "__name__": True}, "renameByName": names}
    return made.with_transformation(models.DataTransformerConfig(id_val="organize", options=options))


def _heatmap(panel: Panel) -> heatmap.Panel:
    colour = heatmap.HeatmapColorOptions().scheme("Oranges").mode(heatmap_models.HeatmapColorMode.SCHEME).steps(64)
    axis = heatmap.YAxisConfig().unit(panel.unit)
    return heatmap.Panel().color(colour).y_axis(axis).cell_gap(1)


_BUILDERS: Final[dict[Kind, Any]] = {
    "series": _lines,
    "stack": _areas,
    "stat": _stat,
    "bars": _bars,
    "table": _table,
    "heatmap": _heatmap,
}
