"""watch: signs that an answer was of no use, each counted where it is due and nowhere else."""

from typing import Any

import pytest

from inferwatch.record import ErrorType, Outcome, RequestRecord
from inferwatch.settings.quality import Quality
from inferwatch.tap import Open
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import CardinalityGuard
from inferwatch_collectors.dialects.base import ANSWER, REASONING, TOOL_CALL
from inferwatch_collectors.dialects.openai_chat import OPENAI_CHAT
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.quality.watch import AGAIN_NS, MAX_LOOKED_AT, MAX_PROMPTS, NS_PER_S, QualityWatch, signs

SECRET = b"a secret of the installation"


def record(**fields: object) -> RequestRecord:
    """Return a request that was answered, but for these fields."""
    known: dict[str, object] = {
        "request_id": "r", "wall_ns": 0, "tenant": "acme", "model": "m", "operation": "chat", "route": "/", "method": "POST",
        "stream": True, "outcome": Outcome.OK, "status": 200, "completion_tokens": 9, "duration_s": 1.0, "ttft_s": 0.1,
        "finish_reasons": ("stop",),
    }  # fmt: skip
    return RequestRecord(**(known | fields))  # type: ignore[arg-type]


def opened(body: bytes = b"{}", stamp_ns: int = 0, **fields: Any) -> Open:
    """Return the beginning of a request."""
    known: dict[str, Any] = {
        "id": 1, "request_id": "r", "wall_ns": 0, "arrival_ns": stamp_ns, "sent_ns": 0, "method": "POST", "path": "/",
        "tenant": "acme", "model": "m", "stream": True, "asked_usage": False, "choices": 1, "headers": {}, "body": body,
        "body_bytes": len(body),
    }  # fmt: skip
    return Open(**(known | fields))


class Site:
    """A watch that listens."""

    def __init__(self) -> None:
        self.store = MetricStore()
        self.watch = QualityWatch(self.store, CardinalityGuard(), Quality(listen=True), secret=SECRET)

    def say(
        self,
        *texts: str,
        outcome: Outcome = Outcome.OK,
        error: ErrorType = ErrorType.NONE,
        classes: int = ANSWER,
        **fields: Any,
    ) -> None:
        """Let one request be answered so."""
        hearing = self.watch.opened(opened(**fields), OPENAI_CHAT)
        assert hearing is not None
        for text in texts:
            hearing.text(0, 0, classes, text)
        hearing.closed(record(outcome=outcome, error=error))

    def hear(self, *said: tuple[int, int, str]) -> None:
        """Let one request be answered so: (choice, class, text)."""
        hearing = self.watch.opened(opened(), OPENAI_CHAT)
        assert hearing is not None
        for choice, classes, text in said:
            hearing.text(0, choice, classes, text)
        hearing.closed(record())

    def count(self, sign: str) -> float:
        """Return what is counted."""
        return self.store.counter(m.QUALITY_SIGNS, ("m", "acme", sign)).value


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        ({"finish_reasons": ("stop", "length")}, ["truncated"]),
        ({"finish_reasons": ("repetition",)}, ["repetition"]),
        ({"outcome": Outcome.STREAM_ERROR, "error": ErrorType.LOOP, "finish_reasons": ()}, ["loop_cut"]),
        ({"outcome": Outcome.STREAM_ERROR, "error": ErrorType.BUDGET, "finish_reasons": ()}, []),
        ({"completion_tokens": 0}, ["empty"]),
        ({"completion_tokens": 1, "ttft_s": None, "first_token_missing": "empty"}, ["empty"]),
        ({"completion_tokens": None}, []),
        ({"outcome": Outcome.CLIENT_ABORT, "ttft_s": None}, ["unheard"]),
        ({"outcome": Outcome.CLIENT_ABORT, "completion_tokens": 0}, ["abandoned"]),
        ({"outcome": Outcome.REJECTED, "completion_tokens": 0}, []),
        ({"gap_max_s": 10.0}, ["stalled"]),
        ({"gap_max_s": 9.9}, []),
    ],
)
def test_what_a_record_shows(fields: dict[str, object], expected: list[str]) -> None:
    """Unknown is no sign."""
    assert list(signs(record(**fields), 10.0)) == expected


def test_records_are_counted_if_they_generate() -> None:
    """And not at all if it is switched off."""
    site = Site()
    site.watch.record(record(completion_tokens=0))
    site.watch.record(record(completion_tokens=0, operation="other"))
    assert site.count("empty") == 1
    off = QualityWatch(site.store, CardinalityGuard(), Quality(enabled=False, listen=True), secret=SECRET)
    off.record(record(completion_tokens=0))
    assert site.count("empty") == 1
    assert not off.listens


def test_a_loop_is_suspected_while_it_streams_and_counted_if_it_ends_so() -> None:
    """What goes on with other words was none."""
    site = Site()
    loop = ["and so on, "] * 60
    site.say("Well, ", *loop)
    site.say("Well, ", *loop, "but then it came to an end after all, ", "with quite another sentence. " * 2)
    assert (site.count("loop_suspected"), site.count("loop")) == (2, 1)
    assert site.store.counter(m.QUALITY_HEARD, ("m", "acme")).value == 2


def test_what_was_cut_as_a_loop_is_one_loop() -> None:
    """Also if it was the reasoning, and if it was not suspected here: whoever looks at loops misses none."""
    site = Site()
    cut: Any = {"outcome": Outcome.STREAM_ERROR, "error": ErrorType.LOOP}
    site.say("Well, ", *["and so on, "] * 200, **cut)
    assert (site.count("loop_suspected"), site.count("loop")) == (1, 1)
    site.say("Hm, ", *["and so on, "] * 200, classes=REASONING, **cut)
    assert (site.count("loop_suspected"), site.count("loop")) == (2, 2)


def test_refusals_are_counted_by_the_answer_not_by_what_was_thought() -> None:
    """Reasoning is not shown."""
    site = Site()
    site.say("I'm sorry, ", "but I can't help with that.")
    site.say("I'm sorry, but I can't help with that.", classes=REASONING)
    site.say("Sure.")
    assert site.count("refusal") == 1


def test_the_same_prompt_again_within_a_minute() -> None:
    """After a failure it is a retry, after an answer a regeneration; later, from others, or another prompt it is nothing."""
    site = Site()
    site.say(outcome=Outcome.UPSTREAM_ERROR, stamp_ns=1)
    site.say("Yes.", stamp_ns=AGAIN_NS)
    assert (site.count("retry"), site.count("regeneration")) == (1, 0)
    site.say("Yes.", stamp_ns=2 * AGAIN_NS)
    assert (site.count("retry"), site.count("regeneration")) == (1, 1)
    site.say("Yes.", stamp_ns=4 * AGAIN_NS)
    site.say("Yes.", stamp_ns=4 * AGAIN_NS, user="u2")
    site.say("Yes.", body=b'{"a": 1}', stamp_ns=4 * AGAIN_NS)
    assert (site.count("retry"), site.count("regeneration")) == (1, 1)


@pytest.mark.parametrize(
    ("again_s", "outcome", "sign"),
    [(3.0, Outcome.OK, "regeneration"), (1.0, Outcome.OK, "retry"), (3.0, Outcome.CLIENT_ABORT, "retry")],
    ids=["after-the-answer", "in-its-midst", "after-it-was-hung-up-on"],
)
def test_who_asks_again_at_once_is_told_of_before_the_end(again_s: float, outcome: Outcome, sign: str) -> None:
    """The relay tells what began in a batch before what ended in it. What came first, their times say."""
    site = Site()
    first = site.watch.opened(opened(stamp_ns=0), OPENAI_CHAT)
    second = site.watch.opened(opened(stamp_ns=int(again_s * NS_PER_S)), OPENAI_CHAT)
    assert first is not None
    assert second is not None
    assert (site.count("retry"), site.count("regeneration")) == (0, 0)
    first.closed(record(outcome=outcome, duration_s=2.0))
    second.closed(record())
    assert (site.count("retry"), site.count("regeneration")) == (sign == "retry", sign == "regeneration")


@pytest.mark.parametrize(
    ("first", "then", "same"),
    [
        (b'{"prompt": "a", "temperature": 0}', b'{"prompt": "a", "temperature": 1.0, "seed": 7}', True),
        (b'{"prompt": "a", "stream": true, "max_tokens": 5}', b'{"prompt": "a", "max_tokens": 500}', True),
        (b'{"inputs": "a", "parameters": {"seed": 1}}', b'{"inputs": "a", "parameters": {"seed": 2}}', True),
        (b'{"prompt": "a"}', b'{"prompt": "b"}', False),
        (b'{"prompt": "a", "image": "x"}', b'{"prompt": "a", "image": "y"}', False),
        (b'{"prompt": "a"}', b'{"suffix": "a"}', False),
        (b"no json", b"no json", True),
        (b"no json", b"no jsom", False),
        (b"[" * 5_000, b"[" * 5_000, True),
        (b'{"a": "' + b"x" * 70_000 + b'1"}', b'{"a": "' + b"x" * 70_000 + b'2"}', True),  # beyond what is compared
    ],
    ids=lambda value: str(value)[:30],
)
def test_who_asks_again_may_ask_for_another_throw_of_the_dice(first: bytes, then: bytes, same: bool) -> None:
    """What a prompt is, not how it is to be answered, makes it the same."""
    site = Site()
    site.say("Yes.", body=first, stamp_ns=1)
    site.say("Yes.", body=then, stamp_ns=2 * NS_PER_S)
    assert site.count("regeneration") == same


def test_an_answer_of_its_end_alone_is_empty() -> None:
    """vLLM counts the token that ends an answer. A call without arguments, a picture, or what was not seen is none."""
    site = Site()

    def heard(*texts: str, missing: bool = False, **fields: Any) -> float:
        before = site.count("empty")
        hearing = site.watch.opened(opened(), OPENAI_CHAT)
        assert hearing is not None
        for text in texts:
            hearing.text(0, 0, ANSWER, text)
        if missing:
            hearing.missing()
        closed = record(**fields)
        hearing.closed(closed)
        site.watch.record(closed)
        return site.count("empty") - before

    assert heard(completion_tokens=1) == 1
    assert heard(completion_tokens=0) == 1  # not twice
    assert heard("Yes", completion_tokens=1) == 0
    assert heard(completion_tokens=12) == 0
    assert heard(completion_tokens=None) == 0
    assert heard(completion_tokens=1, missing=True) == 0
    assert heard(completion_tokens=1, outcome=Outcome.UPSTREAM_ERROR) == 0


def test_prompts_are_bounded_and_what_is_cut_is_counted() -> None:
    """The oldest goes."""
    site = Site()
    for number in range(MAX_PROMPTS + 5):
        site.watch.opened(opened(body=str(number).encode()), OPENAI_CHAT)
    assert site.watch.prompts_cut == 5


LOOP = ("so it goes, " * 4,) * 20


def test_reasoning_that_loops_is_a_loop() -> None:
    """It may never come to an answer; if it does, it was one only on the way."""
    site = Site()
    site.say(*LOOP, classes=REASONING)
    assert (site.count("loop_suspected"), site.count("loop")) == (1, 1)
    site.hear(*((0, REASONING, text) for text in LOOP), (0, ANSWER, "It does."))
    assert (site.count("loop_suspected"), site.count("loop")) == (2, 1)


def test_reasoning_and_answer_are_two_texts() -> None:
    """One that says once more what the other said does not repeat itself; and each is followed between the other's."""
    site = Site()
    line = "There are three of them, and each has another colour than the two others have. "
    site.hear((0, REASONING, line), (0, ANSWER, line), (0, REASONING, line), (0, ANSWER, line))
    assert site.count("loop_suspected") == 0
    site.hear(*((0, classes, "so it goes, ") for _ in range(40) for classes in (REASONING, ANSWER)))
    assert site.count("loop") == 1


@pytest.mark.parametrize(("choice", "heard"), [(1, 1), (MAX_LOOKED_AT - 1, 1), (MAX_LOOKED_AT, 0)])
def test_loops_are_looked_for_in_the_first_few_choices(choice: int, heard: int) -> None:
    """One request is counted once."""
    site = Site()
    site.hear(*((0, ANSWER, f"{at} is fine. ") for at in range(40)), *((choice, ANSWER, text) for text in LOOP))
    assert (site.count("loop_suspected"), site.count("loop")) == (heard, heard)
    site.hear(*((each, ANSWER, text) for text in LOOP for each in (0, 1, 2)))
    assert site.count("loop") == heard + 1


def test_answers_in_which_no_loop_is_looked_for_are_counted() -> None:
    """Those beyond the bound, of each request."""
    site = Site()
    for choices in (1, MAX_LOOKED_AT, MAX_LOOKED_AT + 3):
        site.say("fine", choices=choices)
    assert site.watch.choices_cut == 3


def test_arguments_of_tools_may_repeat_themselves_but_not_in_blanks() -> None:
    """Rows of a document are alike."""
    site = Site()
    site.say(*['{"x": 0, "y": 0}, '] * 200, classes=TOOL_CALL)
    assert site.count("loop_suspected") == 0
    site.say('{"x":', *["\n  "] * 400, classes=TOOL_CALL)
    assert (site.count("loop_suspected"), site.count("loop")) == (1, 1)
