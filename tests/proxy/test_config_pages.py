"""The template and the schema of the configuration file: made from the declarations, and true."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferwatch import config, config_pages
from inferwatch.config import Config
from inferwatch.config import keys as declared_keys


def test_the_template_changes_nothing(tmp_path: Path) -> None:
    """As it is printed, it gives the defaults."""
    file = tmp_path / "inferwatch.yml"
    file.write_text(config_pages.template(), "utf-8")
    assert config.load(str(file), environ={}) == Config()


def test_every_key_is_in_the_template_with_its_meaning() -> None:
    """Also those without a default, and those of items of lists."""
    lines = [line.strip().lstrip("#- ").strip() for line in config_pages.template().splitlines()]
    for key, field in declared_keys():
        name = key.rpartition(".")[2]
        assert any(line.startswith(f"{name}:") for line in lines), key
        assert config_pages.description(field).split()[0] in " ".join(lines), key


def uncommented(template: str, section: str, name: str) -> str:
    """Return the template with the example item under `section.name` made real."""
    lines = template.splitlines()
    start = next(n for n, line in enumerate(lines) if line == f"{section}:")
    at = next(n for n in range(start, len(lines)) if lines[n].strip() == f"{name}: []")
    lines[at] = lines[at].replace(" []", "")
    for n in range(at + 1, len(lines)):
        if not lines[n].startswith("  #   "):
            break
        lines[n] = lines[n].replace("  #   ", "    ", 1)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("section", "name", "required"),
    [
        ("budgets", "rules", {"name": "b", "limit": 5}),
        ("tenants", "known", {"name": "acme"}),
        ("prices", "rules", {"input": 1, "output": 2}),
    ],
)
def test_an_item_of_a_list_can_be_uncommented(
    tmp_path: Path, section: str, name: str, required: dict[str, Any]
) -> None:
    """With what is required filled in, it is a good configuration."""
    tree = yaml.safe_load(uncommented(config_pages.template(), section, name))
    (item,) = tree[section][name]
    assert {key for key, value in item.items() if value is None} >= required.keys()
    tree[section][name] = [{key: value for key, value in item.items() if value is not None} | required]
    file = tmp_path / "inferwatch.yml"
    file.write_text(yaml.safe_dump(tree), "utf-8")
    config.load(str(file), environ={})


def test_the_schema_has_every_section_and_refuses_others() -> None:
    """For an editor that completes keys and marks mistakes."""
    schema = json.loads(config_pages.schema())
    sections = schema["$defs"]["Config"]
    assert set(sections["properties"]) == set(Config.__struct_fields__)
    assert sections["additionalProperties"] is False
    assert sections["properties"]["workers"]["description"]
