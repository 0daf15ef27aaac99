"""Names of people and places, by a pipeline that knows three names: spaCy's own with a ruler, where spaCy is installed.

Elsewhere a stand-in takes its place (`tests/support/stand_ins/spacy.py`, which says why).
"""

import itertools
import json
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from name_model import NameModel
from privacy_keys import KEY

from inferwatch import cli
from inferwatch.config import ConfigError
from inferwatch.settings.privacy import Privacy
from inferwatch_collectors.privacy import names, start
from inferwatch_collectors.privacy.entities import chosen
from inferwatch_collectors.privacy.keys import Keys
from inferwatch_collectors.privacy.names import OVERLAP_CHARS, PART_CHARS, NamesScanner
from inferwatch_collectors.privacy.pseudonyms import Pseudonyms
from inferwatch_collectors.privacy.redaction import Redactor
from inferwatch_collectors.privacy.scanner import BUDGET_NS, Scanner, ScanTimeoutError

KNOWN = (("PERSON", "Grace Hopper"), ("PER", "Lovelace"), ("GPE", "Zürich"), ("ORG", "Bletchley"))


STAND_INS = Path(__file__).parents[1] / "support/stand_ins"


@pytest.fixture(scope="module", autouse=True)
def _spacy() -> Iterator[None]:
    """Put the stand-in where spaCy would be, if it is not."""
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("spacy") is None:
            patch.syspath_prepend(STAND_INS)
            patch.setitem(sys.modules, "spacy", import_module("spacy"))  # to be gone when this is over
        yield


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one, as `to_disk` writes it."""
    model = import_module("spacy").blank("en")
    model.add_pipe("entity_ruler").add_patterns([{"label": label, "pattern": value} for label, value in KNOWN])
    folder = tmp_path_factory.mktemp("pipeline")
    model.to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def model(pipeline: Path) -> names.Model:
    return names.load(str(pipeline))


def scanner_of(model: names.Model, **about: Any) -> NamesScanner:
    return NamesScanner(Scanner(chosen(["EMAIL", "URL_CREDENTIALS"]), **about), model)


def values(scanner: NamesScanner, text: str) -> list[tuple[str, str]]:
    return [(each.entity, text[each.start : each.end]) for each in scanner.scan(text)]


def test_names_are_found_beside_what_patterns_find(model: names.Model) -> None:
    """People and places, whatever a pipeline calls them; what else it knows is nobody."""
    text = "Grace Hopper (gh@example.com) met Lovelace in Zürich, at Bletchley"

    assert values(scanner_of(model), text) == [
        ("PERSON", "Grace Hopper"),
        ("EMAIL", "gh@example.com"),
        ("PERSON", "Lovelace"),
        ("PLACE", "Zürich"),
    ]


def test_a_pattern_s_finding_wins(model: names.Model) -> None:
    """A name within an address is a part of it; what sticks out of a finding is a name still."""

    def reads(text: str) -> Any:
        return SimpleNamespace(ents=[SimpleNamespace(label_="PERSON", start_char=0, end_char=len(text))])

    assert values(scanner_of(model), "at Zürich.Lovelace@example.com now") == [("EMAIL", "Zürich.Lovelace@example.com")]
    assert values(scanner_of(NameModel(reads)), "Ann, ann@example.com, Bell") == [
        ("PERSON", "Ann"),
        ("EMAIL", "ann@example.com"),
        ("PERSON", "Bell"),
    ]


def test_the_same_name_has_the_same_pseudonym(model: names.Model) -> None:
    """In base64, too; the text has lost it."""
    redactor = Redactor(scanner_of(model), Pseudonyms(Keys({"k1": KEY}, 0)))

    kept = redactor.hashed("Grace Hopper, Lovelace, Grace Hopper, R3JhY2UgSG9wcGVy", "acme", 0)

    first, other, again, hidden = kept.text.split(", ")
    assert first.startswith("<PERSON:k1:")
    assert first == again == hidden != other
    assert redactor.entities == ("URL_CREDENTIALS", "EMAIL", "PERSON", "PLACE")


@pytest.mark.parametrize("between", ["\n", ". ", " ", ", ", "\t", "\u00a0", "; and then "])
def test_long_texts_are_read_in_parts(model: names.Model, between: str) -> None:
    """Which end behind a line, a sentence or a word, and overlap, so that each name is whole in one of them."""
    text = f"Grace Hopper{between}" * (3 * PART_CHARS // 12)
    parts = list(names._parts(text))

    assert all(text.startswith(part, begins) for begins, part in parts)
    assert all(len(part) <= PART_CHARS for _, part in parts)
    ends = [begins + len(part) for begins, part in parts]
    assert all(0 < end - begins <= OVERLAP_CHARS for end, (begins, _) in zip(ends, parts[1:], strict=False))
    assert (parts[0][0], ends[-1]) == (0, len(text))
    assert 4 <= len(parts) <= 10
    if between in ("\n", ". "):
        assert all(part.endswith(between) for _, part in parts[:-1])
    assert values(scanner_of(model), text) == [("PERSON", "Grace Hopper")] * text.count("Grace")


def test_a_name_is_found_wherever_a_part_ends(model: names.Model) -> None:
    """Once, whether or not there is anything else behind which the text may be parted."""
    scanner = scanner_of(model)
    for before in range(PART_CHARS - 30, PART_CHARS + 2):
        for text in (
            "x" * (before - 1) + " Grace Hopper " + "y" * 5000,
            ("x " * PART_CHARS)[-before:] + "Grace Hopper, yes",
        ):
            assert values(scanner, text) == [("PERSON", "Grace Hopper")]


def test_a_text_without_an_end_is_read_in_parts() -> None:
    """They overlap there as well; none is for its overlap alone."""
    sizes = {size: [len(part) for _, part in names._parts("x" * size)] for size in (0, 5, PART_CHARS, PART_CHARS + 5)}

    assert sizes == {0: [], 5: [5], PART_CHARS: [PART_CHARS], PART_CHARS + 5: [PART_CHARS, OVERLAP_CHARS + 5]}


def test_what_two_parts_make_of_a_name_is_one() -> None:
    """All of it, and called what the one that saw more of it calls it."""
    text = "x " * (PART_CHARS // 2 - 5) + "Den Haag Zuid"

    def reads(part: str) -> Any:
        at = part.find("Den")
        label = "PERSON" if part.endswith("Haag ") else "GPE"
        return SimpleNamespace(ents=[SimpleNamespace(label_=label, start_char=at, end_char=len(part))])

    assert values(scanner_of(NameModel(reads)), text) == [("PLACE", "Den Haag Zuid")]


@pytest.mark.parametrize("text", ["", " ", "\ud800 Grace Hopper", "\U0001f600 Grace Hopper"])
def test_any_text_can_be_read(model: names.Model, text: str) -> None:
    """Half a surrogate, which JSON can hold, is no reason to keep nothing; places are those of the text."""
    assert values(scanner_of(model), text) == ([("PERSON", "Grace Hopper")] if "Grace" in text else [])


def test_a_model_forgets_what_it_read(model: names.Model) -> None:
    """A pipeline keeps each new word for ever, which is memory without a bound, and users' words in it."""
    scanner = scanner_of(model)
    late = scanner_of(model, clock_ns=itertools.count(0, 2 * BUDGET_NS).__next__)
    text = "Grace Hopper said zuzzurellone"

    assert values(scanner, text) == [("PERSON", "Grace Hopper")]
    with pytest.raises(ScanTimeoutError):
        late.scan(text)

    assert "zuzzurellone" not in model.vocab.strings  # type: ignore[attr-defined]
    assert values(scanner, text) == [("PERSON", "Grace Hopper")]


def test_a_spacy_that_cannot_forget_is_refused(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line that says which can."""
    monkeypatch.setattr(import_module("spacy"), "load", lambda _: len)

    with pytest.raises(ConfigError, match=r"^privacy\.names_model: needs spaCy 3\.8 or later"):
        names.load(str(pipeline))


def test_who_is_allowed_or_ignored_is_kept(pipeline: Path, key_file: Path) -> None:
    """By the same keys of the configuration as what patterns find."""
    redactor = start.redactor(
        Privacy(names_model=str(pipeline), key_file=str(key_file), allow=("Lovelace",), ignore=("PLACE", "EMAIL"))
    )

    kept = redactor.hashed("Grace Hopper and Lovelace in Zürich, a@b.example", "acme", 0)

    assert kept.text.endswith("> and Lovelace in Zürich, a@b.example")
    assert kept.found == {"PERSON": 1}
    assert "PLACE" not in redactor.entities


def test_a_model_that_is_late_is_stopped_between_parts() -> None:
    """The text is not kept, and no more of it is read."""
    read: list[str] = []

    def reads(text: str) -> Any:
        read.append(text)
        return SimpleNamespace(ents=())

    ticks = iter(range(0, 10**9, 400))
    scanner = scanner_of(NameModel(reads), budget_ns=1000, clock_ns=lambda: next(ticks))

    with pytest.raises(ScanTimeoutError, match=f"took too long for {PART_CHARS * 10} characters"):
        scanner.scan("word " * (2 * PART_CHARS))
    assert len(read) == 3


def test_the_doctor_shows_what_becomes_of_names(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of everything else."""
    monkeypatch.setenv("INFERWATCH__PRIVACY__NAMES_MODEL", str(pipeline))
    (tmp_path / "text").write_text("Grace Hopper lived in Zürich")

    assert cli.main(["doctor", "--privacy", str(tmp_path / "text")]) == cli.EXIT_OK

    out, err = capsys.readouterr()
    assert out.startswith("<PERSON:none.")
    assert "found: PERSON 1, PLACE 1\n" in err


def test_a_model_that_cannot_be_used_is_refused_by_its_key(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is started, and without loading it."""
    meta = json.loads((pipeline / "meta.json").read_bytes())
    (tmp_path / "meta.json").write_text(json.dumps(meta | {"labels": {"ner": ["ORG", "DATE"]}}))
    for name in ("no_such_pipeline", "json", "not-a-name", str(tmp_path / "nothing"), ""):
        with pytest.raises(ConfigError, match=r"^privacy\.names_model: expected the name of an installed pipeline"):
            names.check(name)
    with pytest.raises(ConfigError, match=r"^privacy\.names_model: it finds no names: none of its labels is among PER"):
        names.check(str(tmp_path))
    names.check(str(pipeline))

    monkeypatch.setattr(names, "find_spec", lambda _: None)
    with pytest.raises(
        ConfigError, match=r"^privacy\.names_model: needs the extra `ner`: pip install 'inferwatch\[ner\]'$"
    ):
        names.check(str(pipeline))


PIPELINES = {
    "sv": ("EVN LOC MSR OBJ ORG PRS TME WRK", {"PRS": "PERSON", "LOC": "PLACE"}),
    "nb": (
        "DRV EVT GPE_LOC GPE_ORG LOC MISC ORG PER PROD",
        {"PER": "PERSON", "GPE_LOC": "PLACE", "GPE_ORG": "PLACE", "LOC": "PLACE"},
    ),
    "pl": (
        "date geogName orgName persName placeName time",
        {"persName": "PERSON", "placeName": "PLACE", "geogName": "PLACE"},
    ),
    "ko": ("DT LC OG PS QT TI", {"PS": "PERSON", "LC": "PLACE"}),
    "hr": ("DERIV_PER LOC MISC ORG PER", {"DERIV_PER": "PERSON", "PER": "PERSON", "LOC": "PLACE"}),
    "ro": (
        "DATETIME EVENT FACILITY GPE LOC ORGANIZATION PERSON",
        {"PERSON": "PERSON", "FACILITY": "PLACE", "GPE": "PLACE", "LOC": "PLACE"},
    ),
}


@pytest.mark.parametrize("language", PIPELINES)
def test_pipelines_of_languages_with_labels_of_their_own(pipeline: Path, tmp_path: Path, language: str) -> None:
    """They are taken, and what they find is."""
    labels, meant = PIPELINES[language]
    meta = json.loads((pipeline / "meta.json").read_bytes())
    (tmp_path / "meta.json").write_text(json.dumps(meta | {"labels": {"ner": labels.split()}}))

    def reads(_: str) -> Any:
        spans = enumerate(labels.split())
        return SimpleNamespace(
            ents=[SimpleNamespace(label_=label, start_char=2 * at, end_char=2 * at + 1) for at, label in spans]
        )

    names.check(str(tmp_path))
    found = scanner_of(NameModel(reads)).scan("a b c d e f g h i j")
    assert {labels.split()[each.start // 2]: each.entity for each in found} == meant


def test_one_that_finds_no_people_is_refused(pipeline: Path, tmp_path: Path) -> None:
    """Unless nobody wants them: who reads that names are looked for would take them for found."""
    meta = json.loads((pipeline / "meta.json").read_bytes())
    (tmp_path / "meta.json").write_text(json.dumps(meta | {"labels": {"ner": ["LOC", "ORG", "HUMAN"]}}))
    settings = Privacy(names_model=str(tmp_path))

    with pytest.raises(
        ConfigError, match=r"^privacy\.names_model: it finds no people: .* PERSON into privacy\.ignore$"
    ):
        start.check(settings)
    start.check(msgspec.structs.replace(settings, ignore=("PERSON",)))


def test_a_broken_pipeline_stops_the_start(pipeline: Path, tmp_path: Path) -> None:
    """In one line."""
    (tmp_path / "meta.json").write_bytes((pipeline / "meta.json").read_bytes())

    with pytest.raises(ConfigError, match=r"^privacy\.names_model: spaCy cannot load it"):
        names.load(str(tmp_path))


def test_an_installed_pipeline_is_found_by_name(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without importing it: a package with its `meta.json`, as spaCy's own are."""
    package = tmp_path / "xx_names"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "meta.json").write_bytes((pipeline / "meta.json").read_bytes())
    monkeypatch.syspath_prepend(tmp_path)

    names.check("xx_names")
