"""What the model will answer, decided when the request comes: every token, what becomes of it, and why it ends.

A deterministic answer planned up front is what makes a simulated engine testable: the same request has the same
bytes, a stop string is found by looking, and the stream has nothing left to decide.
"""

import enum
from collections.abc import Sequence
from typing import Any

import msgspec

from inferwatch_simulator.text import EOS, Dice, Piece, generated, piece_of, write


class Kind(enum.IntEnum):
    """Where a token's text goes."""

    CONTENT = 0
    REASONING = 1
    HIDDEN = 2  # generated and counted, never shown: markers, and what a parser holds back
    TOOL_NAME = 3  # completes the name of a tool: its call appears here
    TOOL_ARGUMENTS = 4


class Tool(msgspec.Struct, frozen=True):
    """A function the model may call: its name and the JSON schema of its parameters."""

    name: str
    parameters: dict[str, Any] = {}


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer must obey. `tools` lists those that may be called; `must_call` leaves no choice."""

    max_tokens: int
    mean_tokens: float
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    reasoning: bool = False
    tools: tuple[Tool, ...] = ()
    must_call: bool = False
    parallel_calls: bool = True
    call_share: float = 0.6


class Answer(msgspec.Struct, frozen=True):
    """A planned answer, at least one token long.

    Args:
        pieces: the tokens, in order.
        kinds: for each, its `Kind`.
        calls: the tools called, in order of their appearance.
        finish_reason: `stop`, `length`.
        stop_reason: the stop string that ended it, if one did.
    """

    pieces: list[Piece]
    kinds: bytes
    calls: tuple[Tool, ...]
    finish_reason: str
    stop_reason: str | None

    @property
    def reasoning_tokens(self) -> int:
        return self.kinds.count(Kind.REASONING)

    def text(self, kind: Kind) -> str:
        """All text of one kind."""
        return "".join(piece.text for piece, own in zip(self.pieces, self.kinds, strict=True) if own == kind)


REFUSAL = "I'm sorry, but I can't help with that request. "

# Spread of the lengths around their mean: most answers are somewhat shorter, a few are several times longer.
_LENGTHS = (0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 3.0)
_REASONING_SHARE = 0.4  # of the mean length, thought before the answer


def plan(wish: Wish, dice: Dice) -> Answer:
    """Decide the whole answer."""
    draft = _Draft()
    spread = _LENGTHS[dice.below(len(_LENGTHS))] * (0.9 + 0.2 * dice.unit())
    length = max(wish.min_tokens, 1, round(wish.mean_tokens * spread))
    if wish.reasoning:
        draft.think(dice, max(1, round(length * _REASONING_SHARE)))
    if wish.tools and (wish.must_call or dice.unit() < wish.call_share):
        draft.call_tools(wish, dice)
    else:
        draft.say(dice, length)
    draft.extend([EOS], Kind.HIDDEN if draft.calls else Kind.CONTENT)
    return _bounded(draft, wish, dice)


def looped(answer: Answer, period: int) -> Answer:
    """Return an answer of the same length that says its first `period` tokens again and again."""
    period = max(1, period)
    pieces = [answer.pieces[place % period] for place in range(len(answer.pieces))]
    return msgspec.structs.replace(answer, pieces=pieces)


def refused(answer: Answer) -> Answer:
    """Return an answer of the same length that begins as a refusal does."""
    opening = generated(REFUSAL)[: len(answer.pieces)]
    return msgspec.structs.replace(answer, pieces=[*opening, *answer.pieces[len(opening) :]])


class _Draft:
    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.kinds = bytearray()
        self.calls: list[Tool] = []

    def extend(self, pieces: Sequence[Piece], kind: Kind) -> None:
        self.pieces += pieces
        self.kinds += bytes([kind]) * len(pieces)

    def say(self, dice: Dice, count: int) -> None:
        self.extend(write(dice, count), Kind.CONTENT)

    def think(self, dice: Dice, count: int) -> None:
        # The opening marker is part of the prompt, as with common reasoning templates.
        self.extend(write(dice, count, thinking=True), Kind.REASONING)
        self.extend([_END_THINK], Kind.HIDDEN)

    def call_tools(self, wish: Wish, dice: Dice) -> None:
        """One call, sometimes two, in the manner of `<tool_call>{"name": …, "arguments": {…}}</tool_call>`."""
        calls = 1 + (wish.parallel_calls and not wish.must_call and dice.below(5) == 0)
        for _ in range(calls):
            tool = wish.tools[dice.below(len(wish.tools))]
            self.calls.append(tool)
            self.extend(_CALL_HEAD, Kind.HIDDEN)
            self.extend(generated(tool.name), Kind.HIDDEN)
            # The name is known to be complete when its closing quote comes.
            self.extend([_NAME_END], Kind.TOOL_NAME)
            self.extend(_ARGUMENTS_HEAD, Kind.HIDDEN)
            arguments = msgspec.json.encode(example(tool.parameters, dice)).decode()
            self.extend(generated(arguments), Kind.TOOL_ARGUMENTS)
            self.extend(_CALL_TAIL, Kind.HIDDEN)


# Markers are one token each, as in the vocabularies of models that think or call.
_END_THINK = piece_of("</think>")
_CALL_HEAD = [piece_of("<tool_call>"), *generated('\n{"name": "')]
_NAME_END = piece_of('",')
_ARGUMENTS_HEAD = generated(' "arguments": ')
_CALL_TAIL = [*generated("}\n"), piece_of("</tool_call>")]


def _bounded(draft: _Draft, wish: Wish, dice: Dice) -> Answer:
    """Apply what limits it: stop strings, the token limit, and `ignore_eos`, which fills up to that limit."""
    if wish.ignore_eos:
        missing = wish.max_tokens - len(draft.pieces) + 1
        if missing > 0:
            del draft.pieces[-1], draft.kinds[-1]
            kind = Kind.HIDDEN if draft.calls else Kind.CONTENT
            draft.extend(write(dice, missing), kind)
    stopped = _stopped(draft, wish)
    if stopped is not None:
        return stopped
    if wish.ignore_eos or len(draft.pieces) > wish.max_tokens:
        pieces, kinds = draft.pieces[: wish.max_tokens], bytes(draft.kinds[: wish.max_tokens])
        calls = draft.calls[: kinds.count(Kind.TOOL_NAME)]
        return Answer(pieces, kinds, tuple(calls), "length", None)
    return Answer(draft.pieces, bytes(draft.kinds), tuple(draft.calls), "stop", None)


def _stopped(draft: _Draft, wish: Wish) -> Answer | None:
    """The answer up to the first stop string in its content, without it; None if there is none within the limit."""
    if not wish.stop:
        return None
    said = ""
    for position, (piece, kind) in enumerate(zip(draft.pieces[: wish.max_tokens], draft.kinds, strict=False)):
        if kind != Kind.CONTENT or not piece.text:
            continue
        said += piece.text
        found = [(at, stop) for stop in wish.stop if (at := said.find(stop)) >= 0]
        if found and position + 1 >= wish.min_tokens:
            at, stop = min(found)
            pieces = _trimmed(draft.pieces[: position + 1], len(said) - at)
            return Answer(pieces, bytes(draft.kinds[: position + 1]), (), "stop", stop)
    return None


def _trimmed(pieces: list[Piece], characters: int) -> list[Piece]:
    """Take that many characters off the end, keeping the number of tokens."""
    position = len(pieces)
    while characters > 0 and position > 0:
        position -= 1
        piece = pieces[position]
        kept = piece.text[: max(0, len(piece.text) - characters)]
        characters -= len(piece.text) - len(kept)
        pieces[position] = Piece(piece.token_id, kept, msgspec.json.encode(kept)[1:-1])
    return pieces


def example(schema: Any, dice: Dice, depth: int = 0) -> Any:
    """A value that fits a JSON schema, as far as tools commonly use them; null where the schema makes no sense."""
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return None
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        return choices[dice.below(len(choices))]
    kind = schema.get("type", "object")
    if isinstance(kind, list) and kind:
        kind = kind[0]
    match kind:
        case "string":
            return "".join(piece.text for piece in write(dice, 2 + dice.below(6))).strip()
        case "integer":
            return dice.below(100)
        case "number":
            return round(dice.unit() * 100, 2)
        case "boolean":
            return dice.below(2) == 1
        case "array":
            items = schema.get("items", {"type": "string"})
            return [example(items, dice, depth + 1) for _ in range(1 + dice.below(3))]
        case "object":
            properties = schema.get("properties")
            named = properties.items() if isinstance(properties, dict) else ()
            return {name: example(inner, dice, depth + 1) for name, inner in named}
        case _:
            return None


_DEEPEST = 4  # a client may have nested its schema without end
