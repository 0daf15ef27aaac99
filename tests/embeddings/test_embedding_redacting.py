"""redacting: what is personal in a prompt does not go to somebody else's endpoint; what cannot be looked at is not sent."""

import pytest

from inferwatch.config import ConfigError
from inferwatch.settings.privacy import Privacy
from inferwatch_collectors.embeddings import redacting
from inferwatch_collectors.embeddings.redacting import Redacting
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


def test_without_the_extra_nothing_is_sent(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """And the log says what is missing."""

    def missing(_: Privacy) -> Redactor:
        raise ConfigError("needs re2")

    monkeypatch.setattr(redacting, "redactor", missing)
    assert Redacting(Privacy())(["a prompt"]) is None
    assert "drift_embeddings_not_redacted reason=needs re2" in caplog.text
    assert "a prompt" not in caplog.text
