"""python_json: objects as the standard library reads them, and nothing that raises."""

import json
from typing import Any

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


@pytest.mark.parametrize(("text", "shown"), [("m", "m"), ("é", "é"), ("m\ud83d", "m?"), ("", "")])
def test_names_can_be_written_down(text: str, shown: str) -> None:
    """But for lone surrogates they are what they were."""
    assert python_json.printable(text) == shown


def test_a_part_is_written_as_ascii() -> None:
    """With whatever else than JSON it has; never an error."""
    assert python_json.written({"a": [float("nan"), "\ud800"]}) == b'{"a": [NaN, "\\ud800"]}'
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert python_json.written(deep) == b""
