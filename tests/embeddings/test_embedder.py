"""embedder: which prompts are embedded, in what calls, and what becomes of a vote when none is."""

import asyncio
import logging
from typing import Any

import pytest
from embedding_endpoint import Endpoint

from inferwatch.settings.embeddings import Embeddings
from inferwatch_collectors import metrics as m
from inferwatch_collectors.embeddings.asking import Endpoint as Asker
from inferwatch_collectors.embeddings.embedder import BATCH, MAX_PAUSE_S, MAX_WAITING, TRIES, Embedder, Ticket
from inferwatch_collectors.embeddings.redacting import LOOKED_AT_CHARS, MAX_CHARS
from inferwatch_collectors.embeddings.sketch import Sketcher
from inferwatch_collectors.metric_store import MetricStore

SECRET = b"a secret of the installation"


class Site:
    """An embedder before an endpoint, with a clock of its own."""

    def __init__(self, endpoint: Endpoint, redact: Any = None, dice: float = 0.0, **settings: Any) -> None:
        wanted = Embeddings(**({"url": endpoint.url, "model": "e5", "per_minute": 6_000} | settings))
        self.store = MetricStore()
        self.now_s = 1_000.0
        self.faults: list[str] = []
        self.asker = Asker(wanted, "", secret=SECRET)
        self.embedder = Embedder(
            wanted,
            self.store,
            self.asker,
            Sketcher(SECRET),
            redact=redact,
            fault=self.faults.append,
            clock=lambda: self.now_s,
            dice=lambda: dice,
        )

    def take(self, *texts: str) -> list[Ticket]:
        found = [self.embedder.take(text) for text in texts]
        return [ticket for ticket in found if ticket is not None]

    def count(self, result: str) -> int:
        return int(self.store.counter(m.DRIFT_EMBEDDINGS, (result,)).value)

    def off(self) -> list[str]:
        self.embedder.refresh()
        return [
            reason for (reason,) in self.store.series(m.DRIFT_EMBEDDINGS_OFF)
            if self.store.gauge(m.DRIFT_EMBEDDINGS_OFF, (reason,)).value
        ]  # fmt: skip


async def test_prompts_go_together_and_each_gets_its_own(endpoint: Endpoint) -> None:
    """In calls of BATCH; the text is forgotten when the call is over."""
    site = Site(endpoint)
    tickets = site.take(*(f"prompt {number}" for number in range(BATCH + 2)))
    await site.embedder.send()
    await site.embedder.send()
    await site.asker.close()
    assert [len(asked["input"]) for asked in endpoint.asked] == [BATCH, 2]
    assert endpoint.texts == [f"prompt {number}" for number in range(BATCH + 2)]
    assert all(ticket.sketch is not None and not ticket.text for ticket in tickets)
    assert len({ticket.sketch for ticket in tickets}) == BATCH + 2
    assert len({ticket.sketch.source for ticket in tickets if ticket.sketch}) == 1
    assert site.count("ok") == BATCH + 2


async def test_a_vote_waits_until_it_is_known(endpoint: Endpoint) -> None:
    """Whichever comes first, the sketch or the end of the request."""
    site = Site(endpoint)
    early, late = site.take("one", "two")
    voted: list[str] = []
    early.then(lambda: voted.append("early"))
    assert voted == []
    await site.embedder.send()
    assert voted == ["early"]
    late.then(lambda: voted.append("late"))
    assert voted == ["early", "late"]
    await site.asker.close()


async def test_a_fault_of_a_vote_costs_that_vote(endpoint: Endpoint) -> None:
    """Counted by stage; the next one votes."""
    site = Site(endpoint)
    bad, good = site.take("one", "two")
    voted: list[str] = []
    bad.then(lambda: voted.append(str(1 / 0)))
    good.then(lambda: voted.append("good"))
    await site.embedder.send()
    await site.asker.close()
    assert (voted, site.faults) == (["good"], ["embeddings"])


def test_no_more_than_so_many_a_minute(endpoint: Endpoint) -> None:
    """Evenly: at 60 a minute two at once, and then one a second."""
    site = Site(endpoint, per_minute=60)
    assert len(site.take(*"abcdef")) == 2
    assert site.count("capped") == 4
    site.now_s += 1.0
    assert len(site.take(*"abc")) == 1


def test_a_share_of_them_by_chance(endpoint: Endpoint) -> None:
    """Who is not chosen is nothing to count."""
    assert len(Site(endpoint, dice=0.29, share=0.3).take("a")) == 1
    site = Site(endpoint, dice=0.3, share=0.3)
    assert site.take("a") == []
    assert not site.store.series(m.DRIFT_EMBEDDINGS)


async def test_the_queue_is_bounded(endpoint: Endpoint) -> None:
    """And who waited for too long is not sent."""
    site = Site(endpoint)
    tickets = site.take(*(str(number) for number in range(MAX_WAITING + 5)))
    assert len(tickets) == MAX_WAITING
    assert site.count("dropped") == 5
    site.now_s += 6.0
    for _ in range(MAX_WAITING // BATCH):
        await site.embedder.send()
    assert endpoint.asked == []
    assert not any(ticket.is_open or ticket.text for ticket in tickets)
    assert site.count("dropped") == MAX_WAITING + 5


async def test_an_endpoint_that_fails_is_left_alone_and_says_so(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """Longer each time, up to a bound; nobody waits for it meanwhile, and no text is kept. One line, when it is off."""
    caplog.set_level(logging.INFO)
    site = Site(endpoint)
    endpoint.says({"error": "no"}, 503)
    pauses = []
    for _ in range(12):
        tickets = site.take(*(str(number) for number in range(BATCH + 1)))
        assert len(tickets) == BATCH + 1
        await site.embedder.send()
        assert not any(ticket.is_open or ticket.text or ticket.sketch for ticket in tickets)
        begun_s = site.now_s
        while not site.embedder._paused_s <= site.now_s:
            assert site.take("a") == []
            site.now_s += 1.0
        pauses.append(site.now_s - begun_s)
    assert pauses[:4] == [2.0, 4.0, 8.0, 16.0]
    assert max(pauses) == MAX_PAUSE_S
    assert site.count("down") == 12 * BATCH
    assert site.off() == ["down"]
    assert caplog.text.count("drift_embeddings_off reason=down") == 1
    endpoint.answer = endpoint.fine
    (ticket,) = site.take("a")
    await site.embedder.send()
    await site.asker.close()
    assert ticket.sketch is not None
    assert site.off() == []
    assert "drift_embeddings_on" in caplog.text


async def test_a_hiccup_is_not_off(endpoint: Endpoint) -> None:
    """It takes TRIES in a row."""
    site = Site(endpoint)
    for answered in (False,) * (TRIES - 1) + (True, False):
        endpoint.answer = endpoint.fine
        if not answered:
            endpoint.says(b"none")
        site.take("a")
        await site.embedder.send()
        site.now_s += MAX_PAUSE_S
    await site.asker.close()
    assert site.off() == []
    assert (site.count("malformed"), site.count("ok")) == (TRIES, 1)


async def test_a_vector_without_a_direction_is_none(endpoint: Endpoint) -> None:
    """The others of the call count; a number beyond all bounds is no number."""
    site = Site(endpoint)
    endpoint.says({"data": [{"embedding": [0] * 8}, {"embedding": [1e300] * 8}, {"embedding": [1] * 8}]})
    tickets = site.take("a", "b", "c")
    await site.embedder.send()
    await site.asker.close()
    assert [ticket.sketch is not None for ticket in tickets] == [False, False, True]
    assert (site.count("not_a_number"), site.count("ok")) == (2, 1)


async def test_a_fault_of_ours_costs_one_call(endpoint: Endpoint) -> None:
    """What cannot be sent (half an emoji) or read: counted, its votes go without; it does not end the embedder."""
    site = Site(endpoint)
    running = asyncio.create_task(site.embedder.run())
    tickets = site.take("fine", "\ud83d")
    async with asyncio.timeout(5):
        while not running.done() and any(ticket.is_open for ticket in tickets):
            await asyncio.sleep(0.01)
    assert not running.done()
    assert not any(ticket.is_open or ticket.text or ticket.sketch for ticket in tickets)
    assert (site.faults, site.count("fault"), endpoint.asked) == (["embeddings"], 2, [])
    site.now_s += MAX_PAUSE_S
    (after,) = site.take("fine")
    async with asyncio.timeout(5):
        while after.is_open:
            await asyncio.sleep(0.01)
    assert after.sketch is not None
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_what_is_personal_is_taken_out_first(endpoint: Endpoint) -> None:
    """What cannot be looked at is not sent; if nobody can look, nothing is."""
    site = Site(endpoint, lambda texts: [text.replace("Ann", "person") if "x" not in text else "" for text in texts])
    fine, bad = site.take("I am Ann", "x")
    await site.embedder.send()
    assert endpoint.texts == ["I am person"]
    assert (fine.sketch is not None, bad.sketch) == (True, None)
    assert site.count("redact") == 1
    await site.asker.close()

    for redact in (lambda _: None, lambda _: [str(1 / 0)]):
        site = Site(endpoint, redact)
        site.take("I am Ann")
        await site.embedder.send()
        assert endpoint.texts == ["I am person"]
        assert site.count("redact") == 1


async def test_no_more_than_the_bound_is_sent(endpoint: Endpoint) -> None:
    """More is taken only to be looked at."""
    site = Site(endpoint)
    site.take("x" * LOOKED_AT_CHARS)
    await site.embedder.send()
    await site.asker.close()
    assert endpoint.texts == ["x" * MAX_CHARS]


async def test_it_runs_until_it_is_told_to_stop(endpoint: Endpoint) -> None:
    """Who waits then votes without; who was on the way, too."""
    site = Site(endpoint)
    running = asyncio.create_task(site.embedder.run())
    (first,) = site.take("a")
    async with asyncio.timeout(5):
        while first.is_open:
            await asyncio.sleep(0.01)
    assert first.sketch is not None

    async def never(_: dict[str, Any]) -> Any:
        await asyncio.sleep(60)

    endpoint.answer = never
    sent = site.take(*(str(number) for number in range(BATCH + 1)))
    async with asyncio.timeout(5):
        while len(endpoint.asked) < 2:
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not any(ticket.is_open or ticket.text for ticket in sent)
