"""Names of people and places, by a model of the operator's: a pipeline of spaCy. Imports it when one is configured.

No pattern knows a name. A model knows many and never all, so what it finds is added to what patterns find; and where it
fails or takes too long, nothing of the text is kept. It cannot be stopped while it reads, so a text is given to it in
parts, and the clock is looked at between them. Parts overlap, so that a name at an end is whole in one of them.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from inferwatch.config import ConfigError
from inferwatch_collectors.privacy.base import Finding, ScanTimeoutError

if TYPE_CHECKING:  # it needs the extra `privacy`
    from inferwatch_collectors.privacy.scanner import Scanner

KEY: Final = "privacy.names_model"

PERSON: Final = "PERSON"
PLACE: Final = "PLACE"
ENTITIES: Final = (PERSON, PLACE)

# What pipelines call them: those trained on OntoNotes, those trained on Wikipedia in other languages, and those of
# languages with a corpus of their own.
LABELS: Final = {
    "PERSON": PERSON,
    "PER": PERSON,
    "PRS": PERSON,  # Swedish
    "PS": PERSON,  # Korean
    "persName": PERSON,  # Polish
    "DERIV_PER": PERSON,  # Croatian, Slovene: whose something is
    "GPE": PLACE,
    "LOC": PLACE,
    "FAC": PLACE,
    "FACILITY": PLACE,  # Romanian
    "GPE_LOC": PLACE,  # Norwegian, as is the next: a country as somebody who acts
    "GPE_ORG": PLACE,
    "LC": PLACE,  # Korean
    "placeName": PLACE,  # Polish, as is the next: rivers and hills
    "geogName": PLACE,
}

# A small pipeline on a slow core reads as much in a tenth of the second that a text may take.
PART_CHARS: Final = 4096

# Longer than names are, with a few words before and behind, without which a model knows none.
OVERLAP_CHARS: Final = 128

# Behind which a text may be parted, the best first.
_ENDS: Final = ("\n", ". ", " ")

_BLANK: Final = re.compile(r"\s")

# Blanks and marks at the ends of what a model takes for a name.
_AROUND: Final = " \t\r\n\"'`.,;:()[]{}<>"


class Model(Protocol):
    """A pipeline, as far as it is used: what it returns has `ents`, with `label_`, `start_char` and `end_char`."""

    def __call__(self, text: str, /) -> Any:
        """Read `text`. Raises anything."""

    def memory_zone(self) -> AbstractContextManager[object]:
        """Forget at its end which words were read since its beginning; what was returned is not to be used any more."""


def check(name: str, ignored: Collection[str] = ()) -> None:
    """Look whether there is a pipeline of that name, or in that folder, that finds names. Does not load it.

    `ignored`: entities that are not looked for.

    Raises:
        ConfigError: spaCy or the pipeline is not installed, or it finds no names, or none of people.
    """
    if find_spec("spacy") is None:
        raise ConfigError(f"{KEY}: needs the extra `ner`: pip install 'inferwatch[ner]'")
    labels = _labels(name)
    if labels is None:
        raise ConfigError(f"{KEY}: expected the name of an installed pipeline of spaCy, or a folder with one")
    if not labels & set(LABELS):
        raise ConfigError(f"{KEY}: it finds no names: none of its labels is among {', '.join(LABELS)}")
    of_people = [label for label, entity in LABELS.items() if entity == PERSON]
    if PERSON not in ignored and labels.isdisjoint(of_people):
        raise ConfigError(
            f"{KEY}: it finds no people: none of its labels is among {', '.join(of_people)}; if places are enough, put "
            f"{PERSON} into privacy.ignore"
        )


def _labels(name: str) -> set[str] | None:
    """Return what a pipeline finds, by what it says of itself; None: there is none."""
    folder = Path(name)
    try:
        if not folder.is_dir():
            places = getattr(find_spec(name), "submodule_search_locations", None) if name.isidentifier() else None
            if not places:
                return None
            folder = Path(places[0])
        labels = json.loads((folder / "meta.json").read_bytes())["labels"].values()
        return {label for each in labels for label in each}
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return None


def load(name: str, ignored: Collection[str] = ()) -> Model:
    """Return the pipeline of that name, or in that folder. Blocking, for seconds. `ignored`: as above.

    Raises:
        ConfigError: as above, or spaCy cannot load it.
    """
    check(name, ignored)
    try:
        model: Model = import_module("spacy").load(name)
    except (OSError, ValueError, ImportError):
        raise ConfigError(f"{KEY}: spaCy cannot load it; is it made for the installed version?") from None
    if not hasattr(model, "memory_zone"):
        raise ConfigError(f"{KEY}: needs spaCy 3.8 or later: an earlier one remembers each word that it ever read")
    return model


class NamesScanner:
    """A scanner that finds names as well. May be used by one thread at a time."""

    def __init__(self, scanner: "Scanner", model: Model, ignored: Collection[str] = ()) -> None:
        """`ignored`: entities that are not looked for."""
        self._scanner = scanner
        self._model = model
        self._labels = {label: entity for label, entity in LABELS.items() if entity not in ignored}
        self.entities = tuple(dict.fromkeys((*scanner.entities, *self._labels.values())))

    def deadline_ns(self) -> int:
        """Return when the budget of a text that begins now is spent, for all of its readings together."""
        return self._scanner.deadline_ns()

    def scan(self, text: str, deadline_ns: int | None = None) -> list[Finding]:
        """Return what is found, in the order of the text, without overlaps.

        Raises:
            ScanTimeoutError: it took longer than the budget.
            Exception: whatever the model raises.
        """
        if deadline_ns is None:
            deadline_ns = self.deadline_ns()
        findings = self._scanner.scan(text, deadline_ns)
        names: list[Finding] = []
        # Outside of a zone it keeps each word that it has not seen before, for ever.
        with self._model.memory_zone():
            # Half a surrogate is no character to spaCy.
            for begins, part in _parts(text.encode("utf-8", "replace").decode()):
                names += [
                    Finding(begins + each.start_char, begins + each.end_char, self._labels[each.label_], "")
                    for each in self._model(part).ents
                    if each.label_ in self._labels
                ]
                if self._scanner.is_late(deadline_ns):
                    raise ScanTimeoutError(f"the model of names took too long for {len(text)} characters")
        return sorted([*findings, *self._unfound(text, _merged(names), findings)]) if names else findings

    def _unfound(self, text: str, names: Sequence[Finding], findings: Sequence[Finding]) -> Iterator[Finding]:
        """Yield what of `names` no pattern has found. Neither overlaps itself, and both are in order."""
        place = 0
        for name in names:
            while place < len(findings) and findings[place].end <= name.start:
                place += 1
            start, at = name.start, place
            while at < len(findings) and findings[at].start < name.end:
                yield from self._name(text, start, findings[at].start, name.entity)
                start = findings[at].end
                at += 1
            yield from self._name(text, start, name.end, name.entity)

    def _name(self, text: str, start: int, end: int, entity: str) -> Iterator[Finding]:
        value = text[start:end]
        start += len(value) - len(value.lstrip(_AROUND))
        value = value.strip(_AROUND)
        if value and not self._scanner.is_allowed(value):
            yield Finding(start, start + len(value), entity, " ".join(value.casefold().split()))


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """Yield parts of a text, with where each begins; each ends where something does, if anything does in its half.

    Each but the first begins with the last words of the one before.
    """
    start = 0
    while start + PART_CHARS < len(text):
        end = start + PART_CHARS
        found = (text.rfind(each, start + PART_CHARS // 2, end) + len(each) for each in _ENDS)
        end = next((place for place in found if place > start + PART_CHARS // 2), end)
        yield start, text[start:end]
        blank = _BLANK.search(text, end - OVERLAP_CHARS, end - 1)
        start = blank.end() if blank is not None else end - OVERLAP_CHARS
    if text:
        yield start, text[start:]


def _merged(names: Iterable[Finding]) -> list[Finding]:
    """Return them in order; those that overlap, being of two parts, as one, called what the longer one is called."""
    merged: list[Finding] = []
    for name in sorted(names):
        if not merged or name.start >= merged[-1].end:
            merged.append(name)
            continue
        last = merged[-1]
        longer = max(last, name, key=lambda each: each.end - each.start)
        merged[-1] = longer._replace(start=last.start, end=max(last.end, name.end))
    return merged
