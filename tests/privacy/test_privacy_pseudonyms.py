"""The same person can be followed and not be known."""

import base64
import hashlib

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


def test_a_dictionary_of_all_numbers_breaks_a_plain_hash_and_not_ours() -> None:
    """An attacker hashes each number of an exchange: one plain hash is found at once, none of ours is ever matched."""
    secret = "+14155550132"
    numbers = [f"+1415555{last:04}" for last in range(10_000)]
    plain = hashlib.sha256(secret.encode()).hexdigest()
    ours = made().token("acme", NOW_S, "PHONE", secret)
    bits = ours.rpartition(":")[2].rstrip(">")

    guessed = made({"k1": OTHER_KEY})  # the best that somebody without the key can do is to try one

    assert [n for n in numbers if hashlib.sha256(n.encode()).hexdigest() == plain] == [secret]
    assert not [n for n in numbers if guessed.token("acme", NOW_S, "PHONE", n) == ours]
    assert not [n for n in numbers if _plain_token(n) == bits]
    assert [n for n in numbers if made().confirms(ours, "acme", n)] == [secret]


def _plain_token(value: str) -> str:
    """The same construction with everything that is public, and without the key."""
    digest = hashlib.blake2b(f"PHONE\x1f{value}".encode(), digest_size=10).digest()
    return base64.b32encode(digest).decode().lower()


def test_fingerprints_of_texts_are_keyed_and_name_their_key() -> None:
    """The same text can be counted, not read."""
    one = made().fingerprint("acme", NOW_S, "the same prompt")

    assert one == made().fingerprint("acme", NOW_S, "the same prompt")
    assert one.startswith("k1.")
    assert one != made().fingerprint("beta", NOW_S, "the same prompt")
    assert one != made().fingerprint("acme", NOW_S, "another prompt")
