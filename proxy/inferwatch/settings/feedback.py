"""Feedback: who may say what an answer was worth."""

import os
import re
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# Shorter ones can be guessed over a network.
MIN_TOKEN_CHARS: Final = 16


class Feedback(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Votes on answers, `POST /feedback` on the admin port. Without a token there is no such path."""

    token_file: Annotated[
        str, Meta(description="File whose first line is the token that votes come with: `Authorization: Bearer …`.")
    ] = ""
    token_env: Annotated[str, Meta(description="Or the environment variable that holds it.")] = ""
    response_header: Annotated[
        bool,
        Meta(
            description="Add `x-inferwatch-request-id` to answers, by which a vote names its request. Without it the "
            "engine's own id, the `id` in the answer, does, for the last 16,384 requests."
        ),
    ] = False

    @property
    def is_used(self) -> bool:
        """Whether votes are taken."""
        return bool(self.token_file or self.token_env)


def fault(feedback: Feedback) -> str:
    """Return what is wrong with `feedback`, beginning with the key, or ""."""
    if feedback.token_file and feedback.token_env:
        return "feedback.token_env: only one of `token_file` and `token_env` can be given"
    if feedback.token_env and not _VARIABLE.fullmatch(feedback.token_env):
        return "feedback.token_env: expected the name of an environment variable"
    if feedback.is_used and (problem := _problem(token(feedback))):
        return f"feedback.{'token_file' if feedback.token_file else 'token_env'}: {problem}"
    return ""


def token(feedback: Feedback) -> str:
    """Return the token, "" if there is none that can be read. Blocking: reads a file."""
    if feedback.token_env:
        return os.environ.get(feedback.token_env, "").strip()
    if not feedback.token_file:
        return ""
    try:
        return Path(feedback.token_file).read_text("utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _problem(found: str) -> str:
    if not found:
        return "there is no token to be read"
    if len(found) < MIN_TOKEN_CHARS or not found.isascii() or not found.isprintable():
        return f"a token of {len(found)} characters, expected at least {MIN_TOKEN_CHARS}, of ASCII"
    return ""
