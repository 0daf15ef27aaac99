"""Texts: after how many prompts is it found that some of them are of another language, another domain, or code?

A reference of 5,768 prompts (512 of which teach the trigrams, 256 the edges), then the same source goes on with a
share of its prompts replaced. All of the product's features are waited for; the answers' are not there, as if nobody
answered.
"""

import random
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from bench.drift.corpora import texts
from bench.drift.lockstep import BAR_WEEKS, terms_of
from bench.drift.streams import FEATURES

from inferwatch_collectors.drift.following import MIN_VALUES, WORD_VOTES
from inferwatch_collectors.drift.learning import EDGE_VOTES
from inferwatch_collectors.drift.stream import Lesson, Watched
from inferwatch_collectors.drift.text import read
from inferwatch_collectors.drift.trigrams import Codebook, Words

COUNTED: Final = 5_000
LEARNT: Final = WORD_VOTES + EDGE_VOTES + COUNTED
WEEK: Final = 50_000
SHARES: Final = (0.05, 0.1, 0.3)

# Those of the reference figures, and those that were not looked at while the features were chosen.
KNOWN: Final = (
    "English short texts",
    (
        "German short texts", "Italian short texts", "Russian short texts", "Chinese short texts",
        "Python documentation", "English manual pages",
    ),
)  # fmt: skip
UNSEEN: Final = (
    "English Perl documentation",
    (
        "French manual pages", "Spanish manual pages", "Japanese manual pages", "French questions and answers",
        "Perl code", "English short texts",
    ),
)  # fmt: skip


class Seen(NamedTuple):
    """A text as the product sees it."""

    values: Mapping[str, float | None]
    buckets: list[int]


class Texts:
    """All sources, each read once."""

    def __init__(self) -> None:
        self._book = Codebook(b"a key of the benchmark")
        self._seen: dict[str, list[Seen]] = {}

    def __call__(self, name: str) -> list[Seen]:
        """Return the texts of a source."""
        if name not in self._seen:
            self._seen[name] = [Seen(read(text, "prompt"), self._book.buckets(text)) for text in texts(name)]
        return self._seen[name]


def prompts(runs: int, say: Callable[[str], None] = print) -> None:
    """Print the delays, and the false alarms of the same in which nothing is replaced."""
    source = Texts()
    for title, (base, others) in (("of the reference figures", KNOWN), ("not looked at before", UNSEEN)):
        own = source(base)
        if len(own) < LEARNT + 1_000:
            say(f"\n{base}: {len(own)} texts, too few; run bench/drift/run.sh")
            continue
        say(f"\nPrompts until a change is found, corpora {title}: median of {runs} runs (found), in {base}.\n")
        say("| replaced by | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |")
        say("|---|" + "---|" * len(SHARES))
        for other in others:
            cells = [_cell([_run(own, source(other), share, seed) for seed in range(runs)]) for share in SHARES]
            say(f"| {other} | {' | '.join(cells)} |")
        nulls = [_run(own, [], 0.0, seed) for seed in range(3 * runs)]
        alarms = sum(each is not None for each in nulls)
        say(f"| nothing | {alarms} of {3 * runs} alarm within {len(own) - LEARNT:,} prompts | | |")


def _run(own: list[Seen], other: list[Seen], share: float, seed: int) -> int | None:
    rng = random.Random(f"{seed}{share}")
    mine, theirs = rng.sample(own, len(own)), rng.sample(other, len(other))
    words = Words()
    for each in mine[:WORD_VOTES]:
        words.learn(each.buckets)
    words.freeze()
    lesson = Lesson(FEATURES)
    for place, each in enumerate(mine[WORD_VOTES:LEARNT]):
        lesson.vote({**each.values, "prompt_likeness": words.likeness(each.buckets)}, place * 168 // LEARNT)
    watched = Watched(lesson.pin(MIN_VALUES), FEATURES, terms_of(FEATURES), 0.0)
    for number, each in enumerate(mine[LEARNT:], 1):
        seen = theirs[rng.randrange(len(theirs))] if theirs and rng.random() < share else each
        values = {**seen.values, "prompt_likeness": words.likeness(seen.buckets)}
        watched.vote(values, number / WEEK, number * 168 // WEEK)
        if watched.weeks >= BAR_WEEKS:
            return number
    return None


def _cell(found: list[int | None]) -> str:
    known = sorted(each for each in found if each is not None)
    if len(known) <= len(found) // 2:
        return f"- ({len(known)})"
    padded = known + [10**9] * (len(found) - len(known))
    return f"{padded[len(padded) // 2]:,} ({len(known)})"
