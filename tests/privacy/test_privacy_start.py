"""Which configurations can start, and the line that says why another cannot."""

import sys
from pathlib import Path

import pytest

from inferwatch import cli, config
from inferwatch.config import ConfigError
from inferwatch.settings.privacy import CustomEntity, Privacy
from inferwatch_collectors.privacy import phones, start

BAD = [
    (Privacy(entities=("MAIL",)), "privacy.entities: there is no entity `MAIL`"),
    (Privacy(ignore=("MAIL",)), "privacy.ignore: there is no entity `MAIL`"),
    (Privacy(allow=("ok", "(")), "privacy.allow[1]: not a pattern of RE2"),
    (Privacy(custom=(CustomEntity(name="OWN", pattern="(?=x)"),)), "privacy.custom[0].pattern: not a pattern of RE2"),
]


@pytest.mark.parametrize(("settings", "reason"), BAD)
def test_what_cannot_be_used_is_named(settings: Privacy, reason: str) -> None:
    """By its key."""
    with pytest.raises(ConfigError) as raised:
        start.redactor(settings)

    assert reason in str(raised.value)


def test_content_without_the_extra_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line that says what to install."""
    for name in [name for name in sys.modules if name.startswith("inferwatch_collectors.privacy.")]:
        if name.rpartition(".")[2] in ("scanner", "entities", "general", "national", "phones", "checks"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "re2", None)

    with pytest.raises(ConfigError, match=r"^privacy.content: needs .* pip install 'inferwatch\[privacy\]'$"):
        start.scanner(Privacy())


def test_own_entities_and_their_words(key_file: Path) -> None:
    """An expression of the operator's is one more entity; with words it needs one of them beside it."""
    redactor = start.redactor(
        Privacy(
            key_file=str(key_file),
            ignore=("EMAIL",),
            custom=(
                CustomEntity(name="CUSTOMER", pattern=r"\bC-\d{4}\b"),
                CustomEntity(name="BADGE", pattern=r"\b\d{4}\b", words=("badge",)),
            ),
        )
    )

    kept = redactor.hashed(f"C-1234 has badge 4711,{' and so on' * 8} 9999 apples, a@b.example", "t", 0)

    assert kept.found == {"CUSTOMER": 1, "BADGE": 1}
    assert "9999" in kept.text
    assert "a@b.example" in kept.text


def test_no_text_waits_for_tables() -> None:
    """Those of telephone numbers are made at the start, if they are looked for."""
    for table in (phones._automaton, phones._plan, phones.check):
        table.cache_clear()
    start.scanner(Privacy(entities=("EMAIL",)))
    assert phones._plan.cache_info().currsize == 0

    scanner = start.scanner(Privacy())
    made = phones._automaton.cache_info().misses, phones._plan.cache_info().misses
    found = scanner.scan("call +49 1512 3456789, +65 9123 4567 or 0612345678")

    assert [each.entity for each in found] == ["PHONE"] * 3
    assert (phones._automaton.cache_info().misses, phones._plan.cache_info().misses) == made


def environment(**values: str) -> dict[str, str]:
    return {f"INFERWATCH__{key}": value for key, value in values.items()}


def test_content_needs_a_key_and_traces() -> None:
    """Neither is made up."""
    with pytest.raises(ConfigError, match=r"^privacy.content: is kept in traces, and `otlp.traces` is off$"):
        config.load(environ=environment(PRIVACY__CONTENT="hashed"))
    with pytest.raises(ConfigError, match=r"^privacy.key_file: needed where `privacy.content` keeps any$"):
        config.load(environ=environment(PRIVACY__CONTENT="hashed", OTLP__TRACES="true"))


def test_a_short_key_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`inferwatch check-config`, like `serve`, ends with 2 and a line that names the key of the configuration."""
    (tmp_path / "keys").write_text("k1 0badc0de")
    for name, value in environment(
        PRIVACY__CONTENT="hashed", PRIVACY__KEY_FILE=str(tmp_path / "keys"), OTLP__TRACES="true"
    ).items():
        monkeypatch.setenv(name, value)

    assert cli.main(["check-config"]) == cli.EXIT_USAGE
    assert capsys.readouterr().err == "inferwatch: privacy.key_file: line 1: a key of 4 bytes, expected at least 32\n"


def test_the_doctor_shows_what_would_be_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text goes to stdout, what was found and what is configured to stderr."""
    (tmp_path / "text").write_text("mail ann@example.com")

    assert cli.main(["doctor", "--privacy", str(tmp_path / "text")]) == cli.EXIT_OK

    out, err = capsys.readouterr()
    assert out.startswith("mail <EMAIL:none.")
    assert "found: EMAIL 1\n" in err
    assert "privacy.content is `none`: nothing of it is kept" in err
    assert "a key that nobody has" in err
    assert "ann" not in out + err


def test_the_doctor_names_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """In one line."""
    assert cli.main(["doctor", "--privacy", "/nonexistent/text"]) == cli.EXIT_USAGE
    assert "doctor --privacy: cannot read the file: No such file" in capsys.readouterr().err
