"""How a report looks: the same figures in every format, and names from outside do no harm."""

import csv
import io
import json
from typing import Any

import pytest

from inferwatch_collectors.ledger.usage import Waste
from inferwatch_collectors.report.building import PriceBasis, build
from inferwatch_collectors.report.figures import Report
from inferwatch_collectors.report.query import Query
from inferwatch_collectors.report.reading import reading, usage
from inferwatch_collectors.report.rendering import (
    CONTENT_TYPES,
    FORMATS,
    WASTE_WORDS,
    as_csv,
    as_json,
    as_markdown,
    as_table,
    dollars,
    exact_dollars,
    inert,
    shown,
)


@pytest.fixture
def report(shop: Any, basis: PriceBasis) -> Report:
    shop.sample()
    query = Query.of({}, shop.now_s)
    with reading(shop.path) as connection:
        return build(query, usage(connection, query), basis)


@pytest.mark.parametrize(
    ("nanodollars", "text", "exact"),
    [
        (None, "-", ""),
        (0, "0.00", "0.000000000"),
        (1, "1e-09", "0.000000001"),
        (4_200_000, "0.0042", "0.004200000"),
        (1_234_567_890_123, "1,234.57", "1234.567890123"),
        (-1_500_000_000, "-1.50", "-1.500000000"),
    ],
)
def test_dollars(nanodollars: int | None, text: str, exact: str) -> None:
    """People get a few digits, programs all of them, and unknown is not 0."""
    assert (dollars(nanodollars), exact_dollars(nanodollars)) == (text, exact)


def test_the_table(report: Report) -> None:
    """Title, summary, each table with its heading, waste in words, notes."""
    text = as_table(report)
    assert text.startswith("Usage from 2026-02-03T00:00Z to 2026-03-05T00:00Z\n")
    for words in (
        "5 requests, 35 prompt tokens (4 cached), 112 completion tokens",
        "effective cost at this utilisation: $ 0.0006803 per million tokens (50% of the cost was idle)",
        "at elsewhere/big (2026-01-01): $ 0.000147; own hardware is cheaper from 1 tokens",
        "By tenant\n",
        "By user\n",
        "u1 of acme",
        "By day\n",
        "aborted: the client hung up in mid-answer",
        "Note: 1 of 5 requests have no price",
    ):
        assert words in text
    assert all(len(line) == len(line.rstrip()) for line in text.splitlines())


def test_markdown(report: Report) -> None:
    """A page with headings and tables of equal width."""
    text = as_markdown(report)
    assert text.startswith("# Usage from ")
    for table in text.split("\n\n## ")[1:]:
        bars = [line.count("|") for line in table.splitlines() if line.startswith("|")]
        assert len(bars) >= 3
        assert len(set(bars)) == 1


def test_csv(report: Report) -> None:
    """One row per line of each table; unknown is empty; money has nine decimals."""
    rows = list(csv.DictReader(io.StringIO(as_csv(report))))
    assert {row["table"] for row in rows} == {"total", "tenant", "user", "feature", "model", "day", "waste", "idle"}
    assert rows[0] | {"name": "total", "requests": "5", "price_dollars": "0.000003540"} == rows[0]
    (beta,) = (row for row in rows if row["table"] == "tenant" and row["name"] == "beta")
    assert beta["price_dollars"] == ""
    assert rows[-1]["gpu_dollars"] == "0.000000050"


def test_json(report: Report) -> None:
    """The report's fields, amounts as whole nano-dollars."""
    tree = json.loads(as_json(report))
    assert tree["total"]["price_nanodollars"] == 3_540
    assert tree["tables"]["tenant"][0]["name"] == "acme"
    assert tree["effective"]["hardware_nanodollars"] == 100


def test_names_from_outside(shop: Any, basis: PriceBasis) -> None:
    """Control characters, Markdown and formulas in a model's or feature's name stay text."""
    shop.fill(shop.record(model="\x1b[2Jevil|`x`", feature="=cmd()", tenant="+1"))
    query = Query.of({}, shop.now_s)
    with reading(shop.path) as connection:
        report = build(query, usage(connection, query), basis)
    assert "\x1b" not in as_table(report) + as_markdown(report)
    assert "| `?[2Jevil\\|'x'` |" in as_markdown(report)
    assert "'=cmd()" in as_csv(report)
    assert "'+1" in as_csv(report)


@pytest.mark.parametrize(("text", "safe"), [("=1", "'=1"), ("-x", "'-x"), ("@", "'@"), ("a=1", "a=1"), ("", "")])
def test_no_formulas(text: str, safe: str) -> None:
    """What a spreadsheet would compute gets a quote in front."""
    assert inert(text) == safe


def test_a_missing_name_is_visible() -> None:
    """Requests without a feature are a line like any other."""
    assert shown("") == "(none)"


def test_every_format_and_every_reason_has_its_words() -> None:
    """Nothing is served without a content type, and no reason of waste without an explanation."""
    assert set(FORMATS) == set(CONTENT_TYPES)
    assert set(WASTE_WORDS) == {reason.value for reason in Waste}
