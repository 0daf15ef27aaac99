"""The figures of a run, and the two tables made of them. Pure: no clock, no files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.contenders import Burden
from bench.procs import Memory

Quantiles = tuple[float, float]  # p50 and p99, milliseconds


@dataclass(frozen=True, slots=True)
class Delay:
    """Delays in milliseconds, p50 and p99: to the first token, of each event, and by how much a gap was changed."""

    first: Quantiles
    event: Quantiles
    gap: Quantiles
    late_s: float  # by how much the load client was behind its own schedule


@dataclass(frozen=True, slots=True)
class Held:
    """Memory by role of a fresh contender, and with `streams` streams open."""

    streams: int
    rest: dict[str, Memory]
    loaded: dict[str, Memory]


@dataclass(frozen=True, slots=True)
class Turn:
    """One contender in one round. CPU in microseconds by role; `direct` is the same load without the contender."""

    event_us: dict[str, float]
    request_us: dict[str, float]
    answer_us: dict[str, float]  # of a whole streamed answer, in the latency phase
    one_by_one_ms: float
    others: float  # worst share of the contender's core that other processes took while CPU was measured
    latency_events_per_s: float
    latency_load: float  # as a part of the contender's saturation
    direct: Delay
    through: Delay
    held: Held | None  # measured in the first round only


@dataclass(frozen=True, slots=True)
class Cpu:
    """One contender in one round on cores that the kernel chose. CPU in microseconds by role."""

    event_us: dict[str, float]
    request_us: dict[str, float]


@dataclass(frozen=True, slots=True)
class Direct:
    """The engine with no proxy before it: milliseconds of a plain request."""

    one_by_one_ms: float


@dataclass(slots=True)
class Results:
    """All that was measured, by contender key in the order of measurement."""

    titles: dict[str, str]
    burdens: dict[str, Burden]
    direct: list[Direct] = field(default_factory=list)
    turns: dict[str, list[Turn]] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)
    unpinned: dict[str, list[Cpu]] = field(default_factory=dict)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """`median (min–max)`, or the value alone when there is one."""
    middle = f"{median(values):,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, padded so that it reads well in a terminal too."""
    grid = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in grid) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in grid
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def comparison(results: Results) -> str:
    """The table that the benchmark is run for: one row per contender."""
    bare_ms = median(d.one_by_one_ms for d in results.direct)
    rows = [["direct", "", "", "", spread([d.one_by_one_ms for d in results.direct], 2), "", "", "", ""]]
    reference = results.turns.get("nginx", [])
    for key, turns in results.turns.items():
        held = results.held[key]
        event_us = [sum(turn.event_us.values()) for turn in turns]
        rows.append(
            [
                results.titles[key],
                spread(event_us),
                _ratios(event_us, [sum(nginx.event_us.values()) for nginx in reference]),
                spread([sum(turn.request_us.values()) for turn in turns], 0),
                spread([turn.one_by_one_ms - bare_ms for turn in turns], 2),
                _added(turns, "first"),
                _added(turns, "event"),
                f"{_rss(held.rest) / 1e6:.0f}",
                f"{(_rss(held.loaded) - _rss(held.rest)) / held.streams / 1e3:.1f}",
            ]
        )
    head = [
        "",
        "CPU per streamed event, µs",
        "÷ nginx",
        "CPU per plain request, µs",
        "plain request, added p50, ms",
        "first token, added p50 / p99, ms",
        "event, added p50 / p99, ms",
        "RSS at rest, MB",
        "RSS per open stream, kB",
    ]
    return table(head, rows)


def by_process(results: Results) -> str:
    """The same figures for each process of a contender, and its memory in full."""
    rows = []
    for key, turns in results.turns.items():
        held = results.held[key]
        for role in held.loaded:
            rest = held.rest.get(role, Memory(0, 0))
            full = held.loaded[role]
            rows.append(
                [
                    results.titles[key],
                    role,
                    spread([turn.event_us.get(role, 0.0) for turn in turns]),
                    spread([turn.request_us.get(role, 0.0) for turn in turns]),
                    f"{rest.rss_bytes / 1e6:.1f} / {rest.pss_bytes / 1e6:.1f}",
                    f"{held.streams:,}",
                    f"{full.rss_bytes / 1e6:.1f} / {full.pss_bytes / 1e6:.1f}",
                    f"{(full.rss_bytes - rest.rss_bytes) / held.streams / 1e3:.1f}",
                ]
            )
    head = [
        "",
        "process",
        "CPU per event, µs",
        "CPU per request, µs",
        "RSS / PSS at rest, MB",
        "open streams",
        "RSS / PSS with them, MB",
        "RSS per stream, kB",
    ]
    return table(head, rows)


def unpinned(results: Results) -> str:
    """CPU when nothing is pinned, as people run it: a runtime of many threads then pays for waking them."""
    rows = []
    base = {name: results.unpinned.get(name, []) for name in ("nginx", "vllm-router")}
    for key, turns in results.unpinned.items():
        event_us = [sum(turn.event_us.values()) for turn in turns]
        request_us = [sum(turn.request_us.values()) for turn in turns]
        cells = [results.titles[key], spread(event_us)]
        cells += [_ratios(event_us, [sum(turn.event_us.values()) for turn in base[name]]) for name in base]
        cells.append(spread(request_us, 0))
        cells.append(_ratios(request_us, [sum(turn.request_us.values()) for turn in base["vllm-router"]]))
        rows.append(cells)
    head = ["", "CPU per streamed event, µs", "÷ nginx", "÷ vllm-router", "CPU per plain request, µs", "÷ vllm-router"]
    return table(head, rows)


def _ratios(mine: Sequence[float], theirs: Sequence[float]) -> str:
    """Round by round, so that what slows the machine down falls on both sides of the fraction."""
    return spread([a / b for a, b in zip(mine, theirs, strict=False)], 2) if theirs else ""


def answers(results: Results) -> str:
    """CPU of whole streamed answers, each contender at half of what it can carry: what a core is worth."""
    rows = []
    ours = results.turns.get("ours", [])
    for key, turns in results.turns.items():
        answer_us = [sum(turn.answer_us.values()) for turn in turns]
        load = f"{median(t.latency_events_per_s for t in turns):,.0f}"
        ratios = _ratios(answer_us, [sum(turn.answer_us.values()) for turn in ours])
        rows.append([results.titles[key], load, spread(answer_us, 0), ratios])
    return table(["", "events/s", "CPU per streamed answer, µs", "÷ Inferwatch"], rows)


def latencies(results: Results) -> str:
    """The delays themselves, through the contender and beside it at the same load, medians over the rounds."""
    rows = []
    for key, turns in results.turns.items():
        load = f"{median(t.latency_events_per_s for t in turns):,.0f} ({median(t.latency_load for t in turns):.0%})"
        for label, delays in (
            (results.titles[key], [turn.through for turn in turns]),
            ("direct, same load", [turn.direct for turn in turns]),
        ):
            rows.append(
                [
                    label,
                    load,
                    *(
                        f"{median(delay[0] for delay in kind):.2f} / {median(delay[1] for delay in kind):.2f}"
                        for kind in ([d.first for d in delays], [d.event for d in delays], [d.gap for d in delays])
                    ),
                ]
            )
    head = [
        "",
        "events/s (of saturation)",
        "first token p50 / p99, ms",
        "event p50 / p99, ms",
        "gap changed by p50 / p99, ms",
    ]
    return table(head, rows)


def _added(turns: Sequence[Turn], kind: str) -> str:
    through: list[Quantiles] = [getattr(turn.through, kind) for turn in turns]
    direct: list[Quantiles] = [getattr(turn.direct, kind) for turn in turns]
    return " / ".join(
        f"{median(mine[n] - bare[n] for mine, bare in zip(through, direct, strict=True)):.2f}" for n in (0, 1)
    )


def _rss(memory: dict[str, Memory]) -> int:
    return sum(each.rss_bytes for each in memory.values())


METHOD = """\
The engine is a mock (`bench/mock_engine.py`) that sends vLLM-shaped events, one HTTP chunk each, at a fixed pace; all
is on loopback. The contender's processes share one core; the engine and the load client have another (but in the last
table nothing is pinned, as where people run it). Rounds alternate the contenders; each turn starts a fresh process,
after waiting up to ten seconds for other work to pause. A figure is the median of the rounds, with the least and the
greatest. The bare pipe (`bench/pipe.py`) is uvloop and the kernel alone: bytes from one socket to another, unread.
A phase in which the client did not receive exactly the events and bytes that the engine sent fails the run (LiteLLM
writes events of its own: there it is no lost reply and no lost token). Inferwatch asks the engine for usage on every
event and takes it out again; nobody else's replies carry it. It runs with its defaults, all accounting on.

- **CPU per streamed event**: CPU clocks of all processes of the contender over a window in which all streams flow,
  divided by the events that arrived in it. {streams}
- **CPU per streamed answer**: the same for whole requests with answers of {events} events, in the phase in which
  delays are measured: new ones all the time, at half of the contender's saturation.
- **÷ nginx**: the same, divided by nginx's of the same round.
- **CPU per plain request**: the same with replies of 1 kB at a fixed rate on kept-alive connections. {plain}
- **Plain request, added**: median of requests sent one by one, less the median without a proxy.
- **First token, added**: quantiles of the time from the request to the first content, less what the engine held it,
  less the same quantile without a proxy at the same load. The load is half of the contender's saturation (one core
  divided by its measured CPU per stream of {events} events), but no more than {cap:,.0f} events/s, where the load
  client itself begins to queue.
- **Event, added**: each event carries the time at which the engine wrote it; the same difference of quantiles.
- **RSS per open stream**: growth of a fresh contender with the streams of the second table open, divided by their
  number.
"""


def tables(results: Results) -> str:
    """All of it, as Markdown that also reads well in a terminal."""
    parts = [comparison(results), disturbance(results)]
    parts += ["## By process", by_process(results), "## Whole answers", answers(results)]
    parts += ["## Delays", latencies(results)]
    if results.unpinned:
        parts += ["## On cores that the kernel chooses", unpinned(results)]
    return "\n\n".join(parts)


def disturbance(results: Results) -> str:
    """How much of the machine others used meanwhile: what to think of before trusting a wide spread."""
    turns = [turn for each in results.turns.values() for turn in each]
    shares = [turn.others for turn in turns]
    late_s = max(max(turn.direct.late_s, turn.through.late_s) for turn in turns)
    return (
        "Other processes and the kernel used this much of the contender's core in the CPU windows: "
        f"{median(shares):.0%} in the middle one, {max(shares):.0%} in the worst. "
        f"In the latency phases the load client was at most {late_s * 1e3:.0f} ms behind its schedule."
    )


def method(results: Results, *, events: int, cap: float) -> str:
    """How the figures came about, with the loads that were used."""
    streams, plain = [], []
    for key, burden in results.burdens.items():
        streams.append(f"{results.titles[key]}: {burden.streams} streams at {burden.events_per_s:.0f}/s")
        plain.append(f"{results.titles[key]}: {burden.plain_per_s:.0f}/s")
    return METHOD.format(streams="; ".join(streams) + ".", plain="; ".join(plain) + ".", events=events, cap=cap)
