"""What is kept of a text, in all the ways in which values are written down."""

import base64
import json
from urllib.parse import quote

import planted
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferwatch_collectors.privacy.redaction import Redactor

NOW_S = 1_800_000_000.0


def kept(redactor: Redactor, text: str) -> str:
    return redactor.hashed(text, "acme", NOW_S).text


def test_values_become_pseudonyms_and_the_rest_is_kept(redactor: Redactor) -> None:
    """However it is written, the same value has the same pseudonym."""
    found = redactor.hashed("Ann@Example.com or ann@example.com, card 4111 1111 1111 1111!", "acme", NOW_S)
    one, two, card = (part for part in found.text.replace(",", " ").replace("!", "").split() if part.startswith("<"))

    assert found.text == f"{one} or {two}, card {card}!"
    assert one == two
    assert card.startswith("<CREDIT_CARD:k1.")
    assert found.found == {"EMAIL": 2, "CREDIT_CARD": 1}


@pytest.mark.parametrize("kind", sorted(planted.KINDS))
@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: text,
        lambda text: json.dumps({"arguments": json.dumps({"note": text})}),
        lambda text: json.dumps([text]).replace("@", "\\u0040"),
        lambda text: f"https://host.example/?q={quote(text, safe='')}",
        lambda text: f"blob {base64.b64encode(text.encode()).decode()} end",
    ],
    ids=["plain", "json in json", "escaped", "url", "base64"],
)
def test_no_form_of_a_planted_value_is_left(redactor: Redactor, kind: str, wrap: object) -> None:
    """Escapes, percent signs and base64 hide nothing."""
    for number in range(3):
        value, text = planted.plant(kind, number)
        result = kept(redactor, wrap(text)).encode()  # type: ignore[operator]
        assert not [form for form in planted.forms(value) if form in result], result


def test_a_text_without_anything_is_kept_to_the_letter(redactor: Redactor) -> None:
    """Backslashes and percent signs alone are no reason to write it otherwise."""
    for text in ("C:\\new\\table", "100%25 sure", 'say "\\n"', "", "naïve \U0001f600"):
        assert kept(redactor, text) == text


@settings(max_examples=100)
@given(st.text(max_size=100))
def test_any_text_can_be_kept(redactor: Redactor, text: str) -> None:
    """Nothing raises, and what was kept once is kept again."""
    once = kept(redactor, text)

    assert kept(redactor, once) == once


def test_a_fingerprint_has_nothing_of_the_text(redactor: Redactor) -> None:
    """A keyed hash, and what was found."""
    found = redactor.fingerprint("write to ann@example.com", "acme", NOW_S)

    assert "ann" not in found.text
    assert found.found == {"EMAIL": 1}
