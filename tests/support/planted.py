"""Forty kinds of personal data, a new value for each number, and the sentence in which somebody would say it."""

import base64
import hashlib
import ipaddress
import random
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from stdnum import luhn, verhoeff
from stdnum.au import abn
from stdnum.br import cpf
from stdnum.es import dni, nie
from stdnum.fr import nir
from stdnum.it import codicefiscale
from stdnum.pl import pesel
from stdnum.tr import tckimlik

_B58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_ALNUM: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

Make = Callable[[random.Random], str]


def _digits(chance: random.Random, count: int) -> str:
    return "".join(chance.choice("0123456789") for _ in range(count))


def _luhn(chance: random.Random, prefix: str, length: int) -> str:
    body = prefix + _digits(chance, length - 1 - len(prefix))
    return body + luhn.calc_check_digit(body)


def _iban(chance: random.Random, country: str, bban: str) -> str:
    turned = "".join(str(int(char, 36)) for char in bban + country + "00")
    return f"{country}{98 - int(turned) % 97:02}{bban}"


def _bitcoin(chance: random.Random) -> str:
    raw = b"\x00" + chance.randbytes(20)
    raw += hashlib.sha256(hashlib.sha256(raw).digest()).digest()[:4]
    number, text = int.from_bytes(raw, "big"), ""
    while number:
        number, place = divmod(number, 58)
        text = _B58[place] + text
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + text


def _token(chance: random.Random, prefix: str, length: int) -> str:
    return prefix + "".join(chance.choice(_ALNUM) for _ in range(length - 1)) + chance.choice("0123456789")


def _checked(chance: random.Random, draw: Make, valid: Callable[[str], bool]) -> str:
    while True:
        if valid(value := draw(chance)):
            return value


def _nhs(chance: random.Random) -> str:
    while True:
        body = "4" + _digits(chance, 8)
        check = 11 - sum(int(digit) * (10 - place) for place, digit in enumerate(body)) % 11
        if check != 10:
            return f"{body[:3]} {body[3:6]} {body[6:]}{check % 11}"


def _nric(chance: random.Random) -> str:
    body = _digits(chance, 7)
    total = sum(int(digit) * weight for digit, weight in zip(body, (2, 7, 6, 5, 4, 3, 2), strict=True))
    return f"S{body}{'JZIHGFEDCBA'[total % 11]}"


def _abn(chance: random.Random) -> str:
    body = _digits(chance, 9)
    return abn.format(abn.calc_check_digits(body) + body)


def _pesel(chance: random.Random) -> str:
    body = f"{chance.randrange(50, 99):02}{chance.randrange(1, 13):02}{chance.randrange(1, 29):02}{_digits(chance, 4)}"
    return body + pesel.calc_check_digit(body)


def _tckn(chance: random.Random) -> str:
    body = "1" + _digits(chance, 8)
    return body + tckimlik.calc_check_digits(body)


def _nir(chance: random.Random) -> str:
    body = f"1{chance.randrange(50, 99)}{chance.randrange(1, 13):02}75{_digits(chance, 6)}"
    return body + nir.calc_check_digits(body)


def _codice(chance: random.Random) -> str:
    body = "RSS" + "".join(chance.choice("BCDFGLMNPRST") for _ in range(3))
    body += f"{chance.randrange(50, 99)}A{chance.randrange(1, 29):02}H{_digits(chance, 3)}"
    return body + codicefiscale.calc_check_digit(body)


def _fi(chance: random.Random) -> str:
    day = f"{chance.randrange(1, 29):02}{chance.randrange(1, 13):02}{chance.randrange(50, 99)}"
    serial = f"{chance.randrange(2, 899):03}"
    return f"{day}-{serial}{'0123456789ABCDEFHJKLMNPRSTUVWXY'[int(day + serial) % 31]}"


def _se(chance: random.Random) -> str:
    body = f"{chance.randrange(50, 99)}{chance.randrange(1, 13):02}{chance.randrange(1, 29):02}{_digits(chance, 3)}"
    return f"{body[:6]}-{body[6:]}{luhn.calc_check_digit(body)}"


def _key(chance: random.Random) -> str:
    body = base64.b64encode(chance.randbytes(96)).decode()
    return f"-----BEGIN PRIVATE KEY-----\n{body[:64]}\n{body[64:]}\n-----END PRIVATE KEY-----"


def _street(chance: random.Random) -> str:
    name = "".join(chance.choice("abcdefghij") for _ in range(7)).title()
    return f"{chance.randrange(1, 9999)} {name} Street"


# kind -> (sentence, value)
KINDS: Final[dict[str, tuple[str, Make]]] = {
    "email": ("Write to {} please.", lambda c: f"ann.{_digits(c, 9)}@mail{_digits(c, 3)}.example.com"),
    "phone, international": ("Call {} tonight.", lambda c: f"+49 30 {c.randrange(2, 9)}{_digits(c, 7)}"),
    "phone, national": ("My phone is {}", lambda c: f"(415) {c.randrange(200, 999)}-{_digits(c, 4)}"),
    "visa": ("The card is {}.", lambda c: _luhn(c, "4", 16)),
    "mastercard, in groups": ("Pay with {}!", lambda c: " ".join(_grouped(_luhn(c, "5412", 16)))),
    "amex": ("Amex {} it is", lambda c: _luhn(c, "37", 15)),
    "iban, german": ("Account {}.", lambda c: _iban(c, "DE", "37040044" + _digits(c, 10))),
    "iban, in groups": ("To {} today", lambda c: " ".join(_grouped(_iban(c, "GB", "NWBK" + _digits(c, 14))))),
    "ipv4": ("I come from {}.", lambda c: str(ipaddress.IPv4Address(c.randrange(0x0B000000, 0xDF000000)))),
    "ipv6": ("and from {} too", lambda c: str(ipaddress.IPv6Address((0x20010DB8 << 96) | c.getrandbits(64)))),
    "mac": ("My MAC is {}", lambda c: ":".join(f"{b:02x}" for b in b"\x02" + c.randbytes(5))),
    "url with a password": ("see {} there", lambda c: f"https://ann:{_token(c, 'pw', 10)}@host.example/x"),
    "us ssn": ("SSN: {}.", lambda c: f"{c.randrange(100, 665)}-{c.randrange(10, 99)}-{c.randrange(1000, 9999)}"),
    "us npi": ("NPI {}", lambda c: _checked(c, lambda c: "1" + _digits(c, 9), lambda v: luhn.is_valid("80840" + v))),
    "uk nhs": ("NHS number {}", _nhs),
    "uk nino": (
        "national insurance {}.",
        lambda c: f"AB {c.randrange(10, 99)} {c.randrange(10, 99)} {c.randrange(10, 99)} C",
    ),
    "aadhaar": ("My Aadhaar is {}", lambda c: (b := "3" + _digits(c, 10)) + verhoeff.calc_check_digit(b)),
    "indian pan": ("PAN {}", lambda c: f"ABCP{c.choice('ABCDEFG')}{_digits(c, 4)}{c.choice('KLMNOP')}"),
    "australian abn": ("ABN {}", _abn),
    "singapore nric": ("NRIC {}", _nric),
    "italian fiscal code": ("codice fiscale {}", _codice),
    "spanish dni": ("DNI {}", lambda c: (b := _digits(c, 8)) + dni.calc_check_digit(b)),
    "spanish nie": ("NIE {}", lambda c: (b := "X" + _digits(c, 7)) + nie.calc_check_digit(b)),
    "polish pesel": ("PESEL {}", _pesel),
    "turkish id": ("TC kimlik {}", _tckn),
    "french nir": ("numéro {} de sécurité sociale", _nir),
    "finnish id": ("henkilötunnus {}", _fi),
    "swedish personnummer": ("personnummer {}", _se),
    "canadian sin": ("my SIN is {}", lambda c: _luhn(c, "4", 9)),
    "brazilian cpf": ("CPF {}", lambda c: _cpf(c)),
    "bitcoin": ("send it to {}", _bitcoin),
    "ethereum": ("or to {}", lambda c: "0x" + c.randbytes(20).hex()),
    "openai key": ("use {}", lambda c: _token(c, "sk-proj-", 40)),
    "aws key": ("aws {}", lambda c: "AKIA" + "".join(c.choice(_ALNUM[:26]) for _ in range(16))),
    "github token": ("git {}", lambda c: _token(c, "ghp_", 36)),
    "jwt": ("jwt {}", lambda c: f"eyJhbGciOiJIUzI1NiJ9.eyJ{_token(c, '', 24)}.{_token(c, '', 32)}"),
    "private key": ("here:\n{}\n", _key),
    "password": ("password: {}", lambda c: _token(c, "hunter", 12)),
    "date of birth": (
        "I was born on {}.",
        lambda c: f"{c.randrange(1, 29)}.{c.randrange(1, 13)}.{c.randrange(1940, 2005)}",
    ),
    "street": ("I live at {}, upstairs", _street),
}


def _grouped(text: str) -> list[str]:
    return [text[at : at + 4] for at in range(0, len(text), 4)]


def _cpf(chance: random.Random) -> str:
    body = _digits(chance, 9)
    return cpf.format(body + cpf._calc_check_digits(body))


def plant(kind: str, number: int) -> tuple[str, str]:
    """Return (value, sentence with it), the same for the same number."""
    sentence, make = KINDS[kind]
    value = make(random.Random(f"{kind}/{number}"))
    return value, sentence.format(value)


def forms(value: str) -> set[bytes]:
    """Return the bytes in which `value` could stand in a sink."""
    raw = value.encode()
    escaped = "".join(char if char.isalnum() else f"\\u{ord(char):04x}" for char in value)
    found = {raw, quote(value, safe="").encode(), quote(value).encode(), escaped.encode(), raw.replace(b"\n", b"\\n")}
    # Three alignments: base64 of a longer text holds the value at any of them; the ends depend on its neighbours.
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw)
        found.add(encoded[4 if shift else 0 : len(encoded) - 4])
    return found
