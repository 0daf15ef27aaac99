"""Texts made to keep a scanner busy: nothing but places where personal data might be, of each kind and between its words."""

import base64
import json
import random
from collections.abc import Iterator
from itertools import permutations
from typing import Final, NamedTuple

from inferwatch_collectors.privacy.base import Entity
from inferwatch_collectors.privacy.entities import ALL

# Each entity with what its pattern matches again and again. `#` is a digit, another one each time, so that nothing can
# be remembered; most have wrong check digits then, and each is looked at.
NEAR: Final[dict[str, tuple[str, ...]]] = {
    "PRIVATE_KEY": ("-----BEGIN PRIVATE KEY----- ", "-----BEGIN PRIVATE KEY-----a-b-c", "-----BEGIN RSA PRIVATE KEY-----\n#-"),
    "SECRET": (
        "sk-################ ", "-eyJaaaaaaaa-AKIAAAAAAAAAAAAAAAAA-", "eyJaaaaaaaa.eyJaaaaaaaa.#########-AKIA################ ",
        "password=a###aaa ", "secret: secret: aaaaaa", "bearer aaaaaaaaaaaaaaaa ", "?key=####aaaa", "?key=?key=#", "&token=######",
    ),
    "URL_CREDENTIALS": ("ftp://a:b@c ", "https://a:#@h/", "https://a:https://a:#@"),
    "EMAIL": ("a@b.cc ", "a#%40b.cc", "a@b.cc@", "a@" + "b" * 60 + ".cc-"),
    "IBAN": ("DE## #### #### #### #### ## ", "GB##NWBK############## ", "AB12 ####"),
    "CREDIT_CARD": ("4### #### #### #### ", "4############### ", "#### ", "#############################"),
    "CRYPTO": ("1BvBMSEYstWetqTFn5Au4m4GFg7xJaN### ", "bc1q#############", "bc1qaaaaaaaaa### ", "0x" + "a" * 40 + " "),
    "IP_ADDRESS": ("1.2.3.# ", "1.2.3.999 ", "#.#.", "::# ", "a:b:c:d:e:f:a:# ", "#::"),
    "MAC_ADDRESS": ("00:11:22:33:4#:## ", "##-##-##-##-##-## ", "##:"),
    "PHONE": (
        "+1########## ", "+############ ", "0######### ", "####### ", "###-###-#### ", "(0##) ### #### ", "# ", "## ",
        "#/", "(#", "+#", "+## ## ", "##########-", "8## ### ###.", "## # ## ", "+## (0)# ### ### ## ", "## (0)",
    ),
    "DATE_OF_BIRTH": ("#.#.19## ", "19##-0#-0# ", "1# march 19##"),
    "STREET_ADDRESS": ("## a street ", "# a a a a ", "hauptstraße # ", "# rue a a a ", "calle a a a a # ", "a" * 28 + "weg "),
    "DATE": ("0#/0#/19## ",),
    "URL": ("https://a#b ",),
    "US_SSN": ("###-##-#### ", "### ## #### "),
    "US_ITIN": ("9##-7#-#### ",),
    "US_NPI": ("1######### ",),
    "US_MBI": ("1AA0-AA0-AA## ",),
    "ABA_ROUTING_NUMBER": ("1######## ",),
    "CA_SIN": ("4## ### ### ",),
    "UK_NHS": ("### ### #### ",),
    "UK_NINO": ("AB ## ## ## C ",),
    "UK_DRIVING_LICENCE": ("AAAAA#01011#AAAA ", "MORGA70101#SM9IJ "),
    "UK_VEHICLE_REGISTRATION": ("AB1# CDE ",),
    "DE_TAX_ID": ("1# ### ### ### ",),
    "DE_TAX_NUMBER": ("##/###/##### ",),
    "DE_VAT_ID": ("DE######### ",),
    "DE_HANDELSREGISTER": ("HRB ##### ",),
    "DE_HEALTH_INSURANCE": ("A######### ",),
    "DE_SOCIAL_SECURITY": ("## ###### A ### ",),
    "DE_ID_CARD": ("L########" + " ",),
    "DE_PASSPORT": ("C######## ",),
    "DE_LANR": ("######### ",),
    "ES_NIF": ("########A ",),
    "ES_NIE": ("X#######A ",),
    "FI_PERSONAL_IDENTITY_CODE": ("######-###A ",),
    "FR_NIR": ("1 ## ## ## ### ### ## ",),
    "IT_FISCAL_CODE": ("RSSMRA8#A0#H5#1A ",),
    "IT_VAT_CODE": ("########### ",),
    "IT_DRIVER_LICENSE": ("AB#######C ",),
    "NL_BSN": ("1######## ",),
    "BE_NN": ("##.##.##-###.## ",),
    "PL_PESEL": ("8########## ",),
    "SE_PERSONNUMMER": ("######-#### ",),
    "SE_ORGANISATIONSNUMMER": ("##5###-#### ",),
    "AU_ABN": ("## ### ### ### ",),
    "AU_ACN": ("### ### ### ",),
    "AU_TFN": ("### ### ## ",),
    "AU_MEDICARE": ("2### ##### # ",),
    "CN_RIC": ("1#####19##010##### ", "1#####1980010##### "),
    "IN_AADHAAR": ("2### #### #### ",),
    "IN_GSTIN": ("01AAAAA####A1Z# ",),
    "IN_PAN": ("AAAPA####A ",),
    "IN_VEHICLE_REGISTRATION": ("KA##AB#### ",),
    "IN_VOTER": ("ABC####### ",),
    "KR_BRN": ("###-##-##### ",),
    "KR_DRIVER_LICENSE": ("11-##-######-## ",),
    "KR_FRN": ("######-5###### ",),
    "KR_RRN": ("######-1###### ",),
    "KR_PASSPORT": ("M####5### ",),
    "SG_NRIC_FIN": ("S#######A ",),
    "SG_UEN": ("########A ",),
    "TH_TNIN": ("1-####-#####-##-# ",),
    "BR_CPF": ("###.###.###-## ",),
    "BR_CNPJ": ("##.###.###/####-## ",),
    "NG_NIN": ("########### ",),
    "NG_VEHICLE_REGISTRATION": ("ABC-###-DE ",),
    "TR_NATIONAL_ID": ("1########## ",),
    "TR_LICENSE_PLATE": ("34 AB #### ",),
    "ZA_ID_NUMBER": ("############# ",),
    "PASSPORT": ("C######## ",),
    "DRIVER_LICENSE": ("D######## ",),
}  # fmt: skip

# What patterns begin with and never end, and what makes a text be read once more.
FRAGMENTS: Final = (
    *("1", "12-", ":", "ab:", "a@", "a.", ".", "AB12 ", "1.1.", "eyJaaaaaaaa.", "eyJaaaaaaaa", "sk-", "-----BEGIN "),
    *(
        "https://a:",
        "password: ",
        "bearer ",
        "a",
        "a ",
        "é",
        "中 ",
        "a" * 40 + " ",
        "@a.",
        "a%40",
        "(",
        "::",
        "\\u0040",
    ),
    *("\\\\", "%", "%41", "%2525", '\\"', "YWFhYWFhYWFhYWFh ", "YW5uQGV4YW1wbGUuY29t a@b.cc "),
)

_DIGITS: Final = bytes(48 + byte % 10 for byte in range(256))


class WorstCase(NamedTuple):
    """A text of any length."""

    name: str
    unit: str  # said again and again, with other digits

    def text(self, size: int) -> str:
        """Return it with `size` characters, the same ones each time."""
        chance = random.Random(self.name)
        whole = (self.unit * (size // len(self.unit) + 1))[:size]
        if "#" not in whole:
            return whole
        digits = iter(chance.randbytes(size).translate(_DIGITS).decode())
        return "".join(next(digits) if char == "#" else char for char in whole)


def worst_cases() -> Iterator[WorstCase]:
    """Yield each text."""
    for fragment in FRAGMENTS:
        yield WorstCase(f"fragment {fragment[:16]!r}", fragment)
    for name, units in NEAR.items():
        for unit in units:
            yield WorstCase(f"{name} {unit[:24]!r}", unit)
    for entities in batched([entity for entity in ALL if entity.words], 10):
        names = " ".join(entity.name for entity in entities)
        yield WorstCase(f"words: {names}", "".join(map(between_words, entities)))
    every = "".join(unit for units in NEAR.values() for unit in units)
    yield WorstCase("all of them", every)
    yield WorstCase("all of them, in JSON in JSON", json.dumps(json.dumps(every + "é\n")))
    yield WorstCase("all of them, in base64", base64.b64encode(every.encode()).decode() + " ")


def batched(entities: list[Entity], size: int) -> Iterator[list[Entity]]:
    """Yield them in groups."""
    for start in range(0, len(entities), size):
        yield entities[start : start + size]


def between_words(entity: Entity) -> str:
    """Return near matches between each pair of an entity's words, in either order."""
    unit = NEAR[entity.name][0]
    words = entity.words if len(entity.words) > 1 else (*entity.words, *entity.words)
    return "".join(f"{one} {unit}{other} " for one, other in permutations(words, 2))
