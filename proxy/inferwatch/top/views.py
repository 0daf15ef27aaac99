"""The tables of `top`: which rows of a frame a view shows, in which columns, and how they sort. Data, and pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from inferwatch.top import words

Row = Mapping[str, Any]
Frame = Mapping[str, Any]


class Column(NamedTuple):
    """One column.

    Args:
        title: its heading.
        text: what it shows of a row.
        key: what it sorts by; a row where that is None comes last, whichever way it sorts.
        letter: the key on the keyboard that sorts by it, or "".
        left: it is text: aligned to the left, and sorted from A to Z first.
        rank: on a narrow terminal the highest goes first.
    """

    title: str
    text: Callable[[Row], str]
    key: Callable[[Row], Any]
    letter: str = ""
    left: bool = False
    rank: int = 1


class View(NamedTuple):
    """One table. `sort` is the title of the column it sorts by until told otherwise; "": as the rows come."""

    name: str
    title: str
    rows: Callable[[Frame], Sequence[Row]]
    in_all: Callable[[Frame], int]
    empty: str
    sort: str
    columns: tuple[Column, ...]


def _named(name: str, letter: str, rank: int = 0) -> Column:
    return Column(name, lambda row: row.get(name) or words.UNKNOWN, lambda row: row.get(name), letter, True, rank)


def _figure(
    title: str, name: str, show: Callable[[float | None], str], letter: str = "", rank: int = 1, *, left: bool = False
) -> Column:
    return Column(title, lambda row: show(row.get(name)), lambda row: row.get(name), letter, left, rank)


def _per_second(value: float | None) -> str:
    return words.number(value, 2)


def _used_by(label: str) -> tuple[Column, ...]:
    return (
        _named(label, "N"),
        _figure("req/s", "requests", words.number, "R", 1),
        _figure("failed/s", "failed", _per_second, "F", 4),
        _figure("tok/s", "tokens", lambda value: words.number(value, 0), "T", 0),
        _figure("ttft p99", "ttft_p99", words.seconds, "L", 2),
        _figure("requests", "requests_total", words.whole, "Q", 6),
        _figure("tokens", "tokens_total", words.whole, "K", 5),
        _figure("hardware", "gpu_dollars_total", words.dollars, "C", 3),
        _figure("by prices", "price_dollars_total", words.dollars, "P", 7),
    )


def _share(row: Row) -> float | None:
    return row["spent"] / row["limit"] if row.get("spent") is not None and row.get("limit") else None


def _memory(row: Row) -> str:
    return f"{words.gibibytes(row.get('memory_used'))}/{words.gibibytes(row.get('memory_total'))} GiB"


def _power(row: Row) -> str:
    return f"{words.number(row.get('watts'), 0)}/{words.number(row.get('watts_limit'), 0)} W"


def _rows(name: str) -> Callable[[Frame], Sequence[Row]]:
    return lambda frame: frame.get(name) or ()


def _count(name: str, counted: str = "") -> Callable[[Frame], int]:
    """Return how many there are: what the frame says under `counted`, which a table that was cut has beside it."""
    return lambda frame: frame.get(counted) or len(frame.get(name) or ())


VIEWS: Final = (
    View(
        "tenants",
        "Tenants",
        _rows("tenants"),
        _count("tenants", "tenant_count"),
        "nobody yet",
        "tok/s",
        _used_by("tenant"),
    ),
    View("models", "Models", _rows("models"), _count("models", "model_count"), "none yet", "tok/s", _used_by("model")),
    View(
        "streams",
        "Streams",
        _rows("streams"),
        lambda frame: frame.get("running") or 0,
        "nothing is under way",
        "age",
        (
            _named("tenant", "N"),
            _named("model", "M", 4),
            _figure("age", "age_s", words.seconds, "A", 0),
            _figure("ttft", "ttft_s", words.seconds, "L", 2),
            _figure("prompt", "prompt", words.whole, "P", 3),
            _figure("tokens", "tokens", words.whole, "K", 1),
            _figure("tok/s", "rate", words.number, "T", 1),
        ),
    ),
    View(
        "gpus",
        "GPUs",
        _rows("gpus"),
        _count("gpus", "gpu_count"),
        "none are seen",
        "",
        (
            Column(
                "gpu", lambda r: f"{r['gpu']}{'' if r.get('up') else ' down'}", lambda r: int(r["gpu"]), "N", True, 0
            ),
            _named("model", "", 5),
            _figure("busy", "utilization", words.percent, "B", 0),
            Column("memory", _memory, lambda row: row.get("memory_used"), "M", rank=2),
            Column("power", _power, lambda row: row.get("watts"), "P", rank=1),
            _figure("deg C", "celsius", lambda value: words.number(value, 0), "T", 3),
        ),
    ),
    View(
        "budgets",
        "Budgets",
        _rows("budgets"),
        _count("budgets", "budget_count"),
        "none are configured",
        "of it",
        (
            _named("budget", "N"),
            _named("account", "A", 1),
            Column("spent", lambda r: words.amount(r.get("spent"), r["unit"]), lambda r: r.get("spent"), "S", rank=2),
            Column("limit", lambda r: words.amount(r.get("limit"), r["unit"]), lambda r: r.get("limit"), "L", rank=3),
            Column("of it", lambda row: words.percent(_share(row)), _share, "P", rank=0),
            Column("at the end", lambda r: words.percent(r["forecast"][1]), lambda r: r["forecast"][1], "E", rank=4),
            _figure("gone in", "gone_in_s", words.seconds, "G", 2),
        ),
    ),
    View(
        "errors",
        "Errors",
        _rows("unhappy"),
        _count("unhappy"),
        "no request has ended badly since the start",
        "",
        (
            Column("at", lambda row: words.clock(row["unix_s"]), lambda row: row["unix_s"], "A", True, 0),
            _named("tenant", "N", 1),
            _named("model", "M", 5),
            _named("outcome", "O", 0),
            Column("why", lambda row: row.get("error") or words.UNKNOWN, lambda row: row.get("error"), "W", True, 2),
            Column("status", lambda r: str(r.get("status") or words.UNKNOWN), lambda r: r.get("status"), "S", rank=3),
            _figure("after", "duration_s", words.seconds, "D", 4),
        ),
    ),
    View(
        "signals",
        "Signals",
        _rows("signals"),
        _count("signals", "signal_count"),
        "no unusual spending",
        "signals",
        (
            _named("tenant", "N"),
            _named("kind", "K", 0),
            _figure("signals", "count", words.whole, "S", 1),
        ),
    ),
)

BY_NAME: Final = {view.name: view for view in VIEWS}


def ordered(rows: Sequence[Row], column: Column | None, *, backwards: bool) -> list[Row]:
    """Return the rows by `column`: numbers from the largest, text from A; `backwards` the other way round."""
    if column is None:
        return list(reversed(rows)) if backwards else list(rows)
    known = [row for row in rows if column.key(row) is not None]
    unknown = [row for row in rows if column.key(row) is None]
    return sorted(known, key=column.key, reverse=column.left == backwards) + unknown


def matching(view: View, rows: Sequence[Row], words_wanted: str) -> list[Row]:
    """Return the rows in which some column of text contains `words_wanted`; capital letters make no difference."""
    if not words_wanted:
        return list(rows)
    wanted = words_wanted.casefold()
    texts = [column.text for column in view.columns if column.left]
    return [row for row in rows if any(wanted in text(row).casefold() for text in texts)]
