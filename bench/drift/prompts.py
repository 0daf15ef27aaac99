"""Texts: after how many prompts is it found that some of them are of another language, another domain, or code?

A reference of 5,768 prompts (512 of which teach the trigrams, 256 the edges), then the same source goes on with a
share of its prompts replaced. Three look at the same prompts in the same order:

* **ours**, of what there is of prompts; answers are not there, as in the earlier study;
* **ours, answers beside**: the same evidence against the bar as it is when all features of answers and their pace have
  a reference, too, and are as before;
* **its detector**: the study's (`peers.plain_e_detector`), on our features of the prompts' texts, likeness too.
"""

import random
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from bench.drift.corpora import texts
from bench.drift.lockstep import BAR_WEEKS, terms_of
from bench.drift.peers import plain_e_detector
from bench.drift.streams import FEATURES

from inferwatch_collectors.drift.features import TEXT_NAMES
from inferwatch_collectors.drift.following import MIN_VALUES, WORD_VOTES
from inferwatch_collectors.drift.learning import EDGE_VOTES
from inferwatch_collectors.drift.stream import Lesson, Watched
from inferwatch_collectors.drift.text import read
from inferwatch_collectors.drift.trigrams import Codebook, Words

COUNTED: Final = 5_000
LEARNT: Final = WORD_VOTES + EDGE_VOTES + COUNTED
WEEK: Final = 50_000
SHARES: Final = (0.05, 0.1, 0.3)
DETECTORS: Final = ("ours", "ours, answers beside", "its detector")

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
        say(f"\nPrompts until a change is found, corpora {title}: median (95 %, or found) of {runs} runs, in {base}.\n")
        columns = [f"{share:.0%} {name}" for share in SHARES for name in DETECTORS]
        say(f"| replaced by | {' | '.join(columns)} |")
        say("|---|" + "---|" * len(columns))
        for other in others:
            cells = []
            for share in SHARES:
                found = [_run(own, source(other), share, seed) for seed in range(runs)]
                cells += [_cell([each[name] for each in found]) for name in DETECTORS]
            say(f"| {other} | {' | '.join(cells)} |")
        nulls = [_run(own, [], 0.0, seed) for seed in range(3 * runs)]
        alarms = (f"{name} {sum(each[name] is not None for each in nulls)}" for name in DETECTORS)
        say(
            f"\nNothing replaced: alarms within {len(own) - LEARNT:,} prompts, of {3 * runs} runs: {', '.join(alarms)}."
        )


def _run(own: list[Seen], other: list[Seen], share: float, seed: int) -> dict[str, int | None]:
    """Return after how many prompts each alarmed."""
    rng = random.Random(f"{seed}{share}")
    mine, theirs = rng.sample(own, len(own)), rng.sample(other, len(other))
    words = Words()
    for each in mine[:WORD_VOTES]:
        words.learn(each.buckets)
    words.freeze()
    learnt = [_values(each, words) for each in mine[WORD_VOTES:LEARNT]]
    watched = [
        _values(theirs[rng.randrange(len(theirs))] if theirs and rng.random() < share else each, words)
        for each in mine[LEARNT:]
    ]
    plain = plain_e_detector(_matrix(learnt), _matrix(watched))
    return dict(zip(DETECTORS, (*_ours(learnt, watched), plain), strict=True))


def _values(seen: Seen, words: Words) -> dict[str, float | None]:
    return {**seen.values, "prompt_likeness": words.likeness(seen.buckets)}


def _matrix(votes: list[dict[str, float | None]]) -> Any:
    names = [f"prompt_{name}" for name, _ in TEXT_NAMES]
    return np.array([[np.nan if (value := vote.get(name)) is None else value for name in names] for vote in votes])


def _ours(learnt: list[dict[str, float | None]], watched: list[dict[str, float | None]]) -> list[int | None]:
    """Return after how many prompts the product alarms, without and with features of answers beside."""
    lesson = Lesson(FEATURES)
    for place, values in enumerate(learnt):
        lesson.vote(values, place * 168 // LEARNT)
    pinned = lesson.pin(MIN_VALUES)
    judged = Watched(pinned, FEATURES, terms_of(FEATURES), 0.0)
    # Where all have a reference, one that has moved weighs so much less.
    share = sum(each.weight for each in pinned) / sum(each.weight for each in FEATURES)
    bars = [BAR_WEEKS, BAR_WEEKS / share]
    found: list[int | None] = [None, None]
    for number, values in enumerate(watched, 1):
        judged.vote(values, number / WEEK, number * 168 // WEEK)
        weeks = judged.weeks
        found = [have or (number if weeks >= bar else None) for have, bar in zip(found, bars, strict=True)]
        if all(found):
            break
    return found


def _cell(found: list[int | None]) -> str:
    """Return median and 95 % of the delays; how many were found, if not all were."""
    ordered = sorted(10**9 if each is None else each for each in found)
    known = sum(each is not None for each in found)
    middle, late = ordered[len(ordered) // 2], ordered[int(0.95 * (len(ordered) - 1))]
    if middle == 10**9:
        return f"- ({known} of {len(found)})"
    return f"{middle:,} ({f'{late:,}' if late < 10**9 else f'{known} of {len(found)}'})"
