"""python_json: objects as the standard library reads them, and nothing that raises."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.relay import python_json

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
OBJECTS = st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4) | st.floats(allow_nan=False))


@given(OBJECTS, st.sampled_from(ENCODINGS), st.sampled_from(["", " ", "\n" * 200]))
def test_an_object_in_any_encoding(document: dict[str, Any], encoding: str, blanks: str) -> None:
    """Behind blanks, too."""
    data = (blanks + json.dumps(document)).encode(encoding)
    assert python_json.read_object(data) == document
    assert python_json.is_wide(data) != encoding.startswith("utf-8")


@given(OBJECTS, st.sampled_from(ENCODINGS[2:]), st.sampled_from(["", " \n"]))
def test_a_member_can_be_put_before_the_last_brace(document: dict[str, Any], encoding: str, blanks: str) -> None:
    """In the body's own encoding."""
    data = (json.dumps({"a": 1, **document}) + blanks).encode(encoding)
    end, name = python_json.end_of_wide(data)
    assert json.loads(data[:end] + ',"a b":2'.encode(name) + data[end:]) == {"a": 1, **document, "a b": 2}


@given(st.binary(max_size=100))
def test_no_bytes_crash_it(data: bytes) -> None:
    """What is no JSON object is none."""
    for candidate in (data, b"{" + data, b"\xff\xfe{\x00" + data):
        assert isinstance(python_json.read_object(candidate), dict | None)


@pytest.mark.parametrize(
    "data", [b"", b"[1]", b'"x"', b"{", b'{"a":%b}' % (b"9" * 5000), b'{"a":' * 100_000, b"--b\r\n"]
)
def test_what_is_no_object(data: bytes) -> None:
    """Also what the standard library gives up on."""
    assert python_json.read_object(data) is None


@given(OBJECTS, st.sampled_from(ENCODINGS))
def test_the_same_in_utf_8(document: dict[str, Any], encoding: str) -> None:
    """With all that it has, lone surrogates too; what is in UTF-8 is not touched."""
    text = json.dumps({"s": "\ud83d", **document}, ensure_ascii=False)
    data = text.encode(encoding, "surrogatepass")
    narrow = python_json.narrow(data)
    assert narrow is data if encoding.startswith("utf-8") else narrow == text.encode("utf-8", "surrogatepass")


ODD_TEXTS = st.lists(
    st.sampled_from(["\ud83d", "\ude00", "\U0001f600", "\\", "u", "\\ud83d", "\n", '"', ":NaN", "[-Infinity"]),
    max_size=9,
).map("".join)
ODD = st.recursive(
    st.floats() | ODD_TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ODD_TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(ODD_TEXTS, ODD), st.booleans())
def test_what_is_repaired_is_json_of_the_same_length(document: dict[str, Any], ascii_only: bool) -> None:
    """What only Python's parser takes, the other one takes then, and each member is where it was."""
    data = json.dumps({**document, "model": "m"}, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    repaired = python_json.repaired(data)
    assert len(repaired) == len(data)
    assert msgspec.json.decode(repaired)["model"] == "m"


def test_what_needs_no_repair_is_not_touched() -> None:
    """It is the same object, so that nobody reads it twice."""
    data = json.dumps({"b": "NaN", "c": [1, "\u00e9 \\n"]}, ensure_ascii=False).encode()
    assert python_json.repaired(data) is data


def test_half_a_character_is_in_no_encoding() -> None:
    """It is left alone."""
    assert python_json.narrow("{".encode("utf-16") + b"a") is None
