"""The texts: cases that name what is personal in them, our own, noise, and texts to be fast on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import noise
import planted

# A prompt of some length; longer ones would favour us, as some of Presidio's patterns take quadratic time.
TEXT_CHARS: Final = 4096
TEXTS: Final = 4

PLANTED_EACH: Final = 25

# Lines of prose to one sentence with something personal in it: what somebody tells about themselves.
PROSE_LINES: Final = 8


class Case(NamedTuple):
    """One text of the shared cases."""

    text: str
    entity: str
    tier: str  # strong, weak, negative
    spans: list[tuple[int, int]]
    checked: list[bool]  # by span: python-stdnum confirms it, so that nobody disputes it


def read(path: Path) -> list[Case]:
    """Return the cases of a file of JSON lines."""
    return [_case(json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def _case(entry: dict[str, Any]) -> Case:
    text, spans = entry["text"], [(start, end) for start, end in entry["spans"]]
    # One recogniser takes the blank before a value for a part of it.
    spans = [(end - len(text[start:end].lstrip()), start + len(text[start:end].rstrip())) for start, end in spans]
    valid = entry.get("stdnum_valid") or [None] * len(spans)
    return Case(text, entry["entity"], entry["tier"], spans, [each is True for each in valid])


def planted_cases() -> Iterator[Case]:
    """Yield values of the forty kinds that our own tests plant, each in its sentence."""
    for kind in planted.KINDS:
        for number in range(PLANTED_EACH):
            value, text = planted.plant(kind, number)
            start = text.index(value)
            yield Case(text, kind, "strong", [(start, start + len(value))], [False])


def covered(case: Case, found: list[list[int]]) -> list[bool]:
    """Tell for each span of a case whether one finding holds all of it."""
    return [any(start <= one and other <= end for start, end in found) for one, other in case.spans]


def clean(root: Path) -> list[str]:
    """Return prose without anything personal: this project's own pages, but for lines with addresses and numbers."""
    lines = [
        line
        for page in sorted((root / "docs").rglob("*.md"))
        for line in page.read_text("utf-8").splitlines()
        if line and not any(char.isdigit() or char in "@|`:" for char in line)
    ]
    return _cut("\n".join(lines))


def with_data(root: Path) -> list[str]:
    """Return that prose with a sentence with something personal behind every eighth line, of forty kinds in turn."""
    kinds = list(planted.KINDS)
    lines: list[str] = []
    for number, line in enumerate("\n".join(clean(root)).splitlines()):
        lines.append(line)
        if number % PROSE_LINES == 0:
            at = number // PROSE_LINES
            lines.append(planted.plant(kinds[at % len(kinds)], at)[1])
    return _cut("\n".join(lines))


def full() -> list[str]:
    """Return texts of nothing but sentences with something personal, of forty kinds in turn, no value twice."""
    return _cut("\n".join(planted.plant(kind, number)[1] for number in range(15) for kind in planted.KINDS))


def logs() -> list[str]:
    """Return lines of logs."""
    return _cut("\n".join(noise.texts("log lines")))


def _cut(text: str) -> list[str]:
    texts = [text[at : at + TEXT_CHARS] for at in range(0, TEXTS * TEXT_CHARS, TEXT_CHARS)]
    assert all(len(each) == TEXT_CHARS for each in texts), len(text)
    return texts
