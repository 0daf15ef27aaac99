"""Check digits. What python-stdnum has is taken from there; here stand those that it lacks.

Each returns the canonical form, or None. They are called on what a pattern has matched, a few dozen characters.
"""

import datetime as dt
import functools
import hashlib
import ipaddress
import re
import string
from types import ModuleType
from typing import Final

from stdnum import luhn, numdb, verhoeff
from stdnum.exceptions import ValidationError

from inferwatch_collectors.privacy.base import Check, squeezed


def by(module: ModuleType) -> Check:
    """Return the check of a module of python-stdnum."""

    def check(value: str) -> str | None:
        compact = squeezed(value)
        try:
            module.validate(compact)
        except (ValidationError, KeyError):  # its table of Chinese places has holes
            return None
        return compact

    return check


def both(*checks: Check) -> Check:
    """Return a check that holds where each of `checks` does."""

    def check(value: str) -> str | None:
        found: str | None = None
        for each in checks:
            found = each(value)
            if found is None:
                return None
        return found

    return check


def either(*checks: Check) -> Check:
    """Return a check that holds where one of `checks` does."""

    def check(value: str) -> str | None:
        return next((found for each in checks if (found := each(value)) is not None), None)

    return check


def starts(*prefixes: str) -> Check:
    """Return a check of how the compact form begins."""

    def check(value: str) -> str | None:
        compact = squeezed(value)
        return compact if compact.startswith(prefixes) else None

    return check


def not_uniform(value: str) -> str | None:
    """Refuse a number of one digit alone, which passes many checks and is nobody's."""
    compact = squeezed(value)
    return compact if len(set(compact)) > 1 else None


def mod97(value: str) -> bool:
    """ISO 7064 mod 97-10, as IBAN has it."""
    return int((value[4:] + value[:4]).translate(_BASE_36)) % 97 == 1


_BASE_36: Final = {ord(char): str(int(char, 36)) for char in string.ascii_uppercase}


@functools.cache
def _account(country: str) -> re.Pattern[str] | None:
    """Return what accounts of a country look like behind the check digits, by python-stdnum's table."""
    _, about = numdb.get("iban").info(country)[0]
    if "bban" not in about:
        return None
    parts = re.findall(r"(\d+)(!?)([nac])", about["bban"])
    kinds = {"n": "[0-9]", "a": "[A-Z]", "c": "[0-9A-Z]"}
    return re.compile("".join(f"{kinds[kind]}{{{count if exact else f'1,{count}'}}}" for count, exact, kind in parts))


def iban(value: str) -> str | None:
    """IBAN of a country that has them, of its form, with its check digits."""
    compact = squeezed(value)
    account = _account(compact[:2])
    return compact if account is not None and account.fullmatch(compact, 4) and mod97(compact) else None


# Issuers' prefixes with the lengths of their cards (ISO/IEC 7812; the ranges that networks publish).
_CARDS: Final[tuple[tuple[int, int, frozenset[int]], ...]] = (
    (4, 4, frozenset({13, 16, 19})),  # Visa
    (51, 55, frozenset({16})),  # Mastercard
    (2221, 2720, frozenset({16})),
    (34, 34, frozenset({15})),  # American Express
    (37, 37, frozenset({15})),
    (300, 305, frozenset({14, 16})),  # Diners Club
    (36, 36, frozenset({14, 16})),
    (38, 39, frozenset({14, 16})),
    (3528, 3589, frozenset({16, 19})),  # JCB
    (6011, 6011, frozenset({16, 19})),  # Discover
    (644, 659, frozenset({16, 19})),
    (62, 62, frozenset({16, 17, 18, 19})),  # UnionPay
    (60, 60, frozenset({16})),  # RuPay, Hipercard
    (81, 82, frozenset({16})),
    (2200, 2204, frozenset({16})),  # Mir
    (5018, 5020, frozenset(range(12, 20))),  # Maestro, Dankort
    (5038, 5038, frozenset(range(12, 20))),
    (5893, 5893, frozenset(range(12, 20))),
    (6304, 6304, frozenset(range(12, 20))),
    (6759, 6763, frozenset(range(12, 20))),
    (508, 509, frozenset({16})),  # RuPay, Elo
    (1, 1, frozenset({15})),  # UATP
)


# length -> the first and the last prefix as they are written, and their width
_CARDS_BY_LENGTH: Final = {
    length: tuple((str(low), str(high), len(str(low))) for low, high, lengths in _CARDS if length in lengths)
    for length in range(12, 20)
}


def card(value: str) -> str | None:
    """Payment card: an issuer's prefix, its length, and Luhn."""
    digits = squeezed(value)
    for low, high, width in _CARDS_BY_LENGTH.get(len(digits), ()):
        if low <= digits[:width] <= high:
            return digits if luhn.is_valid(digits) and len(set(digits)) > 1 else None
    return None


_OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4: Final = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")


def ip(value: str) -> str | None:
    """IPv4 or IPv6, with an optional zone and prefix length."""
    if _IPV4.fullmatch(value):
        return value
    address, slash, length = value.partition("/")
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    if slash and not (length.isdigit() and int(length) <= parsed.max_prefixlen):
        return None
    # `a::b` is a valid address and also how half of all languages write a scope.
    if parsed.version == 6 and not any(char.isdigit() for char in address):
        return None
    return str(parsed) + slash + length


def mac(value: str) -> str | None:
    """MAC address, neither empty nor broadcast."""
    digits = squeezed(value)
    return digits if set(digits) not in ({"0"}, {"F"}) else None


def ssn(value: str) -> str | None:
    """US social security number: areas, groups and serials that are never given are none."""
    digits = squeezed(value)
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    if area in {"000", "666"} or area >= "900" or group == "00" or serial == "0000":
        return None
    return digits if digits not in {"123456789", "078051120", "219099999"} else None  # printed in advertisements


def npi(value: str) -> str | None:
    """US national provider identifier: Luhn with the prefix of the United States' health sector."""
    digits = squeezed(value)
    return digits if luhn.is_valid("80840" + digits) and len(set(digits)) > 1 else None


def aba(value: str) -> str | None:
    """US routing number."""
    digits = squeezed(value)
    prefix = int(digits[:2])
    if not (prefix <= 12 or 21 <= prefix <= 32 or 61 <= prefix <= 72 or prefix == 80):
        return None
    weighted = sum(int(digit) * weight for digit, weight in zip(digits, (3, 7, 1) * 3, strict=True))
    return digits if weighted % 10 == 0 and len(set(digits)) > 1 else None


def aadhaar(value: str) -> str | None:
    """Indian Aadhaar: Verhoeff, and no palindrome."""
    digits = squeezed(value)
    return digits if verhoeff.is_valid(digits) and digits != digits[::-1] else None


def verhoeff_digits(value: str) -> str | None:
    """Verhoeff's check digit."""
    digits = squeezed(value)
    return digits if verhoeff.is_valid(digits) and len(set(digits)) > 1 else None


def icao(value: str) -> str | None:
    """Document number of a passport or an identity card with its check digit (ICAO 9303: weights 7, 3, 1)."""
    compact = squeezed(value)
    body, check = compact[:-1], compact[-1]
    total = sum(int(char, 36) * (7, 3, 1)[place % 3] for place, char in enumerate(body))
    return compact if check.isdigit() and total % 10 == int(check) else None


def de_health(value: str) -> str | None:
    """German health insurance number: Luhn over the letter's place in the alphabet and the digits."""
    compact = squeezed(value)
    digits = f"{ord(compact[0]) - 64:02}{compact[1:]}"
    total = 0
    for place, digit in enumerate(digits[:-1]):
        product = int(digit) * (1 + place % 2)
        total += product // 10 + product % 10
    return compact if total % 10 == int(digits[-1]) else None


def de_social_security(value: str) -> str | None:
    """German pension insurance number."""
    compact = squeezed(value)
    digits = f"{compact[:8]}{ord(compact[8]) - 64:02}{compact[9:]}"
    total = 0
    for digit, weight in zip(digits[:-1], (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1), strict=True):
        product = int(digit) * weight
        total += product // 10 + product % 10
    return compact if total % 10 == int(digits[-1]) and 1 <= int(compact[4:6]) <= 12 else None


def de_lanr(value: str) -> str | None:
    """German physician number."""
    digits = squeezed(value)
    total = sum(int(digit) * (4, 9)[place % 2] for place, digit in enumerate(digits[:6]))
    return digits if (10 - total % 10) % 10 == int(digits[6]) and len(set(digits[:7])) > 1 else None


def fi_identity(value: str) -> str | None:
    """Finnish personal identity code, with the signs of the century that 2023 brought."""
    compact = value.upper()
    number = int(compact[:6] + compact[7:10])
    if "0123456789ABCDEFHJKLMNPRSTUVWXY"[number % 31] != compact[10]:
        return None
    return compact if dated(compact[4:6] + compact[2:4] + compact[:2]) else None


def kr_residence(value: str) -> str | None:
    """South Korean registration number: since 2020 it has no check digit, but it begins with a date of birth."""
    digits = squeezed(value)
    return digits if dated(digits[:6]) else None


def kr_checked(value: str) -> str | None:
    """The same with the check digit of those before 2020."""
    digits = squeezed(value)
    total = sum(
        int(digit) * weight for digit, weight in zip(digits, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5), strict=False)
    )
    return digits if (11 - total % 11) % 10 == int(digits[12]) and dated(digits[:6]) else None


def kr_business(value: str) -> str | None:
    """South Korean business number."""
    digits = squeezed(value)
    total = sum(int(digit) * weight for digit, weight in zip(digits, (1, 3, 7, 1, 3, 7, 1, 3, 5), strict=False))
    total += int(digits[8]) * 5 // 10
    return digits if (10 - total % 10) % 10 == int(digits[9]) and len(set(digits)) > 1 else None


def mostly_digits(value: str) -> str | None:
    """Refuse what may be a word."""
    compact = squeezed(value)
    return compact if sum(char.isdigit() for char in compact) * 2 > len(compact) else None


def sg_nric(value: str) -> str | None:
    """Singaporean NRIC or FIN."""
    compact = squeezed(value)
    kind, digits, check = compact[0], compact[1:8], compact[8]
    total = sum(int(digit) * weight for digit, weight in zip(digits, (2, 7, 6, 5, 4, 3, 2), strict=True))
    total += {"T": 4, "G": 4, "M": 3}.get(kind, 0)
    letters = {"S": "JZIHGFEDCBA", "T": "JZIHGFEDCBA", "F": "XWUTRQPNMLK", "G": "XWUTRQPNMLK", "M": "XWUTRQPNJLK"}[kind]
    place = total % 11
    return compact if letters[10 - place if kind == "M" else place] == check else None


def au_medicare(value: str) -> str | None:
    """Australian Medicare number."""
    digits = squeezed(value)
    total = sum(int(digit) * weight for digit, weight in zip(digits, (1, 3, 7, 9, 1, 3, 7, 9), strict=False))
    return digits if total % 10 == int(digits[8]) else None


def dated(digits: str) -> bool:
    """Tell whether `yymmdd` is a day of some century."""
    try:
        dt.date(2000 + int(digits[:2]), int(digits[2:4]), int(digits[4:6]))
    except ValueError:
        return False
    return True


def bitcoin(value: str) -> str | None:
    """Bitcoin address: Base58Check (bech32 is python-stdnum's)."""
    number = 0
    for char in value:
        place = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz".find(char)
        if place < 0:
            return None
        number = number * 58 + place
    if number >= 1 << 200:
        return None
    raw = number.to_bytes(25, "big")
    checksum = hashlib.sha256(hashlib.sha256(raw[:-4]).digest()).digest()[:4]
    return value if raw[-4:] == checksum else None
