"""Finds personal data in a text.

Strategy. One automaton made of all patterns (RE2) passes over the text once and tells which of them occur; most texts
are done then. If one of those that occur needs a word beside it, a second automaton, made of all words, tells which of
them can have one; and a third, made of what is written so that it needs none, which of the others are worth a look.
What is left is searched for one by one, and each match is judged: by the characters around it, by the words beside it
where its entity needs them, and by its check digits. RE2 has no backtracking, every pattern is bounded where a false
match makes us look again, and what is done for a match does not depend on the text's length: the time is linear in the
text, whatever stands in it.

It may still be too long. So there is a budget of the thread's own time, which a busy machine does not shorten, and who
exceeds it gets an exception and no text.
"""

import bisect
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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

# The clock of a thread takes a tenth as long as a look.
LOOKS_AT_ONCE: Final = 16

# A word is at most one separator further away than what it stands beside, and that has at most four bytes.
_SEPARATOR_BYTES: Final = 4

# The automaton of all patterns together. RE2's 8 MiB would make it start anew now and then.
AUTOMATON_BYTES: Final = 64 * 1024 * 1024

_NOTHING: Final = r"[^\x{0}-\x{10FFFF}]"
_RUN: Final = re.compile(rb"[0-9A-Za-z]+")
_QUOTES: Final = " \t\r\n\"'`.,;:()[]{}<>"
_JOINTS: Final = frozenset(b".-_")
_WORD: Final = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")


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
        # The highest rank first: what lies within its findings needs no other judge.
        self._rules = sorted((_rule(entity) for entity in entities), key=lambda rule: -rule.entity.rank)
        self.entities = tuple(dict.fromkeys(rule.entity.name for rule in self._rules))  # names
        self._allow = [_compiled(pattern) for pattern in allow]
        self._all = _any_of(rule.entity.pattern for rule in self._rules)
        # A rule without words has nothing that could stand beside it: a pattern that nothing matches.
        self._words = _any_of(word_pattern(rule.entity.words) or _NOTHING for rule in self._rules)
        self._sure = _any_of(_sure_pattern(rule.entity) or _NOTHING for rule in self._rules)

    def deadline_ns(self) -> int:
        """Return when the budget of a text that begins now is spent, for all of its readings together."""
        return self._clock_ns() + self._budget_ns

    def is_late(self, deadline_ns: int) -> bool:
        """Tell whether the budget is spent."""
        return self._clock_ns() > deadline_ns

    def is_allowed(self, value: str) -> bool:
        """Tell whether the operator says that this is nobody's secret."""
        return any(each.fullmatch(value) for each in self._allow)

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
        taken = bytearray(len(data))
        for rule, words in self._occurring(data, alone):
            if taken.find(0) < 0:  # a value that is all there is
                break
            beside = _Beside(words, data) if words is not None else None
            self._search(rule, data, alone, beside, deadline_ns, found, taken)
        return _characters(data, text.isascii(), _merged(found))

    def occurs(self, text: str) -> bool:
        """Tell whether there is anything that a pattern matches, be it false."""
        return bool(self._all.Match(text.encode("utf-8", "replace")))

    def _occurring(self, data: bytes, alone: bytes | None) -> "Iterator[tuple[_Rule, re2._Regexp | None]]":
        """Yield the rules of which a match could be believed, and the words that could make it so."""
        beside: frozenset[int] | None = None
        sure: frozenset[int] | None = None
        for index in sorted(self._all.Match(data) or ()):
            rule = self._rules[index]
            entity = rule.entity
            if entity.tier is not Tier.CONTEXT:
                yield rule, None
                continue
            if beside is None:
                beside = frozenset(self._words.Match(data) or ())
            if index in beside:
                yield rule, rule.words
            elif alone is not None and entity.alone is not never:
                yield rule, None
            elif entity.sure is not None:
                if sure is None:
                    sure = frozenset(self._sure.Match(data) or ())
                if index in sure:
                    yield rule, None

    def _search(
        self,
        rule: _Rule,
        data: bytes,
        alone: bytes | None,
        beside: "_Beside | None",
        deadline_ns: int,
        found: list[_Match],
        taken: bytearray,
    ) -> None:
        """Judge each match of a rule. What is cheap comes first. `taken` has a 1 for each byte of what was found."""
        entity, group = rule.entity, rule.group
        joined, rescan, shortest, check = entity.joined, entity.rescan, entity.shortest, entity.check
        in_context = entity.tier is Tier.CONTEXT
        matches = rule.regexp.finditer(data)
        looks, ends = 0, 0
        # Behind a match that goes to the end there is none.
        while ends < len(data) and (match := next(matches, None)) is not None:
            looks += 1
            if looks % LOOKS_AT_ONCE == 0 and self._clock_ns() > deadline_ns:
                raise ScanTimeoutError(f"more than {self._budget_ns // 1_000_000} ms for {len(data)} bytes")
            start, end = whole = match.span()
            ends = end
            if group:
                start, end = match.span(group)
            if taken.find(0, start, end) < 0:
                continue
            value, canonical = "", None
            if end - start >= shortest and (joined or not _hangs_on(data, start, end)):
                value = data[start:end].decode()
                if not in_context or _believed(entity, value, alone, beside, start, end):
                    canonical = check(value)
            if canonical is not None and not (self._allow and self.is_allowed(value)):
                found.append(_Match(start, end, entity.rank, entity.name, canonical))
                taken[start:end] = b"\1" * (end - start)
            elif rescan and (run := _RUN.search(data, whole[0])) is not None and run.end() < whole[1]:
                matches, ends = rule.regexp.finditer(data, run.end()), 0


class _Beside:
    """Where in a text the words of one rule are. Looked for once, when somebody asks."""

    def __init__(self, words: "re2._Regexp", data: bytes) -> None:
        self._words = words
        self._data = data
        self._starts: list[int] | None = None
        self._ends: list[int] = []

    def has(self, start: int, end: int) -> bool:
        """Tell whether one stands within some words of what stands there (bytes)."""
        if self._starts is None:
            spans = [match.span() for match in self._words.finditer(self._data)]
            self._starts = [one for one, _ in spans]
            self._ends = [other for _, other in spans]
        # The last that ends before it, and the first that begins behind it.
        place = bisect.bisect_right(self._ends, start) - 1
        if place >= 0 and self._starts[place] >= start - BEFORE_CHARS - _SEPARATOR_BYTES:
            return True
        place = bisect.bisect_left(self._starts, end)
        return place < len(self._ends) and self._ends[place] <= end + BEHIND_CHARS


def _believed(entity: Entity, value: str, alone: bytes | None, beside: _Beside | None, start: int, end: int) -> bool:
    """Tell whether what is a number of some kind by its form alone is one where it stands."""
    if alone is not None and len(alone) == end - start and alone == value.encode() and entity.alone(value):
        return True
    if entity.sure is not None and entity.sure(value):
        return True
    return beside is not None and beside.has(start, end)


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


def _sure_pattern(entity: Entity) -> str:
    return "" if entity.sure is None else entity.sure_pattern or entity.pattern


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
    if start:
        before = data[start - 1]
        if before in _WORD or (before in _JOINTS and start > 1 and data[start - 2] in _WORD):
            return True
    if end < len(data):
        behind = data[end]
        return behind in _WORD or (behind in _JOINTS and end + 1 < len(data) and data[end + 1] in _WORD)
    return False


def _merged(found: list[_Match]) -> list[_Match]:
    """Join what overlaps, so that no end of a lower match sticks out: the highest one gives its name."""
    if len(found) < 2:
        return found
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
