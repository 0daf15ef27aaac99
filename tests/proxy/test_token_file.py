"""Tokens of others in files: the first line, and never a word of it in a fault."""

from pathlib import Path

import pytest

from inferwatch.config import ConfigError
from inferwatch.token_file import MAX_BYTES, bearer, first_line


def test_the_first_line(tmp_path: Path) -> None:
    """Without blanks around it; so much of it at most. No file is no header."""
    file = tmp_path / "token"
    file.write_bytes(b"  sesame \r\nmore\n")
    assert bearer("a.key", str(file)) == {"Authorization": "Bearer sesame"}
    assert bearer("a.key", "") == {}
    file.write_bytes(b"x" * (MAX_BYTES + 1))
    assert len(first_line("a.key", str(file))) == MAX_BYTES


@pytest.mark.parametrize("content", [None, b"", b"\nsesame", b"ses\xffame", b"ses\x00ame", "sésame".encode()])
def test_a_file_without_a_token(tmp_path: Path, content: bytes | None) -> None:
    """The key is named, the content is not repeated."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"^a\.key: ") as raised:
        bearer("a.key", str(file))
    assert "ame" not in str(raised.value).replace(str(file), "")


def test_a_path_that_is_none() -> None:
    """As one with a NUL."""
    with pytest.raises(ConfigError, match="not the path of a file"):
        first_line("a.key", "\0")
