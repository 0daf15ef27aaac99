"""Draws a dashboard's panels from what Prometheus answered, about as Grafana does: to be looked at by people."""

import math
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

mpl.use("Agg")

Series = tuple[str, list[float], list[float]]  # name, seconds since the start, values

_PREFIXES: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_COLOURS: Final = {"green": "#73bf69", "yellow": "#fade2a", "red": "#f2495c"}
_BACKGROUND: Final = "#181b1f"
_FOREGROUND: Final = "#ccccdc"
_CELL: Final = 0.62  # inches a grid column
_ROW: Final = 0.38  # inches a grid row


def shown(value: float, unit: str) -> str:
    """Return a number as people read it."""
    if math.isnan(value):
        return "NaN"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "bool_on_off":
        return "On" if value else "Off"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if 0 < abs(value) < 1 else f"{value:.3g} s"
    if unit == "currencyUSD":
        return f"${value:.4g}"
    text = next((f"{value / size:.3g} {name}" for size, name in _PREFIXES if abs(value) >= size), f"{value:.3g}")
    suffix = {
        "reqps": " req/s",
        "bytes": "B",
        "Bps": "B/s",
        "watt": " W",
        "joule": " J",
        "celsius": " °C",
        "hertz": "Hz",
    }
    return text + suffix.get(unit, "")


def draw_board(
    board: dict[str, Any], panels: list[dict[str, Any]], results: dict[int, list[Series]], path: Path
) -> None:
    """Draw panels where they lie. `results` has the series of each by its number."""
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure(figsize=(24 * _CELL, height * _ROW), facecolor=_BACKGROUND)
    figure.suptitle(board["title"], color=_FOREGROUND, fontsize=12, y=1 - 0.1 / height)
    for panel in panels:
        place = panel["gridPos"]
        bottom = 1 - (place["y"] + place["h"]) / height
        box = (place["x"] / 24 + 0.035, bottom + 1.9 / height, place["w"] / 24 - 0.045, (place["h"] - 3.0) / height)
        axes = figure.add_axes(box, facecolor=_BACKGROUND)
        axes.set_title(panel["title"], color=_FOREGROUND, fontsize=8, loc="left", pad=3)
        _DRAWERS[panel["type"]](axes, panel, results[panel["id"]])
        axes.tick_params(colors=_FOREGROUND, labelsize=6)
        for side in axes.spines.values():
            side.set_color("#333840")
    figure.savefig(path, dpi=100)


def _unit(panel: dict[str, Any]) -> str:
    unit: str = panel["fieldConfig"]["defaults"]["unit"]
    return unit


def _steps(panel: dict[str, Any]) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
    return steps


def _colour(panel: dict[str, Any], value: float) -> str:
    reached = [step["color"] for step in _steps(panel) if step["value"] is None or value >= step["value"]]
    return _COLOURS.get(reached[-1], "#5794f2") if reached else "#5794f2"


def _lines(axes: Axes, panel: dict[str, Any], series: list[Series]) -> None:
    custom = panel["fieldConfig"]["defaults"].get("custom", {})
    if custom.get("stacking", {}).get("mode") == "normal":
        times = sorted({second for _, seconds, _ in series for second in seconds})
        known = [dict(zip(seconds, values, strict=True)) for _, seconds, values in series]
        heights = [[0 if math.isnan(found := each.get(second, 0.0)) else found for second in times] for each in known]
        axes.stackplot(times, heights, labels=[name for name, _, _ in series], alpha=0.7)
    else:
        for name, seconds, values in series:
            axes.plot(seconds, values, linewidth=1, label=name)
    top = max((value for _, _, values in series for value in values if math.isfinite(value)), default=0)
    for step in _steps(panel):
        if step["value"] and step["value"] <= top * 3:
            axes.axhline(step["value"], linestyle="--", linewidth=0.7, color=_COLOURS.get(step["color"], "red"))
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: shown(value, _unit(panel)))
    axes.grid(color="#25292f", linewidth=0.5)
    legend = axes.legend(fontsize=5, loc="upper left", ncols=2, framealpha=0.3, labelcolor=_FOREGROUND)
    legend.get_frame().set_facecolor(_BACKGROUND)


def _tiles(axes: Axes, panel: dict[str, Any], series: list[Series]) -> None:
    axes.set_axis_off()
    for index, (name, _, values) in enumerate(series):
        middle = (index + 0.5) / len(series)
        face = {"facecolor": _colour(panel, values[-1]), "alpha": 0.6, "pad": 6} if _steps(panel) else None
        text = shown(values[-1], _unit(panel))
        axes.text(middle, 0.55, text, ha="center", va="center", fontsize=13, color="white", bbox=face)
        if len(series) > 1:
            axes.text(middle, 0.05, name, ha="center", va="center", fontsize=7, color=_FOREGROUND)


def _bars(axes: Axes, panel: dict[str, Any], series: list[Series]) -> None:
    names = [name for name, _, _ in series]
    values = [values[-1] for _, _, values in series]
    axes.barh(names, values, color=[_colour(panel, value) for value in values])
    for position, value in enumerate(values):
        axes.text(0, position, f" {shown(value, _unit(panel))}", va="center", fontsize=7, color="white")


def _table(axes: Axes, panel: dict[str, Any], series: list[Series]) -> None:
    axes.set_axis_off()
    for index, (name, _, values) in enumerate(series[:18]):
        text = f"{name}   {shown(values[-1], _unit(panel))}"
        axes.text(0.01, 1 - (index + 0.5) / 18, text, fontsize=6, color=_FOREGROUND, va="center")


def _heatmap(axes: Axes, panel: dict[str, Any], series: list[Series]) -> None:
    ordered = sorted(series, key=lambda each: float(each[0]))
    times = sorted({second for _, seconds, _ in ordered for second in seconds})
    below = [0.0] * len(times)
    rows = []
    for _, seconds, values in ordered:
        known = dict(zip(seconds, values, strict=True))
        row = [known.get(second, 0.0) for second in times]
        rows.append([max(0.0, here - under) for here, under in zip(row, below, strict=True)])
        below = row
    axes.imshow(rows, aspect="auto", origin="lower", cmap="Oranges_r", interpolation="nearest")
    axes.set_yticks(range(0, len(ordered), 3), [ordered[index][0] for index in range(0, len(ordered), 3)])


_DRAWERS: Final = {
    "timeseries": _lines,
    "stat": _tiles,
    "bargauge": _bars,
    "table": _table,
    "heatmap": _heatmap,
}
