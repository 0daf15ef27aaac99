"""The configuration for people and editors: a reference page, a template with comments, a JSON schema.

All three are made from the structs in `settings/`, so nothing about a key is written twice.
"""

import textwrap
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import inspect

from inferwatch.config import ENV_PREFIX, RELOADABLE, Config, bare_type, item_type, keys

_in_json: Final = msgspec.json.Encoder(decimal_format="number").encode

# Of comments in the template: with the indent of two sections still a terminal's width.
COMMENT_COLUMNS: Final = 96


def reference() -> str:
    """Return `docs/configuration.md`."""
    lines = [
        "# Configuration",
        "",
        "Generated from `proxy/inferwatch/settings/`; do not edit.",
        "",
        "Flags win over the environment, the environment over the file, the file over the defaults.",
        "The file is named by `--config`, else by the variable `INFERWATCH_CONFIG`.",
        f"The environment variable of `upstream.url` is `{ENV_PREFIX}UPSTREAM__URL`, and so on;",
        "keys with `[]` are those of each item in a list, and lists of items are written in the file.",
        f"SIGHUP or `POST /-/reload` takes up {', '.join(f'`{name}`' for name in sorted(RELOADABLE))};",
        "anything else needs a restart.",
        "",
        "`inferwatch check-config --print-default` prints a file with every key and its default to start from,",
        "`inferwatch check-config --schema` a JSON schema for editors.",
        "",
        "| key | default | meaning |",
        "|---|---|---|",
    ]
    for key, field in keys():
        absent = field.required or field.default in (None, "", ())
        default = "" if absent else f"`{_plain(field.default)}`"
        lines.append(f"| `{key}` | {default} | {description(field)} |")
    return "\n".join(lines) + "\n"


def schema() -> bytes:
    """Return the configuration file's JSON schema (draft 2020-12)."""
    described = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Inferwatch",
        **msgspec.json.schema(Config),
    }
    return msgspec.json.format(msgspec.json.encode(described), indent=1) + b"\n"


def template() -> str:
    """Return a configuration file with every key, its meaning and its default: it changes nothing as it is."""
    head = [
        "# Configuration of Inferwatch: every key with its default. Keep what you change, the rest may go.",
        "# What has no default is commented out. `inferwatch check-config --config FILE` checks it.",
        "",
    ]
    info = inspect.type_info(Config)
    assert isinstance(info, inspect.StructType)
    return "\n".join([*head, *_section(info, "")]) + "\n"


def description(field: inspect.Field) -> str:
    """Return what a key means."""
    if isinstance(field.type, inspect.Metadata):
        return str((field.type.extra_json_schema or {}).get("description", ""))
    return ""


def _section(info: inspect.StructType, indent: str) -> Iterator[str]:
    for field in info.fields:
        if isinstance(field.type, inspect.StructType):
            yield f"{indent}{field.name}:"
            yield from _section(field.type, indent + "  ")
            yield ""
            continue
        yield from _comment(description(field), indent)
        item = item_type(field)
        if field.required or (field.default is None and item is None):
            yield f"{indent}# {field.name}:{_choices(field)}"
        else:
            yield f"{indent}{field.name}: {_value(field.default)}{_choices(field)}"
        if isinstance(item, inspect.StructType):
            yield from _item(item, indent + "#   ")


def _item(info: inspect.StructType, indent: str) -> Iterator[str]:
    """Yield one item of a list of sections, commented out."""
    start = "- "
    for field in info.fields:
        if isinstance(field.type, inspect.StructType):
            continue
        yield from _comment(description(field), indent + "  ")
        value = "" if field.required else f" {_value(field.default)}"
        yield f"{indent}{start}{field.name}:{value}{_choices(field)}"
        start = "  "


def _comment(text: str, indent: str) -> Iterator[str]:
    for line in textwrap.wrap(text, COMMENT_COLUMNS - len(indent), break_long_words=False, break_on_hyphens=False):
        yield f"{indent}# {line}"


def _choices(field: inspect.Field) -> str:
    kind = bare_type(field)
    if isinstance(kind, inspect.LiteralType):
        return f"  # one of {', '.join(str(value) for value in kind.values)}"
    return ""


def _value(default: Any) -> str:
    """Return a default as YAML on one line; JSON is YAML."""
    return _in_json(default).decode()


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
