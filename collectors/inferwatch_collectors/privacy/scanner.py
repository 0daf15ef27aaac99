"""Finds personal data in a text.

Strategy. One automaton made of all patterns (RE2) passes over the text once and tells which of them occur; most texts
are done then. If one of those that occur needs a word beside it, a second automaton, made of all words, tells which of
them can have one. What is left is searched for one by one, and each match is judged: by the characters around it, by
the words beside it where its entity needs them, and by its check digits. RE2 has no backtracking, every pattern is
bounded where a false match makes us look again, and what is done for a match does not depend on the text's length: the
time is linear in the text, whatever stands in it.

It may still be too long. So there is a budget of the thread's own time, which a busy machine does not shorten, and who
exceeds it gets an exception and no text.
"""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import re2

from inferwatch_collectors.privacy.base import (
    BEFORE_CHARS,
    BEHIND_CHARS,
    Entity,
    Finding,
    ScanTimeoutError,
    Tier,
    never,
    word_pattern,
)

# 100 kB take some milliseconds, and some hundred if they are nothing but candidates; more on a loaded machine.
BUDGET_NS: Final = 1_000_000_000

# A word is at most one separator further away than what it stands beside, and that has at most four bytes.
_SEPARATOR_BYTES: Final = 4

# The automaton of all patterns together. RE2's 8 MiB would make it start anew now and then.
AUTOMATON_BYTES: Final = 64 * 1024 * 1024

_NOTHING: Final = r"[^\x{0}-\x{10FFFF}]"
_RUN: Final = re.compile(rb"[0-9A-Za-z]+")
_QUOTES: Final = " \t\r\n\"'`.,;:()[]{}<>"
_JOINTS: Final = b".-_"


class _Rule(NamedTuple):
    entity: Entity
    regexp: "re2._Regexp"
    words: "re2._Regexp | None"
    group: int


class _Match(NamedTuple):
    start: int  # bytes
    end: int
    rank: int
    entity: str
    canonical: str


class Scanner:
    """Looks for `entities`. Made once, used for every text; may be used by one thread at a time."""

    def __init__(
        self,
        entities: Iterable[Entity],
        *,
        allow: Sequence[str] = (),
        budget_ns: int = BUDGET_NS,
        clock_ns: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        """`allow`: RE2 patterns; what one of them matches from end to end is nobody's secret.

        Raises:
            ValueError: a pattern is none.
        """
        self._budget_ns = budget_ns
        self._clock_ns = clock_ns
        self._rules = [_rule(entity) for entity in entities]
        self.entities = tuple(dict.fromkeys(rule.entity.name for rule in self._rules))  # names
        self._allow = [_compiled(pattern) for pattern in allow]
        self._all = _any_of(rule.entity.pattern for rule in self._rules)
        # A rule without words has nothing that could stand beside it: a pattern that nothing matches.
        self._words = _any_of(word_pattern(rule.entity.words) or _NOTHING for rule in self._rules)

    def deadline_ns(self) -> int:
        """Return when the budget of a text that begins now is spent, for all of its readings together."""
        return self._clock_ns() + self._budget_ns

    def scan(self, text: str, deadline_ns: int | None = None) -> list[Finding]:
        """Return what is found, in the order of the text, without overlaps.

        Raises:
            ScanTimeoutError: it took longer than the budget.
        """
        data = text.encode("utf-8", "replace")
        if deadline_ns is None:
            deadline_ns = self.deadline_ns()
        alone = _bare(text) if len(text) <= 256 else None
        found: list[_Match] = []
        for rule in self._occurring(data, alone):
            self._search(rule, data, alone, deadline_ns, found)
        return _characters(data, text.isascii(), _merged(found))

    def occurs(self, text: str) -> bool:
        """Tell whether there is anything that a pattern matches, be it false."""
        return bool(self._all.Match(text.encode("utf-8", "replace")))

    def _occurring(self, data: bytes, alone: bytes | None) -> list[_Rule]:
        """Return the rules of which a match could be believed."""
        indices = self._all.Match(data)
        if not indices:
            return []
        beside: frozenset[int] | None = None
        rules: list[_Rule] = []
        for index in indices:
            rule = self._rules[index]
            entity = rule.entity
            if entity.tier is Tier.CONTEXT and entity.sure is None and (alone is None or entity.alone is never):
                if beside is None:
                    beside = frozenset(self._words.Match(data) or ())
                if index not in beside:
                    continue
            rules.append(rule)
        return rules

    def _search(self, rule: _Rule, data: bytes, alone: bytes | None, deadline_ns: int, found: list[_Match]) -> None:
        group, rescan = rule.group, rule.entity.rescan
        matches = rule.regexp.finditer(data)
        while (match := next(matches, None)) is not None:
            if self._clock_ns() > deadline_ns:
                raise ScanTimeoutError(f"more than {self._budget_ns // 1_000_000} ms for {len(data)} bytes")
            start, end = whole = match.span()
            if group:
                start, end = match.span(group)
            canonical = self._judge(rule, data, start, end, alone)
            if canonical is not None:
                found.append(_Match(start, end, rule.entity.rank, rule.entity.name, canonical))
            elif rescan and (run := _RUN.search(data, whole[0])) is not None and run.end() < whole[1]:
                matches = rule.regexp.finditer(data, run.end())

    def _judge(self, rule: _Rule, data: bytes, start: int, end: int, alone: bytes | None) -> str | None:
        """Return the canonical form of a match, None if it is a false one. What is cheap comes first."""
        entity = rule.entity
        if not entity.joined and _hangs_on(data, start, end):
            return None
        value = data[start:end].decode()
        if not self._believed(rule, value, data, start, end, alone):
            return None
        canonical = entity.check(value)
        if canonical is None or (self._allow and any(each.fullmatch(value) for each in self._allow)):
            return None
        return canonical

    def _believed(self, rule: _Rule, value: str, data: bytes, start: int, end: int, alone: bytes | None) -> bool:
        entity = rule.entity
        if entity.tier is not Tier.CONTEXT or (entity.sure is not None and entity.sure(value)):
            return True
        if alone is not None and alone == data[start:end] and entity.alone(value):
            return True
        if rule.words is None:
            return False
        before = max(0, start - BEFORE_CHARS - _SEPARATOR_BYTES)
        if rule.words.search(data, before, start) is not None:
            return True
        return rule.words.search(data, end, end + BEHIND_CHARS) is not None


def check_pattern(pattern: str) -> None:
    """Compile an operator's own pattern.

    Raises:
        ValueError: it is none.
    """
    _compiled(pattern)


def _rule(entity: Entity) -> _Rule:
    regexp = _compiled(entity.pattern.encode())
    words = word_pattern(entity.words)
    return _Rule(entity, regexp, _compiled(words.encode()) if words else None, min(regexp.groups, 1))


def _any_of(patterns: Iterable[str]) -> "re2.Set":
    """Return what tells which of `patterns` occur in a text."""
    options = re2.Options()
    options.max_mem = AUTOMATON_BYTES
    options.log_errors = False
    automaton = re2.Set.SearchSet(options)
    for pattern in patterns:
        automaton.Add(pattern.encode())
    automaton.Compile()
    return automaton


def _compiled(pattern: "str | bytes") -> "re2._Regexp":
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError(f"not a pattern of RE2: {error}") from None


def _bare(text: str) -> bytes:
    return text.strip(_QUOTES).encode("utf-8", "replace")


def _hangs_on(data: bytes, start: int, end: int) -> bool:
    """Tell whether a match is a part of something longer: a word, a UUID, a float, a path."""
    if (start and _word(data[start - 1])) or (end < len(data) and _word(data[end])):
        return True
    if start > 1 and data[start - 1] in _JOINTS and _word(data[start - 2]):
        return True
    return end + 1 < len(data) and data[end] in _JOINTS and _word(data[end + 1])


def _word(byte: int) -> bool:
    return 48 <= byte <= 57 or 65 <= byte <= 90 or 97 <= byte <= 122 or byte == 95


def _merged(found: list[_Match]) -> list[_Match]:
    """Join what overlaps, so that no end of a lower match sticks out: the highest one gives its name."""
    found.sort(key=lambda match: (match.start, -match.end))
    merged: list[_Match] = []
    for match in found:
        if not merged or match.start >= merged[-1].end:
            merged.append(match)
            continue
        last = merged[-1]
        best = max(last, match, key=lambda each: (each.rank, each.end - each.start))
        merged[-1] = best._replace(start=last.start, end=max(last.end, match.end))
    return merged


def _characters(data: bytes, is_ascii: bool, matches: list[_Match]) -> list[Finding]:
    if is_ascii:
        return [Finding(each.start, each.end, each.entity, each.canonical) for each in matches]
    findings: list[Finding] = []
    last_byte = last_char = 0
    for each in matches:
        start = last_char + len(data[last_byte : each.start].decode())
        end = start + len(data[each.start : each.end].decode())
        last_byte, last_char = each.end, end
        findings.append(Finding(start, end, each.entity, each.canonical))
    return findings
