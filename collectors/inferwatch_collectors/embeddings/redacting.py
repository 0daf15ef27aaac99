"""Takes personal data out of prompts that go to somebody else: a word for what it was stands in its place.

No pseudonyms, which change with their keys: what a prompt is about does not depend on whose number is in it.
"""

import logging
from typing import TYPE_CHECKING, Final

from inferwatch.config import ConfigError
from inferwatch.settings.privacy import Privacy
from inferwatch_collectors.privacy.start import redactor

if TYPE_CHECKING:  # it needs the extra `privacy`
    from inferwatch_collectors.privacy.redaction import Redactor

_log: Final = logging.getLogger(__name__)


class Redacting:
    """For one thread. The first call makes patterns and tables, for some 0.3 s."""

    def __init__(self, settings: Privacy) -> None:
        self._settings = settings
        self._redactor: Redactor | None = None

    def __call__(self, texts: list[str]) -> list[str] | None:
        """Return the texts as they may be sent, "" for one that may not; None if none may, because nobody can look."""
        if self._redactor is None:
            try:
                self._redactor = redactor(self._settings)
            except ConfigError as error:
                _log.error("drift_embeddings_not_redacted reason=%s", error)
                return None
        return [_redacted(self._redactor, text) for text in texts]


def _redacted(redactor: "Redactor", text: str) -> str:
    from inferwatch_collectors.privacy.base import ScanTimeoutError  # noqa: PLC0415 - the extra

    try:
        text, findings = redactor.findings(text)
    except ScanTimeoutError:
        return ""
    parts: list[str] = []
    end = 0
    for each in findings:
        parts += text[end : each.start], each.entity.lower()
        end = each.end
    parts.append(text[end:])
    return "".join(parts)
