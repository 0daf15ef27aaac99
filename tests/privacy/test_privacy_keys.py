"""Keys come from a file, are refused unless they are random, and are never shown."""

import base64
from pathlib import Path

import pytest
from privacy_keys import KEY, OTHER_KEY

from inferwatch.config import ConfigError
from inferwatch_collectors.privacy.keys import LOOK_INTERVAL_S, Keys, KeyWatch, read_keys

MISTAKES = [
    ("", "holds no key"),
    ("# only a remark\n", "holds no key"),
    (f"k1 {KEY[:31].hex()}", "line 1: a key of 31 bytes, expected at least 32"),
    ("k1 not/base64!", "line 1: the key is neither hex nor base64"),
    (f"K1 {KEY.hex()}", "line 1: expected `ID KEY`, with 1 to 16 small letters and digits as ID"),
    (f"k1 {KEY.hex()}\nk1 {OTHER_KEY.hex()}", "line 2: its ID is written twice"),
    ("k1 " + "00" * 32, "line 1: the key is not random, make one with `openssl rand -base64 32`"),
    ("k1 " + b"changeme-abcdefghijklmnopqrstuvw".hex(), "line 1: the key is not random, make one with"),
    ("k1 " + base64.b64encode(b"my default key, 0123456789 abcde").decode(), "line 1: the key is not random"),
]


@pytest.mark.parametrize(("text", "reason"), MISTAKES)
def test_a_bad_file_is_refused_without_repeating_it(tmp_path: Path, text: str, reason: str) -> None:
    """Short, default and broken keys stop the start; the message names the line and nothing in it."""
    (tmp_path / "keys").write_text(text)

    with pytest.raises(ConfigError) as raised:
        read_keys(str(tmp_path / "keys"), 90)

    assert str(raised.value).startswith("privacy.key_file: ")
    assert reason in str(raised.value)
    assert not any(word in str(raised.value) for word in text.split() if len(word) > 8)


def test_a_file_that_cannot_be_read_is_named_by_its_key(tmp_path: Path) -> None:
    """Its path may be the key itself."""
    with pytest.raises(ConfigError, match=r"^privacy.key_file: cannot read the file: No such file or directory$"):
        read_keys(str(tmp_path / "absent"), 90)


def test_the_last_line_is_used_and_earlier_ones_are_known(tmp_path: Path) -> None:
    """To rotate, append a line."""
    (tmp_path / "keys").write_text(f"# remark\nold {KEY.hex()}\n\nnew {base64.b64encode(OTHER_KEY).decode()}\n")

    keys = read_keys(str(tmp_path / "keys"), 0)

    assert keys.of("acme", 0).key_id == "new"
    assert keys.knows("old")
    assert keys.knows("new")
    assert not keys.knows("other")


def test_a_file_that_has_changed_is_noticed(tmp_path: Path) -> None:
    """Once a minute: another last key, another key of the same name, a file that is gone; a remark is nothing."""
    path, now_s = tmp_path / "keys", 0.0
    path.write_text(f"k1 {KEY.hex()}\n")
    watch = KeyWatch(str(path), lambda: now_s)
    seen = []
    for text in (
        f"k1 {OTHER_KEY.hex()}\n",
        f"# remark\nk0 {OTHER_KEY.hex()}\nk1 {KEY.hex()}\n",
        f"k1 {KEY.hex()}\nk2 {OTHER_KEY.hex()}\n",
        f"k1 {KEY.hex()}\n",
        None,
    ):
        path.unlink()
        if text is not None:
            path.write_text(text)
        watch.look()
        seen.append(watch.is_current)
        now_s += LOOK_INTERVAL_S
        watch.look()
        seen.append(watch.is_current)
        path.touch()

    assert seen == [True, False, False, True, True, False, False, True, True, False]


def test_tenants_epochs_and_ids_have_keys_of_their_own() -> None:
    """What leaks of one says nothing about another."""
    keys = Keys({"k1": KEY}, 30)
    day = 86_400

    derived = {keys.of(tenant, wall_s).key for tenant in ("a", "b", "") for wall_s in (0, 30 * day, 60 * day)}
    derived |= {Keys({"k2": KEY}, 30).of("a", 0).key}

    assert len(derived) == 10
    assert all(len(key) == 32 for key in derived)
    assert keys.of("a", 30 * day - 1) == keys.of("a", 0)


def test_nothing_shows_a_key() -> None:
    """Not even a representation in a traceback."""
    assert repr(Keys({"k1": KEY}, 0)) == "Keys(k1)"
