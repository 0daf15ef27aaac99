"""identity: a name that is safe to store, never the key."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch import canary, tenants
from inferwatch.relay import identity
from inferwatch.relay.heads import RequestHead
from inferwatch.relay.identity import ANONYMOUS, Identity
from inferwatch.settings.tenants import KnownTenant, Tenants
from inferwatch.tenants import TenantTable, read_table

SECRET = b"sixteen bytes or more"


@dataclass
class Peer:
    """Whoever is at the other end of the connection."""

    remote: str | None = "10.0.0.1"


def tenant(fields: list[tuple[bytes, bytes]], remote: str | None = "10.0.0.1", trusted: tuple[str, ...] = ()) -> str:
    return Identity(SECRET, trusted).who(RequestHead(b"/", fields), Peer(remote)).tenant


def test_no_key_is_anonymous() -> None:
    """Nobody is guessed from an address."""
    assert tenant([(b"User-Agent", b"x")]) == ANONYMOUS


def test_key_is_hashed() -> None:
    """The name holds nothing of the key."""
    name = tenant([(b"Authorization", b"Bearer sk-topsecret")])
    assert name.startswith("key-")
    assert "topsecret" not in name
    assert len(name) == 4 + 2 * tenants.LABEL_BYTES


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
    seen = {
        one.who(RequestHead(b"/", [(b"x-api-key", b"key-%d" % number)]), Peer(None)).tenant for number in range(1000)
    }
    assert len(seen) == 1000


def test_hash_depends_on_the_secret() -> None:
    """Names from two installations cannot be joined."""
    other = Identity(b"another secret, long enough", ())
    head = RequestHead(b"/", [(b"x-api-key", b"k1")])
    assert other.who(head, Peer()) != Identity(SECRET, ()).who(head, Peer())


def test_the_canary_is_known_by_its_proof_alone() -> None:
    """Neither its name nor another installation's proof makes one; the proof names nobody else."""
    proof = canary.proof(SECRET).encode()
    assert tenant([(b"X-Inferwatch-Canary", proof)]) == canary.TENANT
    assert tenant([(b"X-Inferwatch-Canary", proof), (b"authorization", b"Bearer of the engine")]) == canary.TENANT
    assert tenant([(b"x-inferwatch-canary", proof), (b"x-inferwatch-tenant", b"acme")]) == canary.TENANT
    for wrong in (b"", b"1", proof[:-1], canary.proof(b"another secret, long enough").encode()):
        assert tenant([(b"x-inferwatch-canary", wrong)]) == ANONYMOUS
    assert tenant([(b"x-inferwatch-tenant", canary.TENANT.encode())]) == ANONYMOUS


def test_each_tenant_of_our_own_has_its_own_proof() -> None:
    """The proof of embeddings does not make a canary, nor the other way round."""
    for name in canary.OWN:
        assert tenant([(b"x-inferwatch-canary", canary.proof(SECRET, name).encode())]) == name
    assert len({canary.proof(SECRET, name) for name in canary.OWN}) == len(canary.OWN)


def test_short_secret_is_refused() -> None:
    """A keyed hash with a short key can be searched."""
    with pytest.raises(ValueError, match="at least 16"):
        Identity(b"short", ())


def test_memory_for_addresses_is_bounded() -> None:
    """Peers without number cannot fill memory, and trust stays the same afterwards."""
    one = Identity(SECRET, ("10.0.0.0/8",))
    head = RequestHead(b"/", [(b"x-inferwatch-tenant", b"acme")])
    for number in range(identity.MAX_REMEMBERED * 2 + 1):
        assert one.who(head, Peer(f"10.0.{number >> 8}.{number & 255}")).tenant == "acme"
    assert len(one._peers) <= identity.MAX_REMEMBERED


def table(*, reject: bool = False, **keys: bytes) -> TenantTable:
    """Tenants with one key each, hashed under SECRET."""
    known = tuple(KnownTenant(name=name, key_env=name.upper()) for name in keys)
    settings = Tenants(known=known, unknown_keys="reject" if reject else "allow")
    return read_table(settings, SECRET, {name.upper(): key.decode() for name, key in keys.items()})


def test_a_configured_key_has_its_tenants_name() -> None:
    """However it is sent; other keys are hashed as ever."""
    one = Identity(SECRET, (), table(acme=b"k1", globex=b"k2"))
    heads = [RequestHead(b"/", [field]) for field in ((b"Authorization", b"Bearer k1"), (b"x-api-key", b"k2"))]
    assert [one.who(head, Peer()).tenant for head in heads] == ["acme", "globex"]
    stranger = RequestHead(b"/", [(b"x-api-key", b"k3")])
    assert one.who(stranger, Peer()) == Identity(SECRET, ()).who(stranger, Peer())


def test_an_empty_bearer_lends_its_name_to_nobody() -> None:
    """A client with an empty Authorization is known by its other key, and only by that."""
    one = Identity(SECRET, (), table(acme=b"k1"))
    acme = RequestHead(b"/", [(b"Authorization", b"Bearer"), (b"x-api-key", b"k1")])
    other = RequestHead(b"/", [(b"Authorization", b"Bearer"), (b"x-api-key", b"k9")])
    assert one.who(acme, Peer()).tenant == "acme"
    assert one.who(other, Peer()).tenant.startswith("key-")


@pytest.mark.parametrize(
    ("fields", "method", "path", "let_in"),
    [
        ([(b"x-api-key", b"k1")], b"POST", "/v1/completions", True),
        ([(b"x-api-key", b"k2")], b"POST", "/v1/completions", False),
        ([], b"POST", "/v1/completions", False),
        ([], b"GET", "/v1/models", False),
        ([], b"OPTIONS", "/v1/completions", True),
        ([], b"GET", "/health", True),
        ([], b"GET", "/health/../v1/models", False),
    ],
)
def test_strangers_are_kept_out_if_so_configured(
    fields: list[tuple[bytes, bytes]], method: bytes, path: str, let_in: bool
) -> None:
    """Only tenants pass, but for probes and preflights, which have no key."""
    one = Identity(SECRET, (), table(reject=True, acme=b"k1"))
    who = one.who(RequestHead(path.encode(), fields), Peer())
    assert one.lets_in(who, method, path) is let_in


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
    assert [one.who(head, Peer(remote)).tenant for _ in range(2)] == [name, name]  # the second time from memory


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
