"""Write dashboards/*.json from their sources, or check that they are up to date.

python -m dashboards.src.build [--check]
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from alerts.src.build import write_or_check
from dashboards.src import engine, fleet, oncall, quality, service, tenants
from dashboards.src.panels import Board, to_json

BOARDS: Final[tuple[Board, ...]] = (
    service.BOARD,
    oncall.BOARD,
    tenants.BOARD,
    quality.BOARD,
    engine.BOARD,
    fleet.BOARD,
)


def pages() -> Iterator[tuple[str, str]]:
    """Yield (path from the root, text) of each dashboard."""
    for board in BOARDS:
        yield f"dashboards/{board.uid.removeprefix('inferwatch-')}.json", to_json(board)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail if something is out of date")
    options = parser.parse_args(arguments)
    return 0 if write_or_check(pages(), check=options.check) else 1


if __name__ == "__main__":
    sys.exit(main())
