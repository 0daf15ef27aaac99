"""The Prometheus text format: what is wanted is read exactly or not at all."""

import contextlib
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from inferwatch_collectors.engine import parse as parse_module
from inferwatch_collectors.engine.names import WANTED
from inferwatch_collectors.engine.parse import MAX_LINE_CHARS, ParseError, Sample, parse

NAME = "vllm:x_total"


@pytest.mark.parametrize(
    ("line", "labels", "value"),
    [
        ("vllm:x_total 3", {}, 3.0),
        ("vllm:x_total{} 3", {}, 3.0),
        ("vllm:x_total\t3", {}, 3.0),
        ('vllm:x_total{a="b"} 3', {"a": "b"}, 3.0),
        ('vllm:x_total {a="b"} 3', {"a": "b"}, 3.0),
        ('vllm:x_total{a="b"}3', {"a": "b"}, 3.0),
        ('vllm:x_total{a="b",c="d",} 3', {"a": "b", "c": "d"}, 3.0),
        ('vllm:x_total{ a = "b" , c="d" } 3', {"a": "b", "c": "d"}, 3.0),
        ('vllm:x_total{a="} 9"} 3', {"a": "} 9"}, 3.0),
        (r'vllm:x_total{a="\"\\\n"} 3', {"a": '"\\\n'}, 3.0),
        ('vllm:x_total{a=""} 3', {"a": ""}, 3.0),
        ("vllm:x_total 3 1700000000000", {}, 3.0),
        ("vllm:x_total 3 \r", {}, 3.0),
        ("vllm:x_total 1.5e+09", {}, 1.5e9),
        ("vllm:x_total -2.5E-1", {}, -0.25),
        ("vllm:x_total .5", {}, 0.5),
        ("vllm:x_total +Inf", {}, math.inf),
    ],
)
def test_a_sample(line: str, labels: dict[str, str], value: float) -> None:
    """Names, labels with their escapes, values and time stamps are read as the format has them."""
    assert parse(f"# HELP x y\n\n{line}\nother{{}} nonsense\n".encode(), {NAME}) == {NAME: [Sample(labels, value)]}


def test_not_a_number() -> None:
    """NaN is read as such."""
    assert math.isnan(parse(b"vllm:x_total NaN\n", {NAME})[NAME][0].value)


@pytest.mark.parametrize(
    "text",
    [
        "vllm:x_total",
        "vllm:x_total ",
        "vllm:x_total{",
        'vllm:x_total{a="b" 3',
        'vllm:x_total{a="b} 3',
        "vllm:x_total{a=b} 3",
        'vllm:x_total{a="b",a="c"} 3',
        'vllm:x_total{a="b"c="d"} 3',
        'vllm:x_total{a="b"}',
        "vllm:x_total 1_000",
        "vllm:x_total 0x10",
        "vllm:x_total nonsense",
        "vllm:x_total 1 2 3",
        "vllm:x_total 3\nvllm:x_total 3",
        'vllm:x_total{a="b",c="d"} 3\nvllm:x_total{c="d",a="b"} 4',
        f'vllm:x_total{{a="{"b" * MAX_LINE_CHARS}"}} 3',
    ],
)
def test_a_broken_line(text: str) -> None:
    """A wanted line that cannot be read, or that comes twice, makes the whole text void; nothing of it is quoted."""
    with pytest.raises(ParseError) as caught:
        parse(f"{text}\n".encode(), {NAME})
    assert "nonsense" not in str(caught.value)
    assert "bbb" not in str(caught.value)


@pytest.mark.parametrize("body", [b"vllm:x_total 12", b"vllm:x_total 3\n# EO", b"vllm:x_total \xff\n"])
def test_a_text_that_is_cut_off_or_no_text(body: bytes) -> None:
    """A last line without an end may be half a number; what is not UTF-8 is not the format."""
    with pytest.raises(ParseError):
        parse(body, {NAME})


def test_nothing() -> None:
    """An empty text has no samples, and is not broken."""
    assert parse(b"", {NAME}) == {}


def test_too_many_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page with more series than any engine has is refused, not kept."""
    monkeypatch.setattr(parse_module, "MAX_SAMPLES", 3)
    body = "".join(f'vllm:x_total{{a="{number}"}} 1\n' for number in range(4)).encode()
    with pytest.raises(ParseError, match="more than 3 series"):
        parse(body, {NAME})


def test_equals_prometheus_own_parser(text: Callable[[str], bytes]) -> None:
    """On a real vLLM's text it finds the samples that prometheus_client finds."""
    body = text("vllm")
    theirs = {
        (sample.name, frozenset(sample.labels.items()), sample.value)
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if sample.name in WANTED
    }
    ours = {
        (name, frozenset(sample.labels.items()), sample.value)
        for name, series in parse(body, WANTED).items()
        for sample in series
    }
    assert ours == theirs
    assert len(ours) > 10


@given(
    st.dictionaries(st.from_regex(r"[a-z_]{1,5}", fullmatch=True), st.text(st.characters(codec="utf-8")), max_size=4),
    st.floats(allow_nan=False),
)
def test_whatever_is_escaped_comes_back(labels: dict[str, str], value: float) -> None:
    """Any label values and any number survive the format."""
    escaped = {key: text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"") for key, text in labels.items()}
    inner = ",".join(f'{key}="{text}"' for key, text in escaped.items())
    number = repr(value).replace("inf", "Inf")
    assert parse(f"{NAME}{{{inner}}} {number}\n".encode(), {NAME}) == {NAME: [Sample(labels, value)]}


@given(st.binary(max_size=300))
def test_any_bytes(body: bytes) -> None:
    """Whatever comes after the name of a wanted metric is read or refused; nothing else is raised."""
    for prefix in (b"", b"vllm:x_total", b"vllm:x_total{"):
        with contextlib.suppress(ParseError):
            parse(prefix + body + b"\n", {NAME})


@given(st.text(alphabet=' \t{}",=\\ab1.\n', max_size=120))
def test_any_near_miss(tail: str) -> None:
    """Text made of the format's own signs is read or refused, in time linear in its length."""
    try:
        found = parse(f"vllm:x_total{tail}\n".encode(), {NAME})
    except ParseError:
        return
    assert found.keys() <= {NAME}
