"""The same person can be followed and not be known."""

import base64
import hashlib
import re
from collections.abc import Iterator

import phonenumbers
from hypothesis import given
from hypothesis import strategies as st
from privacy_keys import KEY, OTHER_KEY

from inferwatch_collectors.privacy.keys import Keys
from inferwatch_collectors.privacy.pseudonyms import Pseudonyms

NOW_S = 1_800_000_000.0


def made(keys: dict[str, bytes] | None = None, epoch_days: int = 90) -> Pseudonyms:
    return Pseudonyms(Keys(keys or {"k1": KEY}, epoch_days))


@given(st.text(), st.text())
def test_the_same_value_has_the_same_token_after_a_restart(tenant: str, value: str) -> None:
    """Nothing but key, tenant, epoch, kind and value goes into it."""
    token = made().token(tenant, NOW_S, "EMAIL", value)

    assert token == made().token(tenant, NOW_S + 60, "EMAIL", value)
    assert made().confirms(token, tenant, value)


def test_tenant_kind_key_and_epoch_each_change_it() -> None:
    """Pseudonyms of different domains cannot be joined."""
    tokens = {
        made().token("acme", NOW_S, "EMAIL", "ann@example.com"),
        made().token("beta", NOW_S, "EMAIL", "ann@example.com"),
        made().token("acme", NOW_S, "SECRET", "ann@example.com"),
        made().token("acme", NOW_S + 91 * 86_400, "EMAIL", "ann@example.com"),
        made({"k1": OTHER_KEY}).token("acme", NOW_S, "EMAIL", "ann@example.com"),
    }

    assert len({token.rpartition(":")[2] for token in tokens}) == 5


def test_after_a_rotation_old_tokens_tell_their_key() -> None:
    """The new key makes new ones, the old one still confirms its own, and when its line is gone nobody can."""
    old = made().token("acme", NOW_S, "EMAIL", "ann@example.com")
    rotated = made({"k1": KEY, "k2": OTHER_KEY})
    erased = made({"k2": OTHER_KEY})

    assert rotated.token("acme", NOW_S, "EMAIL", "ann@example.com").startswith("<EMAIL:k2.")
    assert (origin := rotated.origin(old))
    assert (origin.entity, origin.key_id.partition(".")[0], origin.known) == ("EMAIL", "k1", True)
    assert rotated.confirms(old, "acme", "ann@example.com")
    assert (origin := erased.origin(old))
    assert not origin.known
    assert not erased.confirms(old, "acme", "ann@example.com")


def test_what_is_no_token_is_none() -> None:
    """Texts may hold anything in angle brackets."""
    for text in ("", "<EMAIL>", "<EMAIL:k1.1:short>", "<email:k1:aaaaaaaaaaaaaaaa>", "EMAIL:k1:aaaaaaaaaaaaaaaa"):
        assert made().origin(text) is None
        assert not made().confirms(text, "acme", "x")


def all_mobile_numbers(region: str) -> Iterator[str]:
    """Yield each mobile number that the numbering plan of a country has room for, as E.164 writes it."""
    about = phonenumbers.PhoneMetadata.metadata_for_region(region)
    assert about is not None
    assert about.mobile is not None
    plan = about.mobile.national_number_pattern
    free = re.search(r"\\d\{(\d)\}$", plan)
    assert free is not None  # the last digits are any
    last = int(free[1])
    for length in about.mobile.possible_length:
        for number in range(10 ** (length - last)):
            block = f"{number:0{length - last}}"
            if re.fullmatch(plan, block + "0" * last):
                yield from (f"+{about.country_code}{block}{each:0{last}}" for each in range(10**last))


def test_a_dictionary_of_a_countrys_numbers_breaks_a_plain_hash_and_not_ours() -> None:
    """An attacker hashes every mobile number of Cape Verde: a plain hash falls, ours is matched by none."""
    numbers = list(all_mobile_numbers("CV"))
    assert len(numbers) > 1_500_000
    secret = numbers[len(numbers) * 2 // 3]
    token = made().token("acme", NOW_S, "PHONE", secret)
    ours, plain = base64.b32decode(token.rpartition(":")[2].rstrip(">").upper()), _hashed(secret)
    # Without the key: all that is public of ours, and a key of one's own.
    made_up = Keys({"k1": OTHER_KEY}, 90).of("acme", NOW_S).key

    confirmed: dict[str, list[str]] = {"plain": [], "ours": [], "ours, a made-up key": []}
    for number in numbers:
        without = _hashed(number)
        if without == plain:
            confirmed["plain"].append(number)
        if without == ours:
            confirmed["ours"].append(number)
        if _hashed(number, made_up) == ours:
            confirmed["ours, a made-up key"].append(number)

    assert confirmed == {"plain": [secret], "ours": [], "ours, a made-up key": []}
    # It is the construction of ours that was tried: with its key it is found.
    assert _hashed(secret, Keys({"k1": KEY}, 90).of("acme", NOW_S).key) == ours
    assert made().confirms(token, "acme", secret)
    assert not made().confirms(token, "acme", numbers[0])


def _hashed(value: str, key: bytes = b"") -> bytes:
    """The same construction with everything that is public."""
    return hashlib.blake2b(f"PHONE\x1f{value}".encode(), digest_size=10, key=key).digest()


def test_fingerprints_of_texts_are_keyed_and_name_their_key() -> None:
    """The same text can be counted, not read."""
    one = made().fingerprint("acme", NOW_S, "the same prompt")

    assert one == made().fingerprint("acme", NOW_S, "the same prompt")
    assert one.startswith("k1.")
    assert one != made().fingerprint("beta", NOW_S, "the same prompt")
    assert one != made().fingerprint("acme", NOW_S, "another prompt")
