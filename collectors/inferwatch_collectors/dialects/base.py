"""What every dialect shares: the accumulator that it fills while an answer goes by, and the interface it offers.

A dialect is a stateless singleton that knows one wire format. All state of one answer is in its `Observation`; time
comes in as `stamp_ns`, the moment at which the relay read the bytes. Nothing here raises on what an engine sends.

Gaps are kept per token, not per event: several tokens may share an event, several events a read. Each choice of an
answer is a sequence of its own, so a gap runs from the previous token-bearing event of the same choice. An event that
brought k tokens after g seconds is k gaps of g/k. Tokens that arrived in one read share its stamp: their gaps are 0,
and that is true.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from inferwatch.record import TokenClass, TokenSource
from inferwatch_collectors.dialects.content import Ear, Piece
from inferwatch_collectors.dialects.timings import NO_TIMINGS, EngineTimings
from inferwatch_collectors.dialects.usage import ONE_PROMPT, Totals, Usage

if TYPE_CHECKING:
    from inferwatch_collectors.dialects.alike import Alike

# Classes of generated output as bits, since one event may carry several. In the order in which a model makes them.
REASONING: Final = 1
ANSWER: Final = 2
TOOL_CALL: Final = 4

_CLASS_OF_BIT: Final = {REASONING: TokenClass.REASONING, ANSWER: TokenClass.ANSWER, TOOL_CALL: TokenClass.TOOL_CALL}

UNKNOWN_NS: Final = -1

# n times prompts of one request. vLLM allows 16,384 for n (VLLM_MAX_N_SEQUENCES); broken indices must not fill the
# memory.
MAX_CHOICES: Final = 16_384

# What a bound of the readers cuts off, counted by answers: values of a label.
CUT_CHOICES: Final = "choices"  # above MAX_CHOICES
CUT_LONG_REPLY: Final = "long_replies"  # plain replies above `body.MAX_REPLY_BYTES`
CUT_INFLATED: Final = "inflated"  # reads above `body.MAX_INFLATED_BYTES`
CUT_LONG_EVENT: Final = "long_events"  # events above `sse.MAX_EVENT_BYTES`
CUT_GAPS: Final = "token_gaps"  # above `exchange.MAX_PENDING_GAPS`
CUT_REASONS: Final = (CUT_CHOICES, CUT_LONG_REPLY, CUT_INFLATED, CUT_LONG_EVENT, CUT_GAPS)

_NOTHING_CUT: Final[frozenset[str]] = frozenset()

# Names that an engine chose go into records: enough for any real one, and no room for a page of text.
MAX_NAME_CHARS: Final = 256


class RequestFacts(NamedTuple):
    """What a reader must know of the request to read the reply.

    Attributes:
        choices_per_prompt: a choice's prompt is index // this; None if the request does not tell.
        echo_only: the text that comes back is the prompt, nothing is to be generated.
        prompts: how many there are; 0 if the request does not tell.
        offers_tools: the model may call tools, and need not.
        choices: answers in all that are to come.
    """

    choices_per_prompt: int | None = ONE_PROMPT
    echo_only: bool = False
    prompts: int = 1
    offers_tools: bool = False
    choices: int = 1


class Choice:
    """One choice of an answer so far."""

    __slots__ = ("counted", "events", "finish", "guessed", "stamp_ns", "tokens", "usage")

    def __init__(self) -> None:
        self.stamp_ns = UNKNOWN_NS  # of the last token-bearing event, unless bytes are missing since
        self.events = 0  # token-bearing events
        self.tokens = 0  # the engine's cumulative count
        self.counted = False  # `tokens` is as new as the last event
        self.usage: Usage | None = None  # the last usage of this choice alone
        self.guessed = False  # or of another one: bytes are missing
        self.finish = ""


class Observation:
    """What is known of one answer so far. Times are CLOCK_MONOTONIC nanoseconds, UNKNOWN_NS if unknown."""

    __slots__ = (
        "_first_open",
        "answer_ns",
        "awaits_token",
        "choices",
        "cuts",
        "done",
        "echo_only",
        "engine_id",
        "engine_model",
        "error",
        "events",
        "facts",
        "final",
        "first_class",
        "first_ns",
        "gap_count",
        "gap_max_s",
        "gap_sum_ns",
        "gaps",
        "listener",
        "lossy",
        "malformed",
        "own",
        "reader",
        "refused",
        "source",
        "stall_from_ns",
        "stall_to_ns",
        "timings",
    )

    def __init__(self, facts: RequestFacts) -> None:
        self.facts = facts
        self.echo_only = facts.echo_only  # at hand for each token
        self.choices: dict[int, Choice] = {}
        self.cuts = _NOTHING_CUT  # CUT_REASONS that apply
        self.final: Usage | None = None  # of the whole answer
        self.events = 0  # data events that held an object
        self.malformed = 0  # data events, or bodies, that did not
        self.done = False  # the end-of-stream mark came
        self.error = False  # an error came in place of (the rest of) the answer
        self.refused = False  # that error was a refusal: nothing had been generated
        self.lossy = False  # something that the engine sent was not read
        self.source: TokenSource | None = None  # where the counts come from, if it is no usage
        self.own: Any = None  # whatever else its dialect keeps of it
        self.reader: Dialect | None = None  # who reads it, where its shape decides
        self.engine_id = ""
        self.engine_model = ""
        self.timings: EngineTimings = NO_TIMINGS  # by the engine itself
        self.listener: Ear | None = None  # who is told what is said
        self.first_ns = UNKNOWN_NS
        self.first_class: TokenClass | None = None
        self.answer_ns = UNKNOWN_NS
        self._first_open = True  # no token yet, and none can have been missed
        self.awaits_token = True  # the first of the answer, and perhaps the first of any class, is still to come
        self.gaps: list[tuple[float, int]] = []  # (gap_s, tokens) not yet drained
        self.gap_count = 0
        self.gap_sum_ns = 0
        self.gap_max_s = 0.0
        self.stall_from_ns = UNKNOWN_NS  # where the largest gap began and ended
        self.stall_to_ns = UNKNOWN_NS

    def choice(self, index: int) -> Choice | None:
        """Return the state of choice `index`, new if need be; None if there are too many."""
        found = self.choices.get(index)
        if found is None:
            if len(self.choices) >= MAX_CHOICES:
                self.cut(CUT_CHOICES)
                return None
            found = self.choices[index] = Choice()
        return found

    def cut(self, reason: str) -> None:
        """Note that a bound, one of CUT_REASONS, has kept something out of here."""
        self.cuts |= {reason}

    def finish_reasons(self) -> tuple[str, ...]:
        """Return how the choices finished that did, in the order of their indices."""
        choices = self.choices
        if len(choices) == 1:
            (choice,) = choices.values()
            return (choice.finish,) if choice.finish else ()
        return tuple(choice.finish for _, choice in sorted(choices.items()) if choice.finish)

    def token_seen(self, stamp_ns: int, classes: int) -> None:
        """Generated output of `classes` (bits) came: remember the first of any class and the first of the answer."""
        if not self.awaits_token:
            return
        if self._first_open:
            self._first_open = False
            self.first_ns = stamp_ns
            self.first_class = _CLASS_OF_BIT[classes & -classes]
        if classes & ANSWER:
            self.awaits_token = False
            self.answer_ns = stamp_ns

    def tokens_arrived(self, choice: Choice, stamp_ns: int, tokens: int) -> None:
        """Note that `tokens` (1 or more) new tokens of `choice` came in one event."""
        gap_ns = stamp_ns - choice.stamp_ns
        if choice.stamp_ns >= 0 <= gap_ns:
            gap_s = gap_ns / (1e9 * tokens)
            self.gaps.append((gap_s, tokens))
            self.gap_count += tokens
            self.gap_sum_ns += gap_ns
            if gap_s > self.gap_max_s:  # once a token: a call of max() costs more
                self.gap_max_s = gap_s
                self.stall_from_ns = choice.stamp_ns
                self.stall_to_ns = stamp_ns
        choice.stamp_ns = stamp_ns

    def bytes_missing(self) -> None:
        """Some of the answer was not seen: what the next token would be measured against is no longer known."""
        self.lossy = True
        self._first_open = self.awaits_token = False
        for choice in self.choices.values():
            choice.stamp_ns = UNKNOWN_NS
            choice.counted = False
        if self.listener is not None:
            self.listener.missing()

    @property
    def first_token_missed(self) -> bool:
        """Whether the first token may have been among the missing bytes."""
        return self.first_ns == UNKNOWN_NS and not self._first_open


class Dialect:
    """One wire format. This base reads nothing; a dialect overrides what it knows how to read.

    Instances keep no state of any answer, and their methods never raise on what an engine sent.

    Attributes:
        operation: OpenTelemetry's gen_ai.operation.name, or "other".
        generates: its replies are generated token by token, so that a stream of them has a first token.
        reads: replies are read at all; if not, their bytes are only counted.
        reads_head: counts may stand in the reply's head.
    """

    operation: str = "other"
    generates: ClassVar[bool] = False
    reads: ClassVar[bool] = False
    reads_head: ClassVar[bool] = False

    def facts(self, body: bytes, choices: int) -> RequestFacts:
        """Return what the request tells about its reply. `choices` is n times prompts, 0 if unknown."""
        return RequestFacts()

    def prompt(self, body: bytes) -> Iterator[Piece]:
        """Yield the texts of a request. `body` may be cut or be anything: what cannot be read is left out."""
        return iter(())

    def read_head(self, observation: Observation, headers: Mapping[str, str]) -> None:
        """Take the head (lower-case names) of a reply."""

    def read_event(self, observation: Observation, stamp_ns: int, name: bytes, data: bytes) -> None:
        """Take one event of a streamed reply: of server-sent events the data, or a record of NDJSON (no `name`)."""

    def alike(self, observation: Observation, event: bytes) -> "Alike | None":
        """Return what takes events that are like this one, whose data was just read; None: that is nothing to go by."""
        return None

    def read_reply(self, observation: Observation, body: bytes) -> None:
        """Take a whole plain reply."""

    def tell_reply(self, observation: Observation, stamp_ns: int, body: bytes) -> None:
        """Tell the observation's listener what a whole plain reply says. Only called if there is one."""

    def read_reply_tail(self, observation: Observation, tail: bytes) -> None:
        """Take the end of a plain reply that was not read: how its choices finished."""

    def read_usage(self, raw: bytes) -> Usage | None:
        """Return the usage object in `raw` JSON, None if it is none."""
        return None

    def totals(self, observation: Observation, choices: int) -> Totals:
        """Return the counts. `choices` is how many were asked for, 0 if unknown."""
        return Totals()

    def unfinished(self, observation: Observation) -> bool:
        """Return whether a stream that was seen whole ended before its choices did."""
        choices = observation.choices
        return not choices or not all(choice.finish for choice in choices.values())
