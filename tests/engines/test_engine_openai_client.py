"""The official client, unchanged, once against vLLM and once through Inferwatch: it cannot tell the two apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import openai
import pytest
from engine_cases import CALLS_IN_TIME, CHAT, MODEL, NAMED_TOOL, TOOLS, messages
from engine_process import Engine, Proxy

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

ASKED: dict[str, Any] = {
    "model": MODEL,
    "messages": messages("hi there"),
    "temperature": 0,
    "seed": 7,
    "max_tokens": 12,
}
PROMPTED: dict[str, Any] = {"model": MODEL, "prompt": "def f(x):", "temperature": 0, "seed": 7, "max_tokens": 12}
WRONG: dict[str, dict[str, Any]] = {
    "model unknown": {**ASKED, "model": "nope"},
    "model unknown, streamed": {**ASKED, "model": "nope", "stream": True},
    "temperature out of range": {**ASKED, "temperature": -3},
    "prompt too long": {**ASKED, "messages": messages("word " * 6000)},
    "prompt too long, streamed": {**ASKED, "messages": messages("word " * 6000), "stream": True},
    "stream_options without stream": {**ASKED, "stream_options": {"include_usage": True}},
}
Clients = tuple[openai.OpenAI, openai.OpenAI]

# vLLM merges tokens into one event whenever its API server lags behind its engine, so that two direct streams, too,
# differ now and then. A difference made by the proxy is there in every attempt.
ATTEMPTS = 8

T = TypeVar("T")


def client_options(url: str) -> dict[str, Any]:
    # No retries: an error must surface as the class it maps to.
    return {"base_url": f"{url}/v1", "api_key": "sk-engine-suite", "max_retries": 0, "timeout": 60.0}


@pytest.fixture
def clients(engine: Engine, proxy: Proxy) -> Iterator[Clients]:
    """(direct, proxied)."""
    with openai.OpenAI(**client_options(engine.url)) as direct, openai.OpenAI(**client_options(proxy.url)) as proxied:
        yield direct, proxied


def agreeing(clients: Clients, ask: Callable[[openai.OpenAI], T]) -> tuple[T, T]:
    """(direct, proxied) of the first attempt in which both say the same, else of the last."""
    for _ in range(ATTEMPTS):
        direct, proxied = (ask(client) for client in clients)
        if direct == proxied:
            break
    return direct, proxied


def told(model: Any) -> Any:
    """What a reply says, without what no two runs share."""
    return without_variables(model.model_dump())


def without_clock(line: str) -> str:
    """One event as text, without its id and its time."""
    return re.sub(r'"(id|created)":("[^"]*"|\d+)', "", line)


def without_variables(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_variables(item) for key, item in value.items() if key not in {"id", "created"}}
    if isinstance(value, list):
        return [without_variables(item) for item in value]
    return value


def test_plain_replies_are_the_same(clients: Clients) -> None:
    """Chat and completions give equal objects, usage included."""
    direct, proxied = clients

    assert told(proxied.chat.completions.create(**ASKED)) == told(direct.chat.completions.create(**ASKED))
    assert told(proxied.completions.create(**PROMPTED)) == told(direct.completions.create(**PROMPTED))


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": True}}], ids=["bare", "usage"])
def test_streams_are_the_same_chunk_by_chunk(clients: Clients, options: dict[str, Any]) -> None:
    """A stream gives equal chunks; usage is on the last one if asked for and on none otherwise."""
    direct, proxied = agreeing(
        clients,
        lambda client: [told(chunk) for chunk in client.chat.completions.create(**ASKED, stream=True, **options)],
    )

    assert proxied == direct
    assert [chunk["usage"] is not None for chunk in proxied] == [False] * (len(proxied) - 1) + [bool(options)]


def test_completion_streams_are_the_same_chunk_by_chunk(clients: Clients) -> None:
    """The legacy route streams equal chunks, too."""
    direct, proxied = agreeing(
        clients, lambda client: [told(chunk) for chunk in client.completions.create(**PROMPTED, stream=True)]
    )

    assert proxied == direct
    assert "".join(chunk["choices"][0]["text"] for chunk in proxied)


def test_a_raw_response_has_the_engines_status_and_headers(clients: Clients) -> None:
    """with_raw_response shows the engine's status and media type, and parses to the same object."""
    direct, proxied = (client.chat.completions.with_raw_response.create(**ASKED) for client in clients)

    assert proxied.status_code == direct.status_code == 200
    assert proxied.headers["content-type"] == direct.headers["content-type"]
    assert set(proxied.headers) == set(direct.headers)
    assert told(proxied.parse()) == told(direct.parse())


def test_a_streaming_response_can_be_read_line_by_line(clients: Clients) -> None:
    """with_streaming_response yields the raw lines up to [DONE]."""

    def lines(client: openai.OpenAI) -> list[str]:
        with client.chat.completions.with_streaming_response.create(**ASKED, stream=True) as response:
            return [without_clock(line) for line in response.iter_lines() if line]

    direct, proxied = agreeing(clients, lines)

    assert proxied == direct
    assert proxied[-1] == "data: [DONE]"


@pytest.mark.parametrize("choice", ["required", NAMED_TOOL], ids=["required", "named"])
def test_tool_calls_are_the_same(clients: Clients, choice: Any) -> None:
    """Forced tool calls carry equal names and arguments, plain and streamed."""
    body = {**ASKED, "tools": TOOLS, "tool_choice": choice, **CALLS_IN_TIME}
    direct, proxied = (told(client.chat.completions.create(**body)) for client in clients)
    streams = agreeing(
        clients, lambda client: [told(chunk) for chunk in client.chat.completions.create(**body, stream=True)]
    )

    assert proxied == direct
    assert proxied["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "weather"
    assert streams[1] == streams[0]


def test_the_streaming_helper_accumulates_the_same_completion(clients: Clients) -> None:
    """client.chat.completions.stream emits the same events and ends in the same final completion."""
    # The helper raises on an answer cut by its limit; a choice of words ends by itself.
    asked = {**ASKED, "extra_body": {"structured_outputs": {"choice": ["yes", "no"]}}}

    def helped(client: openai.OpenAI) -> tuple[list[str], Any]:
        with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as stream:
            kinds = [event.type for event in stream]
            return kinds, told(stream.get_final_completion())

    results = agreeing(clients, helped)

    assert results[1] == results[0]
    assert results[1][1]["choices"][0]["message"]["content"] in {"yes", "no"}
    assert results[1][1]["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("name", WRONG)
def test_errors_raise_the_same_exception(clients: Clients, name: str) -> None:
    """An engine's refusal becomes the same exception class, status, code and body."""
    caught = []
    for client in clients:
        with pytest.raises(openai.APIStatusError) as raised:
            client.chat.completions.create(**WRONG[name])
        caught.append((type(raised.value), raised.value.status_code, raised.value.code, raised.value.body))

    assert caught[1] == caught[0]


def test_a_wrong_route_raises_the_same_exception(clients: Clients) -> None:
    """What the engine does not serve is its own 404, not the proxy's."""
    caught = []
    for client in clients:
        with pytest.raises(openai.NotFoundError) as raised:
            client.images.generate(prompt="a cat", model=MODEL)
        caught.append(raised.value.body)

    assert caught[1] == caught[0]


def test_models_are_listed_the_same(clients: Clients) -> None:
    """The list of models names the served model."""
    direct, proxied = ([model.id for model in client.models.list()] for client in clients)

    assert proxied == direct == [MODEL]


def test_other_routes_of_the_client_work(clients: Clients) -> None:
    """An untyped POST reaches a route and comes back as it is."""
    direct, proxied = (client.post(CHAT.removeprefix("/v1"), body=ASKED, cast_to=dict[str, Any]) for client in clients)

    assert without_variables(proxied) == without_variables(direct)


async def test_the_asynchronous_client_streams_the_same(engine: Engine, proxy: Proxy) -> None:
    """AsyncOpenAI gets equal chunks, and closing its stream early leaves the client usable."""

    async def streamed(url: str) -> list[Any]:
        async with openai.AsyncOpenAI(**client_options(url)) as client:
            left = await client.chat.completions.create(**{**ASKED, "max_tokens": 400}, stream=True)
            await anext(left)
            await left.close()
            stream = await client.chat.completions.create(**ASKED, stream=True)
            return [told(chunk) async for chunk in stream]

    for _ in range(ATTEMPTS):
        direct, proxied = await streamed(engine.url), await streamed(proxy.url)
        if direct == proxied:
            break

    assert proxied == direct
    assert proxied
