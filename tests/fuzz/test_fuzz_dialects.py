"""Mutated replies of every wire format through its reader: no exception, and no more memory than its bounds.

INFERWATCH_FUZZ_BYTES sets how many mutated bytes each dialect gets (`make test`: 60,000; 1,000,000 before a release),
INFERWATCH_FUZZ_SEED the seed. A failure shows the specimen and the case number.
"""

import json
import os
import random
import re
import tracemalloc

import pytest
from mutations import mutate, pieces
from specimens import SPECIMENS, Specimen

from inferwatch_collectors.dialects.base import Observation
from inferwatch_collectors.dialects.body import body_reader
from inferwatch_collectors.dialects.select import Selection, choose

BYTES = int(os.environ.get("INFERWATCH_FUZZ_BYTES", "60000"))
SEED = int(os.environ.get("INFERWATCH_FUZZ_SEED", "20261127"))

# One answer's state: choices are bounded by `base.MAX_CHOICES`, events by `sse.MAX_EVENT_BYTES`; replies here are short.
MAX_STATE_BYTES = 4 * 1024 * 1024


# JSON scalars and empty containers, and what a reader may not expect in their place.
VALUE = re.compile(rb'"(?:[^"\\\\]|\\\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|\[\]|\{\}')
NASTY = (
    b"null", b"true", b"-1", b"0", b"1.0", b"1.5", b"1e400", b"2147483648", b"9" * 40, b"NaN", b"Infinity", b'""',
    b'"7"', b'"\\ud800"', b'"\xff\xfe"', b"[]", b"{}", b"[[1]]", b'{"error":{"code":400}}', b'[{"index":-1}]', b"[" * 2000,
    b'{"message":' * 300, b'"' + b"x" * 5000 + b'"', b"16385", b'"error"',
)  # fmt: skip


def _selection(specimen: Specimen) -> Selection:
    return choose("POST", specimen.path, specimen.content_type, bool(specimen.request.get("stream")))


def _by_dialect() -> dict[str, list[Specimen]]:
    found: dict[str, list[Specimen]] = {}
    for specimen in SPECIMENS:
        selection = _selection(specimen)
        if selection.dialect.reads:
            found.setdefault(f"{type(selection.dialect).__name__} {selection.route}", []).append(specimen)
    return found


DIALECTS = _by_dialect()


def _read(specimen: Specimen, dice: random.Random) -> int:
    """Read one mutated reply to its end; return its size."""
    selection = _selection(specimen)
    request = _mutated(dice, json.dumps(specimen.request).encode())
    seen = Observation(selection.dialect.facts(request, dice.choice((0, 1, 2))))
    selection.dialect.read_head(seen, {name: _garbled(dice, value) for name, value in specimen.headers.items()})
    body = body_reader(selection.dialect, seen, selection.framing, "")
    assert body is not None
    mutated = _mutated(dice, specimen.body)
    for stamp, piece in enumerate(pieces(dice, mutated)):
        if dice.random() < 0.02:
            seen.bytes_missing()
            body.gap()
        body.feed(stamp, piece)
    body.finish(len(mutated))
    selection.dialect.read_reply_tail(seen, mutated[-200:])
    selection.dialect.read_usage(mutated[-100:])
    totals = selection.dialect.totals(seen, dice.choice((0, 1, 2)))
    assert all(count is None or count >= 0 for count in totals[:4])
    selection.dialect.unfinished(seen)
    seen.finish_reasons()
    return len(mutated)


def _mutated(dice: random.Random, data: bytes) -> bytes:
    """Return `data` with some of its JSON values exchanged, and, half of the time, broken like any message."""
    values = list(VALUE.finditer(data))
    for found in sorted(dice.sample(values, min(len(values), dice.randrange(4))), key=lambda match: -match.start()):
        data = data[: found.start()] + dice.choice(NASTY) + data[found.end() :]
    return mutate(dice, [data]) if dice.random() < 0.5 and data else data


def _garbled(dice: random.Random, value: str) -> str:
    return _mutated(dice, value.encode()).decode("latin-1")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", list(DIALECTS))
def test_mutated_replies_are_read_without_a_fault(name: str) -> None:
    """Nothing raises on what an engine may send, counts are never negative, and state stays small."""
    dice = random.Random(f"{SEED} {name}")
    read, case = 0, 0
    tracemalloc.start()
    try:
        while read < BYTES:
            specimen = dice.choice(DIALECTS[name])
            case += 1
            try:
                read += 1 + _read(specimen, dice)
            except Exception as error:
                raise AssertionError(f"case {case} of {specimen.name!r}, seed {SEED}: {error!r}") from error
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MAX_STATE_BYTES
