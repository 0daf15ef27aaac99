"""What is kept of a text: pseudonyms in place of what identifies a person, or nothing but hashes and counts.

Text comes as people and machines write it: JSON in JSON, percent signs, base64. So a text is also looked at as it reads
when that is undone, and where there is more to find, that reading is kept.
"""

import base64
import binascii
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple
from urllib.parse import unquote

from inferwatch_collectors.privacy.base import Finding
from inferwatch_collectors.privacy.names import NamesScanner
from inferwatch_collectors.privacy.pseudonyms import Pseudonyms
from inferwatch_collectors.privacy.scanner import Scanner

# JSON in JSON in JSON: the arguments of a tool in a log that somebody pasted.
MAX_UNWRAPPED: Final = 3

_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|([nrtbf\"\\/]))")
_SHORT: Final = {"n": "\n", "r": "\r", "t": "\t", "b": " ", "f": " "}
_PERCENT: Final = re.compile(r"%[0-9A-Fa-f]{2}")

# Shorter ones hold no address; longer ones are pictures. Possessive, so that a false one costs no second look.
_BASE64: Final = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{12,4096}+={0,2}(?![A-Za-z0-9+/_=-])")


class Kept(NamedTuple):
    """A text without what is personal in it."""

    text: str
    found: Counter[str]  # by entity


class Redactor:
    """Says what is kept."""

    def __init__(self, scanner: Scanner | NamesScanner, pseudonyms: Pseudonyms) -> None:
        self._scanner = scanner
        self.pseudonyms = pseudonyms
        self.entities = scanner.entities

    def hashed(self, text: str, tenant: str, wall_s: float, *, keeps: Callable[[str], int] = len) -> Kept:
        """Return `text` with pseudonyms; all of it is looked at, and `keeps` says how many characters are kept.

        It is asked of the text as it reads without escapes, which is shorter.

        Raises:
            ScanTimeoutError: nothing of it may be kept.
        """
        text, findings = self.findings(text)
        keep = keeps(text)
        findings = [each for each in findings if each.start < keep]
        parts: list[str] = []
        end = 0
        for each in findings:
            parts += text[end : each.start], self.pseudonyms.token(tenant, wall_s, each.entity, each.canonical)
            end = each.end
        parts.append(text[end:keep])
        return Kept("".join(parts), Counter(each.entity for each in findings))

    def fingerprint(self, text: str, tenant: str, wall_s: float) -> Kept:
        """Return a keyed hash of `text`.

        Raises:
            ScanTimeoutError: as above.
        """
        found = Counter(each.entity for each in self.findings(text)[1])
        return Kept(self.pseudonyms.fingerprint(tenant, wall_s, text), found)

    def findings(self, text: str) -> tuple[str, list[Finding]]:
        """Return the reading of `text` in which most is found, and what is found.

        Raises:
            ScanTimeoutError: all readings together took longer than the budget of one text.
        """
        deadline_ns = self._scanner.deadline_ns()
        findings = self._scanner.scan(text, deadline_ns)
        reading = _unwrapped(text)
        if reading != text:
            more = self._scanner.scan(reading, deadline_ns)
            if len(more) > len(findings) or {each.canonical for each in more} - {each.canonical for each in findings}:
                text, findings = reading, more
        return text, self._with_encoded(text, findings, deadline_ns)

    def _with_encoded(self, text: str, findings: list[Finding], deadline_ns: int) -> list[Finding]:
        """Add what is hidden in base64: the whole of it is replaced."""
        added: list[Finding] = []
        for match in _BASE64.finditer(text):
            inner = _decoded(match[0])
            if inner and (hidden := self._scanner.scan(inner, deadline_ns)):
                added.append(Finding(match.start(), match.end(), hidden[0].entity, hidden[0].canonical))
        return sorted([*_apart(findings, added), *added]) if added else findings


def _apart(findings: list[Finding], others: list[Finding]) -> Iterator[Finding]:
    """Yield those of `findings` that overlap none of `others`. Both are in order, and neither overlaps itself."""
    place = 0
    for each in findings:
        while place < len(others) and others[place].end <= each.start:
            place += 1
        if place == len(others) or each.end <= others[place].start:
            yield each


def _unwrapped(text: str) -> str:
    """Return `text` without escapes of JSON and percent signs of URLs."""
    for _ in range(MAX_UNWRAPPED):
        reading = _ESCAPE.sub(_unescaped, text) if "\\" in text else text
        if "%" in reading and _PERCENT.search(reading):
            reading = unquote(reading, errors="replace")
        if reading == text:
            return text
        text = reading
    return text


def _unescaped(match: re.Match[str]) -> str:
    if match[1]:
        char = chr(int(match[1], 16))
        return "�" if "\ud800" <= char <= "\udfff" else char
    return _SHORT.get(match[2], match[2])


def _decoded(text: str) -> str:
    """Return what is written in base64, "" if that is no text."""
    bare = text.rstrip("=")
    if bare.isdigit():  # a number; a long word decodes to bytes that are no text
        return ""
    try:
        data = base64.b64decode(
            bare + "=" * (-len(bare) % 4), altchars=b"-_" if set("-_") & set(bare) else None, validate=True
        )
        inner = data.decode()
    except (ValueError, binascii.Error):
        return ""
    return inner if all(char.isprintable() or char in "\r\n\t" for char in inner) else ""
