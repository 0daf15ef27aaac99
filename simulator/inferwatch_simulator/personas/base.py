"""What personas beside vLLM's share: a persona is an engine's routes, each with a format, and its other pages.

A format reads a body into a `Generation` (the one form the simulator works with), and writes what a `Turn` says: events
of a stream, or a plain reply. It keeps no state: a turn has all of it.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from typing import Any, NamedTuple

import msgspec

from inferwatch_simulator.answers import Answer, Kind
from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.metrics import EngineTotals
from inferwatch_simulator.personas.fields import ApiError
from inferwatch_simulator.personas.vllm_events import FAILURE
from inferwatch_simulator.personas.vllm_requests import Generation, chat_request, completion_request
from inferwatch_simulator.personas.vllm_shapes import Identity
from inferwatch_simulator.scheduler import Sequence

SSE = "text/event-stream"
JSON = "application/json"

encode = msgspec.json.encode


class Turn(NamedTuple):
    """One request and the answers to it, in the order of their indices."""

    identity: Identity
    generation: Generation
    answers: list[Answer]
    config: SimulatorConfig
    body: dict[str, Any]  # as the client sent it
    path: str

    @property
    def prompt_tokens(self) -> int:
        """Of all prompts, each once."""
        return sum(prompt.tokens for prompt in self.generation.prompts)

    @property
    def completion_tokens(self) -> int:
        """Of all answers."""
        return sum(len(answer.pieces) for answer in self.answers)

    @property
    def reasoning_tokens(self) -> int:
        """Of all answers."""
        return sum(answer.reasoning_tokens for answer in self.answers)


class Call(NamedTuple):
    """A piece of a tool call: its position, its name where it begins, and what it adds to the arguments."""

    position: int
    name: str | None
    arguments: str


class Said(NamedTuple):
    """What some tokens of an answer say."""

    content: str
    reasoning: str
    calls: list[Call]


class Page(NamedTuple):
    """An answer that nothing is generated for."""

    body: bytes
    content_type: str = JSON
    status: int = 200
    headers: Mapping[str, str] = {}


class Refusal(NamedTuple):
    """What is said instead of an answer. An `event` goes into a stream, at 200."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}
    event: bytes | None = None


def said(answer: Answer, start: int, end: int) -> Said:
    """Return what tokens [start, end) say, sorted as parsers sort it."""
    content = reasoning = ""
    calls: list[Call] = []
    position = answer.kinds[:start].count(Kind.TOOL_NAME) - 1
    for piece, kind in zip(answer.pieces[start:end], answer.kinds[start:end], strict=True):
        match kind:
            case Kind.CONTENT:
                content += piece.text
            case Kind.REASONING:
                reasoning += piece.text
            case Kind.TOOL_NAME:
                position += 1
                calls.append(Call(position, answer.calls[position].name, ""))
            case Kind.TOOL_ARGUMENTS:
                calls.append(Call(position, None, piece.text))
            case _:
                continue
    return Said(content, reasoning, calls)


def whole_calls(answer: Answer) -> list[tuple[str, str]]:
    """Return (name, arguments) of each call of an answer that is complete."""
    arguments = [""] * len(answer.calls)
    for call in said(answer, 0, len(answer.pieces)).calls:
        arguments[call.position] += call.arguments
    return [(tool.name, text) for tool, text in zip(answer.calls, arguments, strict=True)]


class Format:
    """One API of an engine. What is not overridden is not there.

    Attributes:
        opens_early: what opens a stream is sent before there is a first token.
    """

    content_type = SSE
    opens_early = False
    stream_headers: Mapping[str, str] = {}

    def streams(self, body: dict[str, Any], path: str) -> bool:
        """Return whether the answer to `body` is streamed."""
        return bool(body.get("stream"))

    def read(self, body: dict[str, Any], config: SimulatorConfig) -> Generation:
        """Check a body.

        Raises:
            ApiError: it is refused.
        """
        raise NotImplementedError

    def opening(self, turn: Turn) -> list[bytes]:
        """Return what comes before the first token."""
        return []

    def tokens(self, turn: Turn, index: int, start: int, end: int, *, last: bool) -> bytes | None:
        """Return the events for tokens [start, end) of an answer; None if they have none."""
        raise NotImplementedError

    def closing(self, turn: Turn, sequences: Items[Sequence]) -> list[bytes]:
        """Return what comes after the last token."""
        return []

    def reply(self, turn: Turn, sequences: Items[Sequence]) -> tuple[Mapping[str, str], Any]:
        """Return the headers that a plain reply has besides, and its JSON."""
        raise NotImplementedError

    def refusal(self, error: ApiError, *, streamed: bool) -> Refusal:
        """Return how `error` is said."""
        return Refusal(error.status, error.body())

    def failure(self) -> Items[bytes]:
        """Return what is said in the midst of a stream that fails; as vLLM does, unless the engine has its own way."""
        return FAILURE


class Persona:
    """One engine: its routes and pages.

    Attributes:
        server: the `Server` header, "" for none.
    """

    name = ""
    server = "uvicorn"

    def formats(self) -> Mapping[str, Format]:
        """Return path -> format, for POST."""
        return {}

    def format_of(self, path: str) -> Format | None:
        """Return the format of a path; those with names in them are the persona's to know."""
        return self.formats().get(path)

    def check(self, headers: Mapping[str, str]) -> None:
        """Look at the head of a request that something would be generated for.

        Raises:
            ApiError: it is refused.
        """

    def page(self, path: str, config: SimulatorConfig, totals: EngineTotals) -> Page | None:
        """Return what GET `path` answers; None: nothing."""
        return None

    def not_found(self) -> Page:
        """Return what an unknown path gets."""
        return Page(b'{"detail":"Not Found"}', status=404)


def generation_of(body: Mapping[str, Any], config: SimulatorConfig) -> Generation:
    """Read a body that was translated into OpenAI's words; who answers to another model name has taken it out."""
    request = {key: value for key, value in body.items() if value is not None}
    return chat_request(request, config) if "messages" in request else completion_request(request, config)


def event(content: Any, *, start: bytes = b"data: ", end: bytes = b"\n\n") -> bytes:
    """Return one server-sent event."""
    return start + encode(content) + end


def exposition(lines: Items[tuple[str, str, Mapping[str, str], float]]) -> bytes:
    """Return Prometheus text of (name, type, labels, value); a name that comes again is one family."""
    text, told = [], set()
    for name, kind, labels, value in lines:
        family = name.removesuffix("_sum").removesuffix("_count") if kind == "histogram" else name
        if family not in told:
            told.add(family)
            text.append(f"# TYPE {family} {kind}")
        shown = ",".join(f'{key}="{label}"' for key, label in labels.items())
        text.append(f"{name}{{{shown}}} {value:g}" if shown else f"{name} {value:g}")
    return ("\n".join(text) + "\n").encode()


class TurnEvents:
    """What a streamed reply writes: a format, bound to its turn."""

    def __init__(self, form: Format, turn: Turn) -> None:
        self._form = form
        self._turn = turn

    def opening(self) -> list[bytes]:
        """What comes before the first token."""
        return self._form.opening(self._turn)

    def tokens(self, index: int, start: int, end: int, *, last: bool) -> bytes | None:
        """The events for tokens [start, end) of a choice; None if they have none."""
        return self._form.tokens(self._turn, index, start, end, last=last)

    def closing(self, sequences: Items[Sequence]) -> list[bytes]:
        """What comes after the last token."""
        return self._form.closing(self._turn, sequences)
