"""redacting: what is personal in a prompt does not go to somebody else's endpoint; what cannot be looked at is not sent."""

import json

import planted
import pytest

from inferwatch.config import ConfigError
from inferwatch.settings.privacy import Privacy
from inferwatch_collectors.embeddings import redacting
from inferwatch_collectors.embeddings.redacting import LOOKED_AT_CHARS, MAX_CHARS, Redacting
from inferwatch_collectors.privacy.base import ScanTimeoutError
from inferwatch_collectors.privacy.redaction import Redactor


def test_a_word_stands_for_what_was_personal() -> None:
    """The same for everybody; the rest is as it was."""
    redact = Redacting(Privacy())
    assert redact(["write to ann@example.org or bob@example.org, please", "nothing here"]) == [
        "write to email or email, please",
        "nothing here",
    ]


def test_a_text_that_takes_too_long_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are."""
    findings = Redactor.findings

    def slow(self: Redactor, text: str) -> object:
        if text == "slow":
            raise ScanTimeoutError
        return findings(self, text)

    monkeypatch.setattr(Redactor, "findings", slow)
    assert Redacting(Privacy())(["slow", "quick"]) == ["", "quick"]


def test_a_scanner_s_fault_costs_that_text(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It is not sent; the others are. The log says where it was, and nothing of the text."""
    findings = Redactor.findings

    def fails(self: Redactor, text: str) -> object:
        if text == "strange":
            raise ZeroDivisionError(text)
        return findings(self, text)

    monkeypatch.setattr(Redactor, "findings", fails)
    assert Redacting(Privacy())(["one", "strange", "two"]) == ["one", "", "two"]
    assert "observer_fault stage=embeddings error=ZeroDivisionError" in caplog.text
    assert "strange" not in caplog.text


FILLER = "and so it goes on. "


@pytest.fixture(name="redact", scope="module")
def _redact() -> Redacting:
    """One for all: its tables take longer than any test."""
    return Redacting(Privacy())


@pytest.mark.parametrize("kind", sorted(planted.KINDS))
def test_no_half_of_a_value_is_sent_wherever_the_cut_is(redact: Redacting, kind: str) -> None:
    """A prompt is cut behind the look: what the cut goes through is left out whole, plain or as JSON has it."""
    value, sentence = planted.plant(kind, 1)
    start = sentence.index(value)
    for end in range(start + 4, start + len(value), max(1, len(value) // 12)):
        before = (FILLER * 200)[: MAX_CHARS - end - 1] + " "
        text = f"{before}{sentence} {FILLER * 200}"[:LOOKED_AT_CHARS]
        assert text[:MAX_CHARS].endswith(sentence[:end])
        escaped = json.dumps(f"{FILLER * 10}{text}")[:LOOKED_AT_CHARS]

        for sent in redact([text, escaped]) or ("", ""):
            assert sent.startswith((FILLER, f'"{FILLER}'))
            assert sentence[start:end] not in sent, sent
            assert len(sent) <= MAX_CHARS


def test_what_the_look_s_end_cuts_in_two_is_not_sent(redact: Redacting) -> None:
    """Of a text of escapes, too, which reads as a shorter one."""
    for letter in ("x", "%61", "\\u0061"):
        text = (letter * LOOKED_AT_CHARS)[: LOOKED_AT_CHARS - 12] + " ann.somebod"
        (sent,) = redact([f"{text}y@example.com"[:LOOKED_AT_CHARS]]) or ()
        assert "ann" not in sent


def test_a_prompt_is_sent_up_to_the_bound(redact: Redacting) -> None:
    """And all of a shorter one."""
    texts = ["x " * 1000, "x " * 1200, "x " * 5000, "x" * (MAX_CHARS - 17) + " ann@example.com"]
    assert redact([text[:LOOKED_AT_CHARS] for text in texts]) == [
        texts[0],
        texts[1][:MAX_CHARS],
        texts[2][:MAX_CHARS],
        "x" * (MAX_CHARS - 17) + " email",
    ]


def test_without_the_extra_nothing_is_sent(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """And the log says what is missing."""

    def missing(_: Privacy) -> Redactor:
        raise ConfigError("needs re2")

    monkeypatch.setattr(redacting, "redactor", missing)
    assert Redacting(Privacy())(["a prompt"]) is None
    assert "drift_embeddings_not_redacted reason=needs re2" in caplog.text
    assert "a prompt" not in caplog.text
