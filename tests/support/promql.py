"""PromQL, as far as tests must read it: which series an expression looks at. Prometheus itself checks the rest."""

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from inferwatch_collectors.metrics import BY_NAME, Kind

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR: Final = re.compile(r"(?<![\w:.])((?:\w+:)?inferwatch_[\w:]+|up)\b(?!\s*\()(\{[^}]*\})?")
_BY_LABEL: Final = re.compile(r'\{__name__=~"([^"]*)"[^}]*\}')
_ANY_RANGE: Final = re.compile(r"\[[^\]]*\]")
_SUFFIXES: Final = ("_bucket", "_sum", "_count")


class Selector(msgspec.Struct, frozen=True):
    """One vector selector: a name, and the matchers in braces as they stand there ("" without)."""

    name: str
    matchers: str

    def __str__(self) -> str:
        return f"{self.name}{self.matchers}"

    @property
    def metric(self) -> str:
        """The name as the table has it, without a histogram's suffixes."""
        for suffix in _SUFFIXES:
            family = self.name.removesuffix(suffix)
            if family != self.name and family in BY_NAME and BY_NAME[family].kind is Kind.HISTOGRAM:
                return family
        return self.name

    @property
    def recorded(self) -> bool:
        """Whether a rule makes it."""
        return ":" in self.name


def selectors(expr: str) -> Iterator[Selector]:
    """Yield what an expression reads; strings that only look like a name are left out."""
    for match in _BY_LABEL.finditer(expr):
        yield from (Selector(name, "") for name in match[1].split("|"))
    bare = _BY_LABEL.sub("", expr)
    for match in _SELECTOR.finditer(bare):
        before = bare[: match.start()]
        if _STRING.sub("", before).count('"') % 2 == 0:
            yield Selector(match[1], match[2] or "")


def unknown(expr: str, recorded: set[str]) -> list[str]:
    """Return the names in an expression that neither the table nor a recording rule has."""
    return [
        str(found)
        for found in selectors(expr)
        if found.name != "up" and found.metric not in BY_NAME and found.name not in recorded
    ]


def bad_labels(expr: str) -> list[str]:
    """Return selectors that name a label which their metric does not have."""
    wrong = []
    for found in selectors(expr):
        metric = BY_NAME.get(found.metric)
        if metric is None:
            continue
        allowed = {*metric.labels, "job", "instance", "le"}
        wrong += [str(found) for label in re.findall(r"(\w+)\s*[=!]", found.matchers) if label not in allowed]
    return wrong
