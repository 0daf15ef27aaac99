"""The canary probe: what the engine is asked, how often, and how sure a change must be."""

import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from inferwatch.settings.base import MAX_SECONDS, Count, Seconds

# Each model and prompt has a reference of its own, some hundred bytes: a handful is meant.
MAX_MODELS: Final = 8
MAX_PROMPTS: Final = 32
MAX_PROMPT_CHARS: Final = 2_000

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Canary(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Fixed prompts that show whether the model is still the same."""

    enabled: Annotated[
        bool,
        Meta(
            description="Ask the engine for one token of a fixed prompt now and then, and compare the probabilities "
            "with a reference. Booked to the tenant `inferwatch-canary`."
        ),
    ] = False
    models: Annotated[
        tuple[str, ...], Meta(description="Models to ask, 8 at most; empty: the first that the engine lists.")
    ] = ()
    prompts: Annotated[
        tuple[str, ...],
        Meta(description="What is asked, in turn, 32 at most; empty: six that come with it. Others need a reference."),
    ] = ()
    api: Annotated[
        Literal["completions", "chat"],
        Meta(description="`completions` goes without a chat template; `chat` notices a change of that, too."),
    ] = "completions"
    top_logprobs: Annotated[
        int, Meta(ge=1, le=20, description="How many tokens' probabilities are asked for. OpenAI's completions give 5.")
    ] = 5
    interval_s: Annotated[
        float, Meta(ge=0.02, le=MAX_SECONDS, description="Between two probes, of all models and prompts together.")
    ] = 60.0
    timeout_s: Annotated[Seconds, Meta(description="For one probe.")] = 10.0
    priority: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="vLLM's `priority`, higher is later. Needs `--scheduling-policy priority`; vLLM refuses it "
            "otherwise. 0: not sent. Nothing but a vLLM is sent one.",
        ),
    ] = 0
    key_env: Annotated[
        str, Meta(description="Environment variable with a key of the engine, if it wants one. Changes need a restart.")
    ] = ""
    weeks_per_false_alarm: Annotated[
        float, Meta(gt=0, le=520, description="At most one false signal in so many weeks, of all models together.")
    ] = 20.0
    tolerance_nats: Annotated[
        float,
        Meta(
            ge=0,
            le=10,
            description="A mean change of log-probabilities up to this is of no interest, nor is one up to twice what "
            "was usual while the reference was learnt. Another one needs another reference.",
        ),
    ] = 0.1
    reference_probes_min: Annotated[
        int, Meta(ge=500, description="No reference is pinned from fewer probes of a model, not even by command.")
    ] = 1_000
    reference_hours: Annotated[
        Count,
        Meta(
            description="A reference pins itself when it has the probes and was learnt for so long. A day has the "
            "noise of busy and quiet hours."
        ),
    ] = 24


def fault(canary: Canary) -> str:
    """Return what is wrong with `canary`, beginning with the key, or ""."""
    return next(_faults(canary), "")


def _faults(canary: Canary) -> Iterator[str]:
    for key, texts, most in (("models", canary.models, MAX_MODELS), ("prompts", canary.prompts, MAX_PROMPTS)):
        if len(texts) > most:
            yield f"canary.{key}: {len(texts)} of them, expected at most {most}"
        if len(set(texts)) < len(texts) or not all(texts):
            yield f"canary.{key}: one is empty, or written twice"
    longest = max(map(len, canary.prompts), default=0)
    if longest > MAX_PROMPT_CHARS:
        yield f"canary.prompts: one of {longest} characters, expected at most {MAX_PROMPT_CHARS}"
    if canary.key_env and not _VARIABLE.fullmatch(canary.key_env):
        # Not quoted: somebody may have put the key itself there.
        yield "canary.key_env: expected the name of an environment variable"
