"""What one of three finds in given texts, and how long it takes. Each runs in an environment that has it.

    python finders.py ours|presidio|datafog FILE

FILE holds JSON: {"texts": {group: [text]}, "speed": {name: [text]}}. The answer goes to stdout:
{"found": {group: for each text [[start, end]]}, "ms": {name: all texts, best of ROUNDS}, "version": …}; ours has more.
"""

import importlib.metadata
import inspect
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# CPU time of one thread, the least of as many rounds: others on the machine make a round longer, never shorter.
ROUNDS = 5

# Below this Presidio itself calls a match weak; at its default of 0 every run of eight digits is a bank account.
MIN_SCORE = 0.4

# None of the three says that these are personal; where they are asked for by name, they count.
NOBODYS = ("DATE_TIME", "DATE", "URL", "UUID")

Spans = list[tuple[int, int]]
Find = Callable[[str], Spans]


def ours(everything: bool) -> Find:
    """The scanner with the default entities, or with those too that are nobody's by themselves."""
    from inferwatch_collectors.privacy.entities import NAMES, chosen
    from inferwatch_collectors.privacy.scanner import Scanner

    scanner = Scanner(chosen(NAMES) if everything else chosen())
    return lambda text: [(each.start, each.end) for each in scanner.scan(text)]


def ours_kept() -> Find:
    """Everything that is done for a text that is kept: all readings, and pseudonyms."""
    from inferwatch_collectors.privacy.entities import chosen
    from inferwatch_collectors.privacy.keys import Keys
    from inferwatch_collectors.privacy.pseudonyms import Pseudonyms
    from inferwatch_collectors.privacy.redaction import Redactor
    from inferwatch_collectors.privacy.scanner import Scanner

    redactor = Redactor(Scanner(chosen()), Pseudonyms(Keys({"k1": bytes(range(32))}, 0)))

    def find(text: str) -> Spans:
        redactor.hashed(text, "tenant", 0.0)
        return []

    return find


def presidio(everything: bool) -> Find:
    """All of Presidio's recognisers that work by patterns or by phonenumbers, without any model of language."""
    from presidio_analyzer import EntityRecognizer, PatternRecognizer
    from presidio_analyzer import predefined_recognizers as predefined
    from presidio_analyzer.nlp_engine import NlpArtifacts

    recognizers: list[EntityRecognizer] = []
    for name in sorted(dir(predefined)):
        kind = getattr(predefined, name)
        if not inspect.isclass(kind) or not (issubclass(kind, PatternRecognizer) or name == "PhoneRecognizer"):
            continue
        recognizers.append(kind())
    artifacts = NlpArtifacts([], [], [], [], None, "en")

    def find(text: str) -> Spans:
        results = [
            result
            for recognizer in recognizers
            for result in recognizer.analyze(text, recognizer.supported_entities, artifacts) or ()
        ]
        return [
            (result.start, result.end)
            for result in results
            if result.score >= MIN_SCORE and (everything or result.entity_type not in NOBODYS)
        ]

    return find


def datafog(everything: bool) -> Find:
    """DataFog's patterns."""
    import datafog

    return lambda text: [
        (entity.start, entity.end)
        for entity in datafog.scan(text, engine="regex").entities
        if everything or entity.type not in NOBODYS
    ]


def forget() -> None:
    """What was remembered of the numbers of a text is not there when the next one comes."""
    phones = sys.modules.get("inferwatch_collectors.privacy.phones")
    if phones is not None:
        phones.check.cache_clear()


def cpu_ms(find: Find, texts: list[str], rounds: int = ROUNDS) -> float:
    """Return the time for all of `texts`."""
    spent = []
    for _ in range(rounds):
        forget()
        began = time.process_time()
        for text in texts:
            find(text)
        spent.append(time.process_time() - began)
    return min(spent) * 1000


def main() -> None:
    """Measure one."""
    name, file = sys.argv[1:]
    given: dict[str, Any] = json.loads(Path(file).read_text("utf-8"))
    make = {"ours": ours, "presidio": presidio, "datafog": datafog}[name]
    find, find_all = make(False), make(True)
    answer: dict[str, Any] = {
        # The cases ask for dates and URLs by name, the noise for nothing that is personal.
        "found": {
            group: [(find_all if group == "cases" else find)(text) for text in texts]
            for group, texts in given["texts"].items()
        },
        "ms": {what: cpu_ms(find, texts) for what, texts in given["speed"].items()},
        "version": importlib.metadata.version({"presidio": "presidio-analyzer", "ours": "inferwatch"}.get(name, name)),
    }
    if name == "ours":
        kept = ours_kept()
        answer["kept_ms"] = {what: cpu_ms(kept, texts) for what, texts in given["speed"].items()}
        answer["default"] = [find(text) for text in given["texts"].get("cases", [])]
    json.dump(answer, sys.stdout)


main()
