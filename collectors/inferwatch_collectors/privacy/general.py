"""What is personal everywhere: addresses of mail and machines, telephones, money, secrets, births, homes.

Secrets are here, too: a key in a prompt is not a person, but it lets others be one.
"""

import re
from typing import Final

from stdnum import bitcoin

from inferwatch_collectors.privacy import checks, phones
from inferwatch_collectors.privacy.base import Entity, Tier, never, squeezed, taken

_CHECKED: Final = Tier.CHECKED
_SHAPED: Final = Tier.SHAPED
_CONTEXT: Final = Tier.CONTEXT

_LETTER: Final = r"[A-Za-z0-9\x{00C0}-\x{10FFFF}]"

# Bounds of lengths are left out wherever a match is never looked at twice: counters are what makes automata large.
EMAIL: Final = (
    r"[A-Za-z0-9._%+'\x{00C0}-\x{10FFFF}-]+(?:@|%40)"
    rf"(?:{_LETTER}(?:[A-Za-z0-9\x{{00C0}}-\x{{10FFFF}}-]*{_LETTER})?\.)+"
    r"(?:xn--[A-Za-z0-9-]{2,59}|[A-Za-z\x{00C0}-\x{10FFFF}]{2,24})"
)

_IBAN: Final = r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}\b|\b[a-z]{2}\d{2}(?:[ -]?[a-z0-9]){11,30}\b"

_IPV6: Final = r"[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}(?:(?:\.\d{1,3}){3})?(?:%[0-9A-Za-z]{1,16})?(?:/\d{1,3})?"

_MAC: Final = (
    r"\b[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}\b|\b[0-9A-Fa-f]{2}(?:-[0-9A-Fa-f]{2}){5}\b|"
    r"\b[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\b"
)

# Issuers mark their keys so that they can be found.
_MARKED_SECRETS: Final = (
    r"\b(?:sk-(?:ant-|proj-|svcacct-|or-)?[A-Za-z0-9_-]{16,}|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{30,}|"
    r"github_pat_[A-Za-z0-9_]{22,}|glpat-[A-Za-z0-9_-]{20,}|xox[abeoprs]-[A-Za-z0-9-]{10,}|"
    r"AIza[A-Za-z0-9_-]{35}|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{16,}|"
    r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}|[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|"
    r"whsec_[A-Za-z0-9+/=]{16,}|dop_v1_[a-f0-9]{64}|shpat_[a-fA-F0-9]{32})"
)

# By itself: while it waits for its dots, it would be looked for again to the end of the text behind each of the others.
_JWT: Final = r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"

_PRIVATE_KEY: Final = (
    r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:[^-]|-[^-])*(?:-----END [A-Z0-9 ]{0,32}-----)?"
)

_ASSIGNMENT: Final = (
    r"(?i)\b(?:password|passwd|passphrase|passwort|pwd|secret|api[_ -]?key|access[_ -]?key|auth[_ -]?token|"
    r"access[_ -]?token|client[_ -]?secret|private[_ -]?key)\b[\"']?\s{0,3}(?:[:=]|is\b)\s{0,3}[\"']?"
    r"([^\s\"'<>(){}\[\],;]{6,})"
)

_BEARER: Final = r"(?i)\b(?:bearer|basic)\s{1,3}([A-Za-z0-9._~+/=-]{16,})"

_CREDENTIALS: Final = r"(?i)\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>]*:[^\s/@\"'<>]+@[^\s\"'<>/]+(?:/[^\s\"'<>]*)?"

_QUERY: Final = (
    r"(?i)[?&](?:api_?key|key|token|access_token|auth|sig|signature|password|secret|code|session(?:id)?|email)="
    r"([^\s&#\"'<>]{6,})"
)

_MONTH: Final = (
    r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|januar|februar|märz|mai|juni|juli|oktober|dezember|"
    r"enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre|"
    r"janvier|février|mars|avril|juin|juillet|août|septembre|octobre|novembre|décembre)[a-z]{0,7}\.?"
)

DATE: Final = (
    r"\b(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:Z|[+-]\d{2}:?\d{2})?)?|"
    r"\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})|"
    rf"(?i:\d{{1,2}}(?:st|nd|rd|th|\.)?[ -](?:of |de )?{_MONTH},?[ -](?:de )?\d{{4}}|"
    rf"{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}}))\b"
)

_BIRTH: Final = (
    *("born", "birth", "dob", "d.o.b", "birthday", "geboren", "geburts", "geb.", "né le", "née le", "naissance"),
    *(
        "nacid",
        "nacim",
        "nato il",
        "nata il",
        "nascita",
        "nascid",
        "nascimento",
        "doğum",
        "urodz",
        "född",
        "出生",
        "生年",
    ),
)

_STREET: Final = (
    r"(?i)\b\d{1,5}[a-z]?,? (?:(?:n|s|e|w|ne|nw|se|sw|north|south|east|west)\.? )?"
    r"(?:(?:[a-z\x{00C0}-\x{024F}][a-z0-9'.\x{00C0}-\x{024F}-]{0,23}|\d{1,3}(?:st|nd|rd|th)) ){1,4}"
    r"(?:street|st|avenue|ave|road|rd|boulevard|blvd|lane|ln|drive|dr|court|ct|place|pl|terrace|way|square|sq|"
    r"parkway|pkwy|crescent|close|highway|hwy)\b\.?"
    r"|(?i:\b[a-z\x{00C0}-\x{024F}.-]{2,30}(?:straße|strasse|str\.|gasse|allee|platz|weg|ufer|damm) \d{1,4} ?[a-z]?\b)"
    r"|(?i:\b\d{1,4}(?: ?(?:bis|ter))?,? (?:rue|avenue|boulevard|place|chemin|impasse|quai|allée) "
    r"(?:[a-z'.\x{00C0}-\x{024F}-]{1,24} ?){1,5})"
    r"|(?i:\b(?:calle|avenida|avda\.|plaza|paseo|via|viale|piazza|corso) (?:[a-z'.\x{00C0}-\x{024F}-]{1,24},? ){1,5}"
    r"\d{1,4}\b)"
)

_ADDRESS: Final = (
    *("address", "live", "lives", "living", "reside", "moved to", "ship to", "deliver", "home", "house", "street"),
    *("adresse", "anschrift", "wohn", "straße", "dirección", "domicilio", "vivo", "vive", "indirizzo", "abito"),
    *(
        "j'habite",
        "habite",
        "adresse",
        "endereço",
        "moro",
        "mailing",
        "postal",
        "zip",
        "postcode",
        "postleitzahl",
        "plz",
    ),
)


def _wallet(value: str) -> str | None:
    if value.startswith("0x"):
        return value.lower()
    if value.lower().startswith("bc1"):
        return value.lower() if bitcoin.is_valid(value) else None
    return checks.bitcoin(value)


def _unlike_code(value: str) -> str | None:
    """Accept what somebody has typed as a password: not a word, not a name of a variable, not a placeholder."""
    if value.lower().startswith(("os.", "env.", "process.", "self.", "config.", "settings.", "$", "%", "*", "xxx")):
        return None
    has_digit = any(char.isdigit() for char in value)
    return value if has_digit and any(char.isalpha() for char in value) else None


def _email(value: str) -> str:
    local, _, domain = value.replace("%40", "@").rpartition("@")
    return f"{local}@{domain}".lower()  # no mail server tells upper from lower case


def _exact(value: str) -> str:
    return value


def _date(value: str) -> str | None:
    parts = [int(part) for part in re.findall(r"\d+", value)[:3]]
    return value if all(part > 0 for part in parts[:2]) and any(part <= 31 for part in parts) else None


GENERAL: Final = (
    Entity("PRIVATE_KEY", _PRIVATE_KEY, squeezed, _CHECKED, joined=True, rank=9),
    Entity("SECRET", _MARKED_SECRETS, _exact, _CHECKED, joined=True, rank=8),
    Entity("SECRET", _JWT, _exact, _CHECKED, joined=True, rank=8),
    Entity("SECRET", _ASSIGNMENT, _unlike_code, _SHAPED, joined=True, rank=7),
    Entity("SECRET", _BEARER, _unlike_code, _SHAPED, joined=True, rank=7),
    Entity("SECRET", _QUERY, _exact, _SHAPED, joined=True, rank=7),
    Entity("URL_CREDENTIALS", _CREDENTIALS, _exact, _SHAPED, joined=True, rank=8),
    Entity("EMAIL", EMAIL, _email, _CHECKED, joined=True, rank=6),
    Entity("IBAN", _IBAN, checks.iban, _CHECKED, rank=6, rescan=True),
    Entity(
        "CREDIT_CARD",
        r"\b\d{12,19}\b|\b\d{4}[ -]\d{4}[ -]\d{4}[ -]\d{1,7}\b|\b\d{4}[ -]\d{6}[ -]\d{4,5}\b",
        checks.card,
        _CHECKED,
        rank=5,
        rescan=True,
    ),
    Entity(
        "CRYPTO",
        r"\b(?:[13][1-9A-HJ-NP-Za-km-z]{25,34}|(?i:bc1[a-z0-9]{11,71})|0x[0-9a-fA-F]{40})\b",
        _wallet,
        _CHECKED,
        rank=6,
    ),
    Entity(
        "IP_ADDRESS", r"\b(?:\d{1,3}\.){3}\d{1,3}(?:/\d{1,2}\b)?", checks.ip, _CHECKED, joined=True, rank=3, rescan=True
    ),
    Entity("IP_ADDRESS", _IPV6, checks.ip, _CHECKED, rank=4),
    Entity("MAC_ADDRESS", _MAC, checks.mac, _CHECKED, rank=5),
    Entity(
        "PHONE",
        phones.PATTERN,
        phones.check,
        _CONTEXT,
        phones.WORDS,
        phones.sure,
        phones.SURE_PATTERN,
        phones.alone,
        rescan=True,
        shortest=phones.MIN_DIGITS,
        rank=2,
    ),
    Entity("DATE_OF_BIRTH", DATE, _date, _CONTEXT, _BIRTH, alone=never, rank=2),
    Entity(
        "STREET_ADDRESS",
        _STREET,
        lambda value: " ".join(value.upper().split()),
        _CONTEXT,
        _ADDRESS,
        alone=never,
        rescan=True,
        rank=1,
    ),
    Entity("DATE", DATE, _date, _SHAPED, joined=True, default=False),
    Entity("URL", r"(?i)\bhttps?://[^\s\"'<>]+", taken, _SHAPED, joined=True, default=False),
)
