"""What the readers of all formats share: giving JSON a second chance, and noting names, finishes, errors and tokens.

Counting. An engine's count of one choice is cumulative and is kept, never added up; the difference of two counts of one
choice is how many tokens came, also when the text is empty (an end token, a held-back character) or the tokens came
with no event of their own (a tool parser that waits). A count of the whole answer replaces all. Without counts every
event with something generated in it stands for one token.
"""

from typing import Any, ClassVar, Final, TypeVar

import msgspec

from inferwatch.record import TokenSource
from inferwatch_collectors.dialects.base import MAX_NAME_CHARS, Choice, Dialect, Observation
from inferwatch_collectors.dialects.content import BAD_JSON
from inferwatch_collectors.dialects.lenient import load_object, objects_named, salvage
from inferwatch_collectors.dialects.usage import LastFinalWins, Totals, Usage, UsageRule

# A finish reason is a word of the engine's; those known have 17 characters at most.
MAX_FINISH_CHARS: Final = 32

# At hand: before Python 3.12 each mention of an enum's member calls a descriptor.
_FINAL_USAGE: Final = TokenSource.FINAL_USAGE

# Words by which engines refuse a request inside a 200: TGI's `error_type`, Anthropic's and OpenAI's `type`.
_REFUSALS: Final = frozenset(
    {
        "overloaded",
        "validation",
        "template_error",
        "overloaded_error",
        "rate_limit_error",
        "rate_limit_exceeded",
        "insufficient_quota",
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "request_too_large",
    }
)

# Where an error object has its HTTP status: TGI's chat, Groq and SGLang, vLLM and llama.cpp.
_STATUS_FIELDS: Final = ("http_status_code", "status_code", "code")

# Groq's word for an answer that was generated and did not pass its validation.
_FAILED_GENERATION: Final = "failed_generation"

S = TypeVar("S", bound=msgspec.Struct)


class CountingDialect(Dialect):
    """A format whose replies are read: what the engine counted becomes totals by the dialect's rule."""

    reads: ClassVar[bool] = True
    rule: ClassVar[UsageRule] = LastFinalWins()

    def read_reply_tail(self, observation: Observation, tail: bytes) -> None:
        """Take the usage, which engines write behind what they generated."""
        for raw in objects_named("usage", tail):
            usage = self.read_usage(raw)
            if usage is not None and not usage.blank():
                observation.final = usage
                return

    def totals(self, observation: Observation, choices: int) -> Totals:
        """Return the final usage, or the sum of the running ones, or what the events let us guess."""
        final = observation.final
        if final is not None and (final.prompt_tokens is not None or final.completion_tokens is not None):
            source = observation.source or _FINAL_USAGE
            return Totals(final.prompt_tokens, final.completion, final.cached, final.reasoning, source)
        seen = observation.choices
        usages = {index: choice.usage for index, choice in seen.items() if choice.usage is not None}
        if usages:
            running = self.rule.running(usages, observation.facts.choices_per_prompt)
            uncounted = sum(choice.events for choice in seen.values() if choice.usage is None)
            if uncounted:  # engines that count a choice when it ends
                completion = (running.completion or 0) + uncounted
                return running._replace(completion=completion, source=TokenSource.CHUNK_ESTIMATE)
            # A choice that has finished and was counted then has its final count, and so has the whole.
            complete = len(seen) >= choices and all(choice.finish and choice.counted for choice in seen.values())
            if complete or observation.source:
                return running._replace(source=observation.source or _FINAL_USAGE)
            return running
        events = sum(choice.events for choice in seen.values())
        return Totals(completion=events, source=TokenSource.CHUNK_ESTIMATE) if events else Totals()


def decoded(observation: Observation, data: bytes, decode: Any, wanted: type[S]) -> S | None:
    """Return the object in `data`, by a typed decoder or what is right of it; None: the end mark, or nothing of use."""
    try:
        found: S = decode(data)
    except BAD_JSON:
        return second_chance(observation, data, wanted)
    return found


def second_chance(observation: Observation, data: bytes, wanted: type[S]) -> S | None:
    """Return what is right in `data`, which the typed decoder refused; None: the end mark, or nothing of use."""
    text = data.strip()
    if not text or text == b"null":  # llama.cpp begins a stream of several prompts so
        return None
    if text == b"[DONE]":
        observation.done = True
        return None
    loaded = load_object(data)
    if loaded is None:
        # Errors put together by hand may hold quotes that nobody escaped (Transformers serve).
        observation.error |= text.startswith(b'{"error"')
        observation.malformed += 1
        observation.lossy = True
        return None
    return salvage(loaded, wanted)


def whole_reply(observation: Observation, body: bytes, decode: Any, wanted: type[S]) -> S | None:
    """Return the object that is a plain reply; None, and counted, if it is none."""
    try:
        found: S = decode(body)
    except BAD_JSON:
        loaded = load_object(body)
        if loaded is None:
            observation.malformed += 1
            observation.lossy = True
            return None
        return salvage(loaded, wanted)
    return found


def note_names(observation: Observation, engine_id: str | None, model: str | None) -> None:
    """Remember what the engine calls the answer and itself."""
    if engine_id:
        observation.engine_id = engine_id[:MAX_NAME_CHARS]
    if model:
        observation.engine_model = model[:MAX_NAME_CHARS]


def note_finish(observation: Observation, index: int, reason: str | None) -> None:
    """Remember how a choice finished; it exists from here on."""
    choice = observation.choice(index)
    if choice is not None and reason:
        choice.finish = reason[:MAX_FINISH_CHARS]


def note_error(observation: Observation, error: Any, kind: str | None = None) -> None:
    """An error came in place of (the rest of) the answer. `kind`: the word for it beside a bare message.

    Before anything was generated it may be a refusal, which engines that have sent their head can only put here.
    """
    observation.error = True
    if not observation.awaits_token or observation.first_class is not None:
        return
    if isinstance(error, dict) and _FAILED_GENERATION not in error:
        status = next((error[name] for name in _STATUS_FIELDS if type(error.get(name)) is int), 0)
        kind = error.get("type") if kind is None else kind
        observation.refused |= 400 <= status < 500
    observation.refused |= isinstance(kind, str) and kind in _REFUSALS


def advance(observation: Observation, stamp_ns: int, index: int, classes: int, usage: Usage | None) -> None:
    """Take an event of choice `index` with output of `classes` (bits), and its cumulative usage where it has one."""
    choice = observation.choice(index)
    if choice is not None:
        advance_choice(observation, stamp_ns, choice, classes, usage)


def advance_choice(observation: Observation, stamp_ns: int, choice: Choice, classes: int, usage: Usage | None) -> None:
    """Take an event of that choice."""
    tokens = 0
    if classes:
        choice.events += 1
        tokens = 1
        if observation.awaits_token:
            observation.token_seen(stamp_ns, classes)
    if usage is None:
        choice.counted = False
    else:
        tokens = count(choice, usage, tokens)
    if tokens:
        observation.tokens_arrived(choice, stamp_ns, tokens)


def count(choice: Choice, usage: Usage, guess: int) -> int:
    """Take the cumulative `usage` of `choice`; return how many tokens came since the event before.

    `guess` is the answer where the count before is not known, or this one is no count.
    """
    total = usage.completion_tokens
    if total is None or total < choice.tokens or (total == 0 and usage.blank()):
        choice.counted = False
        return guess
    # Without a count before it the difference means nothing, unless nothing came before it at all.
    tokens = total - choice.tokens if choice.counted or not choice.events else guess
    choice.tokens = total
    choice.usage = usage
    choice.counted = True
    return tokens


def tell(observation: Observation, stamp_ns: int, index: int, bit: int, text: Any) -> None:
    """Tell the listener, if there is one, a `text` of one class; anything else is no text."""
    if observation.listener is not None and isinstance(text, str) and text:
        observation.listener.text(stamp_ns, index, bit, text)


def note_count(observation: Observation, index: int, usage: Usage) -> None:
    """Take the final count of a choice of a plain reply."""
    choice = observation.choice(index)
    if choice is not None:
        choice.usage = usage
        choice.tokens = usage.completion_tokens or 0
        choice.counted = True
