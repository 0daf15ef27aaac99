"""All of it, or without the cases. `bench/privacy/run.sh --cases FILE --out bench/RESULTS-privacy.md`"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import noise
from bench.compare import machine
from bench.privacy import cases as texts
from bench.privacy.cases import Case, covered
from worst_cases import WorstCase, worst_cases

from inferwatch_collectors.privacy import phones
from inferwatch_collectors.privacy.entities import chosen
from inferwatch_collectors.privacy.keys import Keys
from inferwatch_collectors.privacy.pseudonyms import Pseudonyms
from inferwatch_collectors.privacy.redaction import Redactor
from inferwatch_collectors.privacy.scanner import BUDGET_NS, Scanner

ROOT: Final = Path(__file__).parents[2]
FINDERS: Final = ("ours", "presidio", "datafog")
TITLES: Final = {"ours": "Inferwatch", "presidio": "Presidio's patterns", "datafog": "DataFog's patterns"}

SMALL_CHARS, LARGE_CHARS = 25_000, 100_000
SLOWEST: Final = 10

METHOD: Final = (
    "`bench/privacy/run.sh`, all in one run, one process after the other; times are CPU times of one thread, the least "
    "of five rounds."
)
# What the cases call dates and URLs, and the default entities leave alone.
OFF_BY_DEFAULT: Final = frozenset({"DATE_TIME", "URL"})

RECALL: Final = (
    "Values that are covered from end to end. The cases are of a public test suite, Presidio's own: what its "
    "recognisers find, each asked alone; they name dates and URLs too, which are looked for here. *Undisputed*: "
    "python-stdnum confirms the check digits. *Planted*: forty kinds, each in a sentence, of our own tests."
)
BY_DEFAULT: Final = (
    "The strong tier with the default entities: {looked_for} of the values that these look for, {everything} of all. "
    "The difference is what the cases call `DATE_TIME` and `URL`. `DATE` and `URL` are off by default "
    "(`privacy.entities` turns them on), because neither is anybody's by itself, and a text without its dates and "
    "links is of little use to who debugs. What of them is personal is on: dates of birth and "
    "street addresses by the words beside them, and credentials, keys and tokens in URLs."
)
NOISE: Final = (
    f"Texts with a finding among {noise.SIZE} of each kind (`tests/support/noise.py`); Presidio's of a score of 0.4 "
    "and more."
)
SPEED: Final = (
    f"CPU µs per kB, texts of {texts.TEXT_CHARS} characters; the cases have some 20. *Kept* is all that is done where "
    "`hashed` keeps a text: escapes and base64 undone, looked at again, pseudonyms put in. Where a text is nothing but "
    "personal data, nearly every pattern has something to judge in every line, by its check digits and by the words "
    "beside it: there the difference is least."
)
WORST: Final = (
    "{texts} texts made to keep the scanner busy (`tests/support/worst_cases.py`): near matches of each pattern, "
    "between each pair of its words, ends that never come. CPU ms for {large_kb} kB, all readings together, and how "
    "many times those for {small_kb} kB that is (4: linear). "
    "The budget is {budget_ms} ms; {over} of them exceed it, and half "
    "take less than {median_ms:.0f} ms. That the work grows no faster than the text, a test counts "
    "(`tests/privacy/test_privacy_worst_cases.py`). The slowest:"
)

Answers = dict[str, dict[str, Any]]


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=Path, help="JSON lines: text, entity, spans, tier, stdnum_valid")
    parser.add_argument("--rivals", required=True, help="the interpreter of an environment that has them")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    given = texts.read(options.cases) if options.cases is not None else []
    own = list(texts.planted_cases())
    speed = {
        "clean prose": texts.clean(ROOT),
        "prose with personal data": texts.with_data(ROOT),
        "nothing but personal data": texts.full(),
        "log lines": texts.logs(),
    }
    if given:
        speed["the cases, one by one"] = [case.text for case in given]
    work = {
        "texts": {"cases": [case.text for case in given], "planted": [case.text for case in own]}
        | {kind: noise.texts(kind) for kind in noise.KINDS},
        "speed": speed,
    }
    answers = _ask(work, options.rivals)
    lines = [
        "# Personal data: what is found, and how fast",
        "",
        METHOD,
        machine(load, ("google-re2", "phonenumbers", "python-stdnum")),
        "The others: "
        + ", ".join(f"{TITLES[name]} {answers[name]['version']}" for name in FINDERS[1:])
        + ", the same Python.",
        *_recall(given, own, answers),
        *_noise(answers),
        *_speed(speed, answers),
        *_worst(),
    ]
    text = "\n".join(lines).rstrip() + "\n"
    print(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")


def _ask(work: dict[str, Any], rivals: str) -> Answers:
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(work, file)
        file.flush()
        return {
            name: json.loads(
                subprocess.run(
                    [sys.executable if name == "ours" else rivals, ROOT / "bench/privacy/finders.py", name, file.name],
                    stdout=subprocess.PIPE,
                    check=True,
                ).stdout
            )
            for name in FINDERS
        }


def _recall(given: list[Case], own: list[Case], answers: Answers) -> list[str]:
    rows = [
        "",
        "## What is found",
        "",
        RECALL,
        "",
        f"| | {' | '.join(TITLES[name] for name in FINDERS)} |",
        "|---|---|---|---|",
    ]
    for title, chosen_cases, tier, checked in (
        ("strong tier, undisputed", given, "strong", True),
        ("strong tier", given, "strong", False),
        ("weak tier", given, "weak", False),
        ("planted", own, "strong", False),
    ):
        group = "cases" if chosen_cases is given else "planted"
        figures = [_share(chosen_cases, answers[name]["found"][group], tier, checked) for name in FINDERS]
        if figures[0] is not None:
            rows.append(f"| {title} | {' | '.join(map(str, figures))} |")
    if given:
        everything = _share(given, answers["ours"]["default"], "strong", False)
        others = [place for place, case in enumerate(given) if case.entity not in OFF_BY_DEFAULT]
        looked_for = _share(
            [given[place] for place in others], [answers["ours"]["default"][place] for place in others], "strong", False
        )
        rows += ["", BY_DEFAULT.format(looked_for=looked_for, everything=everything)]
    else:
        rows += ["", "No cases were given (`--cases`): planted values only."]
    return rows


def _share(cases: list[Case], found: list[list[list[int]]], tier: str, only_checked: bool) -> str | None:
    hits = [
        hit
        for case, spans in zip(cases, found, strict=True)
        if case.tier == tier
        for hit, checked in zip(covered(case, spans), case.checked, strict=True)
        if checked or not only_checked
    ]
    return f"{sum(hits)} of {len(hits)} ({sum(hits) / len(hits):.1%})" if hits else None


def _noise(answers: Answers) -> list[str]:
    rows = [
        "",
        "## What is taken for personal and is not",
        "",
        NOISE,
        "",
        f"| | {' | '.join(TITLES[name] for name in FINDERS)} |",
        "|---|---|---|---|",
    ]
    sums = dict.fromkeys(FINDERS, 0)
    for kind in noise.KINDS:
        counts = {name: sum(map(bool, answers[name]["found"][kind])) for name in FINDERS}
        rows.append(f"| {kind} | {' | '.join(str(counts[name]) for name in FINDERS)} |")
        for name in FINDERS:
            sums[name] += counts[name]
    rows.append(f"| all | {' | '.join(str(sums[name]) for name in FINDERS)} |")
    return rows


def _speed(speed: dict[str, list[str]], answers: Answers) -> list[str]:
    rows = [
        "",
        "## Speed",
        "",
        SPEED,
        "",
        "| | Inferwatch | kept | Presidio's patterns | DataFog's patterns | Presidio ÷ Inferwatch |",
        "|---|---|---|---|---|---|",
    ]
    for what, given in speed.items():
        size_kb = sum(len(text.encode()) for text in given) / 1000
        us = {name: answers[name]["ms"][what] * 1000 / size_kb for name in FINDERS}
        kept = answers["ours"]["kept_ms"][what] * 1000 / size_kb
        rows.append(
            f"| {what} | {us['ours']:.1f} | {kept:.1f} | {us['presidio']:.0f} | {us['datafog']:.0f} "
            f"| {us['presidio'] / us['ours']:.0f} × |"
        )
    return rows


def _worst() -> list[str]:
    redactor = Redactor(Scanner(chosen(), budget_ns=10**18), Pseudonyms(Keys({"k1": bytes(range(32))}, 0)))
    timed = []
    for case in worst_cases():
        small, large = (_cpu_ms(redactor, case, size) for size in (SMALL_CHARS, LARGE_CHARS))
        timed.append((large, large / small, case.name))
    timed.sort(reverse=True)
    over = sum(large > BUDGET_NS / 1e6 for large, _, _ in timed)
    rows = [
        "",
        "## Worst cases",
        "",
        WORST.format(
            texts=len(timed),
            large_kb=LARGE_CHARS // 1000,
            small_kb=SMALL_CHARS // 1000,
            budget_ms=BUDGET_NS // 1_000_000,
            over=over or "none",
            median_ms=timed[len(timed) // 2][0],
        ),
        "",
        "| text | ms | × 25 kB |",
        "|---|---|---|",
    ]
    rows += [
        f"| `{name.replace('|', ' ')[:60]}` | {large:.0f} | {ratio:.1f} |" for large, ratio, name in timed[:SLOWEST]
    ]
    return rows


def _cpu_ms(redactor: Redactor, case: WorstCase, size: int) -> float:
    text = case.text(size)
    phones.check.cache_clear()
    began = time.process_time()
    redactor.findings(text)
    return (time.process_time() - began) * 1000


if __name__ == "__main__":
    main()
