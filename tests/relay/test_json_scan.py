"""json_scan: the top-level members of an object in pieces, checked against the standard library's parser."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.relay import json_scan
from inferwatch.relay.json_scan import ObjectScanner

KEYS = ("a", "b", "stream", "n\u00e9e", "")

# Short strings are skipped with what is around them, long ones and those with escapes by themselves.
STRINGS = st.text(max_size=8) | st.sampled_from(["x" * 64, "x" * 65, '[{"\\' * 20])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
SPACE = st.text(" \t\r\n", max_size=3)


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """An object in any legal layout, keys possibly repeated."""
    members = draw(st.lists(st.tuples(st.sampled_from(KEYS), VALUES), max_size=5))
    ascii_only = draw(st.booleans())
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")]))
    inner = separators[0].join(
        json.dumps(key, ensure_ascii=ascii_only)
        + separators[1]
        + json.dumps(value, ensure_ascii=ascii_only, separators=separators)
        for key, value in members
    )
    return (draw(SPACE) + "{" + draw(SPACE) + inner + draw(SPACE) + "}" + draw(SPACE)).encode()


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    at = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


def scan(pieces: list[bytes], *wanted: str) -> ObjectScanner:
    scanner = ObjectScanner(frozenset(key.encode() for key in wanted))
    for piece in pieces:
        scanner.feed(piece)
    return scanner


@given(st.data())
def test_offsets_are_those_of_the_values(data: st.DataObject) -> None:
    """Of each wanted member the last one counts; its offsets cut out exactly its value, in any split of the bytes."""
    body = data.draw(objects())
    pieces = data.draw(cuts(body))
    scanner = scan(pieces, *KEYS)
    pairs: list[tuple[str, Any]] = json.loads(body, object_pairs_hook=lambda found: found)
    last = dict(json.loads(body))
    assert not scanner.broken
    assert scanner.count == len(pairs)
    assert body[scanner.closing :].strip() == b"}"
    assert {key.decode() for key in scanner.members} == set(last)
    for key, member in scanner.members.items():
        assert json.loads(body[member.start : member.end]) == last[key.decode()]
        assert member.value == body[member.start : member.end]


@given(st.data())
def test_only_wanted_members_are_kept(data: st.DataObject) -> None:
    """The others are counted and forgotten."""
    scanner = scan(data.draw(cuts(data.draw(objects()))), "stream")
    assert set(scanner.members) <= {b"stream"}


@given(st.data())
def test_nested_members_are_not_found(data: st.DataObject) -> None:
    """A key inside a value, or inside a string, is not a member."""
    inner = data.draw(objects())
    body = b'{"x":%b,"y":[%b],"z":%b}' % (inner, inner, json.dumps(inner.decode()).encode())
    assert scan(data.draw(cuts(body)), *KEYS).members == {}


@given(st.binary(max_size=200))
def test_no_bytes_crash_it(body: bytes) -> None:
    """It is no validator, but it never raises; and when it finds an end, something began."""
    whole, single = scan([body], *KEYS), scan([bytes([byte]) for byte in body], *KEYS)
    assert (whole.broken, whole.closing, whole.count) == (single.broken, single.closing, single.count)
    assert whole.closing < 0 or whole.started


@given(st.binary(max_size=40).map(lambda rest: b'{"stream":' + rest), st.data())
def test_any_split_gives_the_same_result_even_of_garbage(body: bytes, data: st.DataObject) -> None:
    """Members, offsets and verdict do not depend on how the bytes arrive."""

    def outcome(pieces: list[bytes]) -> object:
        scanner = scan(pieces, *KEYS)
        members = {key: (member.start, member.end, member.value) for key, member in scanner.members.items()}
        return members, scanner.count, scanner.closing, scanner.broken, scanner.open_value

    assert outcome(data.draw(cuts(body))) == outcome([body])


def test_byte_order_mark_in_front_is_skipped() -> None:
    """In any pieces; Python's parser skips it, too."""
    scanner = scan([b"\xef", b"\xbb\xbf {", b"}"])
    assert (scanner.broken, scanner.closing) == (False, 5)


@pytest.mark.parametrize("body", [b"[1]", b'"x"', b"1", b"x{}", b"{}{", b'{}"x"', b"{}}", b"}"])
def test_what_cannot_be_an_object_is_given_up(body: bytes) -> None:
    """The engine says what is wrong with it."""
    assert scan([body]).broken


@pytest.mark.parametrize("body", [b"", b"  ", b"{", b'{"a":1', b'{"a":"}', b'{"a":[1}'])
def test_unfinished_object_has_no_end(body: bytes) -> None:
    """As long as more may come."""
    assert scan([body]).closing < 0


def test_open_value_says_where_it_began() -> None:
    """Whoever passes bytes on must hold back from there."""
    scanner = ObjectScanner(frozenset({b"stream"}))
    seen = []
    for piece in (b'{"a":1,"stream": {"x"', b":1}", b","):
        scanner.feed(piece)
        seen.append(scanner.open_value)
    assert seen == [(b"stream", 16), (b"stream", 16), None]
    assert scanner.members[b"stream"].value == b' {"x":1}'


def test_long_wanted_value_is_not_kept() -> None:
    """A wanted value beyond MAX_VALUE_BYTES is found, but its bytes are not held."""
    value = json.dumps("x" * json_scan.MAX_VALUE_BYTES).encode()
    for size in (1 << 20, 100):
        body = b'{"a":' + value + b',"b":2}'
        scanner = scan([body[start : start + size] for start in range(0, len(body), size)], "a", "b")
        member = scanner.members[b"a"]
        assert (member.value, body[member.start : member.end]) == (None, value)
        assert scanner.members[b"b"].value == b"2"


def test_long_key_is_no_wanted_key() -> None:
    """And takes no memory."""
    scanner = scan([b'{"', *[b"k" * 1000] * 100, b'":1,"a":2}'], "a")
    assert len(scanner._key) <= 2 * json_scan.MAX_KEY_BYTES
    assert scanner.members[b"a"].value == b"2"


def test_image_in_many_pieces_takes_no_memory() -> None:
    """Ten megabytes of base64 leave nothing behind."""
    scanner = ObjectScanner(frozenset({b"stream"}))
    scanner.feed(b'{"image":"')
    for _ in range(160):
        scanner.feed(b"QUJD" * 16384)
    scanner.feed(b'","stream":true}')
    assert scanner.members[b"stream"].value == b"true"
    kept = sum(len(getattr(scanner, name)) for name in ("_key", "_captured"))
    assert kept < 1000


@pytest.mark.parametrize("tail", [b"", b'"', b"\\", b"\\\\", b'\\"'])
def test_backslashes_at_the_end_of_a_piece(tail: bytes) -> None:
    r"""A quote is escaped by an odd number of backslashes, also across pieces."""
    value = json.dumps("x" + tail.decode()).encode()
    body = b'{"a":' + value + b',"b":1}'
    for cut in range(len(body)):
        scanner = scan([body[:cut], body[cut:]], "a", "b")
        assert scanner.members[b"a"].value == value
        assert scanner.members[b"b"].value == b"1"


def test_key_with_escapes_is_the_key_that_it_spells() -> None:
    r"""`"stre\u0061m"` is `stream` to a parser, in any pieces, also while its value is open."""
    body = b'{"stre\\u0061m":1,"\\"":2,"\\ud83d":3}'
    for cut in range(len(body)):
        scanner = scan([body[:cut], body[cut:]], "stream", '"')
        assert {key: member.value for key, member in scanner.members.items()} == {b"stream": b"1", b'"': b"2"}
        assert (scanner.broken, scanner.count) == (False, 3)
    assert scan([b'{"stre\\u0061m":'], "stream").open_value == (b"stream", 15)


@pytest.mark.parametrize("key", [b"\\x", b"\\u00", b"\xff\\n"])
def test_key_that_no_parser_takes_is_given_up(key: bytes) -> None:
    """The engine says what is wrong with it."""
    assert scan([b'{"%b":1}' % key], "stream").broken
