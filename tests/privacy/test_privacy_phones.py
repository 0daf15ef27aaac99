"""Our quick answer is the library's slow one: the same tables, asked all at once."""

import random
from collections.abc import Iterator

import phonenumbers
import pytest
from phonenumbers import PhoneNumberFormat

from inferwatch_collectors.privacy import phones

FORMATS = (PhoneNumberFormat.NATIONAL, PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.E164)
KINDS = range(11)  # fixed, mobile, toll-free …


def asked(value: str) -> str | None:
    """What the library says of each region in turn."""
    if value.startswith(("+", "(+", "00")):
        return valid("+" + value.lstrip("(+").removeprefix("00"), None)
    return next((found for region in phones.REGIONS if (found := valid(value, region))), None)


def valid(value: str, region: str | None) -> str | None:
    try:
        number = phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return str(phonenumbers.format_number(number, PhoneNumberFormat.E164))


def long_enough(value: str) -> bool:
    return phones.MIN_DIGITS <= sum(map(str.isdigit, value)) <= phones.MAX_DIGITS


def examples() -> Iterator[str]:
    """Yield the library's own examples of all kinds of all regions, as they are written at home and abroad."""
    for region in phonenumbers.SUPPORTED_REGIONS:
        for kind in KINDS:
            number = phonenumbers.example_number_for_type(region, kind)
            if number is not None:
                yield from (phonenumbers.format_number(number, form) for form in FORMATS)


def test_every_example_of_the_library_is_a_number_as_it_says() -> None:
    """Of every country, with its code; without, of the countries that are asked."""
    texts = [text for text in set(examples()) if text.startswith("+") and long_enough(text)]
    at_home = [
        phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL)
        for region in phones.REGIONS
        if (number := phonenumbers.example_number(region)) is not None
    ]

    assert len(texts) > 1000
    for text in (*texts, *at_home):
        assert phones.check(text) == asked(text) is not None, text


@pytest.mark.parametrize("seed", range(3))
def test_digits_at_random_are_what_the_library_says(seed: int) -> None:
    """Valid or not, and whose: bare, behind a prefix, behind the code of a country."""
    chance = random.Random(seed)
    codes = sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE)
    for _ in range(300):
        digits = "".join(chance.choice("0123456789") for _ in range(chance.randrange(7, 11)))
        for value in (digits, f"0{digits}", f"+{chance.choice(codes)}{digits}"):
            if long_enough(value):
                assert phones.check(value) == asked(value), value
