"""The request kinds this suite sends: named bodies for fixtures and byte comparison, and a seeded mixed workload.

Named bodies are greedy or seeded: the same body gives the same tokens. The workload samples unseeded, because a seeded
request whose prefill is split kills vLLM 0.32 on the CPU ("CPU Generator does not use offset"). Prompts are cut from
one generated text: the model's answers are noise anyway, and only their number matters.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"
MODEL = "tiny"

# The three ways a client can ask for usage in a stream, by the words this suite uses for them.
USAGE_VARIANTS: dict[str, dict[str, Any]] = {
    "bare": {},
    "usage": {"stream_options": {"include_usage": True}},
    "continuous": {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
}

_PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Oslo", "Kyiv"]}, "metric": {"type": "boolean"}},
    "required": ["city", "metric"],
    "additionalProperties": False,
}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": _PARAMETERS}}]
NAMED_TOOL = {"type": "function", "function": {"name": "weather"}}
# A seed with which the random model ends its forced calls within the limit: finish reasons tool_calls and stop.
CALLS_IN_TIME: dict[str, Any] = {"temperature": 1, "seed": 1, "max_tokens": 90}
# What a model trained for tools writes of its own accord; a random one has to be held to it.
TOOL_CALL_TEXT = (
    r'ok<tool_call>\{"name": "weather", "arguments": \{"city": "(Oslo|Kyiv)", "metric": (true|false)\}\}</tool_call>'
)
_TEXT = "the quick proxy counts every token once and lets bytes pass while clients come and go at will"
_WORDS = _TEXT.split()


def words(count: int, seed: int = 0) -> str:
    """A text of `count` words; texts of different seeds share no long prefix, so the prefix cache does not answer."""
    source = random.Random(seed)
    return " ".join(source.choice(_WORDS) for _ in range(count))


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]


@dataclass(frozen=True)
class Kind:
    """One kind of request. `body` has no `stream` key; `choices` is the number of answers it produces."""

    name: str
    path: str
    body: dict[str, Any]
    choices: int = 1

    def request_body(self, usage_variant: str | None) -> dict[str, Any]:
        """The body to send: plain for None, else streamed with the usage variant of that name."""
        if usage_variant is None:
            return self.body
        return {**self.body, "stream": True, **USAGE_VARIANTS[usage_variant]}


def _chat(name: str, text: str = "hi there", choices: int = 1, **extra: Any) -> Kind:
    body = {"model": MODEL, "messages": messages(text), "temperature": 0, "seed": 7, "max_tokens": 12, **extra}
    return Kind(name, CHAT, body, choices)


def _completion(name: str, prompt: Any = "def f(x):", choices: int = 1, **extra: Any) -> Kind:
    body = {"model": MODEL, "prompt": prompt, "temperature": 0, "seed": 7, "max_tokens": 12, **extra}
    return Kind(name, COMPLETIONS, body, choices)


_PROMPTS = ["def f(x):", "class A", "import os"]

# Every shape of reply that a default vLLM gives on its two main routes.
KINDS: tuple[Kind, ...] = (
    _chat("chat"),
    _chat("chat_n2", choices=2, n=2, temperature=1),
    _chat("chat_stop", stop=["e"], max_tokens=40),
    _chat("chat_logprobs", logprobs=True, top_logprobs=5, max_tokens=6),
    _chat("chat_token_ids", return_token_ids=True),
    _chat("chat_echo", echo=True, add_generation_prompt=True),
    _chat("chat_tools_auto", tools=TOOLS, tool_choice="auto"),
    _chat("chat_tools_auto_called", tools=TOOLS, tool_choice="auto", max_tokens=90,
          structured_outputs={"regex": TOOL_CALL_TEXT}),
    _chat("chat_tools_required", tools=TOOLS, tool_choice="required", **CALLS_IN_TIME),
    _chat("chat_tools_named", tools=TOOLS, tool_choice=NAMED_TOOL, **CALLS_IN_TIME),
    _chat("chat_json_schema", max_tokens=60,
          response_format={"type": "json_schema", "json_schema": {"name": "weather", "schema": _PARAMETERS}}),
    _completion("completion"),
    _completion("completion_n2", choices=2, n=2, temperature=1),
    _completion("completion_prompts", _PROMPTS, choices=3),
    _completion("completion_prompts_n2", _PROMPTS, choices=6, n=2, temperature=1, max_tokens=6),
    _completion("completion_token_ids_in", [450, 285, 10, 90, 313]),
    _completion("completion_logprobs", logprobs=5, max_tokens=6),
    _completion("completion_echo", echo=True),
    _completion("completion_echo_only", echo=True, max_tokens=0, logprobs=1),
    _completion("completion_echo_logprobs_big", words(300), echo=True, logprobs=5, max_tokens=3),
    _completion("completion_choice", structured_outputs={"choice": ["yes", "no"]}),
    _completion("completion_long_prompt", words(2500, seed=1), max_tokens=4),
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One request of the mixed workload. `n` answers per prompt; the prompts are what /tokenize must count."""

    kind: str
    path: str
    body: dict[str, Any]
    n: int = 1
    prompts: tuple[str, ...] = field(default=())

    @property
    def streamed(self) -> bool:
        return bool(self.body.get("stream"))


def workload(seed: int, count: int) -> Iterator[Job]:
    """`count` jobs in a seeded mix: half streamed, all kinds, prompts from one word to some thousand."""
    source = random.Random(seed)
    for _ in range(count):
        job = _BUILDERS[source.choice(_MIX)](source)
        if source.random() < 0.5:
            variant = source.choice(list(USAGE_VARIANTS))
            job.body.update({"stream": True, **USAGE_VARIANTS[variant]})
        yield job


def long_job(source: random.Random, streamed: bool, max_tokens: int) -> Job:
    """A request that runs long enough to be hung up on at any stage of its life."""
    job = _completion_job(source) if source.random() < 0.5 else _chat_job(source)
    job.body.update(max_tokens=max_tokens, ignore_eos=True)
    if streamed:
        job.body["stream"] = True
    return job


def _sampling(source: random.Random) -> dict[str, Any]:
    return {
        "model": MODEL,
        "temperature": source.choice([0, 0.7, 1]),
        "max_tokens": source.randint(1, 60),
    }


def _text(source: random.Random, longest: int = 60) -> str:
    return words(source.randint(1, longest), source.randrange(1 << 30))


def _chat_job(source: random.Random) -> Job:
    return Job("chat", CHAT, {**_sampling(source), "messages": messages(_text(source))})


def _completion_job(source: random.Random) -> Job:
    return Job("completion", COMPLETIONS, {**_sampling(source), "prompt": _text(source)})


def _n2_job(source: random.Random) -> Job:
    text = _text(source)
    common = {**_sampling(source), "n": 2, "temperature": 1}
    if source.random() < 0.5:
        return Job("completion n=2", COMPLETIONS, {**common, "prompt": text}, 2, (text,))
    return Job("chat n=2", CHAT, {**common, "messages": [{"role": "user", "content": text}]}, 2, (text,))


def _prompts_job(source: random.Random) -> Job:
    prompts = [_text(source, 20) for _ in range(source.randint(2, 4))]
    if source.random() < 0.3:
        body = {**_sampling(source), "n": 2, "temperature": 1, "prompt": prompts}
        return Job("prompt list n=2", COMPLETIONS, body, 2, tuple(prompts))
    return Job("prompt list", COMPLETIONS, {**_sampling(source), "prompt": prompts})


def _tools_job(source: random.Random) -> Job:
    body = {**_sampling(source), "messages": messages(_text(source)), "tools": TOOLS, "max_tokens": 80}
    return Job("tools", CHAT, {**body, "tool_choice": source.choice(["auto", "required", NAMED_TOOL])})


def _logprobs_job(source: random.Random) -> Job:
    if source.random() < 0.5:
        return Job("logprobs", CHAT, {**_chat_job(source).body, "logprobs": True, "top_logprobs": 5})
    return Job("logprobs", COMPLETIONS, {**_completion_job(source).body, "logprobs": 5})


def _echo_job(source: random.Random) -> Job:
    return Job("echo", COMPLETIONS, {**_completion_job(source).body, "echo": True, "logprobs": 1})


def _long_prompt_job(source: random.Random) -> Job:
    text = words(source.randint(500, 3000), source.randrange(1 << 30))
    return Job("long prompt", COMPLETIONS, {**_sampling(source), "prompt": text, "max_tokens": 5})


_BUILDERS = {
    "chat": _chat_job,
    "completion": _completion_job,
    "n2": _n2_job,
    "prompts": _prompts_job,
    "tools": _tools_job,
    "logprobs": _logprobs_job,
    "echo": _echo_job,
    "long": _long_prompt_job,
}
_MIX = ["chat"] * 6 + ["completion"] * 4 + ["n2"] * 2 + ["prompts"] * 2 + ["tools"] * 2 + ["logprobs", "echo", "long"]
