"""Values of a request as vLLM takes them: pydantic's lax booleans and integers, seen on the wire."""

from typing import Any, Final

_TRUE_WORDS: Final = frozenset({"1", "on", "t", "true", "y", "yes"})
_FALSE_WORDS: Final = frozenset({"0", "off", "f", "false", "n", "no"})

# No engine takes a number of tokens with more.
MAX_DIGITS: Final = 18


def whole(value: Any) -> int:
    """Return a positive integer; anything else is 0."""
    if isinstance(value, str):
        value = value.strip()
        return int(value) if value.isdecimal() and len(value) <= MAX_DIGITS else 0
    if isinstance(value, float):
        return int(value) if value.is_integer() and value > 0 else 0
    return value if type(value) is int and value > 0 else 0


def is_true(value: Any) -> bool:
    """Tell whether it is taken for true."""
    if isinstance(value, str):
        return value.lower() in _TRUE_WORDS
    return value is True or (type(value) in (int, float) and value == 1)


def is_false(value: Any) -> bool:
    """Tell whether it is taken for false; what is neither is refused."""
    if isinstance(value, str):
        return value.lower() in _FALSE_WORDS
    return value is False or (type(value) in (int, float) and value == 0)
