"""The official clients of the engines, unchanged, through the real proxy: they get their answers, and the books are right.

The engine behind is the simulator's persona; `tests/conformance` holds that to what was recorded of the engines.
"""

import contextlib
import gc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import ollama
import openai
import pytest
from stack import MODEL, Stack, running

from inferwatch_simulator.readings import Scrape, total

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what they warn of while they are imported is theirs
    import huggingface_hub
    import text_generation
    from langchain_openai import ChatOpenAI

# What the clients do is theirs: models of an older pydantic, connections left to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

# Several events of a stream are of the same read under load, so latencies are only counted here.
PROMPT = "tell me of proxies"
TOKENS = "inferwatch_tokens_total"
BY_SOURCE = "inferwatch_tokens_by_source_total"
REQUESTS = "inferwatch_requests_total"
TTFT = "inferwatch_time_to_first_token_seconds_count"
ITL = "inferwatch_inter_token_latency_seconds_count"
PHASES = "inferwatch_request_phase_seconds_count"

Engine = Callable[..., contextlib.AbstractContextManager[Stack]]


@pytest.fixture(autouse=True)
def _clients_are_gone() -> Iterator[None]:
    """Some clients leave connections to the garbage collector: it finds them here, not in the midst of another test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="module", name="engine")
def _engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Stack]]:
    """Return the stack with that engine behind it; each is started once."""
    with contextlib.ExitStack() as open_stacks:
        stacks: dict[str, Stack] = {}

        def engine(name: str, *flags: str) -> Stack:
            key = " ".join((name, *flags))
            if key not in stacks:
                folder = tmp_path_factory.mktemp(name)
                simulate = ("--engine", name, *flags)
                stacks[key] = open_stacks.enter_context(running(folder, simulate_flags=simulate))
            return stacks[key]

        yield engine


class Delta:
    """What the books gained."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._before = stack.scrape()
        self._after: Scrape | None = None

    def after(self, requests: int) -> "Delta":
        """Wait until so many more are booked."""
        self._after = self._stack.settled(int(total(self._before, REQUESTS)) + requests)
        return self

    def __call__(self, name: str, **where: str) -> int:
        assert self._after is not None
        return int(total(self._after, name, **where) - total(self._before, name, **where))


def test_text_generation_s_client(engine: Callable[..., Stack]) -> None:
    """TGI's own: tokens by the engine's count, first token, gaps, queue and inference time; streams untouched by us."""
    stack = engine("tgi")
    client, delta = text_generation.Client(stack.url, timeout=60), Delta(stack)
    read_before = total(stack.engine_scrape(), "tgi_request_input_length_sum")
    plain = client.generate(PROMPT, max_new_tokens=8)
    streamed = list(client.generate_stream(PROMPT, max_new_tokens=8))
    delta.after(2)
    generated = plain.details.generated_tokens + len(streamed)
    assert streamed[-1].generated_text == plain.generated_text
    assert streamed[-1].details is not None  # this client asks for them
    assert delta(REQUESTS, outcome="ok") == 2
    assert delta(TOKENS, type="completion") == delta(BY_SOURCE, type="completion", source="details") == generated
    read = total(stack.engine_scrape(), "tgi_request_input_length_sum") - read_before
    assert delta(TOKENS, type="prompt") == read
    assert delta(TTFT) == 1
    assert delta(ITL) == len(streamed) - 1
    # The plain reply's head tells both; a stream has no such head.
    assert (delta(PHASES, phase="queue"), delta(PHASES, phase="inference")) == (1, 1)


def test_an_error_in_the_midst_of_a_stream(engine: Callable[..., Stack]) -> None:
    """The status was 200; the client raises, and the books have an error with the tokens that had come."""
    stack = engine("tgi")
    client = text_generation.Client(stack.url, headers={"x-sim-fault": "error_event:3"}, timeout=60)
    delta = Delta(stack)
    with pytest.raises(text_generation.errors.GenerationError):
        list(client.generate_stream(PROMPT, max_new_tokens=8))
    delta.after(1)
    assert delta(REQUESTS, outcome="stream_error") == 1
    assert delta(REQUESTS, outcome="ok") == 0
    assert delta(BY_SOURCE, type="completion", source="chunk_estimate") > 0


def test_hugging_face_s_client(engine: Callable[..., Stack]) -> None:
    """`InferenceClient`: a stream that asked for no details sees none, and is booked from those that we asked for."""
    stack = engine("tgi")
    client, delta = huggingface_hub.InferenceClient(base_url=stack.url, timeout=60), Delta(stack)
    pieces = list(client.text_generation(PROMPT, max_new_tokens=8, stream=True, details=True))
    texts = list(huggingface_hub.InferenceClient(stack.url).text_generation(PROMPT, max_new_tokens=8, stream=True))
    chat = list(
        client.chat.completions.create(
            model="tgi", messages=[{"role": "user", "content": PROMPT}], max_tokens=6, stream=True
        )
    )
    delta.after(3)
    assert len(pieces) == len(texts) + sum(piece.token.special for piece in pieces)
    assert all(chunk.usage is None and chunk.choices for chunk in chat)
    assert delta(REQUESTS, outcome="ok") == 3
    assert delta(BY_SOURCE, type="completion", source="details") == 2 * len(pieces)
    assert delta(BY_SOURCE, type="completion", source="final_usage") > 0
    assert delta(BY_SOURCE, type="completion", source="chunk_estimate") == 0


def test_tgi_s_refusals(engine: Callable[..., Stack]) -> None:
    """Errors at 200 are errors to the client, and overload is `rejected` in the books."""
    stack = engine("tgi", "--max-num-queued-reqs", "0")
    client, delta = text_generation.Client(stack.url, timeout=60), Delta(stack)
    with pytest.raises(text_generation.errors.OverloadedError):
        client.generate(PROMPT, max_new_tokens=8)
    with pytest.raises(text_generation.errors.OverloadedError):
        list(client.generate_stream(PROMPT, max_new_tokens=8))
    delta.after(2)
    assert delta(REQUESTS, outcome="rejected") == 2


def test_anthropic_s_client(engine: Callable[..., Stack]) -> None:
    """Messages, plain and streamed."""
    stack = engine("anthropic")
    delta = Delta(stack)
    ask: dict[str, Any] = {"model": MODEL, "max_tokens": 12, "messages": [{"role": "user", "content": PROMPT}]}
    with anthropic.Anthropic(base_url=stack.url, api_key="sk-test", max_retries=0) as client:
        plain = client.messages.create(**ask)
        with client.messages.stream(**ask) as stream:
            streamed = stream.get_final_message()
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(**{**ask, "model": "none"})
    delta.after(3)
    told = (plain.usage, streamed.usage)
    assert delta(TOKENS, type="prompt") == sum(usage.input_tokens for usage in told)
    assert delta(BY_SOURCE, type="completion", source="final_usage") == sum(usage.output_tokens for usage in told)
    assert (delta(REQUESTS, outcome="ok"), delta(REQUESTS, outcome="rejected"), delta(TTFT)) == (2, 1, 1)


def test_ollama_s_client(engine: Callable[..., Stack]) -> None:
    """Records of NDJSON, plain and streamed."""
    stack = engine("ollama")
    client, delta = ollama.Client(host=stack.url, timeout=60), Delta(stack)
    ask: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}
    options = {"num_predict": 10}
    plain = client.chat(**ask, options=options)
    records = list(client.chat(**ask, options=options, stream=True))
    generated = client.generate(model=MODEL, prompt=PROMPT, options=options)
    with pytest.raises(ollama.ResponseError):
        client.chat(model="none", messages=ask["messages"])
    delta.after(4)
    finals = (plain, records[-1], generated)
    assert delta(TOKENS, type="prompt") == sum(final.prompt_eval_count or 0 for final in finals)
    assert delta(BY_SOURCE, type="completion", source="final_usage") == sum(final.eval_count or 0 for final in finals)
    assert (delta(REQUESTS, outcome="ok"), delta(REQUESTS, outcome="rejected"), delta(TTFT)) == (3, 1, 1)


def test_openai_s_client_on_responses(engine: Callable[..., Stack]) -> None:
    """Responses, plain and streamed, of OpenAI's persona."""
    stack = engine("openai")
    delta = Delta(stack)
    ask: dict[str, Any] = {"model": MODEL, "input": PROMPT, "max_output_tokens": 12}
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="sk-test", max_retries=0) as client:
        plain = client.responses.create(**ask)
        *_, last = client.responses.create(**ask, stream=True)
    delta.after(2)
    assert last.type == "response.incomplete"
    told = (plain.usage, last.response.usage)
    assert delta(TOKENS, type="prompt") == sum(usage.input_tokens for usage in told if usage)
    assert delta(BY_SOURCE, type="completion", source="final_usage") == sum(u.output_tokens for u in told if u)
    assert (delta(REQUESTS, outcome="ok"), delta(TTFT)) == (2, 1)


def test_langchain_s_chat_model(engine: Callable[..., Stack]) -> None:
    """Plain and streamed, before an engine that gets nothing added to its requests."""
    stack = engine("openai")
    delta = Delta(stack)
    model = ChatOpenAI(
        model=MODEL, base_url=f"{stack.url}/v1", api_key="sk-test", max_retries=0, max_tokens=12, stream_usage=True
    )
    plain = model.invoke(PROMPT)
    streamed = None
    for chunk in model.stream(PROMPT):
        streamed = chunk if streamed is None else streamed + chunk
    delta.after(2)
    assert streamed is not None
    told = (plain.usage_metadata, streamed.usage_metadata)
    assert delta(TOKENS, type="prompt") == sum(usage["input_tokens"] for usage in told if usage)
    assert delta(BY_SOURCE, type="completion", source="final_usage") == sum(u["output_tokens"] for u in told if u)
    assert streamed.content == plain.content
