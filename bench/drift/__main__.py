"""Run it all, or a part. `python -m bench.drift --streams 300 --out bench/RESULTS-drift.md`"""

import argparse
import platform
import time
from pathlib import Path

from bench.drift.cost import cost, embedded
from bench.drift.delays import delays
from bench.drift.live import live
from bench.drift.lockstep import check
from bench.drift.loops import false_cuts, false_loops, false_wordless, true_loops
from bench.drift.nulls import false_alarms
from bench.drift.prompts import prompts
from bench.drift.small import small
from bench.drift.streams import FEATURES, KINDS, of_kind

PARTS = ("nulls", "nulls-text", "small", "delays", "prompts", "loops", "cost")


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=300, help="null streams of each kind")
    parser.add_argument("--texts", type=int, default=60, help="of them with all features of texts")
    parser.add_argument("--changed", type=int, default=30, help="streams for each change")
    parser.add_argument("--runs", type=int, default=10, help="runs for each change of texts")
    parser.add_argument("--chunks", type=int, default=10_000, help="of real text")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--parts", default=",".join(PARTS), help="some of %(default)s")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    worst = check(of_kind("cycle", 0), FEATURES)
    assert worst < 1e-3, f"the numpy twin differs from the product by {worst}"
    say(f"# Drift\n\nPython {platform.python_version()}; the numpy twin agrees with the product within {worst:.0e}.\n")
    began = time.monotonic()
    for part in options.parts.split(","):
        say(f"## {part}\n")
        if part == "nulls":
            false_alarms(options.streams, text=False, kinds=options.kinds.split(","), say=say)
        elif part == "nulls-text":
            false_alarms(options.texts, text=True, kinds=options.kinds.split(","), say=say)
        elif part == "small":
            small(min(50, options.streams), say)
        elif part == "delays":
            delays(options.changed, say=say)
        elif part == "prompts":
            prompts(options.runs, say)
        elif part == "loops":
            false_loops(options.chunks, say)
            false_wordless(say)
            false_cuts(options.chunks, say)
            true_loops(say)
        elif part == "cost":
            live(say)
            cost(say)
            embedded(say)
        say("")
    print(f"{time.monotonic() - began:.0f} s")
    if options.out is not None:
        options.out.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
