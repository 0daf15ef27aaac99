"""What a check finds, and how that is shown."""

import enum
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec


class Level(enum.StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"  # works; could be better, or is worth knowing
    WARNING = "warning"  # works now; numbers are missing, or something will go wrong
    FAULT = "fault"  # does not work


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One finding. `remedy` says what to do, "" where nothing is to be done."""

    check: str  # the check's name, as in CHECKS
    level: Level
    what: str
    remedy: str = ""


_MARKS: Final = {Level.OK: "ok     ", Level.NOTE: "note   ", Level.WARNING: "WARNING", Level.FAULT: "FAULT  "}
_INDENT: Final = " " * 9


def as_text(findings: Iterable[Finding]) -> str:
    """Return the findings for people: a line each, the remedy below it."""
    lines = []
    for finding in findings:
        lines.append(f"{_MARKS[finding.level]}  {finding.check}: {finding.what}")
        if finding.remedy:
            lines.append(f"{_INDENT}-> {finding.remedy}")
    return "\n".join(lines) + "\n"


def as_json(findings: Sequence[Finding]) -> bytes:
    """Return the findings for programs: `{"worst": level, "findings": [{check, level, what, remedy}]}`."""
    return msgspec.json.format(msgspec.json.encode({"worst": worst(findings), "findings": findings}), indent=1) + b"\n"


def worst(findings: Iterable[Finding]) -> Level:
    """Return the gravest level of all."""
    order = list(Level)
    return max((finding.level for finding in findings), key=order.index, default=Level.OK)
