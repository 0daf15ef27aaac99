"""A vote as clients send it. Pure."""

import math
import re
from typing import Final

import msgspec

from inferwatch_collectors.ledger.vote import Thumb

# The longest that is kept of a comment. What people write under an answer is a sentence or two.
MAX_COMMENT_CHARS: Final = 4_096

# A word of the caller's own, as `wrong_language`: no prose, so nothing personal fits in.
_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")

# Ids are ours or an engine's.
_ID: Final = re.compile(r"[!-~]{1,200}")


class Ballot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What comes over HTTP."""

    request_id: str
    thumb: Thumb = Thumb.NONE
    score: float | None = None  # 0 worst, 1 best
    label: str = ""
    comment: str = ""


class BallotError(ValueError):
    """What came is no vote; the message names the field, and quotes nothing."""


_decode: Final = msgspec.json.Decoder(Ballot).decode


def read(body: bytes) -> Ballot:
    """Return the vote in a body of JSON.

    Raises:
        BallotError: it is none.
    """
    try:
        ballot = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Its own message may quote a value of `thumb`, and nothing that came is to be repeated.
        raise BallotError(
            "expected a JSON object with request_id, and thumb (up, down), score, label or comment"
        ) from None
    if not _ID.fullmatch(ballot.request_id):
        raise BallotError("request_id: expected 1 to 200 printable characters without blanks")
    if ballot.score is not None and not (math.isfinite(ballot.score) and 0 <= ballot.score <= 1):
        raise BallotError("score: expected a number from 0 to 1")
    if ballot.thumb is Thumb.NONE and ballot.score is None:
        raise BallotError("thumb: expected up or down, or a score")
    if ballot.label and not _LABEL.fullmatch(ballot.label):
        raise BallotError("label: expected 1 to 64 letters, digits, `_`, `.`, `:` and `-`, a letter or digit first")
    if len(ballot.comment) > MAX_COMMENT_CHARS:
        raise BallotError(f"comment: {len(ballot.comment)} characters, expected no more than {MAX_COMMENT_CHARS}")
    return ballot
