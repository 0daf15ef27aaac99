"""Compare versions of Inferwatch at the same time: `python -m bench.beside [--plain] NAME=ROOT...`, of checkouts.

What a change saves is less than what one minute of a machine differs from the next. So all run at the same time, on the
same core, under the same load: what slows one down slows all. ROOT may also be pipe, nginx or vllm-router. Each takes
caches from the others: figures are higher than those of `bench.compare`, and only ratios count.
Name one version twice to see how far ratios can be trusted: some two hundredths.
"""

import argparse
import asyncio
import dataclasses
import resource
from contextlib import ExitStack

from bench import contenders, load
from bench.compare import bench_on
from bench.contenders import Contender
from bench.measure import FIRST_S, Plan, run
from bench.meters import CpuMeter, Reading
from bench.mock_engine import Pace

# Together they must leave the core room: four contenders at these take some two fifths of it.
STREAMS = 100
EVENTS_PER_S = 20.0
PLAIN_PER_S = 300.0

OTHERS = ("pipe", "nginx", "vllm-router")


def contender(spec: str) -> Contender:
    """The contender of `NAME=ROOT`."""
    name, _, root = spec.partition("=")
    if root in OTHERS:
        return contenders.find(root)
    path = {"PYTHONPATH": f"{root}/proxy:{root}/collectors"}
    return dataclasses.replace(contenders.find("ours"), key=name, title=name, env=path)


async def under_load(port: int, meter: CpuMeter, seconds: float, plain_per_s: float | None) -> load.Window[Reading]:
    target = load.Load(port)
    try:
        if plain_per_s is not None:
            return await load.plain_at_rate(target, plain_per_s, window_s=seconds, sample=meter.read)
        return await load.steady_streams(target, STREAMS, EVENTS_PER_S, ramp_s=1.0, window_s=seconds, sample=meter.read)
    finally:
        target.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.beside", description="Compare versions at the same time.")
    parser.add_argument("versions", nargs="+", metavar="NAME=ROOT")
    parser.add_argument("--plain", action="store_true", help="plain requests instead of streamed events")
    parser.add_argument("--per-s", type=float, default=PLAIN_PER_S, help="plain requests a second to each")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long is measured")
    options = parser.parse_args()
    plain_per_s = options.per_s if options.plain else None
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    plan = Plan(rounds=1, window_s=options.seconds, plain_s=options.seconds, latency_s=0.0, held_fraction=0.0)
    with bench_on(plan, pin=True) as bench, ExitStack() as started:
        running = []
        for each in map(contender, options.versions):
            port, pid = started.enter_context(bench.started(each))
            running.append((each, port, CpuMeter(each, pid, bench.core)))

        async def all_at_once() -> list[load.Window[Reading]]:
            await bench.set_pace(Pace() if options.plain else Pace(events_per_s=EVENTS_PER_S, first_s=FIRST_S))
            return await asyncio.gather(
                *(under_load(port, meter, options.seconds, plain_per_s) for _, port, meter in running)
            )

        first_us = 0.0
        for (each, _, meter), window in zip(running, run(all_at_once()), strict=True):
            by_role_us = meter.per_unit_us(window)
            total_us = sum(by_role_us.values())
            first_us = first_us or total_us
            roles = ", ".join(f"{role} {us:.1f}" for role, us in by_role_us.items())
            print(f"{each.title}: {total_us:.1f} µs, {total_us / first_us:.3f} times the first ({roles})")


if __name__ == "__main__":
    main()
