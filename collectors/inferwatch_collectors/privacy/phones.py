"""Telephone numbers: which runs of digits are one, by Google's tables of all countries (the library phonenumbers).

A number that begins with + tells its country. Any other is asked of REGIONS in turn, and needs more to be believed:
a word beside it, or a form that is hardly anything else (`sure`). Without that every tenth random number is somebody's.
"""

import functools
import re
from typing import Final

import phonenumbers

# The largest numbering plans, and those with forms of their own. A national number matches the first of them.
REGIONS: Final = (
    *("US", "GB", "DE", "FR", "IN", "BR", "JP", "ES", "IT", "TR", "PH", "MX", "NL", "PL", "AU", "ZA", "KR", "CN"),
    *("ID", "NG", "SE", "CH", "AT", "BE", "IL", "SG"),
)

WORDS: Final = (
    *("phone", "telephone", "tel", "mobile", "cell", "call", "fax", "whatsapp", "sms", "text me", "dial", "hotline"),
    *("number", "telefon", "handy", "mobil", "rufnummer", "téléphone", "portable", "teléfono", "móvil", "celular"),
    *("telefono", "cellulare", "telefone", "celular", "cep", "numara", "telefoon", "komórka", "電話", "携帯", "电话"),
)

PATTERN: Final = r"\(?\+?\(?\b\d{1,5}\)?(?:[ ./-]{0,2}\(?\d{1,6}\)?){1,6}\b"

# A conversation says the same number again and again.
REMEMBERED: Final = 1024

MIN_DIGITS: Final = 7
MAX_DIGITS: Final = 15

# How people write a number that is nothing else: an area code in parentheses; 415-555-0132; +CC.
_PARENTHESES: Final = re.compile(r"\(?\+?\d{0,3}\)?[ -]?\(\d{2,5}\) ?\d{2,4}[ .-]?\d{2,4}([ .-]?\d{2,4})*")
_AMERICAN: Final = re.compile(r"(?:1[ .-])?[2-9]\d{2}([.-])[2-9]\d{2}\1\d{4}")
_TRUNK: Final = re.compile(r"0\d{1,4}([ -/])\d{2,4}([ -]\d{2,5}){1,4}")
_DECIMAL: Final = re.compile(r"\d+[.]\d+")
_BARE_COUNTRY: Final = re.compile(r"[1-9]\d{0,2}-\d{2,4}-\d{3,4}-\d{3,4}")


@functools.lru_cache(maxsize=REMEMBERED)
def check(value: str) -> str | None:
    """Return the number as E.164 has it."""
    count = sum(char.isdigit() for char in value)
    if not MIN_DIGITS <= count <= MAX_DIGITS:
        return None
    if value.startswith(("+", "(+", "00")):
        return _valid("+" + value.lstrip("(+").removeprefix("00"), None)
    if _BARE_COUNTRY.fullmatch(value) and (found := _valid("+" + value, None)):
        return found
    digits = "".join(filter(str.isdigit, value))
    for region, possible in _possible():
        if possible.fullmatch(digits) and (found := _valid(value, region)):
            return found
    return None


@functools.cache
def _possible() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Return for each region what its numbers look like: parsing tells more and takes a hundred times as long."""
    found = []
    for region in REGIONS:
        about = phonenumbers.PhoneMetadata.metadata_for_region(region)
        assert about is not None
        assert about.general_desc is not None
        prefix = about.national_prefix_for_parsing or ""
        pattern = rf"(?:{about.country_code})?(?:{prefix})?(?:{about.general_desc.national_number_pattern})?"
        found.append((region, re.compile(pattern)))
    return tuple(found)


def sure(value: str) -> bool:
    """Tell whether `value` is written as only telephone numbers are."""
    if value.startswith(("+", "(+")):
        return True
    return any(form.fullmatch(value) for form in (_PARENTHESES, _AMERICAN, _TRUNK, _BARE_COUNTRY))


def alone(value: str) -> bool:
    """Tell whether `value` may be one where it stands alone: ten digits in a row are more often something else."""
    if _DECIMAL.fullmatch(value):
        return False
    return value.startswith(("0", "+", "(")) or any(char in " -./" for char in value)


def _valid(value: str, region: str | None) -> str | None:
    try:
        number = phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))
