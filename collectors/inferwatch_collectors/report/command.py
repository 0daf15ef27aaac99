"""`inferwatch report`: the report, and exports, from the ledger's file. The collector may run meanwhile, or not."""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from inferwatch import host, progress
from inferwatch.config import Config
from inferwatch.flags import EXIT_OK, EXIT_RUNTIME, EXIT_USAGE
from inferwatch_collectors.cost import pricing
from inferwatch_collectors.ledger.sqlite import FILE_NAME
from inferwatch_collectors.ledger.usage import DAY, LEVELS
from inferwatch_collectors.report import export
from inferwatch_collectors.report.building import PriceBasis, build
from inferwatch_collectors.report.drift import FORMATS as DRIFT_FORMATS
from inferwatch_collectors.report.drift import DriftError, asked
from inferwatch_collectors.report.export import ExportError
from inferwatch_collectors.report.query import DIMENSIONS, PARAMETERS, Query, QueryError
from inferwatch_collectors.report.reading import ReadError, reading, usage
from inferwatch_collectors.report.rendering import FORMATS


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the report."""
    parser.add_argument("--from", metavar="TIME", help="day or minute, UTC, e.g. 2026-03-01 (default: 30 days ago)")
    parser.add_argument("--to", metavar="TIME", help="likewise; a day is included (default: today)")
    parser.add_argument("--by", metavar="LIST", help=f"tables: some of {','.join(DIMENSIONS)} (default: all)")
    parser.add_argument("--tenant", metavar="NAME", help="of this tenant alone")
    parser.add_argument("--top", metavar="N", help="lines per table, 0 for all (default 20)")
    formats = (*FORMATS, *(name for name in export.EXPORT_FORMATS if name not in FORMATS))
    parser.add_argument("--format", choices=formats, help="default: table, for an export csv")
    parser.add_argument("--drift", action="store_true", help="what is unlike before, as the running collector sees it")
    parser.add_argument("--export", choices=export.EXPORTS, help="rows in place of a report")
    parser.add_argument(
        "--level", choices=[level.name for level in LEVELS], help=f"of --export usage (default {DAY.name})"
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="write there instead of to the terminal")


def run(arguments: argparse.Namespace, loaded: Config) -> int:
    """Report or export. Returns the exit code; errors are one line."""
    parameters = {name: text for name in PARAMETERS if (text := getattr(arguments, name)) is not None}
    ledger = host.state_path(loaded) / FILE_NAME
    try:
        query = Query.of(parameters, time.time())
        if arguments.drift:
            return _drift(arguments, loaded)
        if arguments.export:
            return _export(arguments, ledger, query)
        text = _report(arguments.format or "table", arguments.level, ledger, query, loaded)
        if arguments.out is None:
            sys.stdout.write(text)
        else:
            arguments.out.write_text(text, encoding="utf-8")
    except QueryError as error:
        return _failed(f"report: {error}", EXIT_USAGE)
    except (ReadError, ExportError, DriftError) as error:
        return _failed(f"report: {error}", EXIT_RUNTIME)
    except OSError as error:
        where = error.filename or arguments.out
        if where is None:
            raise  # of stdout
        return _failed(f"report: {where}: {error.strerror}", EXIT_RUNTIME)
    return EXIT_OK


def _drift(arguments: argparse.Namespace, loaded: Config) -> int:
    name = arguments.format or "table"
    if arguments.export or name not in DRIFT_FORMATS:
        raise QueryError(f"drift: --format is one of {', '.join(DRIFT_FORMATS)}, and there is no export of it")
    # Evidence is of now, and of all that was seen; there are no tables to choose from.
    useless = [flag for flag in (*PARAMETERS, "level") if flag != "tenant" and getattr(arguments, flag) is not None]
    if useless:
        raise QueryError(f"drift: --{useless[0]} selects nothing of it; --tenant does")
    text = asked(loaded, name, arguments.tenant)
    if arguments.out is None:
        sys.stdout.write(text)
    else:
        arguments.out.write_text(text, encoding="utf-8")
    return EXIT_OK


def _report(name: str, level: str | None, ledger: Path, query: Query, loaded: Config) -> str:
    if name not in FORMATS:
        raise QueryError(f"format: {name} is for --export")
    if level is not None:
        raise QueryError("level: is of --export usage")
    with progress.shown("report: reading the ledger"), reading(ledger) as connection:
        found = usage(connection, query)
    lists = pricing.read(loaded.prices)
    return FORMATS[name](build(query, found, PriceBasis(lists.book or None, lists.compared)))


def _export(arguments: argparse.Namespace, ledger: Path, query: Query) -> int:
    name = arguments.format or "csv"
    if name not in export.EXPORT_FORMATS:
        raise QueryError(f"format: an export is one of {', '.join(export.EXPORT_FORMATS)}")
    _refuse_useless(arguments)
    with reading(ledger, snapshot=False) as connection:
        if arguments.export == "requests":
            source = export.requests(connection, query)
        else:
            source = export.usage(connection, export.level_named(arguments.level or DAY.name), query)
        rows = 0

        def pages() -> Iterator[list[export.Row]]:
            nonlocal rows
            for page in source.pages:
                rows += len(page)
                yield page

        counted = source._replace(pages=pages())
        with progress.shown("report: exporting", lambda: f"{rows:,} rows"):
            count = export.write(counted, name, arguments.out)
    if arguments.out is not None:
        sys.stderr.write(f"inferwatch: {count} rows written to {arguments.out}\n")
    return EXIT_OK


def _refuse_useless(arguments: argparse.Namespace) -> None:
    useless = ("by", "top") if arguments.export == "usage" else ("by", "top", "level")
    for flag in useless:
        if getattr(arguments, flag) is not None:
            raise QueryError(f"export: --{flag} selects nothing of its rows; --from, --to and --tenant do")


def _failed(message: str, code: int) -> int:
    sys.stderr.write(f"inferwatch: {message}\n")
    return code
