"""OpenAI text completions: `choices[].text`, several prompts in one request, the prompt itself with `echo`.

Engines that are not to make text of tokens stream `token_ids`: vLLM's `/inference/v1/generate` has nothing else,
trtllm-serve (`"detokenize": false`) has them beside an empty text.
"""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final

import msgspec

from inferwatch_collectors.dialects.base import ANSWER, Observation, RequestFacts
from inferwatch_collectors.dialects.content import BAD_JSON, SETTINGS, Piece, Source, load, settings, texts
from inferwatch_collectors.dialects.openai_common import OpenAIStreams, WireChoice, WireReply
from inferwatch_collectors.dialects.usage import ONE_PROMPT, FinalPerPrompt, Totals, UsageRule


class TextChoice(WireChoice, gc=False):
    """A choice in a chunk."""

    text: str | None = None
    token_ids: list[Any] | None = None


class TextChunk(WireReply, gc=False):
    """One event."""

    choices: list[TextChoice] | None = None


class _Body(msgspec.Struct, gc=False):
    n: int | None = None
    echo: bool | None = None
    max_tokens: int | None = None


# As lax as the engine: pydantic takes "2" for 2 and "true" for true.
_decode_body: Final = msgspec.json.Decoder(_Body, strict=False).decode


def generated_classes(choice: TextChoice) -> int:
    """Return ANSWER (text has but one class) if the chunk's choice brings text, or tokens in its place, else 0."""
    return ANSWER if choice.text or (choice.token_ids and not _ends_alone(choice)) else 0


def _ends_alone(choice: TextChoice) -> bool:
    """Return whether all that a choice brings without text is the token that ends it, which is no output."""
    return choice.finish_reason == "stop" and len(choice.token_ids or ()) == 1


def generated_texts(choice: TextChoice) -> Iterable[tuple[int, str]]:
    """Return the text of a chunk's choice."""
    return ((ANSWER, choice.text),) if choice.text else ()


class OpenAICompletions(OpenAIStreams):
    """`/v1/completions`. A choice's index is i + prompt_index × n."""

    operation = "text_completion"
    rule: ClassVar[UsageRule] = FinalPerPrompt()

    def __init__(self) -> None:
        super().__init__(TextChunk, generated_classes, generated_texts)

    def prompt(self, body: bytes) -> Iterator[Piece]:
        """Yield the prompts, then the settings. Prompts given as token ids are not text."""
        loaded = load(body)
        for text in (*texts(loaded.get("prompt")), *texts(loaded.get("suffix"))):
            yield Piece(Source.USER, text)
        yield from settings(loaded, SETTINGS)

    def facts(self, body: bytes, choices: int) -> RequestFacts:
        """Read n and echo. A body that was cut or dropped leaves open which prompt a choice belongs to."""
        one_prompt = ONE_PROMPT if choices == 1 else None
        try:
            asked = _decode_body(body)
        except BAD_JSON:
            return RequestFacts(choices_per_prompt=one_prompt, prompts=1 if one_prompt else 0)
        n = max(1, asked.n or 1)
        return RequestFacts(
            choices_per_prompt=one_prompt or n,
            echo_only=bool(asked.echo) and asked.max_tokens == 0,
            prompts=1 if one_prompt else choices // n,
        )

    def totals(self, observation: Observation, choices: int) -> Totals:
        """Return the counts; of a list of prompts that was cut when some had ended, those of the others too."""
        totals = super().totals(observation, choices)
        per_prompt = observation.facts.choices_per_prompt
        whole = observation.final is None or observation.done or observation.lossy
        if whole or observation.facts.prompts <= 1 or per_prompt is None:
            return totals
        seen = observation.choices
        going_on = {index // per_prompt for index, choice in seen.items() if not choice.finish}
        usages = {
            index: choice.usage
            for index, choice in seen.items()
            if choice.usage is not None and index // per_prompt in going_on
        }
        return totals.plus(self.rule.running(usages, per_prompt)) if usages else totals


OPENAI_COMPLETIONS: Final = OpenAICompletions()
