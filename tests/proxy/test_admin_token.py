"""admin_token and settings.access: where the tokens of the admin port are, and that nobody is shown one."""

from pathlib import Path

import pytest

from inferwatch import admin_token, cli, config
from inferwatch.config import ConfigError
from inferwatch.settings.access import Access, fault
from inferwatch.settings.feedback import Feedback

TOKEN = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"token_file": "/run/secrets/token"}, ""),
        ({"token_env": "TOKEN", "metrics_token_env": "SCRAPE"}, ""),
        ({"token_env": "A-B"}, "access.token_env: expected the name"),
        ({"token_env": "A", "metrics_token_env": "1"}, "access.metrics_token_env: expected the name"),
        ({"metrics_token_file": "/run/secrets/token"}, "access.metrics_token_file: needs `access.token_file`"),
        ({"metrics_token_env": "SCRAPE"}, "access.metrics_token_env: needs `access.token_file`"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, str], problem: str) -> None:
    """By its key. A token for /metrics alone would leave everything else open."""
    found = fault(Access(**changes))
    assert found.startswith(problem)
    assert bool(found) == bool(problem)


def test_tokens_come_from_files_or_variables(tmp_path: Path) -> None:
    """The first line of a file, or a variable; a file wins. What is kept are digests."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\r\nsomething else\n")
    environ = {"T": OTHER, "M": TOKEN}
    assert admin_token.digests(Access(), Feedback(), environ) == {}
    assert admin_token.digests(Access(token_env="T"), Feedback(), environ) == {"admin": admin_token.digest(OTHER)}
    both = Access(token_file=str(file), token_env="T", metrics_token_env="M")
    assert admin_token.digests(both, Feedback(token_env="T"), environ) == {
        "admin": admin_token.digest(TOKEN),
        "metrics": admin_token.digest(TOKEN),
        "feedback": admin_token.digest(OTHER),
    }
    assert admin_token.digests(Access(), Feedback(token_file=str(file))) == {"feedback": admin_token.digest(TOKEN)}
    assert TOKEN not in str(admin_token.digests(both, Feedback(token_env="M"), environ))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot read"),
        (b"", "holds 0 characters, expected 16 to 1024"),
        (b"short\n", "holds 5 characters"),
        (b"x" * 5000, "expected 16 to 1024"),
        (b"two words are no token\n", "blanks"),
        ("schlüssel-schlüssel".encode(), "no HTTP header can carry"),
        (b"\xff" * 20, "no HTTP header can carry"),
    ],
)
def test_a_file_that_holds_no_token(tmp_path: Path, content: bytes | None, problem: str) -> None:
    """The key is named, the content is not repeated."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    for key, access, feedback in (
        ("access.token_file: ", Access(token_file=str(file)), Feedback()),
        ("feedback.token_file: ", Access(), Feedback(token_file=str(file))),
    ):
        with pytest.raises(ConfigError, match=problem) as raised:
            admin_token.digests(access, feedback)
        assert str(raised.value).startswith(key)
        assert "short" not in str(raised.value)
        assert "words" not in str(raised.value)


def test_a_variable_that_is_not_there() -> None:
    """It is named."""
    with pytest.raises(ConfigError, match=r"access\.token_env: there is no environment variable `T`"):
        admin_token.digests(Access(token_env="T"), Feedback(), {})
    with pytest.raises(ConfigError, match=r"feedback\.token_env: there is no environment variable `T`"):
        admin_token.digests(Access(), Feedback(token_env="T"), {})


def test_what_a_client_sends(tmp_path: Path) -> None:
    """The configuration's token, else $INFERWATCH_TOKEN, else nothing."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    environ = {"INFERWATCH_TOKEN": f" {OTHER}\n"}
    assert admin_token.headers(Access(), {}) == {}
    assert admin_token.headers(Access(), environ) == {"Authorization": f"Bearer {OTHER}"}
    assert admin_token.headers(Access(token_file=str(file)), environ) == {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("value", "problem"),
    [("short", "holds 5 characters"), ("top\nsecret-token-of-ours", "blanks"), ("ü" * 20, "blanks")],
)
def test_a_variable_of_no_use(value: str, problem: str) -> None:
    """Is named, and not repeated: it may be half a secret."""
    with pytest.raises(ConfigError, match=problem) as raised:
        admin_token.headers(Access(), {"INFERWATCH_TOKEN": value})
    assert str(raised.value).startswith("$INFERWATCH_TOKEN: ")
    assert value not in str(raised.value)


def test_a_client_without_the_hosts_file(tmp_path: Path) -> None:
    """Who shares the configuration but not its file, or variable, gives the token itself; the port has no such way."""
    environ = {"INFERWATCH_TOKEN": OTHER}
    for access in (Access(token_file=str(tmp_path / "none")), Access(token_env="T")):
        assert admin_token.headers(access, environ) == {"Authorization": f"Bearer {OTHER}"}
        with pytest.raises(ConfigError, match=r"^access\.token_"):
            admin_token.headers(access, {})
        with pytest.raises(ConfigError, match=r"^access\.token_"):
            admin_token.digests(access, Feedback(), environ)


def test_a_token_that_cannot_be_read_stops_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check-config`, like `serve`, says so in one line with the key."""
    assert cli.main(["check-config", "--token-file", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("inferwatch: access.token_file: cannot read")


def test_only_who_serves_needs_the_token_of_votes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report on a laptop has no file of the host's; `check-config`, like `serve`, needs it."""
    file = tmp_path / "inferwatch.yml"
    file.write_text(f"feedback: {{token_file: {tmp_path / 'none'}}}\n", encoding="utf-8")
    assert config.load(str(file), environ={}).feedback.is_used
    assert cli.main(["check-config", "--config", str(file)]) == 2
    assert capsys.readouterr().err.startswith("inferwatch: feedback.token_file: cannot read")


def test_the_shown_configuration_has_no_token(tmp_path: Path) -> None:
    """Only where it is."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    loaded = config.load(environ={}, flags={"access.token_file": str(file)})
    assert TOKEN not in str(config.redacted(loaded))
