"""The Prometheus text format, as far as a scrape of an engine needs it.

An engine exports some thousand lines, of which we want twenty: `prometheus_client`'s parser builds objects of all of
them and takes 25 times as long (measured on vLLM's 650 lines: 0.4 ms here, 10 ms there), on the loop that digests the
tap. So lines of other names are passed over unread; those that are wanted are read strictly, because half a number is
worse than none.
"""

import re
from collections.abc import Container
from typing import Final, NamedTuple

# SGLang with eight ranks has some hundred series under the names we want. More than this is no engine.
MAX_SAMPLES: Final = 10_000

# Label values are model names and ranks. The bound keeps a broken page from becoming a dict of megabytes.
MAX_LINE_CHARS: Final = 16_384

_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL: Final = re.compile(r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"[ \t]*(,?)')
# No underscores and no hexadecimal, which float() and Go would take.
_NUMBER: Final = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?[iI]nf|[nN]a[nN]"
# The value, and perhaps a time stamp.
_VALUE: Final = re.compile(rf"[ \t]*({_NUMBER})(?:[ \t]+[0-9.eE+-]+)?[ \t]*")
_ESCAPES: Final = re.compile(r"\\(.)")
_ESCAPED: Final = {"n": "\n"}


class ParseError(ValueError):
    """The text is not what an engine exports. The message quotes nothing of it."""


class Sample(NamedTuple):
    """One series and its value; may be infinite or not a number."""

    labels: dict[str, str]
    value: float


Samples = dict[str, list[Sample]]


def parse(body: bytes, wanted: Container[str]) -> Samples:
    """Return the samples whose name is in `wanted`, by name, in the order of the text.

    Raises:
        ParseError: it is no UTF-8, is cut off, a wanted line cannot be read or comes twice, or there are too many.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise ParseError("the engine's metrics are not UTF-8") from None
    if text and not text.endswith("\n"):
        raise ParseError("the engine's metrics are cut off: the last line has no end")
    found: Samples = {}
    series: set[tuple[str, frozenset[tuple[str, str]]]] = set()
    for number, line in enumerate(text.split("\n"), 1):
        match = _NAME.match(line)
        if match is None or match[0] not in wanted:
            continue
        if len(series) >= MAX_SAMPLES:
            raise ParseError(f"the engine's metrics hold more than {MAX_SAMPLES} series that we want")
        sample = _sample(line.removesuffix("\r"), match.end(), number)
        key = (match[0], frozenset(sample.labels.items()))
        if key in series:
            raise ParseError(f"line {number} of the engine's metrics: the same series a second time")
        series.add(key)
        found.setdefault(match[0], []).append(sample)
    return found


def _sample(line: str, position: int, number: int) -> Sample:
    if len(line) > MAX_LINE_CHARS:
        raise ParseError(f"line {number} of the engine's metrics: longer than {MAX_LINE_CHARS} characters")
    labels: dict[str, str] = {}
    while line.startswith((" ", "\t"), position):
        position += 1
    if line.startswith("{", position):
        labels, position = _labels(line, position + 1, number)
    elif line[position - 1] not in " \t":
        raise ParseError(f"line {number} of the engine's metrics: no value")
    match = _VALUE.fullmatch(line, position)
    if match is None:
        raise ParseError(f"line {number} of the engine's metrics: no value")
    return Sample(labels, float(match[1]))


def _labels(line: str, position: int, number: int) -> tuple[dict[str, str], int]:
    """Return the labels from `position`, which is behind the brace, and the place behind the closing one."""
    labels: dict[str, str] = {}
    more = True
    while more and (match := _LABEL.match(line, position)) is not None:
        if match[1] in labels:
            break
        value = match[2]
        if "\\" in value:
            value = _ESCAPES.sub(lambda escape: _ESCAPED.get(escape[1], escape[1]), value)
        labels[match[1]] = value
        position = match.end()
        more = bool(match[3])
    while line.startswith((" ", "\t"), position):
        position += 1
    if not line.startswith("}", position):
        raise ParseError(f"line {number} of the engine's metrics: broken labels")
    return labels, position + 1
