"""What is found in a text, what is left alone, and that no text makes it slow or unsafe."""

import re
from itertools import pairwise

import noise
import planted
import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from inferwatch_collectors.privacy.base import Entity, Tier, taken
from inferwatch_collectors.privacy.entities import ALL, NAMES, chosen
from inferwatch_collectors.privacy.national import separated_pattern
from inferwatch_collectors.privacy.scanner import LOOKS_AT_ONCE, Scanner, ScanTimeoutError

FOUND = [
    ("EMAIL", "mail ann@example.com, please", "ann@example.com"),
    ("EMAIL", "a@xn--d1acufc.xn--p1ai", "a@xn--d1acufc.xn--p1ai"),
    ("EMAIL", "q=bob%40example.com&x=1", "bob%40example.com"),
    ("EMAIL", "schreib jürgen@müller.de", "jürgen@müller.de"),
    ("PHONE", "(415) 555-0132", "(415) 555-0132"),
    ("PHONE", "call me: 4155550132", "4155550132"),
    ("PHONE", "ring +44 20 7123 4567 now", "+44 20 7123 4567"),
    ("PHONE", "bel +31 (0)6 12345678, graag", "+31 (0)6 12345678"),
    ("PHONE", "le +33 (0)6 12 34 56 78 ce soir", "+33 (0)6 12 34 56 78"),
    ("PHONE", "le +33 (0)1 42 68 53 00 ce soir", "+33 (0)1 42 68 53 00"),
    ("PHONE", "ring +46 (0)8 123 456 78 nu", "+46 (0)8 123 456 78"),
    ("PHONE", "bel +32 (0)2 512 34 56, graag", "+32 (0)2 512 34 56"),
    ("PHONE", "電話 090-1234-5678", "090-1234-5678"),
    ("CREDIT_CARD", "pay 4111-1111-1111-1111.", "4111-1111-1111-1111"),
    ("CREDIT_CARD", "in 2024 4111 1111 1111 1111 was charged", "4111 1111 1111 1111"),
    ("IBAN", "to DE89 3704 0044 0532 0130 00 today", "DE89 3704 0044 0532 0130 00"),
    ("IP_ADDRESS", "from 10.1.2.3:443", "10.1.2.3"),
    ("IP_ADDRESS", "text::ffff:192.0.2.1", "192.0.2.1"),
    ("IP_ADDRESS", "at [2001:db8::1]:8080", "2001:db8::1"),
    ("MAC_ADDRESS", "aabb.ccdd.ee01", "aabb.ccdd.ee01"),
    ("URL_CREDENTIALS", "see https://ann:pw@host/x there", "https://ann:pw@host/x"),
    ("SECRET", "export API_KEY=abc123def456", "abc123def456"),
    ("SECRET", "Authorization: Bearer abcdef0123456789abcd", "abcdef0123456789abcd"),
    ("SECRET", "https://x.example/cb?token=zzz999yyy", "zzz999yyy"),
    ("CRYPTO", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
    ("DATE_OF_BIRTH", "born on 12 March 1984 in Rome", "12 March 1984"),
    ("STREET_ADDRESS", "Ich wohne in der Hauptstraße 12a", "Hauptstraße 12a"),
    ("STREET_ADDRESS", "J'habite 12 rue de la Paix, Paris", "12 rue de la Paix"),
    ("US_SSN", "078 05 1123", "078 05 1123"),
    ("UK_NHS", "patient 943 476 5919", "943 476 5919"),
    ("IN_AADHAAR", "Aadhaar 312345678909", "312345678909"),
    ("TR_NATIONAL_ID", "10000000146", "10000000146"),
    ("PASSPORT", "my passport is C01234567", "C01234567"),
]

LEFT_ALONE = [
    "4111 1111 1111 1112",  # Luhn
    "GB29 NWBK 6016 1331 9268 10",
    "GB29 NWBK 6016 1331 9268 1",  # too short for its country
    "order 10000000146 shipped",  # a valid Turkish number, said to be something else
    "std::cout << a::b; 12:34:56 1.2.3",
    "00:00:00:00:00:00",
    "550e8400-e29b-41d4-a716-446655440000",
    "2001::25de::cade fe80::1text",
    "v4.111111111111111 0.4111111111111111",
    "token = get_token(); password = os.environ['PW']; secret: ${SECRET_1}",
    "meet me on 12 March 1984",
    "hotel 4155550132",  # `tel` inside a word is no word
]


def values(scanner: Scanner, text: str) -> set[tuple[str, str]]:
    return {(each.entity, text[each.start : each.end]) for each in scanner.scan(text)}


@pytest.mark.parametrize(("entity", "text", "value"), FOUND)
def test_is_found(scanner: Scanner, entity: str, text: str, value: str) -> None:
    """Each is found where it stands, and not a character more."""
    assert (entity, value) in values(scanner, text)


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_is_left_alone(scanner: Scanner, text: str) -> None:
    """What only looks like it is kept."""
    assert scanner.scan(text) == []


@pytest.mark.parametrize("kind", planted.KINDS)
def test_every_kind_of_planted_data_is_found(scanner: Scanner, kind: str) -> None:
    """Twenty-five values of each of the forty kinds that the canary plants are covered from end to end."""
    for number in range(25):
        value, text = planted.plant(kind, number)
        start = text.index(value)
        assert any(f.start <= start and start + len(value) <= f.end for f in scanner.scan(text)), text


@pytest.mark.parametrize("kind", noise.KINDS)
def test_noise_holds_nobodys_data(scanner: Scanner, kind: str) -> None:
    """Of a thousand texts of each kind at most ten are taken for personal: numbers with a card's prefix and check digit."""
    found = [text for text in noise.texts(kind) if scanner.scan(text)]

    assert len(found) <= 10, found


@pytest.mark.parametrize("name", NAMES)
def test_a_check_never_raises_on_what_its_pattern_matches(name: str) -> None:
    """Whatever digits and letters stand in the right places, the answer is yes or no."""
    scanner = Scanner(each._replace(tier=Tier.SHAPED) for each in ALL if each.name == name)
    for text in (*(text for kind in noise.KINDS for text in noise.texts(kind, 50)), "0" * 30, "A1" * 20, "9-" * 20):
        scanner.scan(text)


@settings(max_examples=200)
@given(st.text(max_size=200))
def test_any_text_can_be_scanned(text: str) -> None:
    """No text, lone surrogates included, makes it fail; findings lie in the text, in order, without overlaps."""
    found = _ALL.scan(text)

    assert all(0 <= each.start < each.end <= len(text) for each in found)
    assert all(one.end <= other.start for one, other in pairwise(found))


@settings(max_examples=100)
@given(st.text(max_size=40), st.sampled_from(sorted(planted.KINDS)), st.integers(0, 9), st.text(max_size=40))
def test_a_value_is_found_between_any_texts(before: str, kind: str, number: int, behind: str) -> None:
    """What stands around a sentence, in any script, hides nothing in it and does not move it."""
    value, sentence = planted.plant(kind, number)
    text = f"{before}\n{sentence}\n{behind}"
    start = len(before) + 1 + sentence.index(value)

    found = _ALL.scan(text)

    assert not set(range(start, start + len(value))) - {place for f in found for place in range(f.start, f.end)}


SURE = [each for each in ALL if each.sure_pattern]


@pytest.mark.parametrize("entity", SURE, ids=lambda each: each.name)
@settings(max_examples=100)
@given(data=st.data())
def test_no_form_that_needs_no_word_is_passed_over(entity: Entity, data: st.DataObject) -> None:
    """What is looked for first occurs in everything that the pattern matches and that is written so."""
    assert entity.sure is not None
    value = data.draw(st.from_regex(re.compile(entity.pattern, re.ASCII), fullmatch=True))

    assert not entity.sure(value) or re2.search(entity.sure_pattern, f"so {value} it is")


@pytest.mark.parametrize("entity", SURE, ids=lambda each: each.name)
def test_a_text_without_such_a_form_is_passed_over(entity: Entity) -> None:
    """Else there were no use in it: of lines of logs few are written so."""
    texts = noise.texts("log lines")

    assert sum(re2.search(entity.sure_pattern, text) is not None for text in texts) < len(texts) / 10


def test_a_separator_is_made_to_stand_there_in_each_alternative() -> None:
    """Classes and escapes are read as such; an alternative without a separator has no form that is sure."""
    made = separated_pattern(r"(?i)\b\d{3}-?[0-9A-Z] ?\d\b|\b(?:1|2)\.\d\b|\b\d{9}\b|[- ]?x")

    assert made == (r"(?i)\b\d{3}-[0-9A-Z] ?\d\b|\b\d{3}-?[0-9A-Z] \d\b|\b(?:1|2)\.\d\b|[- ]x")


def test_an_alone_number_is_judged_by_its_check_digit(scanner: Scanner) -> None:
    """The value of a form's field has no words beside it; a number in a sentence has, or is something else."""
    assert values(scanner, ' "9601211021413" ') == {("KR_RRN", "9601211021413")}
    assert values(scanner, "about 9601211021413 of them") == set()


def test_what_overlaps_is_one_finding_with_the_higher_name(scanner: Scanner) -> None:
    """A URL with credentials holds something like an e-mail address; nothing of either is left over."""
    text = "https://ann:pw@mail.example.com/x"

    assert values(scanner, text) == {("URL_CREDENTIALS", text)}


def test_a_text_of_nothing_but_candidates_is_given_up_in_time() -> None:
    """The budget is asked again and again: whoever exceeds it keeps nothing."""
    ticks = iter(range(0, 10**9, 1000))
    scanner = Scanner(chosen(), budget_ns=10_000, clock_ns=lambda: next(ticks))

    with pytest.raises(ScanTimeoutError, match="for 5000 bytes"):
        scanner.scan("12 34" * 1000)


@pytest.mark.parametrize(
    "unit", ["1", "1 ", "12-", ":", "ab:", "a@", "a.", "AB12 ", "(1", "+1", "1.1.", "eyJaaaaaaaa."]
)
def test_the_work_for_a_text_grows_with_its_length(unit: str) -> None:
    """Twice the text, twice the matches that are looked at: never four times."""
    looks = []
    for size in (4_000, 8_000):
        ticks = iter(range(10**9))
        clock = ticks.__next__
        Scanner(chosen(), budget_ns=10**9, clock_ns=clock).scan((unit * size)[:size])
        looks.append(clock())

    assert looks[1] <= 2 * looks[0] + 20
    assert looks[1] * LOOKS_AT_ONCE <= 2 * 8_000


def test_allowed_values_are_kept() -> None:
    """An allow-list is a list of expressions that match a value as a whole."""
    scanner = Scanner(chosen(), allow=[r".*@example\.com"])

    assert values(scanner, "a@example.com b@example.org") == {("EMAIL", "b@example.org")}


def test_entities_are_chosen_by_name() -> None:
    """All but those that are no secret by default; names that there are not are refused."""
    assert {each.name for each in chosen()} == set(NAMES) - {"DATE", "URL"}
    assert {each.name for each in chosen(["EMAIL", "DATE"], without=["DATE"])} == {"EMAIL"}
    with pytest.raises(ValueError, match="there is no entity `MAIL`"):
        chosen(["MAIL"])


def test_a_pattern_that_is_none_is_refused() -> None:
    """RE2 says what is wrong; look-around and back-references, which cannot be linear, are not in it."""
    with pytest.raises(ValueError, match="not a pattern of RE2"):
        Scanner([Entity("OWN", r"(a)\1", taken, Tier.SHAPED)])


_ALL = Scanner(chosen())
