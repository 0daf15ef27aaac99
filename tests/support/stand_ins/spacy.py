"""A stand-in for spaCy as far as `privacy.names` uses it: a blank pipeline with a ruler, written and loaded again.

spaCy with what it needs is 190 MB in twenty packages: too much for everybody who runs the tests. Where it is installed,
the tests take it instead, and pass with it as well.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple


class Span(NamedTuple):
    """What `Doc.ents` has."""

    label_: str
    start_char: int
    end_char: int


class Doc(NamedTuple):
    """What a pipeline returns."""

    ents: list[Span]


class Language:
    """A pipeline with one part, the ruler, which is the pipeline."""

    def __init__(self) -> None:
        self._patterns: list[dict[str, str]] = []
        self._docs: list[Doc] | None = None  # of the zone
        self.vocab = SimpleNamespace(strings=set[str]())

    def add_pipe(self, name: str) -> "Language":
        assert name == "entity_ruler"
        return self

    def add_patterns(self, patterns: list[dict[str, str]]) -> None:
        self._patterns += patterns

    def __call__(self, text: str) -> Doc:
        text.encode()  # half a surrogate is an error here as it is there
        found = [
            Span(each["label"], match.start(), match.end())
            for each in self._patterns
            for match in re.finditer(rf"(?<!\w){re.escape(each['pattern'])}(?!\w)", text)
        ]
        doc = Doc(sorted(found, key=lambda span: span.start_char))
        self.vocab.strings.update(text.split())
        if self._docs is not None:
            self._docs.append(doc)
        return doc

    @contextmanager
    def memory_zone(self) -> Iterator[None]:
        """Forget the words in the end; what was returned is worth nothing then, as there."""
        known, self._docs = set(self.vocab.strings), []
        try:
            yield
        finally:
            self.vocab.strings = known
            for doc in self._docs:
                doc.ents.clear()
            self._docs = None

    def to_disk(self, path: Path) -> None:
        labels = sorted({each["label"] for each in self._patterns})
        (path / "meta.json").write_text(json.dumps({"lang": "en", "labels": {"entity_ruler": labels}}))
        (path / "patterns.json").write_text(json.dumps(self._patterns))


def blank(_: str) -> Language:
    return Language()


def load(name: str) -> Any:
    made = Language()
    made.add_patterns(json.loads((Path(name) / "patterns.json").read_bytes()))  # OSError: as there
    return made
