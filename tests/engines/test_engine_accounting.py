"""What Inferwatch books against what vLLM counts, over mixed traffic that finishes and traffic that is hung up on."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from engine_cases import Job, long_job, workload
from engine_counters import Tokens, at_rest, booked_after, booked_tokens, compared_anew, comparing, given_back
from engine_process import Engine, Figures, Proxy
from engine_wire import HangUp, Reply, Request, exchange

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

FINISHED_REQUESTS = 520
ABORTED_STREAMS = 90
ABORTED_PLAIN = 40  # and as many streams beside them
CLIENTS = 16  # twice the engine's slots: some always queue
ABORTED_MAX_TOKENS = 600  # over a second alone: the hang-ups below fall in all stages of a request's life
LATEST_HANG_UP_S = 1.5
DIFFERENCE_LIMIT = 0.01  # of the tokens generated for requests that were hung up on


@asynccontextmanager
async def compared(engine: Engine, admin_url: str, requests: int) -> AsyncIterator[list[Tokens]]:
    """Gives a list that holds, afterwards, what the engine counted and what was booked in between."""
    engine_before, booked_before = await at_rest(engine.url), await booked_tokens(admin_url)
    moved: list[Tokens] = []
    yield moved
    moved.append(await at_rest(engine.url) - engine_before)
    moved.append(await booked_after(admin_url, booked_before.requests + requests) - booked_before)


async def in_parallel(calls: Iterable[Callable[[], Coroutine[Any, Any, Reply]]]) -> list[Reply]:
    """Run `calls` with `CLIENTS` at a time; replies in the order of the calls."""
    slots = asyncio.Semaphore(CLIENTS)

    async def one(call: Callable[[], Coroutine[Any, Any, Reply]]) -> Reply:
        async with slots:
            return await call()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(call)) for call in calls]
    return [task.result() for task in tasks]


async def repeated_prompt_tokens(engine: Engine, jobs: Iterable[Job]) -> int:
    """Tokens by which vLLM's prompt counter exceeds its usage: with n > 1 the counter counts a prompt n times."""
    surplus = 0
    for job in jobs:
        for text in job.prompts:
            key = {"messages": job.body["messages"]} if "messages" in job.body else {"prompt": text}
            reply = await exchange(engine.url, Request.post("/tokenize", {"model": job.body["model"], **key}))
            surplus += (job.n - 1) * int(reply.json()["count"])
    return surplus


async def test_finished_requests_are_booked_exactly(engine: Engine, proxy: Proxy, books: str, figures: Figures) -> None:
    """Over a mix of all kinds, booked prompt and completion tokens equal vLLM's counters: the difference is 0."""
    jobs = list(workload(seed=1, count=FINISHED_REQUESTS))
    async with compared(engine, books, len(jobs)) as moved:
        replies = await in_parallel(
            [lambda job=job: exchange(proxy.url, Request.post(job.path, job.body)) for job in jobs]  # type: ignore[misc]
        )
    counted, booked = moved
    repeated = await repeated_prompt_tokens(engine, jobs)
    figures += [
        ("finished requests (streamed)", f"{len(jobs)} ({sum(job.streamed for job in jobs)})"),
        ("  kinds", ", ".join(f"{kind} {count}" for kind, count in sorted(Counter(job.kind for job in jobs).items()))),
        ("  prompt tokens: vLLM - repeated for n>1 / booked", f"{counted.prompt - repeated} / {booked.prompt}"),
        ("  completion tokens: vLLM / booked", f"{counted.completion} / {booked.completion}"),
        ("  sources", str(dict(booked.sources or {}))),
    ]

    assert {reply.status for reply in replies} == {200}
    assert all(reply.complete for reply in replies)
    assert counted.completion - booked.completion == 0
    assert counted.prompt - repeated - booked.prompt == 0
    assert booked.outcomes == Counter(ok=len(jobs))
    assert booked.sources, "no source is recorded"
    assert not {"chunk_estimate", "none"} & set(booked.sources)


def hang_ups(seed: int, count: int, streamed: bool) -> list[tuple[Job, HangUp]]:
    """Long requests, each with a seeded moment at which its client leaves."""
    source = random.Random(seed)
    return [
        (long_job(source, streamed, ABORTED_MAX_TOKENS), HangUp(after_s=source.uniform(0, LATEST_HANG_UP_S)))
        for _ in range(count)
    ]


async def hung_up(
    engine: Engine, proxy: Proxy, books: str, plan: list[tuple[Job, HangUp]]
) -> tuple[Tokens, Tokens, list[Reply]]:
    """Carry out `plan` through the proxy; what the engine counted, what was booked, and what the clients got."""
    async with compared(engine, books, len(plan)) as moved:
        replies = await in_parallel(
            [
                lambda job=job, leave=leave: exchange(proxy.url, Request.post(job.path, job.body), leave)  # type: ignore[misc]
                for job, leave in plan
            ]
        )
    return moved[0], moved[1], replies


def report(what: str, counted: Tokens, booked: Tokens, replies: list[Reply], figures: Figures) -> None:
    begun = sum(bool(reply.chunks) for reply in replies)
    figures.append((f"{what} hung up on (after first bytes)", f"{len(replies)} ({begun})"))
    for kind in ("prompt", "completion"):
        ours, theirs = getattr(booked, kind), getattr(counted, kind)
        share = (ours - theirs) / theirs if theirs else 0.0
        figures.append((f"  {kind} tokens: vLLM / booked", f"{theirs} / {ours} ({share:+.2%})"))
    figures.append(("  outcomes; sources", f"{dict(booked.outcomes or {})}; {dict(booked.sources or {})}"))


def check_outcomes(booked: Tokens, replies: list[Reply]) -> None:
    """Each request is booked once: as finished if its client had it all, else as aborted.

    A client may leave while the end of its reply is on the way; that one is finished for the proxy, not for the client.
    """
    outcomes = booked.outcomes or Counter()
    finished = sum(reply.complete for reply in replies)
    assert booked.requests == len(replies)
    assert set(outcomes) <= {"ok", "client_abort"}
    assert outcomes["ok"] >= finished
    assert outcomes["client_abort"] > len(replies) / 2


async def test_streams_that_are_hung_up_on_are_booked_to_within_one_percent(
    engine: Engine, proxy: Proxy, books: str, figures: Figures
) -> None:
    """Streams left at random moments: completion tokens booked differ from those vLLM generated by less than 1 %."""
    counted, booked, replies = await hung_up(engine, proxy, books, hang_ups(2, ABORTED_STREAMS, streamed=True))
    report("streams", counted, booked, replies, figures)

    check_outcomes(booked, replies)
    assert abs(booked.completion - counted.completion) < DIFFERENCE_LIMIT * counted.completion


async def test_plain_requests_and_streams_that_are_hung_up_on(
    engine: Engine, proxy: Proxy, books: str, figures: Figures
) -> None:
    """A plain reply tells nothing before its end; what the engine counted is booked all the same, to within 1 %."""
    await comparing(books)
    await compared_anew(books)  # what the engine counted for earlier ones that were hung up on is theirs
    plan = hang_ups(3, ABORTED_PLAIN, streamed=False) + hang_ups(4, ABORTED_PLAIN, streamed=True)
    random.Random(5).shuffle(plan)
    before = await booked_tokens(books)
    counted, at_once, replies = await hung_up(engine, proxy, books, plan)
    await given_back(books, before)
    booked = await booked_tokens(books) - before
    report("plain requests and streams", counted, booked, replies, figures)
    figures.append(("  of them booked at once", f"{at_once.prompt} prompt, {at_once.completion} completion tokens"))

    check_outcomes(booked, replies)
    assert (booked.sources or Counter())["engine_counters"] > 0
    assert abs(booked.completion - counted.completion) < DIFFERENCE_LIMIT * counted.completion
    assert abs(booked.prompt - counted.prompt) < DIFFERENCE_LIMIT * counted.prompt


async def test_a_plain_request_that_is_hung_up_on_is_booked_exactly(
    engine: Engine, proxy: Proxy, books: str, figures: Figures
) -> None:
    """One alone gets just what the engine counted meanwhile."""
    await comparing(books)
    await compared_anew(books)
    before = await booked_tokens(books)
    counted, _, replies = await hung_up(engine, proxy, books, [(long_job(random.Random(6), False, 600), HangUp(0.5))])
    await given_back(books, before)
    booked = await booked_tokens(books) - before
    report("one plain request", counted, booked, replies, figures)

    assert counted.completion > 0
    assert (booked.prompt, booked.completion) == (counted.prompt, counted.completion)
