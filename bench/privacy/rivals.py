"""What a rival finds in noise, and how long it takes for a text: run in a virtual environment of its own.

    python rivals.py presidio|datafog FILE

FILE holds JSON: {"noise": {kind: [text]}, "speed": {name: text}}. The answer goes to stdout:
{"false_positives": {kind: texts with a finding}, "ms": {name: best of ROUNDS}, "version": …}.
"""

import importlib.metadata
import inspect
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUNDS = 5

# Below this Presidio itself calls a match weak; at its default of 0 every run of eight digits is a bank account.
MIN_SCORE = 0.4


# Neither rival claims that these are personal.
NOBODYS = ("DATE_TIME", "DATE", "URL", "UUID")


def presidio() -> Callable[[str], bool]:
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

    def found(text: str) -> bool:
        results = [
            result
            for recognizer in recognizers
            for result in recognizer.analyze(text, recognizer.supported_entities, artifacts) or ()
        ]
        return any(result.score >= MIN_SCORE and result.entity_type not in NOBODYS for result in results)

    return found


def datafog() -> Callable[[str], bool]:
    """DataFog's patterns."""
    import datafog

    return lambda text: any(entity.type not in NOBODYS for entity in datafog.scan(text, engine="regex").entities)


def main() -> None:
    """Measure one rival."""
    name, file = sys.argv[1:]
    given: dict[str, Any] = json.loads(Path(file).read_text())
    found = {"presidio": presidio, "datafog": datafog}[name]()
    false_positives = {kind: sum(map(found, texts)) for kind, texts in given["noise"].items()}
    ms = {}
    for what, text in given["speed"].items():
        spent = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            found(text)
            spent.append(time.perf_counter() - began)
        ms[what] = min(spent) * 1000
    package = {"presidio": "presidio-analyzer"}.get(name, name)
    json.dump(
        {"false_positives": false_positives, "ms": ms, "version": importlib.metadata.version(package)}, sys.stdout
    )


main()
