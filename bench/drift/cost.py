"""What a vote costs the collector, and what it keeps: a prompt and an answer of 2 kB, all features."""

import random
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
from bench.drift.corpora import texts
from bench.drift.lockstep import terms_of
from bench.drift.streams import FEATURES

from inferwatch.record import Outcome, RequestRecord
from inferwatch_collectors.dialects.base import ANSWER
from inferwatch_collectors.drift.features import embedding_features
from inferwatch_collectors.drift.following import Followed, Heard
from inferwatch_collectors.drift.hearing import Hearing
from inferwatch_collectors.drift.learning import EDGE_VOTES
from inferwatch_collectors.drift.meaning import SPREAD_VOTES, Meaning
from inferwatch_collectors.drift.trigrams import Codebook
from inferwatch_collectors.embeddings.asking import read
from inferwatch_collectors.embeddings.embedder import BATCH
from inferwatch_collectors.embeddings.sketch import BUCKETS, Sketch, Sketcher

BYTES: Final = 2_048
VOTES: Final = 8_000
MEASURED: Final = 1_000
TOKEN_CHARS: Final = 4


def cost(say: Callable[[str], None] = print) -> None:
    """Print CPU per vote while learning and while judging, and the bytes of the state."""
    rng = random.Random(1)
    whole = "\n\n".join(texts("English manual pages"))
    pieces = [whole[start : start + BYTES] for start in range(0, len(whole) - BYTES, BYTES)]
    book, followed = Codebook(b"a key of the benchmark"), Followed("m", "t", FEATURES, 0.0)
    votes = 0

    def one() -> None:
        nonlocal votes
        votes += 1

        def over(record: RequestRecord, heard: Heard) -> None:
            followed.vote(record, heard, 8, votes / 50_000, votes * 168 // 50_000 % 168)

        prompt, answer = rng.choice(pieces), rng.choice(pieces)
        hearing = Hearing(prompt, book, over)
        for start in range(0, len(answer), TOKEN_CHARS):
            hearing.text(start, 0, ANSWER, answer[start : start + TOKEN_CHARS])
        hearing.closed(_record(rng))

    for _ in range(VOTES - MEASURED):
        one()
    learning_us = _timed(one)
    learning = len(msgspec.msgpack.encode(followed.state()))
    followed.pin(terms_of(FEATURES), 0.2, 0.0)
    for _ in range(MEASURED):
        one()
    judging_us = _timed(one)
    judging = len(msgspec.msgpack.encode(followed.state()))
    say("\nA vote with a prompt and an answer of 2 kB, all features, the answer in pieces of four characters:\n")
    say(f"- CPU: {learning_us:.0f} µs while learning, {judging_us:.0f} µs while judging")
    say(f"- state as written down: {learning:,} bytes while learning, {judging:,} bytes while judging")
    say(f"- in memory while judging: {_size(followed, set()):,} bytes")


def embedded(say: Callable[[str], None] = print) -> None:
    """Print CPU per embedded prompt, without the call of the endpoint, by the size of its vectors."""
    rng = random.Random(1)
    sketcher = Sketcher(b"a key of the benchmark")
    say("\nAn embedded prompt, beside its vote:\n")
    for size in (384, 1_024, 4_096):
        vectors = [[rng.gauss(0, 1) for _ in range(size)] for _ in range(BATCH)]
        reply = msgspec.json.encode({"data": [{"embedding": vector} for vector in vectors]})
        reading_us = _timed(lambda reply=reply: read(reply, BATCH, "m")) / BATCH  # type: ignore[misc]
        sketch_us = _timed(lambda vector=vectors[0]: sketcher.numbers(vector))  # type: ignore[misc]
        say(f"- {size} dimensions: {reading_us:.0f} µs to read a reply of {BATCH}, {sketch_us:.0f} µs to project")
    meaning = Meaning(embedding_features(8), 0.0)

    def one() -> None:
        meaning.vote(Sketch("m", tuple(rng.gauss(0, 0.12) for _ in range(BUCKETS))), 0.0, 0, 0.0)

    for _ in range(SPREAD_VOTES + EDGE_VOTES):
        one()
    learning_us = _timed(one)
    meaning.take_up(MEASURED // 2, terms_of(meaning.of), 0.0, 0.0)
    one()
    judging_us = _timed(one)
    say(f"- to vote: {learning_us:.0f} µs while learning, {judging_us:.0f} µs while judging (with 64 random numbers)")
    say(f"- in memory while judging: {_size(meaning, set()):,} bytes")


def _timed(one: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(MEASURED):
        _ = one()
    return (time.process_time() - began) / MEASURED * 1e6


def _record(rng: random.Random) -> RequestRecord:
    return RequestRecord(
        request_id="r",
        wall_ns=0,
        tenant="t",
        model="m",
        operation="chat",
        route="/v1/chat/completions",
        method="POST",
        stream=True,
        outcome=Outcome.OK,
        status=200,
        prompt_tokens=int(rng.lognormvariate(6, 1)),
        completion_tokens=int(rng.lognormvariate(5, 1)),
        finish_reasons=("stop",),
        duration_s=1.0,
        ttft_s=rng.lognormvariate(-2, 0.5),
        gap_count=100,
        gap_sum_s=rng.lognormvariate(0, 0.3),
    )


def _size(thing: Any, seen: set[int]) -> int:
    """Return the bytes of an object and of all that only it refers to; features and rows are shared by all."""
    if id(thing) in seen or isinstance(thing, (type, str)) or type(thing).__name__ in {"Feature", "Row"}:
        return 0
    seen.add(id(thing))
    size = sys.getsizeof(thing)
    if isinstance(thing, dict):
        return size + sum(_size(each, seen) for pair in thing.items() for each in pair)
    if isinstance(thing, (tuple, list)):
        return size + sum(_size(each, seen) for each in thing)
    names = [name for owner in type(thing).__mro__ for name in getattr(owner, "__slots__", ())]
    names += list(getattr(thing, "__dict__", ()))
    return size + sum(_size(getattr(thing, name, None), seen) for name in names if name not in {"rows", "of"})
