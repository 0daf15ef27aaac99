"""The configuration file: YAML, a mapping, each key once."""

from pathlib import Path
from typing import Any

import yaml

from inferwatch.config import ConfigError


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is written twice: one of the two values would be lost silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"`{key.value}` is written twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_file(path: str) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: naming the file.
    """
    try:
        tree = yaml.load(Path(path).read_text(encoding="utf-8"), _StrictLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from None
    # PyYAML's constructors raise what they like: a date that is none is a ValueError, a bad `!!bool` a KeyError.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise ConfigError(f"--config {path}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"--config {path}: not YAML: nested too deeply") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"--config {path}: expected a mapping of keys, got {type(tree).__name__}")
    return tree
