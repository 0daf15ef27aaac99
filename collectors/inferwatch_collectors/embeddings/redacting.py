"""Takes personal data out of prompts that go to somebody else: a word for what it was stands in its place.

No pseudonyms, which change with their keys: what a prompt is about does not depend on whose number is in it.

More of a prompt is looked at than is sent: half a number, at the end of what was looked at, would not be known for one.
"""

import logging
import time
from typing import TYPE_CHECKING, Final

from inferwatch.config import ConfigError
from inferwatch.settings.privacy import Privacy
from inferwatch_collectors.fence import Fence
from inferwatch_collectors.privacy.base import MARGIN_CHARS, ScanTimeoutError
from inferwatch_collectors.privacy.start import redactor

if TYPE_CHECKING:  # it needs the extra `privacy`
    from inferwatch_collectors.privacy.redaction import Redactor

_log: Final = logging.getLogger(__name__)

# Of a prompt is sent: enough to tell what it is about, and no more than what `drift.text` reads.
MAX_CHARS: Final = 2_048
LOOKED_AT_CHARS: Final = MAX_CHARS + MARGIN_CHARS

# Of faults, here and where prompts are sent.
STAGE: Final = "embeddings"


class Redacting:
    """For one thread. The first call makes patterns and tables, for some 0.3 s."""

    def __init__(self, settings: Privacy) -> None:
        self._settings = settings
        self._redactor: Redactor | None = None
        # It logs; who sends counts what is not sent, in the thread of the counters.
        self._fence = Fence(lambda _: None)

    def __call__(self, texts: list[str]) -> list[str] | None:
        """Return the texts as they may be sent, "" for one that may not; None if none may, because nobody can look."""
        if self._redactor is None:
            try:
                self._redactor = redactor(self._settings)
            except ConfigError as error:
                _log.error("drift_embeddings_not_redacted reason=%s", error)
                return None
        return [self._sent(self._redactor, text) for text in texts]

    def _sent(self, redactor: "Redactor", text: str) -> str:
        try:
            return _redacted(redactor, text)
        except ScanTimeoutError:
            return ""
        except Exception as error:  # noqa: BLE001 - a fence: one that could not be looked at is not sent, the others are
            self._fence.caught(STAGE, time.monotonic_ns(), error)
            return ""


def _redacted(redactor: "Redactor", text: str) -> str:
    """Return what is sent of the first LOOKED_AT_CHARS of a prompt.

    Raises:
        ScanTimeoutError: nothing may be sent.
    """
    is_cut = len(text) >= LOOKED_AT_CHARS
    text, findings = redactor.findings(text)
    # Without its escapes it is shorter, and its end is as far from what may be half a value.
    keep = max(0, len(text) - MARGIN_CHARS) if is_cut else MAX_CHARS
    parts: list[str] = []
    end = 0
    for each in findings:
        if each.end > keep:
            keep = min(keep, each.start)  # what the cut goes through is left out, whole
            break
        parts += text[end : each.start], each.entity.lower()
        end = each.end
    parts.append(text[end:keep])
    return "".join(parts)[:MAX_CHARS]
