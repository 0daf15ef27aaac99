"""Telephone numbers: which runs of digits are one, by Google's tables of all countries (the library phonenumbers).

A number that begins with + tells its country. Any other is asked of REGIONS in turn, and needs more to be believed:
a word beside it, or a form that is hardly anything else (`sure`). Without that every tenth random number is somebody's.
"""

import functools
import re
from typing import Final, NamedTuple

import phonenumbers
import re2

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

# Single digits stand at the beginning only, as in +33 6 12 34 56 78: a column of them is none. A 0 that is dialled at
# home alone may stand before them, as in +33 (0)6 12 34 56 78.
PATTERN: Final = (
    r"\(?\+?\(?\b\d{1,5}\)?(?:[ ./-]{0,2}\(0\))?(?:[ ./-]{0,2}\(?\d\)?)?(?:[ ./-]{0,2}\(?\d{2,6}\)?){1,6}\b"
)

# A conversation says the same number again and again.
REMEMBERED: Final = 1024

MIN_DIGITS: Final = 7
MAX_DIGITS: Final = 15

# What the library's tables call the kinds of numbers that one can be given.
_KINDS: Final = (
    *("fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "personal_number", "voip", "pager", "uan"),
    "voicemail",
)

# Where what stands before a number is more than a prefix; carriers' codes in Brazil. In the tables it is one expression
# with the number's own digits.
_BEFORE: Final = {
    "BR": "(?:(?:0|90)(?:1[245]|2[1-35]|31|4[13]|[56]5|99)?)?",
    "JP": "(?:0037680?|0)?",
}

_ONLY_DIGITS: Final = {code: None for code in range(128) if not 48 <= code <= 57}

# Ten times what a text of nothing but numbers makes it grow to.
AUTOMATON_BYTES: Final = 16 * 1024 * 1024

# How people write a number that is nothing else: an area code in parentheses; 415-555-0132; with the 0 that is dialled
# at home; with a country's code and without its +.
_BARE_COUNTRY: Final = re.compile(r"[1-9]\d{0,2}-\d{2,4}-\d{3,4}-\d{3,4}")
_SURE: Final = re.compile(
    r"\(?\+?\d{0,3}\)?[ -]?\(\d{2,5}\) ?\d{2,4}[ .-]?\d{2,4}([ .-]?\d{2,4})*|"
    r"(?:1[ .-])?[2-9]\d{2}([.-])[2-9]\d{2}\2\d{4}|"
    r"0\d{1,4}([ -/])\d{2,4}([ -]\d{2,5}){1,4}|" + _BARE_COUNTRY.pattern
)

# Occurs in each text that has such a number: as RE2, which has no back-references.
SURE_PATTERN: Final = (
    r"\+\(?\d|\(\d{2,5}\) ?\d{2}|\b[2-9]\d{2}[.-][2-9]\d{2}[.-]\d{4}|\b0\d{1,4}[ -/]\d{2,4}[ -]\d{2}|"
    r"\b[1-9]\d{0,2}-\d{2,4}-\d{3,4}-\d{3}"
)

_DECIMAL: Final = re.compile(r"\d+[.]\d+")


def prepare() -> None:
    """Make the tables of all countries, which takes some 0.15 s: not within the time that a text may take."""
    _automaton()
    for code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE:
        _plan(code)


@functools.lru_cache(maxsize=REMEMBERED)
def check(value: str) -> str | None:
    """Return the number as E.164 has it."""
    digits = value.translate(_ONLY_DIGITS)
    if not MIN_DIGITS <= len(digits) <= MAX_DIGITS:
        return None
    if value.startswith(("+", "(+", "00")):
        return _abroad("+" + value.lstrip("(+").removeprefix("00"))
    if _BARE_COUNTRY.fullmatch(value) and (found := _abroad("+" + value)):
        return found
    for place in sorted(_automaton().Match(digits.encode()) or ()):
        region = REGIONS[place]
        plan = _plan(phonenumbers.country_code_for_region(region))
        number = digits.removeprefix(plan.prefix)
        # 49 may be Germany, or an area in it: the library knows where which is meant.
        if not number.startswith(str(plan.code)) and plan.numbers.fullmatch(number):
            return f"+{plan.code}{number}"
        if found := _by_library(value, region):
            return found
    return None


def _abroad(value: str) -> str | None:
    """Return a number that begins with its country's code."""
    digits = value.translate(_ONLY_DIGITS)
    for length in (1, 2, 3) if not digits.startswith("0") else ():
        code = int(digits[:length])
        if code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE:
            plan = _plan(code)
            rest = digits[length:]
            if plan.numbers.fullmatch(rest) and not (plan.prefix and rest.startswith(plan.prefix)):
                return f"+{digits}"
            return _by_library(value, None) if plan.dialled.fullmatch(rest) else None
    return None


class _Plan(NamedTuple):
    """A numbering plan, of one country or of several."""

    code: int
    prefix: str  # before national numbers, as 0 in most countries
    numbers: "re2._Regexp"
    dialled: "re2._Regexp"  # with whatever may stand before them


@functools.cache
def _plan(code: int) -> _Plan:
    region = phonenumbers.COUNTRY_CODE_TO_REGION_CODE[code][0]
    about = phonenumbers.PhoneMetadata.metadata_for_region_or_calling_code(code, region)
    assert about is not None
    # In some six countries what is dialled and the number are not the same digits: the library alone knows.
    dialled = r"\d+" if about.national_prefix_transform_rule else _dialled(code)
    return _Plan(code, about.national_prefix or "", re2.compile("|".join(_kinds(code))), re2.compile(dialled))


def _dialled(code: int) -> str:
    region = phonenumbers.COUNTRY_CODE_TO_REGION_CODE[code][0]
    about = phonenumbers.PhoneMetadata.metadata_for_region_or_calling_code(code, region)
    assert about is not None
    before = _BEFORE.get(region, f"(?:{about.national_prefix_for_parsing or ''})?")
    return f"{before}(?:{'|'.join(_kinds(code))})"


def _kinds(code: int) -> list[str]:
    """Return what the numbers of a country's code look like. It may be several regions', as +1 is Canada's, too."""
    found: dict[str, None] = {}
    for region in phonenumbers.COUNTRY_CODE_TO_REGION_CODE[code]:
        about = phonenumbers.PhoneMetadata.metadata_for_region_or_calling_code(code, region)
        assert about is not None
        for kind in _KINDS:
            described = getattr(about, kind)
            if described is not None and described.national_number_pattern:
                found[described.national_number_pattern] = None
    return list(found)


@functools.cache
def _automaton() -> "re2.Set":
    """Return what tells of digits in which of REGIONS they may be a number.

    Made of the same tables as the library's own answer. That takes a thousand times as long for all regions, one after
    the other: nobody may cost us that with digits that are nobody's number.
    """
    options = re2.Options()
    options.max_mem = AUTOMATON_BYTES
    options.log_errors = False
    automaton = re2.Set.FullMatchSet(options)
    for region in REGIONS:
        code = phonenumbers.country_code_for_region(region)
        automaton.Add(f"(?:{code})?{_dialled(code)}".encode())
    automaton.Compile()
    return automaton


def sure(value: str) -> bool:
    """Tell whether `value` is written as only telephone numbers are."""
    return value.startswith(("+", "(+")) or _SURE.fullmatch(value) is not None


def alone(value: str) -> bool:
    """Tell whether `value` may be one where it stands alone: ten digits in a row are more often something else."""
    if _DECIMAL.fullmatch(value):
        return False
    return value.startswith(("0", "+", "(")) or any(char in " -./" for char in value)


def _by_library(value: str, region: str | None) -> str | None:
    try:
        number = phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))
