"""The `usage` object of the OpenAI family, and the rules by which several of them become one set of counts.

Engines disagree about what several usage objects in one stream mean: vLLM's continuous usage is cumulative for each
choice and its last event replaces all; others send one final usage for each prompt. The reading is the same, the rule
is not, so a dialect names its `UsageRule`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple, Protocol

import msgspec

from inferwatch.record import TokenSource

# A count above this is garbage, not usage: at 10,000 tokens a second one request would have to run for two and a half
# days.
MAX_TOKENS: Final = 2**31 - 1

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]

# `RequestFacts.choices_per_prompt` where there is but one prompt: every index belongs to prompt 0.
ONE_PROMPT: Final = 2**31


class PromptDetails(msgspec.Struct, gc=False):
    """What part of the prompt came from a cache."""

    cached_tokens: Count | None = None


class CompletionDetails(msgspec.Struct, gc=False):
    """What part of the completion was reasoning."""

    reasoning_tokens: Count | None = None


class Usage(msgspec.Struct, gc=False):
    """One usage object as it came, without what is not a sane count."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    cached_tokens: Count | None = None  # Together and others put it here
    reasoning_tokens: Count | None = None  # SGLang puts it here
    total_tokens: Count | None = None
    prompt_cache_hit_tokens: Count | None = None  # DeepSeek puts it here

    @property
    def completion(self) -> int | None:
        """Tokens that were generated, reasoning included: xAI counts it beside the completion, as the total shows."""
        completion, reasoning = self.completion_tokens, self.reasoning
        if not reasoning or completion is None or self.prompt_tokens is None:
            return completion
        beside = completion + reasoning
        return beside if self.total_tokens == self.prompt_tokens + beside else completion

    @property
    def cached(self) -> int | None:
        """Tokens of the prompt that came from a cache."""
        details = self.prompt_tokens_details
        if details is not None and details.cached_tokens is not None:
            return details.cached_tokens
        return self.prompt_cache_hit_tokens if self.cached_tokens is None else self.cached_tokens

    @property
    def reasoning(self) -> int | None:
        """Tokens of the completion that were reasoning."""
        details = self.completion_tokens_details
        if details is None or details.reasoning_tokens is None:
            return self.reasoning_tokens
        return details.reasoning_tokens

    def blank(self) -> bool:
        """Return whether it says nothing: no counts, or the zeros that some engines send until they know."""
        return not self.prompt_tokens and not self.completion_tokens

    def nothing_generated(self) -> bool:
        """Return whether it says that the prompt is in and no token is out."""
        return self.completion_tokens == 0 and bool(self.prompt_tokens) and not self.completion

    def further_than(self, other: "Usage | None") -> bool:
        """Return whether more had been generated when this was written than when `other` was."""
        return other is None or (self.completion_tokens or 0) > (other.completion_tokens or 0)


class Totals(NamedTuple):
    """The counts of one request; None is unknown."""

    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None
    reasoning: int | None = None
    source: TokenSource = TokenSource.NONE

    def plus(self, other: "Totals") -> "Totals":
        """Return both together, from where `other` is."""
        return Totals(
            prompt=_sum((self.prompt, other.prompt)),
            completion=_sum((self.completion, other.completion)),
            cached=_sum((self.cached, other.cached)),
            reasoning=_sum((self.reasoning, other.reasoning)),
            source=other.source,
        )


class UsageRule(Protocol):
    """How the usage objects of one reply become totals."""

    def final(self, earlier: Usage | None, usage: Usage, prompts: int) -> Usage:
        """Return what holds after a usage that belongs to no choice, given what held before.

        `prompts` is how many the request had; 0 is unknown.
        """

    def running(self, usages: Mapping[int, Usage], choices_per_prompt: int | None) -> Totals:
        """Return the totals of a reply that never came to its final usage, from the last usage of each choice index.

        `choices_per_prompt` tells which prompt a choice belongs to (index // choices_per_prompt); None is unknown.
        """


class LastFinalWins:
    """vLLM, OpenAI and most others: the final usage replaces all; before it the last of each choice counts.

    A choice's prompt count is that of its prompt, which its siblings repeat: prompts are summed, choices are not.
    """

    __slots__ = ()

    def final(self, earlier: Usage | None, usage: Usage, prompts: int) -> Usage:
        """Return `usage`, unless it is blank and `earlier` is not."""
        return earlier if earlier is not None and usage.blank() else usage

    def running(self, usages: Mapping[int, Usage], choices_per_prompt: int | None) -> Totals:
        """Sum completions over choices and prompts over prompts."""
        if choices_per_prompt is None and len(usages) == 1:
            choices_per_prompt = ONE_PROMPT
        by_prompt: dict[int, Usage] = {}
        if choices_per_prompt is not None:
            for index, usage in usages.items():
                prompt = by_prompt.setdefault(index // choices_per_prompt, usage)
                if prompt.prompt_tokens is None or (prompt.cached is None and usage.cached is not None):
                    by_prompt[index // choices_per_prompt] = usage
        return Totals(
            prompt=_sum(usage.prompt_tokens for usage in by_prompt.values()),
            completion=_sum(usage.completion for usage in usages.values()),
            cached=_sum(usage.cached for usage in by_prompt.values()),
            reasoning=_sum(usage.reasoning for usage in usages.values()),
            source=TokenSource.CONTINUOUS_USAGE,
        )


class FinalPerPrompt(LastFinalWins):
    """Text completions: trtllm-serve ends a list of prompts with one usage for each, the others with one for all."""

    __slots__ = ()

    def final(self, earlier: Usage | None, usage: Usage, prompts: int) -> Usage:
        """Return the sum for a list of prompts, else the last."""
        if earlier is None or prompts <= 1 or usage.blank():
            return super().final(earlier, usage, prompts)
        return summed((earlier, usage))


def summed(usages: Sequence[Usage]) -> Usage:
    """Return the sum of several usages that have nothing in common."""
    return Usage(
        prompt_tokens=_sum(usage.prompt_tokens for usage in usages),
        completion_tokens=_sum(usage.completion for usage in usages),
        cached_tokens=_sum(usage.cached for usage in usages),
        reasoning_tokens=_sum(usage.reasoning for usage in usages),
    )


def from_timings(timings: Any) -> Usage | None:
    """Return the counts in llama.cpp's `timings`, of whatever JSON type. Its `prompt_n` leaves out what was cached."""
    if not isinstance(timings, dict):
        return None
    computed, cached = known(timings.get("prompt_n")), known(timings.get("cache_n"))
    completion = known(timings.get("predicted_n"))
    if completion is None:
        return None
    prompt = None if computed is None else computed + (cached or 0)
    return Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)


def known(value: Any) -> int | None:
    """Return `value` if it is a sane count."""
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None


# No count below MAX_TOKENS has more digits.
_MAX_DIGITS: Final = 10


def count_in(text: str) -> int | None:
    """Return the count that a header's value is."""
    text = text.strip()
    return known(int(text)) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None


def _sum(counts: Iterable[int | None]) -> int | None:
    """Add what is known; None when nothing is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
