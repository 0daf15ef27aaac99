"""What to send instead of the client's own `stream_options`, and what to take out of the reply then.

Members of ours are spliced into the client's object; what else is in it stays as it is written.
"""

from functools import lru_cache
from typing import Any, Final

import msgspec

from inferwatch.engines import CHAT, COMPLETIONS, Asked, Profile
from inferwatch.relay import lax_values, python_json
from inferwatch.relay.json_scan import ObjectScanner
from inferwatch.relay.usage_filter import Hide

INCLUDE: Final = "include_usage"
CONTINUOUS: Final = "continuous_usage_stats"

_MEMBERS: Final = {Asked.USAGE: (INCLUDE,), Asked.CONTINUOUS: (INCLUDE, CONTINUOUS)}

# What is asked for where the client has no options.
VALUES: Final = {
    asked: b"{" + b",".join(b'"%b":true' % name.encode() for name in names) + b"}" for asked, names in _MEMBERS.items()
}

# Clients send the same few objects with every request; bounded, because anybody may send others.
MAX_REMEMBERED: Final = 256
MAX_REMEMBERED_BYTES: Final = 128

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


def is_null(options: bytes) -> bool:
    """Tell whether they are as good as absent."""
    return options.strip() == b"null"


def wish(options: bytes, profile: Profile) -> tuple[bytes, Hide] | None:
    """Return the `stream_options` to send instead of the client's, or None to leave it alone.

    vLLM needs `include_usage` for continuous usage. What an object without it means differs between engines.
    """
    return _known(options, profile) if len(options) <= MAX_REMEMBERED_BYTES else _wish(options, profile)


def _wish(options: bytes, profile: Profile) -> tuple[bytes, Hide] | None:
    asked = profile.asked
    if is_null(options):
        return VALUES[asked], Hide.ALL
    options = options.strip()
    own = _read(options)
    if own is None:
        return None
    include = _flag(own[INCLUDE], profile) if INCLUDE in own else profile.bare_options
    continuous = _flag(own.get(CONTINUOUS), profile)
    if include is None or continuous is None:
        return None
    if include and (continuous or asked is Asked.USAGE):
        return None
    if continuous and not include and profile.continuous_alone:
        return None  # the client gets the counts that it asked for, and so do we
    sent = _with(options, _MEMBERS[asked])
    return None if sent is None else (sent, Hide.CONTINUOUS if include else Hide.ALL)


_known = lru_cache(maxsize=MAX_REMEMBERED)(_wish)


def nothing(profile: Profile, path: str) -> bytes:
    """Return what stands in an event of the engine's in the place of a usage that nobody asked for."""
    is_completion = path.endswith(COMPLETIONS) and not path.endswith(CHAT)
    return b',"usage":null' if profile.null_usage and is_completion else b""


def _read(options: bytes) -> dict[str, Any] | None:
    try:
        return _decode(options)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return python_json.read_object(options)


def _flag(value: Any, profile: Profile) -> bool | None:
    """Return what the engine takes it for; None: it may refuse it."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if not profile.lax_options:
        return None
    return True if lax_values.is_true(value) else False if lax_values.is_false(value) else None


def _with(options: bytes, names: tuple[str, ...]) -> bytes | None:
    """Return the object with these members true."""
    scanner = ObjectScanner(frozenset(name.encode() for name in names))
    scanner.feed(options)
    if scanner.broken or scanner.closing < 0:
        return None
    missing = [b'"%b":true' % name.encode() for name in names if name.encode() not in scanner.members]
    comma = b"," if scanner.count and missing else b""
    sent = options[: scanner.closing] + comma + b",".join(missing) + options[scanner.closing :]
    for member in sorted(scanner.members.values(), key=lambda member: member.start, reverse=True):
        sent = sent[: member.start] + b"true" + sent[member.end :]
    return sent
