"""What was said is gathered within bounds, looked at as a whole, and not kept where it could not be looked at."""

import itertools
import json
from types import SimpleNamespace
from typing import Any

import planted
import pytest
from name_model import NameModel
from otlp_records import Make
from privacy_keys import KEY

from inferwatch.record import Outcome
from inferwatch.settings.privacy import Privacy, TenantPrivacy
from inferwatch.tap import Open
from inferwatch_collectors.dialects.base import ANSWER, REASONING, TOOL_CALL
from inferwatch_collectors.dialects.content import Piece, Source
from inferwatch_collectors.dialects.select import choose
from inferwatch_collectors.otlp.content import Content, Said
from inferwatch_collectors.otlp.keeping import Keeper
from inferwatch_collectors.privacy.base import MARGIN_CHARS, ScanTimeoutError
from inferwatch_collectors.privacy.entities import chosen
from inferwatch_collectors.privacy.keys import Keys
from inferwatch_collectors.privacy.names import NamesScanner
from inferwatch_collectors.privacy.pseudonyms import Pseudonyms
from inferwatch_collectors.privacy.redaction import Redactor
from inferwatch_collectors.privacy.scanner import BUDGET_NS, Scanner

CHAT = choose("POST", "/v1/chat/completions", "", True).dialect
HASHED = Privacy(content="hashed", sample_ratio=1.0, max_text_bytes=4096)
REDACTOR = Redactor(Scanner(chosen()), Pseudonyms(Keys({"k1": KEY}, 0)))


def opened(text: str = "hi", request_id: str = "r1", **changes: Any) -> Open:
    body = json.dumps({"messages": [{"role": "user", "content": text}], "stop": ["zzz"], "user": "ann"}).encode()
    fields: dict[str, Any] = {
        "id": 1, "request_id": request_id, "wall_ns": 0, "arrival_ns": 0, "sent_ns": 0, "method": "POST", "path": "/",
        "tenant": "acme", "model": "m", "stream": True, "asked_usage": False, "choices": 1, "headers": {},
        "body": body, "body_bytes": len(body), "trace_id": "0" * 31 + "1",
    }  # fmt: skip
    return Open(**fields | changes)


def hear(content: Content, pieces: list[tuple[int, int, str]], **changes: Any) -> Said:
    listener = content.opened(opened(**changes), CHAT)
    assert listener is not None
    for choice, classes, text in pieces:
        listener.text(0, choice, classes, text)
    said = content.take("r1")
    assert said is not None
    return said


def test_pieces_of_an_answer_are_joined_by_choice_and_class() -> None:
    """However the engine cut them."""
    said = hear(Content(HASHED), [(0, ANSWER, "a"), (1, ANSWER, "x"), (0, REASONING, "hm"), (0, ANSWER, "b")])

    assert said.answer == {(0, ANSWER): "ab", (1, ANSWER): "x", (0, REASONING): "hm"}
    assert Piece(Source.USER, "hi") in said.prompt


def test_a_bound_cuts_prompt_and_answer_and_is_told() -> None:
    """Each for itself; what was held is let go of with the request."""
    content = Content(HASHED)
    said = hear(content, [(0, ANSWER, "y" * 3000)] * 2, text="x" * 5000)

    assert said.prompt_cut
    assert said.answer_cut
    assert len(said.prompt[0].text) == 4096
    assert len(said.answer[0, ANSWER]) == 4096
    assert content.held == 0


def test_no_more_is_held_than_the_bound_for_all() -> None:
    """Requests above it are not listened to, and counted; those that nobody booked are let go of."""
    content = Content(HASHED, max_held=10_000)
    for number in range(20):
        content.opened(opened("x" * 3000, request_id=f"r{number}"), CHAT)

    assert content.held <= 10_000
    assert content.overflow == 18
    content.forget({"r0"})
    assert content.held == 3000 + len("zzz") + len("ann")


def test_who_is_listened_to() -> None:
    """By tenant and by trace; what generates nothing has nothing to say."""
    content = Content(Privacy(content="none", tenants=(TenantPrivacy(tenant="acme", content="fingerprint"),)))

    assert content.opened(opened(), CHAT) is not None
    assert content.opened(opened(tenant="beta"), CHAT) is None
    assert content.opened(opened(), choose("GET", "/v1/models", "", False).dialect) is None
    rarely = Content(Privacy(content="hashed", sample_ratio=0.5))
    assert rarely.opened(opened(trace_id="0" * 32), CHAT) is not None
    assert rarely.opened(opened(trace_id="f" * 32), CHAT) is None


def test_after_a_hole_the_answer_is_let_go() -> None:
    """Two ends that do not belong together are not joined."""
    content = Content(HASHED)
    listener = content.opened(opened(), CHAT)
    assert listener is not None
    listener.text(0, 0, ANSWER, "4111 1111 ")
    listener.missing()
    listener.text(0, 0, ANSWER, "1111 1111")
    said = content.take("r1")

    assert said is not None
    assert said.answer == {}
    assert said.answer_cut


def test_an_answer_that_echoes_the_prompt_is_not_kept() -> None:
    """The prompt runs into the answer there: `S2189227Jthe` is nobody's number any more, and still shows one."""
    body = b'{"prompt": "NRIC S2189227J", "echo": true}'
    said = hear(Content(HASHED), [(0, ANSWER, "NRIC S2189227Jthe")], body=body)

    assert said.answer == {}
    assert said.answer_cut


@pytest.mark.parametrize("kind", sorted(planted.KINDS))
def test_a_value_is_found_wherever_the_chunks_are_cut(record: Make, kind: str) -> None:
    """A character at a time in the answer, whole in the prompt: in neither is anything of it left."""
    value, text = planted.plant(kind, 1)
    said = hear(Content(HASHED), [(0, ANSWER, char) for char in text], text=text)

    kept = json.dumps(Keeper(REDACTOR).attributes(said, record())).encode()

    assert not [form for form in planted.forms(value) if form in kept], kept


def test_the_attributes_of_hashed_content(record: Make) -> None:
    """By the conventions: who said what, in parts; stop sequences and users as hashes, whatever they are."""
    said = hear(
        Content(HASHED),
        [(0, REASONING, "hm"), (0, ANSWER, "ask bob@example.com"), (0, TOOL_CALL, '{"a":"b"}')],
        text="I am ann@example.com",
    )
    keeper = Keeper(REDACTOR)

    made = keeper.attributes(said, record())

    (message,) = json.loads(str(made["gen_ai.input.messages"]))
    assert message["role"] == "user"
    assert message["parts"][0]["content"].startswith("I am <EMAIL:k1:")
    (answer,) = json.loads(str(made["gen_ai.output.messages"]))
    assert [part["type"] for part in answer["parts"]] == ["reasoning", "text", "inferwatch.tool_call"]
    assert answer["finish_reason"] == "stop"
    assert all(str(each).startswith("<SETTING:k1:") for each in made["inferwatch.settings"])  # type: ignore[union-attr]
    assert made["inferwatch.personal_data.EMAIL"] == 2
    assert keeper.found == {"EMAIL": 2}
    assert keeper.results == {"kept": 1}


def test_the_attributes_of_a_fingerprint(record: Make) -> None:
    """Hashes, lengths and counts; not a word."""
    said = hear(
        Content(Privacy(content="fingerprint", sample_ratio=1.0)), [(0, ANSWER, "a word")], text="ann@example.com"
    )

    made = Keeper(REDACTOR).attributes(said, record())

    assert set(made) == {
        "inferwatch.prompt.fingerprint",
        "inferwatch.prompt.characters",
        "inferwatch.answer.fingerprint",
        "inferwatch.answer.characters",
        "inferwatch.personal_data.EMAIL",
        "inferwatch.settings",
    }
    assert "ann" not in json.dumps(made)
    assert "word" not in json.dumps(made)


def test_a_value_at_the_cut_is_not_kept_in_half(record: Make) -> None:
    """More is looked at than is kept."""
    text = "x" * (4096 - MARGIN_CHARS - 10) + " ann.somebody@example.com " + "y" * 4000
    said = hear(Content(HASHED), [], text=text)

    made = Keeper(REDACTOR).attributes(said, record())

    assert made["inferwatch.content.cut"] is True
    assert "ann" not in str(made["gen_ai.input.messages"])


BROKEN_OFF: list[dict[str, Any]] = [
    {"finish_reasons": ("length",)},
    {"finish_reasons": ("stop", "length")},
    {"finish_reasons": (), "outcome": Outcome.CLIENT_ABORT},
    {"finish_reasons": ("stop",), "outcome": Outcome.STREAM_ERROR},
    {"finish_reasons": ()},
]


@pytest.mark.parametrize("changes", BROKEN_OFF, ids=str)
def test_the_end_of_an_answer_that_broke_off_is_not_kept(record: Make, changes: dict[str, Any]) -> None:
    """It may be half a value, which looks like none. What was said before it is kept, and the span says that it was cut."""
    said = hear(Content(HASHED), [(0, ANSWER, f"{'so it goes. ' * 20}Write to grace.hop")])
    keeper = Keeper(REDACTOR)

    made = keeper.attributes(said, record(**changes))

    kept = json.loads(str(made["gen_ai.output.messages"]))[0]["parts"][0]["content"]
    assert kept.startswith("so it goes. so it goes.")
    assert "grace" not in kept
    assert made["inferwatch.content.cut"] is True
    assert keeper.results == {"cut": 1}
    whole = Keeper(REDACTOR).attributes(said, record(finish_reasons=("stop", "tool_calls")))
    assert "grace.hop" in str(whole["gen_ai.output.messages"])


def test_the_last_word_is_left_out_however_long_it_is(record: Make) -> None:
    """It is one value, as far as anybody can tell; a blank before the last characters is the end of another word."""
    for text, keeps in (
        ("so it goes. head." + "x" * 3000, "so it goes. "),
        ("head" * 500, ""),
        ("a b " + "c" * 64, "a b "),
    ):
        said = hear(Content(HASHED), [(0, ANSWER, text)])

        made = Keeper(REDACTOR).attributes(said, record(finish_reasons=("length",)))

        assert json.loads(str(made["gen_ai.output.messages"]))[0]["parts"][0]["content"] == keeps


@pytest.mark.parametrize("kind", sorted(planted.KINDS))
def test_no_half_of_a_value_is_kept_wherever_an_answer_breaks_off(record: Make, kind: str) -> None:
    """Nor a third of it, plain or as the arguments of a tool have it."""
    value, sentence = planted.plant(kind, 1)
    start = sentence.index(value)
    for end in range(start + 4, start + len(value) + 1, max(1, len(value) // 12)):
        text = f"{'and so on. ' * 8}{sentence[:end]}"
        said = hear(Content(HASHED), [(0, ANSWER, text), (0, TOOL_CALL, json.dumps({"note": json.dumps(text)}))])

        kept = str(Keeper(REDACTOR).attributes(said, record(finish_reasons=("length",)))["gen_ai.output.messages"])

        assert sentence[start:end] not in kept, kept


@pytest.mark.parametrize("more", ["", "per@example.com"], ids=["broke off", "bound"])
def test_the_end_is_that_of_the_text_as_it_is_kept(record: Make, more: str) -> None:
    """One of escapes reads as a shorter one: so much as is left out is left out of that."""
    text = "%61%61%61%61%20" * 250 + "mail ann\\u0040example.com, not grace.hop"
    content = Content(Privacy(content="hashed", sample_ratio=1.0, max_text_bytes=len(text)))
    said = hear(content, [(0, ANSWER, text), *([(0, ANSWER, more)] if more else [])])

    made = Keeper(REDACTOR).attributes(said, record(finish_reasons=("length",)))

    assert said.answer_cut is bool(more)
    assert made["inferwatch.content.cut"] is True
    assert "aaaa" in str(made["gen_ai.output.messages"])
    assert "grace" not in str(made["gen_ai.output.messages"])


@pytest.mark.parametrize(("error", "result"), [(ScanTimeoutError("late"), "timeout"), (ZeroDivisionError(), "failed")])
def test_a_scanner_that_fails_leaves_nothing(
    record: Make, monkeypatch: pytest.MonkeyPatch, error: Exception, result: str
) -> None:
    """Fails closed, and counted."""

    def fail(*_: object, **__: object) -> None:
        raise error

    said = hear(Content(HASHED), [(0, ANSWER, "text")])
    redactor = Redactor(Scanner(chosen(["EMAIL"])), Pseudonyms(Keys({"k1": KEY}, 0)))
    monkeypatch.setattr(redactor, "findings", fail)
    keeper = Keeper(redactor)

    assert keeper.attributes(said, record()) == {}
    assert keeper.results == {result: 1}


def test_what_the_model_of_names_could_not_read_is_not_kept(record: Make) -> None:
    """Whatever it raises, and if it takes too long."""
    late = Scanner(chosen(["EMAIL"]), clock_ns=itertools.count(0, 2 * BUDGET_NS).__next__)
    for scanner, model, result in ((Scanner(chosen(["EMAIL"])), fails, "failed"), (late, reads_nothing, "timeout")):
        keeper = Keeper(Redactor(NamesScanner(scanner, NameModel(model)), Pseudonyms(Keys({"k1": KEY}, 0))))
        said = hear(Content(HASHED), [(0, ANSWER, "Grace Hopper")], text="")

        assert keeper.attributes(said, record()) == {}
        assert keeper.results == {result: 1}
        assert {"PERSON", "PLACE"} <= set(keeper.entities)  # each is counted


def fails(text: str) -> Any:
    raise ZeroDivisionError(text)


def reads_nothing(_: str) -> Any:
    return SimpleNamespace(ents=())
