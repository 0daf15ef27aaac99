"""What is done for a text grows with its length and no faster, whatever it is made of. Work is counted, not time."""

import itertools
from collections import Counter

import pytest
from worst_cases import NEAR, WorstCase, worst_cases

from inferwatch_collectors.privacy.base import Check, Entity
from inferwatch_collectors.privacy.entities import ALL, NAMES
from inferwatch_collectors.privacy.keys import Keys
from inferwatch_collectors.privacy.pseudonyms import Pseudonyms
from inferwatch_collectors.privacy.redaction import Redactor
from inferwatch_collectors.privacy.scanner import LOOKS_AT_ONCE, Scanner

SMALL, LARGE = 25_000, 100_000

# For each character of a text: places that are looked at, checks of digits, and characters that are checked. The dearest
# text has a place in every second character, of which several kinds could be one.
MAX_LOOKS, MAX_CHECKS, MAX_CHECKED_CHARS = 1.5, 1.0, 12.0

# Looks are counted in sixteens, for each kind apart.
SLACK = 4 * LOOKS_AT_ONCE * len(ALL)


class Counted:
    """A redactor of all entities that counts what it does."""

    def __init__(self) -> None:
        self.work: Counter[str] = Counter()
        clock = itertools.count()  # a tick for some places that are looked at
        scanner = Scanner([self._counted(each) for each in ALL], budget_ns=10**18, clock_ns=clock.__next__)
        self._redactor = Redactor(scanner, Pseudonyms(Keys({"k": bytes(range(32))}, 0)))
        self._clock = clock

    def _counted(self, entity: Entity) -> Entity:
        check: Check = entity.check

        def counting(value: str) -> str | None:
            self.work["checks"] += 1
            self.work["characters checked"] += len(value)
            return check(value)

        return entity._replace(check=counting)

    def of(self, case: WorstCase, size: int) -> Counter[str]:
        """Return the work for `size` characters."""
        self.work.clear()
        began = next(self._clock)
        self._redactor.findings(case.text(size))
        self.work["looks"] = (next(self._clock) - began) * LOOKS_AT_ONCE
        return Counter(self.work)


COUNTED = Counted()
CASES = list(worst_cases())


@pytest.mark.parametrize("name", NAMES)
def test_each_entity_has_texts_that_it_must_look_at(name: str) -> None:
    """A text that matches nothing would show nothing."""
    scanner = Scanner(each for each in ALL if each.name == name)

    assert scanner.occurs(WorstCase(name, NEAR[name][0]).text(1000))


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: f"{n} {CASES[n].name.split()[0]}")
def test_work_grows_with_the_text(number: int) -> None:
    """Four times the text, four times the work, and for each character no more than a bound."""
    case = CASES[number]
    small, large = COUNTED.of(case, SMALL), COUNTED.of(case, LARGE)

    for what in large:
        assert large[what] <= 4.4 * small[what] + SLACK, (case.name, what)
    assert large["looks"] <= MAX_LOOKS * LARGE
    assert large["checks"] <= MAX_CHECKS * LARGE
    assert large["characters checked"] <= MAX_CHECKED_CHARS * LARGE
