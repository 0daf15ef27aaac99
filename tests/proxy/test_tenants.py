"""Tenants: whose key it is, what is refused at the start, and that no key is kept or told."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch import config, tenants
from inferwatch.config import ConfigError
from inferwatch.control import MAX_LINE_BYTES
from inferwatch.settings.tenants import KnownTenant, Tenants, fault
from inferwatch.tenants import Tenant, TenantDirectory, TenantTable, Unknown, api_key, read_table

SECRET = b"sixteen bytes or more"

key_bytes = st.lists(st.integers(0x21, 0x7E), min_size=1, max_size=40).map(bytes)


def file_with(folder: Path, text: str | bytes, name: str = "keys") -> str:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def directory(*known: KnownTenant, environ: dict[str, str] | None = None, reject: bool = False) -> TenantDirectory:
    settings = Tenants(known=known, unknown_keys="reject" if reject else "allow")
    return TenantDirectory(read_table(settings, SECRET, environ or {}), SECRET)


def error_of(*known: KnownTenant, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        read_table(Tenants(known=known), SECRET, environ or {})
    return str(caught.value)


# --- whose key


@pytest.mark.parametrize(
    "fields",
    [
        {b"authorization": b"Bearer k-1"},
        {b"authorization": b"bearer   k-1 "},
        {b"authorization": b"k-1"},
        {b"x-api-key": b"k-1"},
        {b"api-key": b" k-1"},
        {b"x-api-key": b"Bearer k-1"},
        {b"authorization": b"Bearer ", b"x-api-key": b"k-1"},
        {b"authorization": b"Bearer k-1", b"x-api-key": b"k-of-somebody-else"},
    ],
)
def test_a_key_is_its_tenants_however_it_is_sent(tmp_path: Path, fields: dict[bytes, bytes]) -> None:
    """As `Bearer`, bare, or in the fields that others use; the first field with a key counts."""
    found = directory(KnownTenant(name="acme", keys_file=file_with(tmp_path, "k-1\n"))).lookup(fields)

    assert found == Tenant("acme")


@pytest.mark.parametrize("fields", [{}, {b"authorization": b""}, {b"authorization": b"Bearer"}, {b"x-api-key": b"  "}])
def test_a_request_without_a_key_is_nobodys(fields: dict[bytes, bytes]) -> None:
    """A scheme alone is no key."""
    assert directory().lookup(fields) is None
    assert api_key(fields) is None


def test_another_scheme_is_part_of_the_key() -> None:
    """What `Basic` carries is as good a key as any, and not the same as the bare word."""
    assert api_key({b"authorization": b"Basic dXNlcg=="}) == b"Basic dXNlcg=="


def test_a_tenant_may_have_several_keys_from_both_places(tmp_path: Path) -> None:
    """Lines of a file and words of a variable; empty lines and remarks are none."""
    text = "# for the batch jobs, until May\nk-old\r\n\n  k-new  \n#k-odd\n"
    acme = KnownTenant(name="acme", keys_file=file_with(tmp_path, text), key_env="ACME_KEYS")
    found = directory(acme, environ={"ACME_KEYS": " k-env k-env-2 "})

    for key in (b"k-old", b"k-new", b"#k-odd", b"k-env", b"k-env-2"):
        assert found.whose(key) == Tenant("acme"), key
    assert isinstance(found.whose(b"# for the batch jobs, until May"), Unknown)
    assert isinstance(found.whose(b"k-OLD"), Unknown)


def test_keys_are_rotated_by_reading_again(tmp_path: Path) -> None:
    """Old and new side by side, then the new one alone."""
    acme = KnownTenant(name="acme", keys_file=file_with(tmp_path, "k-old\nk-new\n"))
    both = directory(acme)
    file_with(tmp_path, "k-new\n")
    later = directory(acme)

    assert [both.whose(b"k-old"), both.whose(b"k-new")] == [Tenant("acme")] * 2
    assert isinstance(later.whose(b"k-old"), Unknown)
    assert later.whose(b"k-new") == Tenant("acme")


def test_a_tenant_without_keys_is_a_name() -> None:
    """For those whom a trusted peer names."""
    assert read_table(Tenants(known=(KnownTenant(name="acme"),)), SECRET, {}).names == ("acme",)


def test_an_unknown_key_has_a_label_that_stays() -> None:
    """The same as before there were tenants, so that its history goes on; another secret, another label."""
    label = directory().whose(b"k1")

    assert label == directory().whose(b"k1") == Unknown("key-2b77933d2e")
    assert label != directory().whose(b"k2")
    assert label != TenantDirectory(TenantTable(), b"another secret of ours").whose(b"k1")


@pytest.mark.parametrize(
    ("found", "allowed", "rejected"),
    [(Tenant("acme"), False, False), (Unknown("key-1"), False, True), (None, False, True)],
)
def test_who_is_refused(found: Tenant | Unknown | None, allowed: bool, rejected: bool) -> None:
    """`reject` lets in tenants only: a request without a key would otherwise be the way around it."""
    assert directory().refuses(found) is allowed
    assert directory(reject=True).refuses(found) is rejected


@given(st.lists(st.lists(key_bytes, max_size=4), max_size=6), key_bytes)
def test_every_key_is_its_own_tenants_and_no_other_key_is_anybodys(owners: list[list[bytes]], stranger: bytes) -> None:
    """Whatever keys look like."""
    first_owner = {key: index for index, keys in reversed(list(enumerate(owners))) for key in keys}
    environ = {
        f"T{index}": " ".join(key.decode() for key in first_owner if first_owner[key] == index)
        for index in range(len(owners))
    }
    known = [
        KnownTenant(name=f"t{index}", key_env=f"T{index}" if environ[f"T{index}"] else "")
        for index in range(len(owners))
    ]

    found = directory(*known, environ=environ)

    for key, index in first_owner.items():
        assert found.whose(key) == Tenant(f"t{index}")
    assert isinstance(found.whose(stranger), Tenant) == (stranger in first_owner)


# --- no key is kept or told


def test_no_key_is_in_what_is_kept_or_sent(tmp_path: Path) -> None:
    """Not in the table, as JSON, pickled or shown; nor its plain hash, which could be tried against lists of keys."""
    key = b"sk-topsecret-0123456789"
    acme = KnownTenant(name="acme", keys_file=file_with(tmp_path, key), key_env="ACME")
    settings = Tenants(known=(acme,))
    table = read_table(settings, SECRET, {"ACME": "sk-topsecret-env"})
    found = TenantDirectory(table, SECRET)
    found.whose(key)

    shown = b"\n".join(
        [
            msgspec.json.encode(table),
            pickle.dumps(table),
            repr(table).encode(),
            repr(found).encode(),
            repr([found._owners, found._names]).encode(),
            str(config.redacted(config.Config(tenants=settings))).encode(),
        ]
    )
    for told in (b"topsecret", hashlib.blake2b(key, digest_size=16).hexdigest().encode(), SECRET):
        assert told not in shown
    assert repr(table) == "TenantTable(1 tenants, 2 keys)"


def test_the_table_goes_through_the_control_channel(tmp_path: Path) -> None:
    """It is plain JSON, and the other end answers the same."""
    acme = KnownTenant(name="acme", keys_file=file_with(tmp_path, "k-1\n"))
    table = read_table(Tenants(known=(acme,), unknown_keys="reject"), SECRET, {})

    line = msgspec.json.encode({"tenants": msgspec.to_builtins(table)})
    there = TenantDirectory(msgspec.convert(msgspec.json.decode(line)["tenants"], TenantTable), SECRET)

    assert there.whose(b"k-1") == Tenant("acme")
    assert there.reject_unknown


def test_the_largest_table_fits_into_one_message() -> None:
    """Beside the largest configuration: a line of the control channel has 1 MiB."""
    names = tuple(f"{number:0128}" for number in range(1000))
    table = TenantTable(names=names, owners={f"{number:032x}": 999 for number in range(tenants.MAX_KEYS)})

    assert len(msgspec.json.encode(table)) + config.MAX_CONFIG_BYTES < MAX_LINE_BYTES


def test_the_table_is_of_no_use_under_another_secret(tmp_path: Path) -> None:
    """A table that leaks lets nobody try keys against it."""
    table = read_table(Tenants(known=(KnownTenant(name="acme", keys_file=file_with(tmp_path, "k-1")),)), SECRET, {})

    assert isinstance(TenantDirectory(table, b"another secret of ours").whose(b"k-1"), Unknown)


def test_a_secret_that_is_none_is_refused() -> None:
    """As everywhere: 16 bytes at least."""
    with pytest.raises(ValueError, match="secret of 5 bytes, expected at least 16"):
        read_table(Tenants(), b"short", {})
    with pytest.raises(ValueError, match="secret of 5 bytes, expected at least 16"):
        TenantDirectory(TenantTable(), b"short")


# --- what is refused


def test_a_key_of_two_tenants_is_refused_without_telling_it(tmp_path: Path) -> None:
    """Who would pay? The place is named, and the other tenant."""
    one = KnownTenant(name="acme", keys_file=file_with(tmp_path, "k-1\nk-2\n", "a"))
    two = KnownTenant(name="globex", keys_file=file_with(tmp_path, "k-3\nk-2\n", "b"))

    assert error_of(one, two) == "tenants.known[1].keys_file: line 2 is a key of `acme` too"


def test_a_key_twice_of_one_tenant_is_no_mistake(tmp_path: Path) -> None:
    """During a rotation it may be in the file and in the environment."""
    acme = KnownTenant(name="acme", keys_file=file_with(tmp_path, "k-1\nk-1\n"), key_env="ACME")

    assert len(read_table(Tenants(known=(acme,)), SECRET, {"ACME": "k-1"}).owners) == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "holds no key"),
        (b"\n# only a remark\n", "holds no key"),
        (b"k-1\nsk topsecret\n", "line 2 is no key: expected 1 to 1024 ASCII characters without blanks"),
        (b"k-\xc3\xa4\n", "line 1 is no key: expected 1 to 1024 ASCII characters without blanks"),
        (b"k-1\x00\n", "line 1 is no key: expected 1 to 1024 ASCII characters without blanks"),
        (b"k" * 1025, "line 1 is no key: expected 1 to 1024 ASCII characters without blanks"),
        (b"k\n" * 600_000, "the file has more than 1048576 bytes"),
    ],
)
def test_a_file_that_holds_no_keys_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    """With the line, without what is in it."""
    error = error_of(KnownTenant(name="acme"), KnownTenant(name="globex", keys_file=file_with(tmp_path, content)))

    assert error == f"tenants.known[1].keys_file: {expected}"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/nonexistent/sk-topsecret", "cannot read the file: No such file or directory"),
        ("/", "cannot read the file: Is a directory"),
        ("sk-topsecret\0", "not the path of a file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_by_its_setting(path: str, expected: str) -> None:
    """The path is not repeated: it might be the key, put into the wrong place."""
    error = error_of(KnownTenant(name="acme", keys_file=path))

    assert error == f"tenants.known[0].keys_file: {expected}"
    assert "topsecret" not in error


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "there is no such environment variable"),
        ({"ACME": ""}, "holds no key"),
        ({"ACME": "k-1 k-ä"}, "word 2 is no key: expected 1 to 1024 ASCII characters without blanks"),
    ],
)
def test_a_variable_that_holds_no_keys_is_refused(environ: dict[str, str], expected: str) -> None:
    """By the name of the setting."""
    assert (
        error_of(KnownTenant(name="acme", key_env="ACME"), environ=environ) == f"tenants.known[0].key_env: {expected}"
    )


def test_the_process_environment_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `config.load` does."""
    monkeypatch.setenv("ACME", "k-1")

    table = read_table(Tenants(known=(KnownTenant(name="acme", key_env="ACME"),)), SECRET)

    assert TenantDirectory(table, SECRET).whose(b"k-1") == Tenant("acme")


def test_keys_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table travels in one message."""
    monkeypatch.setattr(tenants, "MAX_KEYS", 2)

    assert error_of(KnownTenant(name="a", key_env="A"), environ={"A": "1 2 3"}) == "tenants.known: more than 2 keys"


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ([KnownTenant(name="")], "tenants.known[0].name: expected 1 to 128 bytes, printable, without blanks around"),
        ([KnownTenant(name=" a")], "tenants.known[0].name: expected 1 to 128 bytes, printable, without blanks around"),
        (
            [KnownTenant(name="a\tb")],
            "tenants.known[0].name: expected 1 to 128 bytes, printable, without blanks around",
        ),
        (
            [KnownTenant(name="ä" * 65)],
            "tenants.known[0].name: expected 1 to 128 bytes, printable, without blanks around",
        ),
        (
            [KnownTenant(name="anonymous")],
            "tenants.known[0].name: `anonymous` is reserved for requests that no tenant is known of",
        ),
        (
            [KnownTenant(name="key-1")],
            "tenants.known[0].name: `key-1` is reserved for requests that no tenant is known of",
        ),
        (
            [KnownTenant(name="a"), KnownTenant(name="b"), KnownTenant(name="a")],
            "tenants.known[2].name: `a` is written twice",
        ),
        (
            [KnownTenant(name="a", key_env="sk-topsecret")],
            "tenants.known[0].key_env: expected the name of an environment variable",
        ),
        ([KnownTenant(name="ä b")], ""),
    ],
)
def test_names_that_could_not_be_told_apart_are_refused(known: list[KnownTenant], expected: str) -> None:
    """Empty, unprintable, too long, reserved or there twice; and nothing that may be a key is repeated."""
    assert fault(Tenants(known=tuple(known))) == expected


def test_tenants_are_bounded() -> None:
    """With their names the table stays below the size of a message."""
    many = tuple(KnownTenant(name=f"t{number}") for number in range(1001))

    assert fault(Tenants(known=many)) == "tenants.known: 1001 tenants, expected at most 1000"
