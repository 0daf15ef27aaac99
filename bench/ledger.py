"""What the ledger costs: time and disk per request, and how long a report over a million of them takes.

    .venv/bin/python bench/ledger.py [--requests 1000000] [--keep DIR]

Requests are made up but shaped as real ones: a month of them, with tenants, users and features of very different size,
every field that a streaming chat request has, and a share of the machine for each. One process, one thread, as in the
collector; the time of making the records up is not counted.
"""

import argparse
import datetime as dt
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from inferwatch.record import Outcome, RequestRecord, Share, TokenClass, TokenSource
from inferwatch_collectors.ledger.backlog import Backlog
from inferwatch_collectors.ledger.sqlite import FILE_NAME
from inferwatch_collectors.ledger.sqlite_store import SqliteStore

DAYS: Final = 30
NS_PER_S: Final = 1_000_000_000
BEGIN_NS: Final = 1_760_000_000 * NS_PER_S

TENANTS: Final = [f"tenant-{number}" for number in range(20)]
USERS: Final = [f"u_{random.Random(number).getrandbits(64):016x}" for number in range(2_000)]
FEATURES: Final = ["search", "summary", "chat", "agent", "extract", "translate", "review", "", "eval", "batch"]
MODELS: Final = ["llama-3.1-70b", "qwen3-8b", "gpt-oss-120b"]
OUTCOMES: Final = [Outcome.OK] * 94 + [Outcome.CLIENT_ABORT] * 4 + [Outcome.STREAM_ERROR, Outcome.REJECTED]

# What one commit holds, from a quiet service to the backlog after an outage.
BATCHES: Final = (1, 5, 50, 500)

# Committed for each of the batch sizes but the last, which has the rest.
PROBE_REQUESTS: Final = 5_000


def requests(count: int, seed: int = 1) -> Iterator[tuple[RequestRecord, Share]]:
    """Yield `count` requests of DAYS days, in the order of their arrival, with their shares."""
    rng = random.Random(seed)
    step_ns = DAYS * 86_400 * NS_PER_S // count
    for number in range(count):
        skew = rng.random() ** 3
        prompt, completion = int(rng.lognormvariate(6.5, 1.2)), int(rng.lognormvariate(5, 1))
        duration_s, ttft_s = 0.02 * completion, rng.uniform(0.05, 0.5)
        trace_id = f"{rng.getrandbits(128):032x}"
        user = USERS[int(skew * len(USERS))]
        record = RequestRecord(
            request_id=f"{'b0075eed00000000'[: 16 - 4]}{number >> 18:04x}{number:08x}",
            wall_ns=BEGIN_NS + number * step_ns + rng.randrange(step_ns),
            tenant=TENANTS[int(user[2:4], 16) % 3 + int(skew * 17)],
            model=MODELS[int(skew * len(MODELS))],
            operation="chat",
            route="/v1/chat/completions",
            method="POST",
            stream=True,
            outcome=rng.choice(OUTCOMES),
            status=200,
            prompt_tokens=prompt,
            cached_tokens=prompt // 3,
            completion_tokens=completion,
            token_source=TokenSource.FINAL_USAGE,
            choices=1,
            finish_reasons=("length" if number % 20 == 0 else "stop",),
            price_nanodollars=prompt * 500 + completion * 2_000,
            duration_s=duration_s + ttft_s,
            sent_s=0.0004,
            head_s=ttft_s - 0.01,
            ttft_s=ttft_s,
            ttft_answer_s=ttft_s,
            first_token=TokenClass.ANSWER,
            gap_count=max(0, completion - 1),
            gap_sum_s=duration_s,
            gap_max_s=rng.uniform(0.02, 0.3),
            events=completion + 3,
            request_bytes=prompt * 4,
            response_bytes=completion * 250,
            engine_id=f"chatcmpl-{rng.getrandbits(128):032x}",
            engine_model=MODELS[int(skew * len(MODELS))],
            trace_id=trace_id,
            span_id=trace_id[:16],
            user=user,
            feature=FEATURES[number % len(FEATURES)],
            session=f"s_{rng.getrandbits(64):016x}",
        )
        share = Share(
            request_id=record.request_id,
            wall_ns=record.wall_ns,
            tenant=record.tenant,
            model=record.model,
            gpu_nanodollars=rng.randrange(10**7),
            energy_uj=rng.randrange(10**9),
        )
        yield record, share


def fill(path: Path, count: int) -> Iterator[tuple[int, int, float]]:
    """Write `count` requests; yield (requests a commit, requests, seconds of committing them)."""
    store = SqliteStore(str(path), retention_ns=1 << 62, max_rows=1 << 40)
    made = requests(count)
    left = count
    for batch in BATCHES:
        take = left if batch == BATCHES[-1] else min(PROBE_REQUESTS, left)
        left -= take
        spent_s = 0.0
        done = 0
        while done < take:
            size = min(batch, take - done)
            pairs = [next(made) for _ in range(size)]
            rows = [("inferwatch_tokens_total", b"labels-%d" % number, b"%020d" % done) for number in range(20)]
            begin_s = time.perf_counter()
            store.commit([record for record, _ in pairs], rows, [share for _, share in pairs])
            spent_s += time.perf_counter() - begin_s
            done += size
        yield batch, take, spent_s
    store.close()


def waiting_bytes() -> float:
    """Return what a record takes that waits for the disk."""
    backlog = Backlog(RequestRecord, 1_000_000)
    for record, _ in requests(PROBE_REQUESTS):
        backlog.append(record)
    return backlog.packed_bytes / backlog.packed


def report_s(folder: Path, *flags: str) -> float:
    """Return the seconds that `inferwatch report` takes over all of it, as somebody at a terminal would see it."""
    first, last = (dt.datetime.fromtimestamp(BEGIN_NS / NS_PER_S + days * 86_400, dt.UTC) for days in (0, DAYS))
    span = ("--from", f"{first:%Y-%m-%d}", "--to", f"{last:%Y-%m-%d}")
    command = [sys.executable, "-m", "inferwatch", "report", "--state-dir", str(folder), *span, *flags]
    begin_s = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin_s


def main() -> int:
    """Run all of it and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the ledger in this folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = (options.keep or Path(folder)) / FILE_NAME
        for batch, count, spent_s in fill(path, options.requests):
            print(f"insert, {batch:>3} a commit: {spent_s / count * 1e6:7.1f} µs per request ({count:,} requests)")
        size = path.stat().st_size
        print(f"disk: {size / options.requests:.0f} bytes per request ({size / 1e6:,.0f} MB)")
        print(f"waiting for a full disk: {waiting_bytes():.0f} bytes per request in memory")
        for flags in ((), ("--by", "tenant,feature,model,day")):
            took_s = min(report_s(path.parent, *flags) for _ in range(3))
            print(f"inferwatch report {' '.join(flags):<30}: {took_s:.2f} s, start of Python included")
    return 0


if __name__ == "__main__":
    sys.exit(main())
