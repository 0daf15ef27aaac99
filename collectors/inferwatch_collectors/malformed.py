"""Requests to the admin port that are none: aiohttp logs them with a traceback and the words of whoever sent them.

In its place one line says what kind of fault it was. A fault of ours in a handler keeps its traceback.
"""

import logging
from typing import Final

from aiohttp.http_exceptions import HttpProcessingError

_log: Final = logging.getLogger(__name__)


def _is_ours(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError):
        return True
    _log.warning("admin_request_malformed error=%s", type(error).__name__)
    return False


def tell_in_one_line() -> None:
    """From now on, in this process."""
    logging.getLogger("aiohttp.server").addFilter(_is_ours)  # once, however often
