"""A simulated engine, the real proxy, real sockets: what is booked is what the engine counted."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import Stack, chat, client, hang_up_after, running, send

from inferwatch_simulator.readings import total

# Tests share one stack: they look at differences. Slow decoding, so that there is a middle of a stream to hang up in.
SIMULATE = ("--decode-step-ms-base", "4", "--enable-prompt-tokens-details")

PROMPT = "vllm:prompt_tokens_total"
GENERATION = "vllm:generation_tokens_total"
BOOKED = "inferwatch_tokens_total"
REQUESTS = "inferwatch_requests_total"


@pytest.fixture(scope="module", name="stack")
def _stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("e2e"), "--workers", "2", simulate_flags=SIMULATE) as stack:
        yield stack


class Delta:
    """Counters of the engine and of Inferwatch, before and after."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._ours, self._engine = stack.scrape(), stack.engine_scrape()

    def after(self, requests: int) -> "Delta":
        before = total(self._ours, REQUESTS)
        self.ours = self._stack.settled(int(before) + requests)
        self.engine = self._stack.engine_scrape()
        return self

    def booked(self, name: str, **where: str) -> float:
        return total(self.ours, name, **where) - total(self._ours, name, **where)

    def counted(self, name: str) -> float:
        return total(self.engine, name) - total(self._engine, name)


async def test_finished_requests_are_booked_to_the_token(stack: Stack) -> None:
    """Plain and streamed, chat and completions, n and prompt lists: difference 0 to the engine's counters."""
    delta = Delta(stack)
    async with client() as session:
        bodies = [chat(f"request {i}", stream=i % 2 == 0, max_tokens=5 + i % 17) for i in range(60)]
        bodies += [chat(f"asks {i}", stream_options={"include_usage": True}) for i in range(10)]
        both = {"include_usage": True, "continuous_usage_stats": True}
        bodies += [chat(f"asks more {i}", stream_options=both) for i in range(10)]
        replies = await asyncio.gather(*(send(session, stack.url, body) for body in bodies))
        texts = [
            {"model": "simulated-8b", "prompt": ["a b", "c d e"], "max_tokens": 7, "stream": s} for s in (True, False)
        ]
        replies += await asyncio.gather(
            *(_complete(session, stack.url, {**text, "ignore_eos": True}) for text in texts)
        )
    assert {status for status, _ in replies} == {200}

    delta.after(82)

    assert delta.booked(BOOKED, type="prompt") == delta.counted(PROMPT)
    assert delta.booked(BOOKED, type="completion") == delta.counted(GENERATION)
    assert delta.booked("inferwatch_tokens_by_source_total", source="final_usage", type="completion") == delta.counted(
        GENERATION
    )
    assert delta.booked(REQUESTS, outcome="ok") == 82


async def test_a_client_that_hangs_up_is_booked_with_the_engines_last_count(stack: Stack) -> None:
    """Every event seen is a token booked, and the engine made hardly more."""
    delta = Delta(stack)
    async with client() as session:
        bodies = [chat(f"long {i}", max_tokens=2000) for i in range(20)]
        seen = await asyncio.gather(
            *(hang_up_after(session, stack.url, body, 5 + 3 * i) for i, body in enumerate(bodies))
        )
    delta.after(20)

    assert delta.booked(REQUESTS, outcome="client_abort") == 20
    booked = delta.booked(BOOKED, type="completion")
    # The role event is no token; the proxy may have read a little more than the client did before it hung up.
    assert sum(seen) - 20 <= booked
    assert delta.booked("inferwatch_tokens_by_source_total", source="continuous_usage", type="completion") == booked
    assert 0 <= delta.counted(GENERATION) - booked <= 20 * 5
    assert delta.booked(BOOKED, type="prompt") == delta.counted(PROMPT)


@pytest.mark.parametrize(
    "options",
    [None, {"include_usage": True}, {"include_usage": True, "continuous_usage_stats": True}, {"include_usage": False}],
    ids=["none", "final", "continuous", "declined"],
)
@pytest.mark.parametrize("n", [1, 2])
async def test_the_client_gets_the_bytes_of_the_engine(stack: Stack, options: dict[str, bool] | None, n: int) -> None:
    """Through us and directly: the same, but for the clock."""
    delta = Delta(stack)
    body = chat(
        "same bytes",
        max_tokens=12,
        n=n,
        seed=4,
        temperature=n - 1,
        **({} if options is None else {"stream_options": options}),
    )
    headers = {"x-request-id": f"same-{options}-{n}"}
    async with client() as session:
        _, direct = await send(session, stack.engine, body, headers=headers)
        _, relayed = await send(session, stack.url, body, headers=headers)

    assert _timeless(relayed) == _timeless(direct)
    assert delta.after(1).booked(REQUESTS, outcome="ok") == 1


async def test_errors_of_the_engine_pass_unchanged(stack: Stack) -> None:
    """A refusal is the engine's own, and is booked as such."""
    delta = Delta(stack)
    async with client() as session:
        for body in (
            {"model": "nobody", "messages": []},
            {"stream_options": {"include_usage": True}, **chat(stream=False)},
        ):
            direct = await send(session, stack.engine, body)
            assert await send(session, stack.url, body) == direct
            assert direct[0] >= 400

    delta.after(2)

    assert delta.booked(REQUESTS, outcome="rejected") == 2
    assert delta.booked(BOOKED) == 0


async def test_tenants_are_told_apart_without_their_keys(stack: Stack) -> None:
    """A key becomes a keyed hash, the same for the same key, and is nowhere to be found."""
    async with client() as session:
        before = stack.total(REQUESTS)
        for key in ("sk-canary-1", "sk-canary-2", "sk-canary-1"):
            await send(session, stack.url, chat(), headers={"authorization": f"Bearer {key}"})
        scrape = stack.settled(int(before) + 3)

    tenants = {dict(labels)["tenant"] for labels in scrape.samples[REQUESTS]}
    assert len([tenant for tenant in tenants if tenant.startswith("key-")]) == 2
    assert "canary" not in stack.log
    for file in (stack.folder / "state").rglob("*"):
        assert not file.is_file() or b"sk-canary" not in file.read_bytes()


async def test_first_token_and_gaps_are_measured(stack: Stack) -> None:
    """One first token a stream; one gap less than tokens."""
    delta = Delta(stack)
    async with client() as session:
        await asyncio.gather(*(send(session, stack.url, chat(f"t{i}", max_tokens=25)) for i in range(8)))
    delta.after(8)

    assert delta.booked("inferwatch_time_to_first_token_seconds_count") == 8
    assert delta.booked("inferwatch_inter_token_latency_seconds_count") == 8 * 24
    gap_s = delta.booked("inferwatch_inter_token_latency_seconds_sum") / (8 * 24)
    assert gap_s > 0.003  # the simulated step; how much above it depends on the machine
    assert delta.booked("inferwatch_first_token_missing_total") == 0


async def test_admin_port_answers(stack: Stack) -> None:
    """Health, readiness, configuration, version; and no path of the data port is ours."""
    async with client() as session:
        for path in ("/healthz", "/readyz", "/version", "/config", "/metrics"):
            async with session.get(stack.admin + path) as reply:
                assert reply.status == 200, path
        async with session.get(stack.url + "/metrics") as ours, session.get(stack.engine + "/metrics") as engines:
            assert "vllm:prompt_tokens_total" in await ours.text()
            assert ours.status == engines.status
        async with session.get(stack.url + "/healthz") as reply:
            assert reply.status == 404


async def test_counters_go_on_after_a_restart(tmp_path: Path) -> None:
    """A clean stop and start: nothing is lost, nothing counted twice."""
    with running(tmp_path) as stack:
        async with client() as session:
            await asyncio.gather(*(send(session, stack.url, chat(f"r{i}")) for i in range(10)))
        before = stack.settled(10)
        assert stack.stop_serving() == 0
        stack.serve()
        async with client() as session:
            await asyncio.gather(*(send(session, stack.url, chat(f"s{i}")) for i in range(5)))
        after = stack.settled(15)

    assert total(after, REQUESTS) == 15
    assert total(after, BOOKED, type="completion") == total(before, BOOKED, type="completion") + 5 * 20
    count = "inferwatch_inter_token_latency_seconds_count"
    assert total(after, count) == total(before, count) + 5 * 19


async def test_a_stop_lets_open_streams_finish(tmp_path: Path) -> None:
    """SIGTERM: the stream goes on to its end, new connections are refused, the exit code is 0."""
    with running(tmp_path) as stack:
        async with client() as session:
            url = f"{stack.url}/v1/chat/completions"
            async with session.post(url, json=chat("drain me", max_tokens=200)) as reply:
                first = await reply.content.readany()
                assert stack.supervisor is not None
                stack.supervisor.terminate()
                rest = await reply.read()
        assert stack.supervisor.wait(20) == 0
    assert (first + rest).endswith(b"data: [DONE]\n\n")
    assert (first + rest).count(b"\n\n") == 202  # role, 200 tokens, [DONE]
    line = next(line for line in stack.log.splitlines() if '"event":"request"' in line)
    assert json.loads(line)["outcome"] == "ok"


async def _complete(session: object, url: str, body: dict[str, object]) -> tuple[int, bytes]:
    async with session.post(f"{url}/v1/completions", json=body) as reply:  # type: ignore[attr-defined]
        return reply.status, await reply.read()


def _timeless(body: bytes) -> list[bytes]:
    """Events without clock fields, sorted by choice: between choices the order is the engine's whim."""
    events = re.sub(rb'"created":\d+', b'"created":0', body).split(b"\n\n")
    return sorted(events, key=lambda event: (re.findall(rb'"index":(\d+)', event) or [b"9"])[0])
