"""The catalogue of public prices: what is in it, what is refused, and what a request would have cost there."""

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from inferwatch.config import ConfigError
from inferwatch.record import RequestRecord
from inferwatch.settings.prices import Prices
from inferwatch_collectors.cost import catalogue
from inferwatch_collectors.cost.catalogue import Catalogue, Comparison, comparisons, parse

Record = Callable[..., RequestRecord]

SHIPPED = Path(catalogue.__file__).with_name("catalogue.json")
ENTRY: dict[str, Any] = {"name": "p/m", "provider": "P", "as_of": "2026-01-31", "input": 1, "output": "2.5"}


def file_of(*entries: dict[str, Any], **changes: Any) -> bytes:
    head = {"format": 1, "date": "2026-01-31", "currency": "USD", "unit": "per million tokens", "source": "s"}
    return json.dumps({**head, "entries": entries, **changes}).encode()


@pytest.fixture(scope="module")
def shipped() -> Catalogue:
    return parse(SHIPPED.read_bytes())


def test_the_shipped_catalogue_is_a_dozen_models_and_more(shipped: Catalogue) -> None:
    """Closed models and open weights at several providers: each tells the day and the page of its price."""
    assert len(shipped.entries) >= 12
    assert {"OpenAI", "Anthropic", "Google", "Mistral", "DeepSeek", "Groq"} <= {
        each.provider for each in shipped.entries
    }
    for entry in shipped.entries:
        assert entry.as_of <= shipped.date, entry.name
        assert urlsplit(entry.page).scheme == "https", entry.name
        assert entry.name == entry.name.lower(), entry.name
        assert entry.name.count("/") == 1, entry.name


def test_in_the_shipped_catalogue_a_discount_is_a_discount(shipped: Catalogue) -> None:
    """Cached costs less than input, output no less than input, and a long prompt more: a slip of the pen would show."""
    for entry in shipped.entries:
        assert 0 < entry.input <= entry.output, entry.name
        assert entry.cached_input is None or 0 < entry.cached_input < entry.input, entry.name
        if entry.long_prompt is not None:
            assert entry.long_prompt.above_tokens >= 100_000, entry.name
            assert (entry.long_prompt.input, entry.long_prompt.output) > (entry.input, entry.output), entry.name


def test_a_request_costs_what_the_price_list_says(record: Record) -> None:
    """600 of input at 0.15 $, 400 cached at 0.075 $, 200 of output at 0.60 $ per million."""
    (groq,) = comparisons(Prices(compare=("groq/gpt-oss-120b",)))

    assert groq.cost(record()) == 600 * 150 + 400 * 75 + 200 * 600
    assert groq.as_of == dt.date(2026, 7, 1)


def test_a_long_prompt_has_its_own_prices_for_the_whole_request(record: Record) -> None:
    """Above the limit, not at it; the completion too."""
    long = {"above_tokens": 1000, "input": 2, "cached_input": "0.2", "output": 5}
    (entry,) = parse(file_of({**ENTRY, "cached_input": "0.1", "long_prompt": long})).entries
    there = Comparison(entry)

    assert there.cost(record(prompt_tokens=1000)) == 600 * 1000 + 400 * 100 + 200 * 2500
    assert there.cost(record(prompt_tokens=1001)) == 601 * 2000 + 400 * 200 + 200 * 5000


def test_what_is_not_known_cannot_be_compared(record: Record) -> None:
    """Nor what is no work for a model."""
    (there,) = (Comparison(entry) for entry in parse(file_of(ENTRY)).entries)

    assert there.cost(record(prompt_tokens=None)) is None
    assert there.cost(record(completion_tokens=None)) is None
    assert there.cost(record(operation="other")) is None


def test_numbers_and_texts_are_taken_as_they_are_written() -> None:
    """0.1 in JSON is a tenth, not the float next to it."""
    (entry,) = parse(
        b'{"format":1,"date":"2026-01-31","currency":"USD","unit":"per million tokens","source":"",'
        b'"entries":[{"name":"p/m","provider":"P","as_of":"2026-01-31","input":0.1,"output":"0.1"}]}'
    ).entries

    assert entry.input == entry.output
    assert str(entry.input) == "0.1"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "Input data was truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b"\xff", "JSON is malformed"),
        (file_of(ENTRY, currency="EUR"), "Invalid enum value 'EUR' - at `$.currency`"),
        (file_of(ENTRY, unit="per token"), "Invalid enum value 'per token' - at `$.unit`"),
        (file_of(ENTRY, format=2), "Invalid enum value 2 - at `$.format`"),
        (file_of({**ENTRY, "prize": 1}), "Object contains unknown field `prize` - at `$.entries[0]`"),
        (file_of({"name": "p/m"}), "Object missing required field `provider` - at `$.entries[0]`"),
        (file_of({**ENTRY, "as_of": "yesterday"}), "Invalid RFC3339 encoded date - at `$.entries[0].as_of`"),
        (file_of(ENTRY, ENTRY), "entries[1].name: `p/m` is no name, or there twice"),
        (file_of({**ENTRY, "name": " "}), "entries[0].name: ` ` is no name, or there twice"),
        (
            file_of({**ENTRY, "input": -1}),
            "entries[0].input: expected dollars per million tokens, 0 or more, got -1",
        ),
        (
            file_of({**ENTRY, "long_prompt": {"above_tokens": 1, "input": 1, "output": 1e-7}}),
            "entries[0].long_prompt.output: expected 0 or at least 0.0001 dollars per million tokens, got 1E-7: is it per token?",
        ),
    ],
)
def test_a_file_that_is_no_catalogue_is_refused_with_the_place(tmp_path: Path, data: bytes, expected: str) -> None:
    """And under the name of the setting, so that the start and a reload can say which."""
    path = tmp_path / "catalogue.json"
    path.write_bytes(data)

    with pytest.raises(ConfigError) as caught:
        comparisons(Prices(catalogue_file=str(path)))

    assert str(caught.value).startswith(f"prices.catalogue_file: {path}: {expected}")


def test_a_file_of_ones_own_replaces_the_shipped_one(tmp_path: Path, record: Record) -> None:
    """All of it: what is not in the file is not in the catalogue."""
    path = tmp_path / "catalogue.json"
    path.write_bytes(file_of(ENTRY, {**ENTRY, "name": "p/n", "output": 5}))

    found = comparisons(Prices(catalogue_file=str(path), compare=("p/n", "p/m")))

    assert [each.name for each in found] == ["p/n", "p/m"]
    assert found[0].cost(record()) == 1000 * 1000 + 200 * 5000
    with pytest.raises(ConfigError, match=r"prices\.compare\[0\]: `openai/gpt-5` is not in the catalogue"):
        comparisons(Prices(catalogue_file=str(path), compare=("openai/gpt-5",)))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("groq/gpt-oss-12b", "; it has groq/gpt-oss-120b, groq/gpt-oss-20b, groq/llama-3.3-70b, groq/llama-3.1-8b"),
        ("azure/gpt-5-mini", "; it has openai/gpt-5-mini"),
        ("nothing", ""),
    ],
)
def test_an_entry_that_is_not_there_is_named_with_its_neighbours(name: str, hint: str) -> None:
    """Of the same provider, or the same model at another."""
    with pytest.raises(ConfigError) as caught:
        comparisons(Prices(compare=("openai/gpt-5", name)))

    assert str(caught.value) == f"prices.compare[1]: `{name}` is not in the catalogue{hint}"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not there, a folder, or far too long."""
    for path, expected in ((tmp_path / "no.json", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError) as caught:
            comparisons(Prices(catalogue_file=str(path)))
        assert str(caught.value) == f"prices.catalogue_file: {path}: {expected}"
    monkeypatch.setattr(catalogue, "MAX_FILE_BYTES", 10)
    path = tmp_path / "long.json"
    path.write_bytes(file_of(ENTRY))
    with pytest.raises(ConfigError, match="bytes, expected at most 10"):
        comparisons(Prices(catalogue_file=str(path)))


def test_nothing_is_read_where_nothing_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue costs nothing to who does not use it."""
    monkeypatch.setattr(catalogue, "_read", lambda path: pytest.fail("read"))

    assert comparisons(Prices()) == ()
