"""What is kept of what was said: nothing, unless this says otherwise."""

import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from inferwatch.settings.base import Ratio

_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,39}")

# Each is one more pattern in the automaton that every text passes.
MAX_CUSTOM: Final = 100


class CustomEntity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something personal that only you know of: a customer's number, a code name."""

    name: Annotated[str, Meta(description="As it stands in pseudonyms: capital letters, digits, `_`. Required.")]
    pattern: Annotated[str, Meta(description="What it looks like, as an expression of RE2. Required.")]
    words: Annotated[
        tuple[str, ...], Meta(description="If there are any, one of them must stand beside it. In lower case.")
    ] = ()


class TenantPrivacy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One tenant's own rules."""

    tenant: Annotated[str, Meta(description="Its name. Required.")]
    content: Annotated[Literal["none", "hashed", "fingerprint"], Meta(description="In place of `privacy.content`.")] = (
        "none"
    )
    sample_ratio: Annotated[Ratio, Meta(description="In place of `privacy.sample_ratio`.")] = 1.0


class Privacy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Content of requests and answers in traces."""

    content: Annotated[
        Literal["none", "hashed", "fingerprint"],
        Meta(
            description="What a trace keeps of prompts and answers: `none`; `hashed`: the text, keyed pseudonyms "
            "in place of what identifies a person; `fingerprint`: keyed hashes, lengths and counts. Needs "
            "`otlp.traces` and the extra `privacy`."
        ),
    ] = "none"
    sample_ratio: Annotated[Ratio, Meta(description="Of the exported requests, this share keeps content.")] = 0.01
    tenants: Annotated[tuple[TenantPrivacy, ...], Meta(description="Tenants for whom it is otherwise.")] = ()
    key_file: Annotated[
        str,
        Meta(
            description="Keys of the pseudonyms, `ID KEY` a line, 32 random bytes or more in hex or base64; the last "
            "line is used, earlier ones tell where old pseudonyms are from. Required for any content."
        ),
    ] = ""
    epoch_days: Annotated[
        int,
        Meta(ge=0, le=3650, description="After so many days the same value gets another pseudonym; 0: never."),
    ] = 90
    entities: Annotated[tuple[str, ...], Meta(description="What is looked for; empty: all but `DATE` and `URL`.")] = ()
    ignore: Annotated[tuple[str, ...], Meta(description="Entities that are not looked for.")] = ()
    allow: Annotated[
        tuple[str, ...],
        Meta(description="Expressions of RE2: what one of them matches as a whole is kept as it is."),
    ] = ()
    names_model: Annotated[
        str,
        Meta(
            description="A pipeline of spaCy, by name or folder, that finds names of people and places (`PERSON`, "
            "`PLACE`); empty: they are not looked for. Needs the extra `ner`."
        ),
    ] = ""
    custom: Annotated[tuple[CustomEntity, ...], Meta(description="Entities of your own.")] = ()
    max_text_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            le=1024 * 1024,
            description="Of each request's texts, and of its answer's, no more is looked at or kept; it is cut there.",
        ),
    ] = 32_768

    def keeps_content(self) -> bool:
        """Tell whether content of anybody is kept."""
        return self.content != "none" or any(each.content != "none" for each in self.tenants)


def fault(privacy: Privacy, *, traced: bool) -> str:
    """Return what is wrong with `privacy`, beginning with the key, or "". `traced`: traces are exported."""
    return next(_faults(privacy, traced), "")


def _faults(privacy: Privacy, traced: bool) -> Iterator[str]:
    seen: set[str] = set()
    for index, own in enumerate(privacy.tenants):
        if not own.tenant or own.tenant in seen:
            yield f"privacy.tenants[{index}].tenant: {'written twice' if own.tenant else 'expected a name'}"
        seen.add(own.tenant)
    if len(privacy.custom) > MAX_CUSTOM:
        yield f"privacy.custom: {len(privacy.custom)} entities, expected at most {MAX_CUSTOM}"
    for index, entity in enumerate(privacy.custom):
        if not _NAME.fullmatch(entity.name):
            yield f"privacy.custom[{index}].name: expected capital letters, digits and `_`, at most 40"
        if not entity.pattern:
            yield f"privacy.custom[{index}].pattern: expected an expression"
    if not privacy.keeps_content():
        return
    if not traced:
        yield "privacy.content: is kept in traces, and `otlp.traces` is off"
    if not privacy.key_file:
        yield "privacy.key_file: needed where `privacy.content` keeps any"
