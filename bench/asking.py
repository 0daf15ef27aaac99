"""Made-up requests for `bench.anomalies`: ordinary tenants with their outages and batches, and what goes wrong."""

import heapq
import random
from collections.abc import Callable, Iterator
from typing import Final

from bench.spending import MONDAY

from inferwatch.record import Outcome, RequestRecord
from inferwatch_collectors.wall_time import HOUR_S

BEGIN_S: Final = float(MONDAY * HOUR_S)
DAY_S: Final = 86_400.0
NS_PER_S: Final = 1_000_000_000

# In the order of their ends.
Requests = Iterator[RequestRecord]
# (its luck, until how many seconds after BEGIN_S) -> what it asks
Asker = Callable[[random.Random, float], Requests]

# Once a week the engine is away for ten minutes.
OUTAGE_EVERY_S: Final = 7 * DAY_S
OUTAGE_S: Final = 600.0
TRIES: Final = 3

BYTES_PER_TOKEN: Final = 4


def away(at_s: float) -> bool:
    """Tell whether the engine is away."""
    return (at_s + 3 * DAY_S) % OUTAGE_EVERY_S < OUTAGE_S


def record(at_s: float, tokens: int, outcome: Outcome, session: str = "", answer_s: float = 3.0) -> RequestRecord:
    """Return one request that arrives `at_s` after BEGIN_S."""
    return RequestRecord(
        request_id=f"r{at_s:.3f}",
        wall_ns=int((BEGIN_S + at_s) * NS_PER_S),
        tenant="one",
        model="m",
        operation="chat",
        route="/v1/chat/completions",
        method="POST",
        stream=True,
        outcome=outcome,
        status=200 if outcome is Outcome.OK else 503,
        prompt_tokens=tokens if outcome is Outcome.OK else None,
        completion_tokens=200 if outcome is Outcome.OK else None,
        duration_s=answer_s if outcome is Outcome.OK else 0.1,
        request_bytes=tokens * BYTES_PER_TOKEN + 400,
        session=session,
    )


def tries(at_s: float, tokens: int, session: str = "") -> Requests:
    """Yield a request, and while the engine is away two more tries, as the usual libraries make them."""
    for number in range(TRIES):
        outcome = Outcome.UPSTREAM_ERROR if away(at_s) else Outcome.OK
        yield record(at_s, tokens, outcome, session)
        if outcome is Outcome.OK:
            return
        at_s += 0.5 * 2**number


def chat(rng: random.Random, until_s: float, *, every_s: float = 60.0) -> Requests:
    """People: conversations of some turns, each prompt a little longer, with time to read between them."""

    def conversation(begin_s: float, name: str) -> Requests:
        at_s, tokens = begin_s, int(rng.lognormvariate(6, 0.8)) + 1
        while True:
            yield from tries(at_s, tokens, name)
            if rng.random() < 0.25:
                return
            at_s += 3 + 5 + rng.expovariate(1 / 40)
            tokens += 200 + int(rng.lognormvariate(4, 1))

    return merged(rng, until_s, every_s * 4, conversation)


def agents(rng: random.Random, until_s: float) -> Requests:
    """Programs: tasks of some fifteen tool calls, one as soon as the other has ended; and sometimes of sixty."""

    def task(begin_s: float, name: str) -> Requests:
        at_s, tokens = begin_s, 2000 + int(rng.lognormvariate(6, 0.8))
        mean = 60 if rng.random() < 0.05 else 15
        while True:
            yield from tries(at_s, tokens, name)
            if rng.random() < 1 / mean:
                return
            at_s += 3 + rng.uniform(0.5, 8)
            tokens += 100 + int(rng.lognormvariate(5.5, 1))

    return merged(rng, until_s, 900.0, task)


def batches(rng: random.Random, until_s: float) -> Requests:
    """Questions all day, and once or twice a day a batch of forty documents, twenty times as long."""

    def either(begin_s: float, _: str) -> Requests:
        if rng.random() < 1 / 300:
            for number in range(1 + int(rng.expovariate(1 / 40))):
                yield from tries(begin_s + 2 * number, int(rng.lognormvariate(9.3, 0.3)))
        else:
            yield from tries(begin_s, int(rng.lognormvariate(6, 0.6)) + 1)

    return merged(rng, until_s, 120.0, either)


def merged(rng: random.Random, until_s: float, every_s: float, make: Callable[[float, str], Requests]) -> Requests:
    """Yield the requests of sequences that begin every `every_s` on average, in the order of their ends."""
    heap: list[tuple[int, int, RequestRecord, Requests]] = []
    at_s, number = 0.0, 0
    while True:
        at_s += rng.expovariate(1 / every_s)
        while heap and (heap[0][0] <= at_s * NS_PER_S or at_s > until_s):
            _, place, each, rest = heapq.heappop(heap)
            yield each
            _push(heap, place, rest)
        if at_s > until_s:
            return
        number += 1
        _push(heap, number, make(at_s, f"s{number}"))


def _push(heap: list[tuple[int, int, RequestRecord, Requests]], place: int, rest: Requests) -> None:
    following = next(rest, None)
    if following is not None:
        end_ns = following.wall_ns + int(following.duration_s * NS_PER_S) - int(BEGIN_S * NS_PER_S)
        heapq.heappush(heap, (end_ns, place, following, rest))


def huge_prompts(begin_s: float) -> Requests:
    """A client sends a prompt of 60,000 tokens every five seconds."""
    return (record(begin_s + 5 * number, 60_000, Outcome.OK) for number in range(400))


def retry_storm(begin_s: float) -> Requests:
    """A client sends a request that is refused again and again, five times a second."""
    return (record(begin_s + 0.2 * number, 700, Outcome.REJECTED) for number in range(2000))


def agent_loop(begin_s: float) -> Requests:
    """An agent that does not find the end: a step every five seconds, each with a longer history."""
    steps = (begin_s + 5 * number for number in range(1000))
    return (record(at_s, 3000 + 300 * number, Outcome.OK, "loop") for number, at_s in enumerate(steps))


ORDINARY: Final[dict[str, Asker]] = {"chat": chat, "agents": agents, "batches": batches}
WRONG: Final = {"huge_prompts": huge_prompts, "retry_storm": retry_storm, "agent_loop": agent_loop}
