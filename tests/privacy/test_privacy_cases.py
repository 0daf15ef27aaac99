"""What is found of other people's test cases, and of our own: floors, so that no change of a pattern loses any.

The others' cases are not part of this repository. They are looked for in `INFERWATCH_TEST_PII`, and in `shared/data/pii`
beside it: lines of JSON with `text`, `spans`, `tier`, and `stdnum_valid`, whether python-stdnum confirms each span.
Where they are not, the tests that need them are skipped and say so; a path that is set and wrong is an error.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import planted
import pytest

from inferwatch_collectors.privacy.entities import NAMES, chosen
from inferwatch_collectors.privacy.scanner import Scanner

ROOT = Path(__file__).parents[2]

# Of the strong tier. What is missing stands below.
STRONG_FLOOR = 0.97

# What those cases call a date or a URL, whoever's it is. Off by default: neither is a person by itself. Dates of birth,
# by the words beside them, and URLs with credentials are entities of their own, and on.
OFF_BY_DEFAULT = {"DATE_TIME", "URL"}


class Span(NamedTuple):
    """One value in a text that others call personal."""

    text: str
    entity: str  # as others call it
    start: int
    end: int
    tier: str
    checked: bool  # python-stdnum says so, too

    def covered(self, scanner: Scanner) -> bool:
        return any(each.start <= self.start and self.end <= each.end for each in scanner.scan(self.text))


def _file() -> Path | None:
    """Return where the others' cases are, None if they are not here. Raises FileNotFoundError: it is not as named."""
    if named := os.environ.get("INFERWATCH_TEST_PII"):
        return Path(named).resolve(strict=True)
    return next((path for up in ROOT.parents if (path := up / "shared/data/pii/cases.jsonl").is_file()), None)


def shared() -> Iterator[Span]:
    """Yield every span of the others' cases, if they are here."""
    file = _file()
    for line in file.read_text("utf-8").splitlines() if file is not None else ():
        case: dict[str, Any] = json.loads(line)
        text = case["text"]
        valid = case.get("stdnum_valid") or [None] * len(case["spans"])
        for (start, end), confirmed in zip(case["spans"], valid, strict=True):
            value = text[start:end]  # one recogniser takes the blank before a value for a part of it
            start += len(value) - len(value.lstrip())
            yield Span(text, case["entity"], start, end, case["tier"], confirmed is True)


SHARED = list(shared())
needs_the_cases = pytest.mark.skipif(not SHARED, reason="the others' cases are not here: set INFERWATCH_TEST_PII")


@pytest.fixture(scope="module")
def everything() -> Scanner:
    """With dates and URLs, which those cases call personal."""
    return Scanner(chosen(NAMES))


@pytest.mark.parametrize("kind", planted.KINDS)
def test_our_own_cases_are_found(scanner: Scanner, kind: str) -> None:
    """A hundred values of each of the forty kinds, each in the sentence in which somebody would say it."""
    for number in range(100):
        value, text = planted.plant(kind, number)
        start = text.index(value)
        assert Span(text, kind, start, start + len(value), "strong", True).covered(scanner), text


def test_a_file_that_is_not_as_named_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names one wants it to be looked at."""
    monkeypatch.setenv("INFERWATCH_TEST_PII", "/nowhere/cases.jsonl")

    with pytest.raises(FileNotFoundError):
        _file()


@needs_the_cases
def test_the_shared_cases_are_some() -> None:
    """Where the file lies beside the checkout it has what the floors below are of."""
    assert sum(each.tier == "strong" for each in SHARED) > 200
    assert sum(each.tier == "strong" and each.checked for each in SHARED) > 100


@pytest.mark.parametrize("checked", [each for each in SHARED if each.tier == "strong" and each.checked], ids=str)
def test_what_check_digits_confirm_is_found(scanner: Scanner, checked: Span) -> None:
    """All of it, with the default entities."""
    assert checked.covered(scanner)


@needs_the_cases
def test_the_strong_tier_is_found(everything: Scanner) -> None:
    """But for a few: numbers that others count as telephones without a word beside them, a disputed tax number."""
    strong = [each for each in SHARED if each.tier == "strong"]
    missed = [each for each in strong if not each.covered(everything)]

    assert len(missed) <= (1 - STRONG_FLOOR) * len(strong), missed


@needs_the_cases
def test_the_strong_tier_is_found_by_default(scanner: Scanner) -> None:
    """As much of what is looked for without being asked for."""
    strong = [each for each in SHARED if each.tier == "strong" and each.entity not in OFF_BY_DEFAULT]
    missed = [each for each in strong if not each.covered(scanner)]

    assert len(strong) > 250
    assert len(missed) <= (1 - STRONG_FLOOR) * len(strong), missed


ON_BY_DEFAULT = [
    ("URL_CREDENTIALS", "clone https://ann:hunter2@git.example.com/repo.git", "https://ann:hunter2@git.example.com/repo.git"),
    ("SECRET", "curl 'https://api.example.com/v1?api_key=q8Zt71LmPw&page=2'", "q8Zt71LmPw"),
    ("SECRET", "see https://files.example.com/report.pdf?sig=9f8e7d6c5b", "9f8e7d6c5b"),
    ("URL_CREDENTIALS", "DATABASE_URL=postgres://app:s3cr3tpw@db.internal:5432/app", "postgres://app:s3cr3tpw@db.internal:5432/app"),
    ("DATE_OF_BIRTH", "The patient was born on 1984-03-12 in Leeds.", "1984-03-12"),
    ("DATE_OF_BIRTH", "DOB: 03/12/1984", "03/12/1984"),
    ("DATE_OF_BIRTH", "Geburtsdatum: 12.03.1984", "12.03.1984"),
    ("DATE_OF_BIRTH", "née le 12 mars 1984 à Lyon", "12 mars 1984"),
    ("STREET_ADDRESS", "Please deliver to 221B Baker Street, London", "221B Baker Street"),
    ("STREET_ADDRESS", "My home is at 1600 Pennsylvania Avenue NW", "1600 Pennsylvania Avenue"),
    ("STREET_ADDRESS", "Anschrift: Lindenallee 7", "Lindenallee 7"),
    ("STREET_ADDRESS", "vivo en Calle de Alcalá 42", "Calle de Alcalá 42"),
]  # fmt: skip


@pytest.mark.parametrize(("entity", "text", "value"), ON_BY_DEFAULT, ids=lambda each: str(each)[:30])
def test_what_is_on_by_default_though_dates_and_urls_are_not(
    scanner: Scanner, entity: str, text: str, value: str
) -> None:
    """Credentials in URLs, dates of birth and addresses by the words beside them."""
    found = {(each.entity, text[each.start : each.end]) for each in scanner.scan(text)}

    assert any(name == entity and value in where for name, where in found), found
