"""loop_guard: which streams may be ended, by what they say, and that it is told once."""

from typing import Any

import pytest

from inferwatch import canary
from inferwatch.record import ErrorType, Outcome, RequestRecord
from inferwatch.tap import Open
from inferwatch_collectors.dialects.base import ANSWER, REASONING, TOOL_CALL, Dialect
from inferwatch_collectors.dialects.openai_chat import OPENAI_CHAT
from inferwatch_collectors.quality.loop_guard import LoopGuard

LOOP = ["and so on, "] * 400
BLANKS = ["\n    "] * 4_000
FORM = b'{"response_format": {"type": "json_object"}}'


def opened(body: bytes = b"{}", **fields: Any) -> Open:
    """Return the beginning of a request."""
    known: dict[str, Any] = {
        "id": 7, "request_id": "boot00000007", "wall_ns": 0, "arrival_ns": 0, "sent_ns": 0, "method": "POST", "path": "/",
        "tenant": "acme", "model": "m", "stream": True, "asked_usage": False, "choices": 1, "headers": {}, "body": body,
        "body_bytes": len(body),
    }  # fmt: skip
    return Open(**(known | fields))


CUT = RequestRecord(
    request_id="boot00000007", wall_ns=0, tenant="acme", model="m", operation="chat", route="/", method="POST", stream=True,
    outcome=Outcome.STREAM_ERROR, error=ErrorType.LOOP, status=200, duration_s=1.0,
)  # fmt: skip


class Said:
    """One request, and what was told of it."""

    def __init__(self, request: Open | None = None, dialect: Dialect = OPENAI_CHAT) -> None:
        self.told: list[tuple[str, int]] = []
        self.heard = LoopGuard(lambda *which: self.told.append(which)).opened(request or opened(), dialect)

    def say(self, texts: list[str], classes: int = ANSWER, choice: int = 0) -> "Said":
        assert self.heard is not None
        for text in texts:
            self.heard.text(0, choice, classes, text)
        return self


def test_a_loop_is_told_once_by_the_ids_of_its_request() -> None:
    """However long it still goes on, and whatever becomes of it."""
    said = Said().say(["Well, ", *LOOP, *LOOP])
    assert said.told == [("boot00000007", 7)]
    assert said.heard is not None
    said.heard.closed(CUT)
    assert len(said.told) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": False},
        {"choices": 2},
        {"choices": 0},  # unknown
        {"resumed": True},
        {"tenant": canary.TENANT},
    ],
    ids=str,
)
def test_only_a_stream_of_one_answer_heard_from_its_beginning_is_listened_to(fields: dict[str, Any]) -> None:
    """Nobody else's costs anything, or can be ended."""
    assert Said(opened(**fields)).heard is None


def test_what_generates_nothing_is_not_listened_to() -> None:
    """Embeddings, say."""
    assert Said(dialect=Dialect()).heard is None


def test_reasoning_is_followed_as_the_answer_is_and_each_by_itself() -> None:
    """Clients show them apart; what came between two pieces of one belongs to the other."""
    assert Said().say(["Hm. ", *LOOP], REASONING).told
    said = Said()
    for part in (LOOP[:200], LOOP[200:]):
        said.say(part, REASONING).say(["Fine, here it is. "])
    assert said.told
    assert not Said().say(LOOP[:150], REASONING).say(LOOP[:150]).told


def test_arguments_of_tools_and_forms_are_cut_for_blanks_alone() -> None:
    """Rows that are alike may be called for there; pages of blanks are not. So it is if part of the body was lost."""
    assert not Said().say(LOOP, TOOL_CALL).told
    assert Said().say(BLANKS, TOOL_CALL).told
    for request in (opened(FORM), opened(b'{"a": 1', body_bytes=7), opened(b"{}", body_bytes=3_000)):
        assert not Said(request).say(LOOP).told
        assert Said(request).say(BLANKS).told


def test_a_second_answer_that_nobody_announced_ends_the_listening() -> None:
    """One of several may be of use."""
    assert not Said().say(LOOP[:100]).say(["Fine. "], choice=1).say(LOOP).told


def test_a_hole_ends_what_was_known_and_what_was_told() -> None:
    """The connection on which it was told may be what broke."""
    said = Said().say(LOOP[:150])
    assert said.heard is not None
    said.heard.missing()
    said.say(LOOP[:150])
    assert not said.told
    said.say(LOOP)
    said.heard.missing()
    said.say(LOOP)
    assert len(said.told) == 2
