"""form_data: the fields of a multipart form, of what is at hand of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.relay import form_data
from inferwatch.relay.form_data import boundary_of, fields

NAMES = st.sampled_from(["model", "stream", "x", "na me", "é", 'a"b', "a\\b"])
VALUES = st.text(max_size=12) | st.sampled_from(["--b", "\r\n", "\r\n--", "\r\n\r\n", "--b--"])
PARTS = st.lists(st.tuples(NAMES, VALUES, st.sampled_from([None, None, "a.wav", "model"])), max_size=6)


def part(name: str, value: str, filename: str | None = None) -> bytes:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    file = f'; filename="{filename}"\r\nContent-Type: audio/wav' if filename is not None else ""
    return f'Content-Disposition: form-data; name="{quoted}"{file}\r\n\r\n{value}\r\n'.encode()


def form(parts: list[tuple[str, str, str | None]], boundary: bytes = b"b") -> bytes:
    return b"".join(b"--%b\r\n%b" % (boundary, part(*one)) for one in parts) + b"--%b--\r\n" % boundary


@given(PARTS, st.data())
def test_fields_are_those_that_were_written(parts: list[tuple[str, str, str | None]], data: st.DataObject) -> None:
    """Of a repeated one the last; no file. Of a beginning, what is complete in it."""
    boundary = b"a boundary that is in no value"
    body = form(parts, boundary)
    wanted = {name: value for name, value, file in parts if file is None}
    assert fields(body, boundary) == wanted

    cut = fields(body[: data.draw(st.integers(0, len(body)))], boundary)
    written = [(name, value) for name, value, file in parts if file is None]
    assert cut is None or set(cut.items()) <= set(written)


@given(st.binary(max_size=200), st.binary(min_size=1, max_size=3))
def test_no_bytes_crash_it(body: bytes, boundary: bytes) -> None:
    """It has fields or none."""
    for candidate in (body, b"--" + boundary + body, b"--%b\r\n%b\r\n--%b" % (boundary, body, boundary)):
        assert isinstance(fields(candidate, boundary), dict | None)
    boundary_of(body)
    boundary_of(b"multipart/form-data" + body)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=b", "b"),
        ('Multipart/Form-Data;charset=utf-8; BOUNDARY="a b;c"', "a b;c"),
        ('multipart/form-data; boundary="a\\"b"', 'a"b'),
        ("multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxk; x=y", "----WebKitFormBoundary7MA4YWxk"),
        ("multipart/form-data", None),
        ("multipart/form-data; boundary=", None),
        ('multipart/form-data; boundary=""', None),
        ("multipart/form-data; boundary=" + "x" * 257, None),
        ("multipart/form-data-not; boundary=b", None),
        ("multipart/mixed; boundary=b", None),
        ("application/json; boundary=b", None),
        ("", None),
    ],
)
def test_boundary_of_a_content_type(content_type: str, boundary: str | None) -> None:
    """Plain or quoted, at any place."""
    assert boundary_of(content_type.encode()) == (boundary.encode() if boundary is not None else None)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"\r\n--b\r\n" + part("model", "m") + b"--b--", {"model": "m"}),
        (b"--b  \r\nX: 1\r\ncontent-disposition:form-data;NAME=model\r\n\r\nm\r\n--b", {"model": "m"}),
        (b'--b\r\nContent-Disposition: attachment; name="model"\r\n\r\nm\r\n--b', {}),
        (b'--b\r\nContent-Disposition: form-data; filename="name=model"\r\n\r\nm\r\n--b', {}),
        (b"--b\r\n\r\nm\r\n--b", {}),
        (b"--b\r\n" + part("model", "x" * (form_data.MAX_VALUE_BYTES + 1)) + b"--b", {}),
        (b"--b--\r\n--b\r\n" + part("model", "m") + b"--b--", {}),
        (b"--b\r\n" + part("model", "m"), {}),
        (b'{"model":"m"}', None),
        (b"preamble\r\n--b\r\n" + part("model", "m") + b"--b--", None),
        (b"", None),
    ],
)
def test_what_is_a_field(body: bytes, found: dict[str, str] | None) -> None:
    """And what is none."""
    assert fields(body, b"b") == found


def test_it_is_bounded() -> None:
    """Behind so many parts nobody looks."""
    body = form([("x", "", None)] * form_data.MAX_PARTS + [("model", "m", None)])
    assert fields(body, b"b") == {"x": ""}
