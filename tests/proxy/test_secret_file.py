"""Secrets in files: so much of them and no more, and never a word of it in a fault."""

from pathlib import Path

import pytest

from inferwatch.config import ConfigError
from inferwatch.secret_file import MAX_BYTES, bearer, first_line, variable, whole


def test_the_first_line(tmp_path: Path) -> None:
    """Without blanks around it; so much of it at most. No file is no header."""
    file = tmp_path / "token"
    file.write_bytes(b"  sesame \r\nmore\n")
    assert bearer("a.key", str(file)) == {"Authorization": "Bearer sesame"}
    assert bearer("a.key", "") == {}
    file.write_bytes(b"x" * (MAX_BYTES + 1))
    assert len(first_line("a.key", str(file))) == MAX_BYTES


def test_all_of_it(tmp_path: Path) -> None:
    """Byte by byte; what is longer than it may be is no secret of ours."""
    file = tmp_path / "keys"
    file.write_bytes(b"one\r\ntwo\n\xff")
    assert whole("a.key", str(file), 10) == b"one\r\ntwo\n\xff"
    with pytest.raises(ConfigError, match=r"^a\.key: the file has more than 9 bytes$"):
        whole("a.key", str(file), 9)


@pytest.mark.parametrize("content", [None, b"", b"\nsesame", b"ses\xffame", b"ses\x00ame", "sésame".encode()])
def test_a_file_without_a_token(tmp_path: Path, content: bytes | None) -> None:
    """The key is named, the content is not repeated."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"^a\.key: ") as raised:
        bearer("a.key", str(file))
    assert "ame" not in str(raised.value)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/nonexistent/sesame", "cannot read the file: No such file or directory"),
        ("/", "cannot read the file: Is a directory"),
        ("sesame\0", "not the path of a file"),
    ],
)
def test_a_path_that_is_none(path: str, said: str) -> None:
    """It is not repeated: it may be the secret, put into the wrong place."""
    for read in (lambda: first_line("a.key", path), lambda: whole("a.key", path, 10)):
        with pytest.raises(ConfigError) as raised:
            read()
        assert str(raised.value) == f"a.key: {said}"


def test_a_variable() -> None:
    """A line break at its end is none of the key's; without a name there is none."""
    assert variable("KEY", {"KEY": " sesame\r\n"}) == "sesame"
    assert variable("KEY", {}) == variable("", {"": "sesame"}) == ""
