"""identity: a name that is safe to store, never the key."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.relay import identity
from inferwatch.relay.heads import RequestHead
from inferwatch.relay.identity import ANONYMOUS, Identity

SECRET = b"sixteen bytes or more"


@dataclass
class Peer:
    """Whoever is at the other end of the connection."""

    remote: str | None = "10.0.0.1"


def tenant(fields: list[tuple[bytes, bytes]], remote: str | None = "10.0.0.1", trusted: tuple[str, ...] = ()) -> str:
    return Identity(SECRET, trusted).tenant(RequestHead(b"/", fields), Peer(remote))


def test_no_key_is_anonymous() -> None:
    """Nobody is guessed from an address."""
    assert tenant([(b"User-Agent", b"x")]) == ANONYMOUS


def test_key_is_hashed() -> None:
    """The name holds nothing of the key."""
    name = tenant([(b"Authorization", b"Bearer sk-topsecret")])
    assert name.startswith("key-")
    assert "topsecret" not in name
    assert len(name) == 4 + 2 * identity.HASH_BYTES


@pytest.mark.parametrize(
    "field",
    [
        (b"Authorization", b"Bearer k1"),
        (b"authorization", b"bearer k1"),
        (b"AUTHORIZATION", b"BEARER k1"),
        (b"Authorization", b"Bearer   k1 "),
        (b"x-api-key", b"k1"),
        (b"Api-Key", b"k1"),
    ],
)
def test_one_key_is_one_tenant_however_it_is_sent(field: tuple[bytes, bytes]) -> None:
    """The scheme's case and the header do not matter (RFC 9110 11.1: schemes are case-insensitive)."""
    assert tenant([field]) == tenant([(b"Authorization", b"Bearer k1")])


def test_different_keys_are_different_tenants() -> None:
    """A thousand keys, a thousand names."""
    one = Identity(SECRET, ())
    seen = {one.tenant(RequestHead(b"/", [(b"x-api-key", b"key-%d" % number)]), Peer(None)) for number in range(1000)}
    assert len(seen) == 1000


def test_hash_depends_on_the_secret() -> None:
    """Names from two installations cannot be joined."""
    other = Identity(b"another secret, long enough", ())
    head = RequestHead(b"/", [(b"x-api-key", b"k1")])
    assert other.tenant(head, Peer()) != Identity(SECRET, ()).tenant(head, Peer())


def test_short_secret_is_refused() -> None:
    """A keyed hash with a short key can be searched."""
    with pytest.raises(ValueError, match="at least 16"):
        Identity(b"short", ())


def test_memory_for_keys_is_bounded() -> None:
    """A client that sends random keys cannot fill memory, and names stay the same afterwards."""
    one = Identity(SECRET, ("10.0.0.0/8",))
    first = one.tenant(RequestHead(b"/", [(b"x-api-key", b"first")]), Peer())
    for number in range(identity.MAX_REMEMBERED * 2 + 1):
        one.tenant(RequestHead(b"/", [(b"x-api-key", b"%d" % number)]), Peer(f"10.0.{number >> 8}.{number & 255}"))
    assert len(one._hashes) <= identity.MAX_REMEMBERED
    assert one.tenant(RequestHead(b"/", [(b"x-api-key", b"first")]), Peer()) == first


@pytest.mark.parametrize(
    ("remote", "trusted", "name"),
    [
        ("10.0.0.1", ("10.0.0.0/8",), "acme"),
        ("10.0.0.1", ("10.0.0.1",), "acme"),
        ("::1", ("::1/128",), "acme"),
        ("::ffff:10.0.0.1", ("10.0.0.0/8",), "acme"),
        ("10.0.0.1", (), ANONYMOUS),
        ("192.168.0.1", ("10.0.0.0/8",), ANONYMOUS),
        (None, ("10.0.0.0/8",), ANONYMOUS),
        ("not an address", ("0.0.0.0/0",), ANONYMOUS),
    ],
)
def test_tenant_header_is_believed_from_trusted_peers_only(
    remote: str | None, trusted: tuple[str, ...], name: str
) -> None:
    """Else anybody could make anybody pay."""
    one = Identity(SECRET, trusted)
    head = RequestHead(b"/", [(b"x-inferwatch-tenant", b"acme")])
    assert [one.tenant(head, Peer(remote)) for _ in range(2)] == [name, name]  # the second time from memory


def test_empty_tenant_header_falls_back_to_the_key() -> None:
    """An empty name is no name."""
    fields = [(b"x-inferwatch-tenant", b""), (b"x-api-key", b"k1")]
    assert tenant(fields, "10.0.0.1", ("10.0.0.0/8",)) == tenant([(b"x-api-key", b"k1")])


def test_person_has_a_pseudonym() -> None:
    """Always the same, of its kind, without a trace of the name; nobody has none."""
    one = Identity(SECRET, ())
    name = one.pseudonym(b"user", b"ada@example.org")
    assert name == one.pseudonym(b"user", b"ada@example.org")
    assert len(name) == 2 * identity.PERSON_HASH_BYTES
    assert "ada" not in name
    others = [
        one.pseudonym(b"session", b"ada@example.org"),
        one.pseudonym(b"user", b"bob@example.org"),
        Identity(b"another secret, long enough", ()).pseudonym(b"user", b"ada@example.org"),
    ]
    assert len({name, *others}) == 4
    assert one.pseudonym(b"user", b"") == one.pseudonym(b"user", None) == ""


@given(st.binary(max_size=400))
def test_names_are_printable_bounded_and_can_be_encoded(value: bytes) -> None:
    """They become labels, columns and log fields."""
    name = identity.clean(value)
    assert len(name) <= identity.MAX_NAME_BYTES
    assert all(char.isprintable() for char in name)
    name.encode()
