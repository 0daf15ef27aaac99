"""All names that OpenTelemetry's own package has: what is not ours must be one of them."""

import ast
import enum
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import opentelemetry.semconv._incubating.attributes
import opentelemetry.semconv._incubating.metrics
import opentelemetry.semconv.attributes
import opentelemetry.semconv.metrics

# Attributes for which the conventions allow values beside those that they list.
_OPEN = {"error.type", "gen_ai.provider.name"}


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    for each in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        yield importlib.import_module(each.name)


def _names(package: ModuleType) -> set[str]:
    found: set[str] = set()
    for module in _modules(package):
        found |= {value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)}
    return found


def _replaced(package: ModuleType) -> set[str]:
    """Names that have a successor, or none. The package says so in the text under each; `Moved` ones are in force."""
    found: set[str] = set()
    for module in _modules(package):
        body = ast.parse(Path(str(module.__file__)).read_text("utf-8")).body
        for line, below in zip(body, body[1:], strict=False):
            if isinstance(line, ast.AnnAssign) and isinstance(line.value, ast.Constant) and isinstance(below, ast.Expr):
                text = below.value.value if isinstance(below.value, ast.Constant) else ""
                if str(text).strip().startswith(("Deprecated: Replaced", "Deprecated: Removed")):
                    found.add(str(line.value.value))
    return found


def _values(package: ModuleType) -> dict[str, set[str]]:
    """Return the listed values of attributes that have a list: `gen_ai.token.type` is `GenAiTokenTypeValues`."""
    found: dict[str, set[str]] = {}
    for module in _modules(package):
        lists = {name: each for name, each in vars(module).items() if isinstance(each, enum.EnumMeta)}
        for value in [value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)]:
            words = value.replace(".", "_").split("_")
            if (name := "".join(word.capitalize() for word in words) + "Values") in lists:
                found[value] = {str(member.value) for member in lists[name]}  # type: ignore[var-annotated]
    return found


_PLACES = (opentelemetry.semconv._incubating.attributes, opentelemetry.semconv.attributes)

ATTRIBUTES = set().union(*map(_names, _PLACES))
METRICS = _names(opentelemetry.semconv._incubating.metrics) | _names(opentelemetry.semconv.metrics)
REPLACED = set().union(*map(_replaced, _PLACES))
VALUES = {name: values for place in _PLACES for name, values in _values(place).items()}


def faults(attributes: Mapping[str, Any]) -> list[str]:
    """Return what the conventions would not have: names that are neither theirs nor ours, and values not listed."""
    found = []
    for name, value in attributes.items():
        if name.startswith("inferwatch."):
            continue
        if name not in ATTRIBUTES:
            found.append(f"{name}: no such attribute")
        elif name in REPLACED:
            found.append(f"{name}: has a successor")
        elif name in VALUES and name not in _OPEN and value not in VALUES[name]:
            found.append(f"{name}: {value} is not one of its values")
    return found
