"""A report for people and programs: a table for the terminal, Markdown to be forwarded, CSV, JSON. Pure.

Names of models, features and tenants may come from clients. What could move a terminal's cursor, be taken for Markdown
or be computed by a spreadsheet is made harmless.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from inferwatch_collectors.report.figures import Line, Opinion, Report

NANO: Final = 1_000_000_000
UJ_PER_KWH: Final = 3_600_000_000_000

UNKNOWN: Final = "-"

_HEADINGS: Final = ("requests", "prompt", "cached", "completion", "reasoning", "price $", "hardware $", "kWh")

_OPINION_HEADINGS: Final = ("model", "votes", "up", "down", "score")

WASTE_WORDS: Final = {
    "undelivered": "the client hung up before any of the answer",
    "aborted": "the client hung up in mid-answer",
    "failed": "the engine or a connection failed",
    "rejected": "refused",
    "no_answer": "the length limit was reached while the model still reasoned",
    "truncated": "the length limit cut the answer",
    "retried": "answered at the second try",
}

Row = Sequence[str]


def dollars(nanodollars: int | None) -> str:
    """Return an amount for people: cents, or for less than a dollar four digits that say something."""
    if nanodollars is None:
        return UNKNOWN
    amount = nanodollars / NANO
    return f"{amount:,.2f}" if abs(amount) >= 1 or not nanodollars else f"{amount:.4g}"


def exact_dollars(nanodollars: int | None) -> str:
    """Return an amount with all nine decimals, "" if it is unknown."""
    if nanodollars is None:
        return ""
    sign = "-" if nanodollars < 0 else ""
    return f"{sign}{abs(nanodollars) // NANO}.{abs(nanodollars) % NANO:09d}"


def shown(name: str) -> str:
    """Return a name that is safe to print."""
    return "".join(char if char.isprintable() else "?" for char in name) or "(none)"


def inert(text: str) -> str:
    """Return `text` so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def as_json(report: Report) -> str:
    """Return the report's fields as they are."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"


def as_csv(report: Report) -> str:
    """Return one row per line of every table; the column `table` tells which."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    amounts = ("price_nanodollars", "gpu_nanodollars")
    fields = [name for name in Line.__struct_fields__ if name not in ("name", "tenant", *amounts)]
    writer.writerow(("table", "name", "tenant", "price_dollars", "gpu_dollars", *fields))
    for table, lines in (("total", (report.total,)), *report.tables.items(), ("waste", report.waste)):
        for line in lines:
            rest = ["" if (value := getattr(line, name)) is None else value for name in fields]
            money = (exact_dollars(getattr(line, name)) for name in amounts)
            writer.writerow((table, inert(line.name), inert(line.tenant), *money, *rest))
    if report.idle is not None:
        energy = report.idle.energy_uj
        row = {"energy_uj": "" if energy is None else energy}
        writer.writerow(
            ("idle", "", "", "", exact_dollars(report.idle.gpu_nanodollars), *(row.get(name, "") for name in fields))
        )
    return out.getvalue()


def as_table(report: Report) -> str:
    """Return plain text for a terminal."""
    lines = [_title(report), ""]
    lines += (f"  {text}" for text in _summary(report))
    for heading, rows in _tables(report, shown):
        lines += ("", heading, *_aligned(rows))
    lines += ("", *(f"Note: {note}." for note in report.notes))
    return "\n".join(lines).rstrip() + "\n"


def as_markdown(report: Report) -> str:
    """Return a page."""
    lines = [f"# {_title(report)}", "", *(f"- {text}" for text in _summary(report))]
    for heading, (head, *rows) in _tables(report, _code):
        lines += ("", f"## {heading}", "", _bar(head), _bar(["---", *("---:" for _ in head[1:])]), *map(_bar, rows))
    if report.notes:
        lines += ("", *(f"- Note: {note}." for note in report.notes))
    return "\n".join(lines) + "\n"


FORMATS: Final[dict[str, Callable[[Report], str]]] = {
    "table": as_table,
    "json": as_json,
    "csv": as_csv,
    "markdown": as_markdown,
}

CONTENT_TYPES: Final = {
    "table": "text/plain",
    "json": "application/json",
    "csv": "text/csv",
    "markdown": "text/markdown",
}


def _title(report: Report) -> str:
    whose = "" if report.tenant is None else f", tenant {shown(report.tenant)}"
    return f"Usage from {report.start} to {report.end}{whose}"


def _summary(report: Report) -> Iterator[str]:
    total = report.total
    yield (
        f"{total.requests:,} requests, {total.prompt_tokens:,} prompt tokens ({total.cached_tokens:,} cached), "
        f"{total.completion_tokens:,} completion tokens"
    )
    if total.price_nanodollars is not None:
        yield f"by the price book: $ {dollars(total.price_nanodollars)}"
    if report.idle is not None and (total.gpu_nanodollars is not None or report.idle.gpu_nanodollars is not None):
        hardware = (total.gpu_nanodollars or 0) + (report.idle.gpu_nanodollars or 0)
        parts = f"requests $ {dollars(total.gpu_nanodollars)}, idle $ {dollars(report.idle.gpu_nanodollars)}"
        yield f"hardware: $ {dollars(hardware)} ({parts})"
    elif total.gpu_nanodollars is not None:
        yield f"hardware: $ {dollars(total.gpu_nanodollars)}"
    if report.effective is not None:
        effective = report.effective
        idle = "" if effective.idle_ratio is None else f" ({effective.idle_ratio:.0%} of the cost was idle)"
        yield (
            f"effective cost at this utilisation: $ {dollars(effective.nanodollars_per_million_tokens)} per million "
            f"tokens{idle}, without idle time $ {dollars(effective.nanodollars_per_million_tokens_without_idle)}"
        )
    if report.cache.saved_nanodollars is not None:
        ratio = report.cache.cached_tokens / report.cache.prompt_tokens if report.cache.prompt_tokens else 0
        yield f"cache: {ratio:.0%} of prompt tokens, saved $ {dollars(report.cache.saved_nanodollars)}"
    for each in report.break_even:
        needed = "no traffic is enough"
        if each.break_even_tokens is not None:
            needed = f"own hardware is cheaper from {each.break_even_tokens:,} tokens in the same time"
        yield f"at {each.name} ({each.as_of}): $ {dollars(each.there_nanodollars)}; {needed}"


def _tables(report: Report, name: Callable[[str], str]) -> Iterator[tuple[str, list[Row]]]:
    for table, lines in report.tables.items():
        if lines:
            rows = [[_label(line, name), *_figures(line)] for line in lines]
            yield f"By {table}", [(table, *_HEADINGS), *rows]
    if report.waste:
        rows = [[f"{line.name}: {WASTE_WORDS[line.name]}", *_figures(line)] for line in report.waste]
        yield "Waste", [("reason", *_HEADINGS), *rows]
    if report.feedback:
        yield "Feedback", [_OPINION_HEADINGS, *(_opinion(each, name) for each in report.feedback)]


def _opinion(each: Opinion, name: Callable[[str], str]) -> Row:
    variant = f" ({name(each.variant)})" if each.variant and each.variant != each.model else ""
    score = UNKNOWN if each.score is None else f"{each.score:.2f}"
    return [f"{name(each.model)}{variant}", f"{each.votes:,}", f"{each.up:,}", f"{each.down:,}", score]


def _label(line: Line, name: Callable[[str], str]) -> str:
    return f"{name(line.name)} of {name(line.tenant)}" if line.tenant else name(line.name)


def _figures(line: Line) -> Row:
    counts = (line.requests, line.prompt_tokens, line.cached_tokens, line.completion_tokens, line.reasoning_tokens)
    energy = UNKNOWN if line.energy_uj is None else f"{line.energy_uj / UJ_PER_KWH:,.3f}"
    money = (dollars(line.price_nanodollars), dollars(line.gpu_nanodollars))
    return [*(f"{count:,}" for count in counts), *money, energy]


def _aligned(rows: Sequence[Row]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        first, *rest = (
            text.rjust(width) if column else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        yield f"  {'  '.join((first, *rest))}".rstrip()


def _code(name: str) -> str:
    return f"`{shown(name).replace('`', chr(39))}`"


def _bar(row: Row) -> str:
    return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |"
