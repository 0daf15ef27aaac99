"""Loops: is real text ever taken for one, or cut, and how soon is a real one?"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from bench.drift.corpora import SOURCES, texts, whole

from inferwatch_collectors.quality.runaway import Runaway, enough
from inferwatch_collectors.quality.tail_cycle import EVERY_PIECES, MAX_PERIOD_CHARS, TailCycle, has_word

SIZES: Final = (600, 2_000, 8_000)
TOKEN_CHARS: Final = 4  # English has about four characters a token
PAGE_CHARS: Final = 16_000  # room for any loop that is cut

PERIODS: Final = (1, 2, 4, 8, 12, 20, 40, 80, 160, 250, 400)  # words
LOOPS: Final = 2_000
# Without a word, as models and broken kernels make them.
WORDLESS: Final = ("!", "0", "\n", " ", "\n\n ", ". ", "| --- ", "=-", "0, ", "1 2 ", "0x00, ", "1.0, 2.0, 3.0, 4.0, ")
# Code, tables, diagrams, hex dumps and arrays, where figures and rulers repeat themselves for longest.
RULED: Final = ("xbitmaps", "libstb-dev", "linux-doc-6.1", "golang-1.19-src", "python3.11-doc", "perl-doc", "manpages")


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


def pages() -> Iterator[tuple[str, str]]:
    """Yield (source, text) of what the texts were taken from, as it is, and of Python's own library."""
    for package in sorted({package for package, _ in SOURCES.values()}):
        for text in whole(package):
            yield from ((package, text[start : start + PAGE_CHARS]) for start in range(0, len(text), PAGE_CHARS))
    for path in sorted(Path(random.__file__).parent.rglob("*.py")):
        code = path.read_bytes().decode("utf-8", "ignore")
        yield from (("Python code", code[start : start + PAGE_CHARS]) for start in range(0, len(code), PAGE_CHARS))


def streamed(text: str) -> Iterator[tuple[str, int]]:
    """Yield it as it is heard when an engine streams it: (text, tokens), some tokens at a time (`listening`)."""
    size = EVERY_PIECES * TOKEN_CHARS
    return ((text[start : start + size], EVERY_PIECES) for start in range(0, len(text), size))


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
            if cycle.take(*piece) and suspected is None:
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


def false_cuts(most: int, say: Callable[[str], None] = print) -> None:
    """Print how many pieces of real text would be cut, and how near to it the nearest of them came."""
    say("\nReal text that would be cut as a loop.\n\n| | pieces | characters | cut | nearest |\n|---|---|---|---|---|")
    for what, pieces in (("chunks", chunks(most)), ("whole files", pages())):
        seen = size = cut = 0
        nearest = (0.0, "")
        for name, text in pieces:
            seen, size, runaway, share = seen + 1, size + len(text), Runaway(), 0.0
            for piece in streamed(text):
                if runaway.take(*piece):
                    cut += 1
                    share = 1.0
                    break
                share = max(share, runaway.share)
            nearest = max(nearest, (share, name))
        say(f"| {what} | {seen:,} | {size:,} | {cut} | {nearest[0]:.0%} of what it takes ({nearest[1]}) |")


def false_wordless(say: Callable[[str], None] = print) -> None:
    """Print how many pages of files as they are have a loop without a word in it, and which."""
    say("\nWhole files in which what has no word in it is taken for a loop, 16,000 characters a piece.\n")
    say("| | pieces | characters | suspected | of files |\n|---|---|---|---|---|")
    for package in RULED:
        seen = size = suspected = 0
        files: set[str] = set()
        for text in whole(package):
            for start in range(0, len(text), PAGE_CHARS):
                page = text[start : start + PAGE_CHARS]
                seen, size, cycle = seen + 1, size + len(page), TailCycle()
                if any(cycle.take(*piece) and not has_word(cycle.period or "") for piece in streamed(page)):
                    suspected += 1
                    files.add(text[:40].strip().split("\n")[0])
        say(f"| {package} | {seen:,} | {size:,} | {suspected} | {'; '.join(sorted(files)) or '-'} |")


def true_loops(say: Callable[[str], None] = print) -> None:
    """Print how soon loops are found, and cut, after the end of their third repeat, in tokens of four characters."""
    rng = random.Random(3)
    prose = texts("English manual pages")
    say(f"\nTokens from the end of the third repeat until a loop is found, and cut, {LOOPS} loops of each period.")
    say(f"No period of more than {MAX_PERIOD_CHARS:,} characters is found.\n")
    say("| period | found | median | slowest | cut | median | slowest |")
    say("|---|---|---|---|---|---|---|")
    for words in PERIODS:
        periods = [_words(rng, prose, words) for _ in range(LOOPS)]
        worded = [period for period in periods if has_word(period)]
        say(f"| {words} words | {_row(rng, prose, worded)} |")
        if len(worded) < len(periods):
            rest = [period for period in periods if not has_word(period)]
            say(f"| {words}, none of them a word | {_row(rng, prose, rest)} |")
    for period in WORDLESS:
        say(f"| {period!r:} | {_row(rng, prose, [period] * 20)} |".replace("| --- ", "\\| --- "))


def _words(rng: random.Random, prose: list[str], count: int) -> str:
    words: list[str] = []
    while len(words) < count:
        words += rng.choice(prose).split()
    return " ".join(words[:count]) + " "


def _row(rng: random.Random, prose: list[str], periods: list[str]) -> str:
    """Return how many loops of these periods are found, and cut, and how soon."""
    found: list[float] = []
    cut: list[float] = []
    for period in periods:
        lead = rng.choice(prose)
        text = lead + period * (3 + enough(period, blanks_only=False) // len(period))
        third = len(lead) + 3 * len(period)
        cycle, runaway, at, is_found = TailCycle(), Runaway(), 0, False
        for piece, tokens in streamed(text):
            at += len(piece)
            if cycle.take(piece, tokens) and not is_found:
                is_found = True
                found.append(max(0, at - third) / TOKEN_CHARS)
            if runaway.take(piece, tokens):
                cut.append(max(0, at - third) / TOKEN_CHARS)
                break
    return f"{_delays(found, len(periods))} | {_delays(cut, len(periods))}"


def _delays(late: list[float], loops: int) -> str:
    late.sort()
    when = f"{late[len(late) // 2]:.0f} | {late[-1]:.0f}" if late else "- | -"
    return f"{len(late)} of {loops} | {when}"
