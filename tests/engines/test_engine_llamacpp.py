"""llama.cpp's own server: what it reports is what is booked, and what it reports differs from what it generates."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from engine_cases import MESSAGES, RESPONSES, words
from engine_counters import Tokens, booked_after, booked_tokens, scrape, until
from engine_process import LLAMACPP, Figures, running_inferwatch, running_llamacpp
from engine_wire import HangUp, Reply, Request, exchange

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

CHAT, COMPLETIONS, NATIVE = "/v1/chat/completions", "/v1/completions", "/completion"
SAID = {"messages": [{"role": "user", "content": "hi there"}], "max_tokens": 6}
STREAM: dict[str, Any] = {"stream": True}
USAGE = STREAM | {"stream_options": {"include_usage": True}}
TEXTS = ["the quick proxy", "counts every token once"]


class Case(NamedTuple):
    """A request, and where the counts that are booked stand in its reply."""

    name: str
    path: str
    body: dict[str, Any]
    source: str = "final_usage"


EXACT = (
    Case("native", NATIVE, {"prompt": "hi there", "n_predict": 6}),
    Case("native stream", NATIVE, {"prompt": "hi there", "n_predict": 6} | STREAM),
    Case("native stream with progress", NATIVE,
         {"prompt": words(300), "n_predict": 6, "return_progress": True, "timings_per_token": True} | STREAM),
    Case("native token ids", NATIVE, {"prompt": [450, 285, 10], "n_predict": 6}),
    Case("native list", NATIVE, {"prompt": TEXTS, "n_predict": 6}),
    Case("native list stream", NATIVE, {"prompt": TEXTS, "n_predict": 6} | STREAM),
    Case("native n=2", NATIVE, {"prompt": "hi there", "n_predict": 6, "n": 2}),
    Case("native n=2 stream", NATIVE, {"prompt": "hi there", "n_predict": 6, "n": 2} | STREAM),
    Case("native without a version", "/completions", {"prompt": "hi there", "n_predict": 6} | STREAM),
    Case("chat", CHAT, SAID),
    Case("chat stream", CHAT, SAID | STREAM, "timings"),
    Case("chat stream with usage", CHAT, SAID | USAGE),
    Case("chat stream with timings", CHAT, SAID | STREAM | {"timings_per_token": True}, "timings"),
    Case("chat n=2 stream", CHAT, SAID | STREAM | {"n": 2}, "timings"),
    Case("chat n=2 stream with usage", CHAT, SAID | USAGE | {"n": 2}),
    Case("completions", COMPLETIONS, {"prompt": "hi there", "max_tokens": 6}),
    Case("completions stream", COMPLETIONS, {"prompt": "hi there", "max_tokens": 6} | STREAM),
    Case("completions list stream", COMPLETIONS, {"prompt": TEXTS, "max_tokens": 6} | USAGE),
    Case("responses", RESPONSES, {"input": "hi there", "max_output_tokens": 6}),
    Case("responses stream", RESPONSES, {"input": "hi there", "max_output_tokens": 6} | STREAM),
    Case("messages", MESSAGES, SAID),
    Case("messages stream", MESSAGES, SAID | STREAM),
)  # fmt: skip
# Of several choices in a plain reply it reports the first alone.
PARTIAL = (
    Case("chat n=2", CHAT, SAID | {"n": 2}, "partial_usage"),
    Case("completions list", COMPLETIONS, {"prompt": TEXTS, "max_tokens": 6}, "partial_usage"),
)
REFUSED = (
    Case("no prompt", NATIVE, {}),
    Case("too long", NATIVE, {"prompt": words(9000)}),
    Case("too long for a stream", CHAT, {"messages": [{"role": "user", "content": words(9000)}]} | STREAM),
    Case("no messages", CHAT, {}),
)


class Place(NamedTuple):
    """The server, and Inferwatch before it."""

    engine: str
    proxy: str
    admin: str

    async def counted(self) -> Tokens:
        """Its counters once it rests; what came from the cache is part of the prompt."""
        await until(self.engine, lambda samples: not samples("llamacpp:requests_processing"), "llama.cpp idle")
        samples = await scrape(self.engine)
        prompt = samples("llamacpp:prompt_tokens_total") + samples("llamacpp:prompt_tokens_cached_total")
        return Tokens(int(prompt), int(samples("llamacpp:tokens_predicted_total")))

    async def moved(self, case: Case) -> tuple[Reply, Tokens, Tokens]:
        """Send the request; return the reply, what the engine counted, and what was booked."""
        counted, booked = await self.counted(), await booked_tokens(self.admin)
        reply = await exchange(self.proxy, Request.post(case.path, case.body))
        counted = await self.counted() - counted
        return reply, counted, await booked_after(self.admin, booked.requests + 1) - booked


@pytest.fixture(scope="module", name="place")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if not (LLAMACPP / ".provisioned").is_file():
        pytest.fail("no llama.cpp here: run make test-engines, which builds it")
    state = tmp_path_factory.mktemp("llamacpp")
    with running_llamacpp() as engine, running_inferwatch(engine, state) as (proxy, admin):
        yield Place(engine, proxy, admin)


@pytest.mark.parametrize("case", EXACT, ids=[case.name for case in EXACT])
async def test_what_it_reports_is_booked_exactly(place: Place, case: Case, figures: Figures) -> None:
    """The difference to its own counters is 0, and where the counts stood is said."""
    reply, counted, booked = await place.moved(case)
    assert reply.status == 200, reply.body
    figures.append((f"llama.cpp, {case.name}: tokens / booked",
                    f"{counted.prompt} + {counted.completion} / {booked.prompt} + {booked.completion}"))  # fmt: skip
    assert counted.completion > 0
    assert (booked.prompt, booked.completion) == (counted.prompt, counted.completion)
    assert set(booked.sources or {}) == {case.source}
    assert booked.outcomes == {"ok": 1}


@pytest.mark.parametrize("case", PARTIAL, ids=[case.name for case in PARTIAL])
async def test_what_it_reports_a_part_of_is_marked(place: Place, case: Case) -> None:
    """It generates for each choice and counts one: the books say that theirs is a part."""
    reply, counted, booked = await place.moved(case)
    assert reply.status == 200, reply.body
    assert booked.completion == reply.json()["usage"]["completion_tokens"] < counted.completion
    assert set(booked.sources or {}) == {case.source}


@pytest.mark.parametrize("case", REFUSED, ids=[case.name for case in REFUSED])
async def test_what_it_refuses_costs_nothing(place: Place, case: Case) -> None:
    """The client gets its own words, the books a refusal without tokens."""
    reply, counted, booked = await place.moved(case)
    direct = await exchange(place.engine, Request.post(case.path, case.body))
    assert (reply.status, reply.body) == (direct.status, direct.body)
    assert (counted.prompt, counted.completion) == (booked.prompt, booked.completion) == (0, 0)
    assert booked.outcomes == {"rejected": 1}


async def test_a_stream_that_is_hung_up_on(place: Place) -> None:
    """It stops generating, and of its own stream what had come is booked by its own running count."""
    counted, booked = await place.counted(), await booked_tokens(place.admin)
    body = {"prompt": "hi there", "n_predict": 3000, "ignore_eos": True, **STREAM}
    reply = await exchange(place.proxy, Request.post(NATIVE, body), HangUp(after_events=20))
    assert not reply.complete
    counted = await place.counted() - counted
    booked = await booked_after(place.admin, booked.requests + 1) - booked
    last = json.loads(reply.events[-1].removeprefix(b"data: ")) if reply.events[-1].endswith(b"\n\n") else {}
    assert booked.outcomes == {"client_abort": 1}
    assert set(booked.sources or {}) == {"continuous_usage"}
    assert booked.completion >= last.get("tokens_predicted", 0) > 0
    assert booked.completion < 3000


async def test_its_own_times_are_in_the_phases(place: Place) -> None:
    """`timings` of a reply become prefill and decode; the engine is known by its head, and nothing was added to it."""
    before = await scrape(place.admin)
    reply = await exchange(place.proxy, Request.post(CHAT, SAID))
    assert reply.header("server") == "llama.cpp"
    await booked_after(place.admin, int(before("inferwatch_requests_total")) + 1)
    after = await scrape(place.admin)
    for phase in ("prefill", "decode"):
        name = "inferwatch_request_phase_seconds_count"
        assert after(name, phase=phase) - before(name, phase=phase) == 1
    sent, direct = (await asyncio.gather(
        exchange(place.proxy, Request.post(CHAT, SAID | STREAM)), exchange(place.engine, Request.post(CHAT, SAID | STREAM))
    ))  # fmt: skip
    assert b'"usage"' not in sent.body
    # From the end: side by side in one batch, two answers to the same need not be equally long.
    places = [[n for n, event in enumerate(reversed(each.events)) if b'"timings"' in event] for each in (sent, direct)]
    assert places[0] == places[1] != []
