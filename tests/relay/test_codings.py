"""codings: what may be offered to an engine of what a client accepts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.relay.codings import MAX_REMEMBERED_BYTES, READABLE, readable

ELEMENTS = st.tuples(
    st.sampled_from(["gzip", "x-gzip", "Deflate", "identity", "br", "zstd", "*", "compress", "dcb", ""]),
    st.sampled_from(["", ";q=1", "; q=0.5", ";q=0", "; Q=0.000 ", ";q=x"]),
).map("".join)
HEADERS = st.lists(ELEMENTS, min_size=1, max_size=6).map(lambda found: ", ".join(found).encode())


@pytest.mark.parametrize(
    ("accepted", "offered"),
    [
        ("gzip, deflate", "gzip, deflate"),
        ("gzip, deflate, br, zstd", "gzip, deflate"),
        ("br, gzip;q=0.8 ,deflate", "gzip;q=0.8 ,deflate"),
        ("gzip,deflate,*;q=0.1", "gzip,deflate"),
        ("GZIP;q=1.0, BR", "GZIP;q=1.0"),
        ("identity, br", "identity"),
        ("br", "identity"),
        ("*", "identity"),
        ("zstd, br;q=0", "br;q=0, identity"),
        ("br, gzip;q=0, identity;q=0", "br, gzip;q=0, identity;q=0"),
        ("br, *;q=0", "br, *;q=0"),
        ("br, gzip, identity;q=0, *;q=0", "gzip, identity;q=0, *;q=0"),
        ("gzip,,br", "gzip,"),
        ("br;q=0.0", "br;q=0.0, identity"),
        ("br;q=", "identity"),
    ],
)
def test_what_is_offered(accepted: str, offered: str) -> None:
    """What we can read, in the client's order and with its weights; never what it refuses."""
    assert readable(accepted.encode()) == offered.encode()


@given(HEADERS)
def test_nothing_is_offered_that_was_not_accepted(accepted: bytes) -> None:
    """And what can be read stays; what cannot is left where the client takes nothing else."""

    def offers(value: bytes) -> set[bytes]:
        elements = [element.lower().replace(b" ", b"").partition(b";") for element in value.split(b",")]
        return {coding for coding, _, weight in elements if coding and weight not in (b"q=0", b"q=0.000")}

    offered = readable(accepted)
    before, after = offers(accepted), offers(offered)
    assert after <= before | {b"identity"}
    assert before & READABLE <= after
    assert after <= READABLE or offered == accepted
    assert readable(offered) == offered


@given(st.binary(max_size=2 * MAX_REMEMBERED_BYTES))
def test_no_bytes_crash_it(accepted: bytes) -> None:
    """They come from clients."""
    readable(accepted)
