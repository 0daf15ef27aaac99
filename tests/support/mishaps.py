"""A day in the life of three hosts, in two minutes: ordinary traffic, and everything that can befall them."""

import asyncio
import contextlib
import json
import time
from typing import Any

import aiohttp
import fleet
from fleet import Watched, traffic
from stack import Stack, chat, client, send, wait_until

# A collector that has other work books an answer that much later.
BOOKED_S = 20.0


def live(watched: Watched) -> None:
    """A day in the life of three hosts, in two minutes."""
    first, second, third = watched.fleet.hosts.values()
    urls = [host.stack.url for host in watched.fleet.hosts.values()]
    asyncio.run(traffic(urls, 12))
    asyncio.run(fleet.misfortune(urls))
    asyncio.run(fleet.storm(urls[0]))
    asyncio.run(fleet.impatience(urls[0]))
    stacks = [host.stack for host in watched.fleet.hosts.values()]
    asyncio.run(_voted_on(stacks))
    asyncio.run(_of_no_use(stacks))
    asyncio.run(_with_a_crowd(urls))
    asyncio.run(_voted_on(stacks))  # once more: a counter that never grew has no rate
    fleet.while_the_collector_is_away(first.stack, lambda: asyncio.run(fleet.crowd(first.stack.url, 40)))
    fleet.restart_a_relay(first.stack)
    first.stack.kill("inferwatch_collectors")
    first.card.lay_over({"0/nvmlDeviceGetFieldValues/83": {"error": 999}}, [{"who": "0", "type": 8, "data": 79}])
    second.card.lay_over({"0/nvmlDeviceGetPowerUsage": {"hang_ms": 2500, "value": 90_000}})
    third.config.write_text("budgets: nonsense\n", "utf-8")
    with contextlib.suppress(OSError):
        _reload(third.stack.admin)
    asyncio.run(_hung_up_plain(urls))
    asyncio.run(_read_slowly(urls[0]))
    wait_until(lambda: first.stack.total("inferwatch_requests_total") > 0, "the collector's return")
    asyncio.run(traffic(urls, 15))
    kill_engine(second)
    time.sleep(4)


async def _with_a_crowd(urls: list[str]) -> None:
    await asyncio.gather(fleet.crowd(urls[0], 50), traffic(urls, 14))


async def _of_no_use(stacks: list[Stack]) -> None:
    """Answers that repeat themselves or refuse, and prompts that come again."""
    async with client() as session:
        for stack in stacks:
            for fault in ("loop:6", "loop:6", "refuse", "refuse"):
                headers = fleet.TENANT | {"x-sim-fault": fault}
                await send(session, stack.url, chat("of no use", max_tokens=150), headers=headers)


async def _voted_on(stacks: list[Stack]) -> None:
    """Users who say what an answer was worth."""
    async with client() as session:
        for stack in stacks:
            for thumb in ("up", "down"):
                _, body = await send(session, stack.url, chat(thumb, stream=False), headers=fleet.TENANT)
                vote = {"request_id": json.loads(body)["id"], "thumb": thumb, "comment": "so it is"}
                allowed = {"Authorization": f"Bearer {fleet.FEEDBACK_TOKEN}"}
                await _vote(session, f"{stack.admin}/feedback", vote, allowed)


async def _vote(session: aiohttp.ClientSession, url: str, vote: dict[str, Any], headers: dict[str, str]) -> None:
    """No user votes within milliseconds of the answer; until it is booked, nobody knows what the vote is about."""
    deadline_s = time.monotonic() + BOOKED_S
    while True:
        async with session.post(url, json=vote, headers=headers) as reply:
            if reply.status == 200:
                return
            assert time.monotonic() < deadline_s, (reply.status, await reply.text())
        await asyncio.sleep(0.2)


async def _hung_up_plain(urls: list[str]) -> None:
    """Plain requests whose client leaves: what they cost only the engine knows."""
    async with client() as session:
        for url in urls:
            for _ in range(3):
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    body = chat("nobody waits", stream=False, max_tokens=200)
                    await asyncio.wait_for(send(session, url, body, headers=fleet.TENANT), 0.4)


async def _read_slowly(url: str) -> None:
    """A client that takes a large answer in small sips."""
    body = chat("sip", max_tokens=50)
    async with client(read_bufsize=1024) as session:
        headers = fleet.TENANT | {"x-sim-fault": "big_event:8000000"}
        async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as reply:
            await asyncio.sleep(2)
            async for _ in reply.content.iter_any():
                await asyncio.sleep(0)


def _reload(admin: str) -> None:
    async def post() -> None:
        async with client() as session, session.post(f"{admin}/-/reload") as reply:
            await reply.read()

    asyncio.run(post())


def kill_engine(host: fleet.Host) -> None:
    """The engine is gone, and comes back as another process."""
    assert host.stack.simulator is not None
    host.stack.simulator.kill()
    host.stack.simulator.wait()
