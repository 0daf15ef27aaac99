"""National numbers: identity, tax, health, licences, plates. A row each; the check digits are python-stdnum's or ours.

Most of them are nine to thirteen digits, of which one in ten has the right check digit by chance. Such a row is
`CONTEXT`: it needs a word beside it, or must be all there is of its text, as the value of a form's field is.
"""

import re
from collections.abc import Iterator
from typing import Final

from stdnum.au import abn, acn, tfn
from stdnum.be import nn as be_nn
from stdnum.br import cnpj as br_cnpj
from stdnum.br import cpf as br_cpf
from stdnum.ca import sin as ca_sin
from stdnum.cn import ric as cn_ric
from stdnum.de import idnr as de_idnr
from stdnum.es import dni as es_dni
from stdnum.es import nie as es_nie
from stdnum.fr import nir as fr_nir
from stdnum.gb import nhs as gb_nhs
from stdnum.it import codicefiscale as it_codicefiscale
from stdnum.it import iva as it_iva
from stdnum.nl import bsn as nl_bsn
from stdnum.pl import pesel as pl_pesel
from stdnum.se import orgnr as se_orgnr
from stdnum.se import personnummer as se_personnummer
from stdnum.sg import uen as sg_uen
from stdnum.th import pin as th_pin
from stdnum.tr import tckimlik as tr_tckimlik
from stdnum.za import idnr as za_idnr

from inferwatch_collectors.privacy import checks
from inferwatch_collectors.privacy.base import Entity, Tier, never, taken

_CHECKED: Final = Tier.CHECKED
_SHAPED: Final = Tier.SHAPED
_CONTEXT: Final = Tier.CONTEXT


_SEPARATORS: Final = frozenset(" -./:")


def separated(value: str) -> bool:
    """Tell whether a number is written in groups, as people write it and counters do not."""
    return not _SEPARATORS.isdisjoint(value)


# A bracket of a group or a flag, an escape, a class, or anything else.
_TOKEN: Final = re.compile(r"\(\?[a-z]*[:)]|\\.|\[(?:\\.|[^\]])+\]|.")


def separated_pattern(pattern: str) -> str:
    """Return what matches those of `pattern`'s matches that are `separated`: with one of its separators for certain."""
    flags = "(?i)" if pattern.startswith("(?i)") else ""
    found: list[str] = []
    for alternative in _alternatives(_TOKEN.findall(pattern.removeprefix(flags))):
        for place, token in enumerate(alternative):
            signs = token.strip("\\[]")
            if separated(signs) and not any(char.isalnum() or char == "(" for char in signs):
                behind = alternative[place + 1 :]
                found.append("".join((*alternative[: place + 1], *(behind[1:] if behind[:1] == ["?"] else behind))))
    return flags + "|".join(dict.fromkeys(found))


def _alternatives(tokens: list[str]) -> Iterator[list[str]]:
    """Yield what stands between bars that are in no group."""
    begins = depth = 0
    for place, token in enumerate([*tokens, "|"]):
        depth += token.startswith("(")
        depth -= token == ")"  # noqa: S105 - of a pattern
        if token == "|" and not depth:  # noqa: S105 - as above
            yield tokens[begins:place]
            begins = place + 1


_INDIAN_STATES: Final = (
    "AN|AP|AR|AS|BR|CG|CH|DD|DL|DN|GA|GJ|HP|HR|JH|JK|KA|KL|LA|LD|MH|ML|MN|MP|MZ|NL|OD|OR|PB|PY|RJ|SK|TN|TR|TS|UK|UP|WB"
)

NORTH_AMERICA: Final = (
    Entity(
        "US_SSN",
        r"\b\d{3}-\d{2}-\d{4}\b|\b\d{3} \d{2} \d{4}\b|\b\d{3}\.\d{2}\.\d{4}\b|\b\d{9}\b",
        checks.ssn,
        _CONTEXT,
        ("ssn", "social security", "social-security", "socialsecurity"),
        separated,
    ),
    Entity(
        "US_ITIN",
        r"\b9\d{2}[- ]?(?:5\d|6[0-5]|7\d|8[0-8]|9[0-24-9])[- ]?\d{4}\b",
        taken,
        _CONTEXT,
        ("itin", "taxpayer", "tax id", "individual tax"),
        separated,
    ),
    Entity(
        "US_NPI",
        r"\b[12]\d{9}\b",
        checks.npi,
        _CONTEXT,
        ("npi", "national provider", "provider"),
    ),
    Entity(
        "US_MBI",
        r"(?i)\b[1-9][AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y0-9]\d-?[AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y0-9]\d-?"
        r"[AC-HJKMNP-RT-Y]{2}\d{2}\b",
        taken,
        _CONTEXT,
        ("mbi", "medicare", "beneficiary"),
        separated,
    ),
    Entity(
        "ABA_ROUTING_NUMBER",
        r"\b[0-8]\d{3}-?\d{4}-?\d\b",
        checks.aba,
        _CONTEXT,
        ("aba", "routing", "rtn", "bank"),
    ),
    Entity(
        "CA_SIN",
        r"\b[1-79]\d{2}[- ]?\d{3}[- ]?\d{3}\b",
        checks.both(checks.by(ca_sin), checks.not_uniform),
        _CONTEXT,
        ("sin", "social insurance", "nas", "assurance sociale"),
    ),
)

BRITAIN: Final = (
    Entity(
        "UK_NHS",
        r"\b\d{3}[- ]?\d{3}[- ]?\d{4}\b",
        checks.both(checks.by(gb_nhs), checks.not_uniform),
        _CONTEXT,
        ("nhs", "national health", "health service", "patient"),
    ),
    Entity(
        "UK_NINO",
        r"(?i)\b(?:[ACEHJLMOPRSWXY][A-CEGHJ-NPR-TW-Z]|B[A-CEHJ-NPR-TW-Z]|G[ACEGHJ-NPR-TW-Z]|[KT][A-CEGHJ-MPR-TW-Z]|"
        r"N[A-CEGHJL-NPR-SW-Z]|Z[A-CEGHJ-NPR-TW-Y]) ?\d{2} ?\d{2} ?\d{2} ?[A-D]\b",
        taken,
        _SHAPED,
        ("national insurance", "nino", "ni number"),
    ),
    Entity(
        "UK_DRIVING_LICENCE",
        r"(?i)\b[A-Z]{2,5}9{0,3}\d(?:[05][1-9]|[16][0-2])(?:0[1-9]|[12]\d|3[01])\d[A-Z9]{2}[A-Z0-9]{3}\b",
        lambda value: taken(value) if len(value) == 16 else None,
        _SHAPED,
        ("driving", "licence", "license", "dvla"),
    ),
    Entity(
        "UK_VEHICLE_REGISTRATION",
        r"\b[A-HJ-PR-Y][A-HJ-PR-Y](?:0[2-9]|[1-7]\d) ?[A-HJ-PR-Z]{3}\b",
        taken,
        _CONTEXT,
        ("vehicle", "car", "reg", "plate", "van", "number plate"),
    ),
)

GERMANY: Final = (
    Entity(
        "DE_TAX_ID",
        r"\b[1-9]\d ?\d{3} ?\d{3} ?\d{3}\b",
        checks.by(de_idnr),
        _CONTEXT,
        ("steuer", "identifikationsnummer", "idnr", "tin", "tax"),
    ),
    Entity(
        "DE_TAX_NUMBER",
        r"\b\d{2,3}/\d{3,4}/\d{4,5}\b|\b(?:0[1-9]|1[0-6])\d{11}\b",
        taken,
        _CONTEXT,
        ("steuernummer", "st.-nr", "stnr", "finanzamt"),
    ),
    Entity("DE_VAT_ID", r"\bDE[ -]?\d{3}[ .-]?\d{3}[ .-]?\d{3}\b", taken, _SHAPED, ("ust", "umsatzsteuer", "vat")),
    Entity("DE_HANDELSREGISTER", r"\bHR[AB] ?\d{1,6}\b", taken, _SHAPED, ("handelsregister",)),
    Entity(
        "DE_HEALTH_INSURANCE",
        r"(?i)\b[A-Z]\d{9}\b",
        checks.de_health,
        _CONTEXT,
        ("krankenvers", "versicherten", "egk", "kvnr", "gesundheitskarte"),
    ),
    Entity(
        "DE_SOCIAL_SECURITY",
        r"(?i)\b\d{2} ?\d{6} ?[A-Z] ?\d{3}\b",
        checks.de_social_security,
        _CHECKED,
        ("rentenvers", "sozialvers", "rvnr", "svnr"),
        rescan=True,
    ),
    Entity(
        "DE_ID_CARD",
        r"(?i)\b[CFGHJKLMNPRTVWXYZ][0-9CFGHJKLMNPRTVWXYZ]{7}\d\b",
        checks.mostly_digits,
        _CONTEXT,
        ("ausweis", "personalausweis", "identity card", "id card"),
    ),
    Entity(
        "DE_PASSPORT",
        r"(?i)\b[CFGHJK][0-9CFGHJKLMNPRTVWXYZ]{7}\d\b",
        checks.icao,
        _CONTEXT,
        ("pass", "reisepass"),
    ),
    Entity("DE_LANR", r"\b\d{9}\b", checks.de_lanr, _CONTEXT, ("lanr", "arztnummer", "arzt")),
)

EUROPE: Final = (
    Entity(
        "ES_NIF", r"(?i)\b\d{7,8}-?[A-Z]\b", lambda value: checks.by(es_dni)(value.zfill(9)), _CHECKED, ("nif", "dni")
    ),
    Entity("ES_NIE", r"(?i)\b[XYZ]-?\d{7}-?[A-Z]\b", checks.by(es_nie), _CHECKED, ("nie",)),
    Entity(
        "FI_PERSONAL_IDENTITY_CODE",
        r"(?i)\b\d{6}[-+A-FU-Y]\d{3}[0-9A-FHJ-NPR-Y]\b",
        checks.fi_identity,
        _CHECKED,
        ("henkilötunnus", "hetu"),
    ),
    Entity(
        "FR_NIR",
        r"\b[12] ?\d{2} ?\d{2} ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}\b",
        checks.by(fr_nir),
        _CHECKED,
        ("sécurité sociale", "nir"),
    ),
    Entity(
        "IT_FISCAL_CODE",
        r"(?i)\b[A-Z]{6}[0-9LMNPQRSTUV]{2}[A-EHLMPRST][0-9LMNPQRSTUV]{2}[A-Z][0-9LMNPQRSTUV]{3}[A-Z]\b",
        checks.by(it_codicefiscale),
        _CHECKED,
        ("codice fiscale",),
    ),
    Entity(
        "IT_VAT_CODE",
        r"\b\d{11}\b",
        checks.both(checks.by(it_iva), checks.not_uniform),
        _CONTEXT,
        ("iva", "p.iva", "vat"),
    ),
    Entity(
        "IT_DRIVER_LICENSE", r"(?i)\b(?:[A-Z]{2}\d{7}[A-Z]|U1[A-Z0-9]{7}[A-Z])\b", taken, _CONTEXT, ("patente", "guida")
    ),
    Entity(
        "NL_BSN", r"\b\d{9}\b", checks.both(checks.by(nl_bsn), checks.not_uniform), _CONTEXT, ("bsn", "burgerservice")
    ),
    Entity(
        "BE_NN",
        r"\b\d{2}[.]?\d{2}[.]?\d{2}[- ]?\d{3}[.]?\d{2}\b",
        checks.by(be_nn),
        _CONTEXT,
        ("rijksregister", "registre national", "niss", "insz"),
        separated,
    ),
    Entity("PL_PESEL", r"\b\d{11}\b", checks.by(pl_pesel), _CONTEXT, ("pesel",)),
    Entity(
        "SE_PERSONNUMMER",
        r"\b(?:1[89]|20)?\d{6}[-+]?\d{4}\b",
        checks.by(se_personnummer),
        _CONTEXT,
        ("personnummer", "pnr", "personal identity", "samordningsnummer"),
        separated,
    ),
    Entity(
        "SE_ORGANISATIONSNUMMER",
        r"\b\d{2}[2-9]\d{3}-?\d{4}\b",
        checks.by(se_orgnr),
        _CONTEXT,
        ("organisationsnummer", "orgnr", "orgnummer"),
        separated,
    ),
)

ASIA_AND_PACIFIC: Final = (
    Entity(
        "AU_ABN",
        r"\b\d{2}[ ]?\d{3} ?\d{3} ?\d{3}\b",
        checks.both(checks.by(abn), checks.not_uniform),
        _CONTEXT,
        ("abn", "business number"),
        separated,
    ),
    Entity(
        "AU_ACN",
        r"\b\d{3} ?\d{3} ?\d{3}\b",
        checks.both(checks.by(acn), checks.not_uniform),
        _CONTEXT,
        ("acn", "company number"),
    ),
    Entity(
        "AU_TFN",
        r"\b\d{3} ?\d{3} ?\d{2,3}\b",
        checks.both(checks.by(tfn), checks.not_uniform),
        _CONTEXT,
        ("tfn", "tax file"),
    ),
    Entity("AU_MEDICARE", r"\b[2-6]\d{3} ?\d{5} ?\d\b", checks.au_medicare, _CONTEXT, ("medicare",)),
    Entity(
        "CN_RIC",
        r"\b[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01])\d{3}[0-9Xx]\b",
        checks.by(cn_ric),
        _CHECKED,
        ("身份证",),
    ),
    Entity(
        "IN_AADHAAR", r"\b[2-9]\d{3}[ :-]?\d{4}[ :-]?\d{4}\b", checks.aadhaar, _CONTEXT, ("aadhaar", "uidai", "aadhar")
    ),
    Entity(
        "IN_GSTIN",
        r"\b(?:0[1-9]|[12]\d|3[0-8])[A-Z]{5}\d{4}[A-Z][1-9A-Z]Z[0-9A-Z]\b",
        taken,
        _SHAPED,
        ("gstin", "gst"),
    ),
    Entity("IN_PAN", r"(?i)\b[A-Z]{5}\d{4}[A-Z]\b", taken, _CONTEXT, ("pan", "permanent account", "income tax")),
    Entity("IN_VEHICLE_REGISTRATION", rf"\b(?:{_INDIAN_STATES}) ?\d{{2}} ?[A-Z]{{1,2}} ?\d{{4}}\b", taken, _SHAPED),
    Entity("IN_VOTER", r"(?i)\b[A-Z]{3}\d{7}\b", taken, _CONTEXT, ("voter", "epic", "election")),
    Entity("KR_BRN", r"\b\d{3}-?\d{2}-?\d{5}\b", checks.kr_business, _CONTEXT, ("brn", "사업자"), separated),
    Entity(
        "KR_DRIVER_LICENSE",
        r"\b(?:1[1-9]|2[0-8])-?\d{2}-?\d{6}-?\d{2}\b",
        taken,
        _CONTEXT,
        ("운전면허", "면허", "driver", "license"),
        separated,
    ),
    Entity(
        "KR_FRN",
        r"\b\d{6}-?[5-8]\d{6}\b",
        checks.kr_residence,
        _CONTEXT,
        ("외국인", "frn", "foreigner"),
        separated,
    ),
    Entity(
        "KR_RRN",
        r"\b\d{6}-[1-4]\d{6}\b|\b\d{6}[1-4]\d{6}\b",
        lambda value: checks.kr_residence(value) if "-" in value else checks.kr_checked(value),
        _CONTEXT,
        ("주민등록", "rrn", "resident registration"),
        separated,
    ),
    Entity("KR_PASSPORT", r"(?i)\b[MSRODG]\d{3}[0-9A-Z]\d{4}\b", taken, _CONTEXT, ("passport", "여권")),
    Entity("SG_NRIC_FIN", r"(?i)\b[STFGM]\d{7}[A-Z]\b", checks.sg_nric, _CHECKED, ("nric", "fin")),
    Entity("SG_UEN", r"(?i)\b(?:\d{8,9}[A-Z]|[TSR]\d{2}[A-Z]{2}\d{4}[A-Z])\b", checks.by(sg_uen), _CHECKED, ("uen",)),
    Entity(
        "TH_TNIN",
        r"\b[1-8]-?\d{4}-?\d{5}-?\d{2}-?\d\b",
        checks.both(checks.by(th_pin), checks.not_uniform),
        _CONTEXT,
        ("thai", "บัตรประชาชน", "เลขประจำตัว", "tnin"),
        separated,
    ),
)

ELSEWHERE: Final = (
    Entity(
        "BR_CPF",
        r"\b\d{3}[.]?\d{3}[.]?\d{3}-?\d{2}\b",
        checks.both(checks.by(br_cpf), checks.not_uniform),
        _CONTEXT,
        ("cpf",),
        separated,
    ),
    Entity("BR_CNPJ", r"\b\d{2}[.]?\d{3}[.]?\d{3}/?\d{4}-?\d{2}\b", checks.by(br_cnpj), _CONTEXT, ("cnpj",), separated),
    Entity("NG_NIN", r"\b\d{11}\b", checks.verhoeff_digits, _CONTEXT, ("nin", "national identification", "nigeria")),
    Entity(
        "NG_VEHICLE_REGISTRATION",
        r"(?i)\b[A-Z]{3}-?\d{3}-?[A-Z]{2}\b",
        taken,
        _CONTEXT,
        ("plate", "vehicle", "registration"),
        lambda value: "-" in value and value.isupper(),
    ),
    Entity(
        "TR_NATIONAL_ID", r"\b[1-9]\d{10}\b", checks.by(tr_tckimlik), _CONTEXT, ("tc", "tckn", "kimlik", "turkish id")
    ),
    Entity(
        "TR_LICENSE_PLATE",
        r"(?i)\b(?:0[1-9]|[1-7]\d|8[01]) ?[A-Z]{1,3} ?\d{2,5}\b",
        taken,
        _CONTEXT,
        ("plaka", "plate", "araç"),
    ),
    Entity(
        "ZA_ID_NUMBER",
        r"\b\d{13}\b",
        checks.by(za_idnr),
        _CONTEXT,
        ("south african", "id number", "rsa id", "identity"),
    ),
    Entity(
        "PASSPORT",
        r"\b[A-Z]{0,3}\d{6,9}[A-Z]?\b",
        taken,
        _CONTEXT,
        ("passport", "passeport", "pasaporte", "passaporto", "reisepass"),
        alone=never,
    ),
    Entity(
        "DRIVER_LICENSE",
        r"\b[A-Z]{1,2}\d{5,12}[A-Z]?\b",
        taken,
        _CONTEXT,
        ("driver", "driving licen", "fahrerlaubnis", "führerschein", "permis de conduire"),
        alone=never,
    ),
)

# Above telephone numbers, which many of them could be, too.
_RANK: Final = 3

NATIONAL: Final = tuple(
    entity._replace(rank=_RANK, sure_pattern=separated_pattern(entity.pattern) if entity.sure is separated else "")
    for part in (NORTH_AMERICA, BRITAIN, GERMANY, EUROPE, ASIA_AND_PACIFIC, ELSEWHERE)
    for entity in part
)
