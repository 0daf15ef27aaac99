"""Second chance for JSON that the typed decoders refuse: keep what is right, drop what is not, never raise.

Replies come from programs that we do not control: a NaN among the logprobs, a lone surrogate in a piece of text or a
count written as a string must not cost the rest of the event. This path is slow and rare; the typed decoders come
first.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, TypeVar, get_args, get_origin

import msgspec

S = TypeVar("S", bound=msgspec.Struct)

_DECODER: Final = json.JSONDecoder()


def load_object(data: bytes) -> dict[str, Any] | None:
    """Return the JSON object in `data`, or None. Takes NaN, Infinity, lone surrogates and broken UTF-8 as they come."""
    try:
        value = json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def objects_named(name: str, tail: bytes) -> Iterator[bytes]:
    """Yield the JSON objects that stand whole under `name` in the end of a document, the last one first.

    Inside a JSON string the quotes would be escaped, so text that talks about them does not match.
    """
    text = tail.decode("utf-8", "replace")
    starts = [match.end() for match in re.finditer(rf'"{name}"\s*:\s*(?={{)', text)]
    for start in reversed(starts):
        try:
            _, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        yield text[start:end].encode("utf-8", "replace")


def salvage(source: dict[str, Any], wanted: type[S]) -> S:
    """Return a `wanted` filled with those fields of `source` that fit; the rest keep their defaults.

    Nested structs and lists of structs are salvaged in turn. Every field of `wanted` must have a default.
    """
    kept = {}
    for field in msgspec.structs.fields(wanted):
        value = source.get(field.encode_name)
        if value is not None and (fitting := _fit(value, field.type)) is not None:
            kept[field.name] = fitting
    return wanted(**kept)


def _fit(value: Any, wanted: Any) -> Any:
    """Return `value` as `wanted`, or None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    for option in get_args(wanted) or (wanted,):
        origin = get_origin(option)
        if (
            isinstance(value, dict)
            and isinstance(origin or option, type)
            and issubclass(origin or option, msgspec.Struct)
        ):
            return salvage(value, option)
        if origin is list and isinstance(value, list):
            (item,) = get_args(option)
            fitted = [_fit(entry, item) for entry in value]
            return [entry for entry in fitted if entry is not None]
    try:
        return msgspec.convert(value, wanted)
    except (ValueError, RecursionError):  # a ValidationError is a ValueError, and so is a lone surrogate for a number
        return None
