"""Loops: is real text ever taken for one, and how soon is a real one found?"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from bench.drift.corpora import SOURCES, texts

from inferwatch_collectors.quality.tail_cycle import EVERY_PIECES, TailCycle

SIZES: Final = (600, 2_000, 8_000)
TOKEN_CHARS: Final = 4  # English has about four characters a token

PERIODS: Final = (1, 2, 4, 8, 12, 20, 40)  # words
LOOPS: Final = 2_000


def chunks(most: int) -> Iterator[tuple[str, str]]:
    """Yield (source, text) of several sizes: prose by joining paragraphs, and Python's own library as code."""
    for name in SOURCES:
        parts = texts(name)
        random.Random(name).shuffle(parts)
        for text in _joined(parts, most // len(SOURCES)):
            yield name, text
    library = Path(random.__file__).parent
    for path in sorted(library.rglob("*.py"))[: most // 8]:
        code = path.read_bytes().decode("utf-8", "ignore")
        for start in range(0, min(len(code), 6_000), 3_000):
            if len(code) - start >= SIZES[0]:
                yield "Python code", code[start : start + 3_000]


def _joined(parts: list[str], most: int) -> Iterator[str]:
    place = 0
    for number in range(most):
        size, text = SIZES[number % len(SIZES)], ""
        while len(text) < size and place < len(parts):
            text += parts[place] + "\n\n"
            place += 1
        if place >= len(parts):
            place = 0
        if text:
            yield text[:size]


def streamed(text: str) -> Iterator[str]:
    """Yield it as an engine would."""
    return (text[start : start + TOKEN_CHARS] for start in range(0, len(text), TOKEN_CHARS))


def false_loops(most: int, say: Callable[[str], None] = print) -> None:
    """Print how many chunks of real text are taken for loops, at their end and on the way there."""
    seen: dict[str, int] = {}
    ends: dict[str, set[str]] = {}
    passing: dict[str, set[str]] = {}
    at_end = on_the_way = 0
    for name, text in chunks(most):
        seen[name] = seen.get(name, 0) + 1
        cycle, suspected = TailCycle(), None
        for piece in streamed(text):
            if cycle.take(piece) and suspected is None:
                suspected = cycle.period
        if cycle.finish():
            at_end += 1
            ends.setdefault(name, set()).add(" ".join((cycle.period or "").split())[:60])
        if suspected is not None:
            on_the_way += 1
            passing.setdefault(name, set()).add(" ".join(suspected.split())[:60])
    say(
        f"\nReal text that ends in a loop: {at_end} of {sum(seen.values()):,} chunks; that was suspected of one on "
        f"the way: {on_the_way}.\n"
    )
    for name, count in seen.items():
        which = [*ends.get(name, ()), *passing.get(name, ())]
        say(f"- {name}: {count:,} chunks{f', {sorted(which)}' if which else ''}")


def true_loops(say: Callable[[str], None] = print) -> None:
    """Print how soon loops are found after the end of their third repeat, in tokens of four characters."""
    rng = random.Random(3)
    prose = texts("English manual pages")
    say(f"\nTokens from the end of the third repeat until a loop is found, {LOOPS} loops of each period.\n")
    say("| period in words | found | median | slowest |")
    say("|---|---|---|---|")
    for words in PERIODS:
        late = []
        for _ in range(LOOPS):
            lead = rng.choice(prose)
            period = " ".join(rng.choice(prose).split()[:words]) + " "
            if not any(map(str.isalpha, period)):
                continue
            text = lead + period * (3 + (512 + EVERY_PIECES * TOKEN_CHARS) // len(period))
            third = len(lead) + 3 * len(period)
            cycle, at = TailCycle(), 0
            for piece in streamed(text):
                at += len(piece)
                if cycle.take(piece):
                    late.append(max(0, at - third) / TOKEN_CHARS)
                    break
            else:
                late.append(1e9)
        late.sort()
        found = sum(each < 1e9 for each in late)
        say(f"| {words} | {found} of {len(late)} | {late[len(late) // 2]:.0f} | {late[-1]:.0f} |")
