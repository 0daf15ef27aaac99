"""Embeddings of prompts for the drift detector: who makes them, of which prompts, and how many."""

import re
from collections.abc import Iterator
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

# The URL that stands for our own data port.
OWN: Final = "own"

# Each is a feature of its own, a kilobyte a stream; more of them find no more.
MAX_NUMBERS: Final = 16

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Embeddings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What prompts are about, by the embeddings that somebody else makes of them."""

    url: Annotated[
        str,
        Meta(
            description="An endpoint of OpenAI's kind, as `http://embedder:8000`: what stands before `/v1/embeddings`. "
            "`own`: the engine, through our own data port, booked to the tenant `inferwatch-embeddings`. Empty: none. "
            "Needs `drift.text`. The prompts that are chosen are sent there."
        ),
    ] = ""
    model: Annotated[str, Meta(description="What the endpoint calls the model that makes them.")] = ""
    token_file: Annotated[
        str, Meta(description="File whose first line is sent to the endpoint as `Authorization: Bearer …`.")
    ] = ""
    key_env: Annotated[str, Meta(description="Environment variable with such a token. Changes need a restart.")] = ""
    redact: Annotated[
        bool,
        Meta(
            description="Personal data that `privacy.entities` names are cut out before a prompt is sent (needs the "
            "extra `privacy`). Not with `own`: that engine has the prompt already."
        ),
    ] = True
    share: Annotated[
        float, Meta(gt=0, le=1, description="Of the prompts that vote, so many are embedded, by chance.")
    ] = 1.0
    per_minute: Annotated[
        int,
        Meta(ge=1, le=6_000, description="No more are, of all models and tenants together, evenly over the minute."),
    ] = 60
    timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            le=60,
            description="For one call; a vote waits for its embedding for twice as long at most.",
        ),
    ] = 5.0
    numbers: Annotated[
        int,
        Meta(
            ge=1,
            le=MAX_NUMBERS,
            description="Numbers that an embedding is projected to, each a feature, beside its likeness to the "
            "reference. Another one needs another reference.",
        ),
    ] = 8

    @property
    def is_used(self) -> bool:
        """Whether any are made."""
        return bool(self.url)

    @property
    def redacts(self) -> bool:
        """Whether personal data are cut out of what is sent. The engine behind our own port has it already."""
        return self.redact and self.url not in ("", OWN)


def fault(embeddings: Embeddings, *, text: bool) -> str:
    """Return what is wrong with `drift.embeddings`, beginning with the key, or "". `text`: texts are looked at.

    Never quotes what may be a password.
    """
    return next(_faults(embeddings, text), "")


def _faults(embeddings: Embeddings, text: bool) -> Iterator[str]:
    if not embeddings.is_used:
        for name in ("model", "token_file", "key_env"):
            if getattr(embeddings, name):
                yield f"drift.embeddings.{name}: needs `drift.embeddings.url`"
        return
    if not text:
        yield "drift.embeddings.url: needs `drift.text`"
    if not embeddings.model:
        yield "drift.embeddings.model: expected the name of a model"
    if embeddings.token_file and embeddings.key_env:
        yield "drift.embeddings.key_env: a token from there or from `drift.embeddings.token_file`, not from both"
    if embeddings.key_env and not _VARIABLE.fullmatch(embeddings.key_env):
        # Not quoted: somebody may have put the key itself there.
        yield "drift.embeddings.key_env: expected the name of an environment variable"
    if embeddings.url != OWN:
        yield from _url_faults(embeddings.url)


def _url_faults(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        usable = usable and not parts.query and not parts.fragment
        usable = usable and not any(char.isspace() or not char.isprintable() for char in url)
        holds_user = "@" in parts.netloc
    except ValueError:
        usable = holds_user = False
    if not usable:
        yield "drift.embeddings.url: expected `http://host:port`, with a path if there is one, or `own`"
    elif holds_user:  # it would be shown by /config
        yield "drift.embeddings.url: holds a user or a password; use `drift.embeddings.token_file`"
