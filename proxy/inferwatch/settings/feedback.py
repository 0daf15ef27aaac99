"""Feedback: who may say what an answer was worth."""

import re
from typing import Annotated, Final

import msgspec
from msgspec import Meta

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Feedback(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Votes on answers, `POST /feedback` on the admin port. Without a token there is no such path."""

    token_file: Annotated[
        str,
        Meta(
            description="File whose first line is the token that votes come with: `Authorization: Bearer …`. To "
            "rotate: write the new token, reload."
        ),
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
    return ""
