"""A frame as lines of text."""

import re
from typing import Any

import live_frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferwatch.top import page, words
from inferwatch.top.page import Look, draw
from inferwatch.top.state import State, press
from inferwatch.top.views import VIEWS

LOOK = Look("127.0.0.1:9480", 120)


def shown(frame: Any, state: State | None = None, look: Look = LOOK) -> str:
    return page.text(draw(frame, state or State(), look).lines)


def rows(frame: Any, state: State) -> list[str]:
    """Return the first word of each row of the table."""
    lines = shown(frame, state).splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith(" 1 Tenants")) + 2
    return [line.split()[0] for line in lines[start:]]


def test_the_whole_page(frame: Any) -> None:
    """As it is on a terminal of 120 columns."""
    at = words.clock(frame["unix_s"])
    assert shown(frame).splitlines() == [
        f"Inferwatch 0.1.0 before 127.0.0.1:8000 at 127.0.0.1:9480  {at}",
        "well",
        "requests    12.2/s, 1,234 in all        failed      0/s, 2 in all               in flight   3, - waiting in the engine",
        "first token p50 120 ms, p99 1.5 s       token gap   p50 10 ms, p99 50 ms        prompt      20.0 k tok/s, 99,000",
        "completion  950 tok/s, 1,500,000        cost        $12.50, $3.5000/h now       idle        $0.1250, $0.5000/h now",
        "by prices   $3.2500                     KV cache    [|||||     ] 50 %           GPUs        [||||||||  ] 75 %, 412 W",
        "daily hooli [||||||||| ] 90 %",
        " 1 Tenants  2 Models  3 Streams  4 GPUs  5 Budgets  6 Errors  7 Signals  3",
        "tenant     req/s  failed/s   tok/s v  ttft p99  requests    tokens  hardware  by prices",
        "globex       1.5         0       900    250 ms        12    34,567   $1.2500          -",
        "acme         1.5         0       500    250 ms        12    34,567   $1.2500          -",
        "hooli        1.5         0        10    250 ms        12    34,567   $1.2500          -",
    ]


@pytest.mark.parametrize(
    ("view", "row"),
    [
        ("models", r"qwen +1\.5 +0 +1410 +250 ms"),
        ("streams", r"acme +qwen +30\.0 s +100 ms +100 +50 +20"),
        ("gpus", r"0 +H100 +75 % +40\.0/80\.0 GiB +412/700 W +61"),
        ("budgets", r"daily +hooli +\$4\.5000 +\$5\.0000 +90 % +140 % +90 min"),
        ("errors", r"\d\d:\d\d:\d\d +hooli +qwen +rejected +over_budget +429 +2 ms"),
        ("signals", r"hooli +retry_storm +2"),
    ],
)
def test_every_view(frame: Any, view: str, row: str) -> None:
    """With what the live page says in its tables."""
    assert re.search(f"^{row}", shown(frame, State(view=view)), re.MULTILINE)


def test_sorting(frame: Any) -> None:
    """Numbers from the largest, text from A; the other way round if told; what is not known comes last both times."""
    assert rows(frame, State(sort={"tenants": "tenant"})) == ["acme", "globex", "hooli"]
    assert rows(frame, State(sort={"tenants": "tenant"}, backwards=frozenset({"tenants"}))) == [
        "hooli",
        "globex",
        "acme",
    ]
    by_rate = State(view="streams", sort={"streams": "tok/s"})
    assert rows(frame, by_rate) == ["hooli", "acme", "globex"]
    assert rows(frame, press(by_rate, "r")) == ["acme", "hooli", "globex"]
    assert rows(frame, State(view="streams")) == ["acme", "globex", "hooli"]


def test_the_filter_shows_how_many_are_left(frame: Any) -> None:
    """In any column of text, whatever the case, also while it is typed."""
    for state in (State(filter="OO"), State(filter="x", typing="oo")):
        assert rows(frame, state) == ["hooli"]
    assert "1 with 'OO' of 3" in shown(frame, State(filter="OO"))
    assert "no row has these letters" in shown(frame, State(filter="nobody"))
    assert rows(frame, State(view="errors", filter="over_b"))[0].count(":") == 2


def test_more_than_the_frame_has_is_said(frame: Any) -> None:
    """Tables are bounded by the collector; nobody should take a part for the whole."""
    frame |= {"tenant_count": 70, "running": 900, "model_count": 71, "gpu_count": 72, "budget_count": 73}
    frame |= {"signals": [{"tenant": "hooli", "kind": "rate", "count": 2.0}], "signal_count": 74}
    assert " 3 of 70" in shown(frame)
    assert " 3 of 900" in shown(frame, State(view="streams"))
    for view, count in (("models", 71), ("gpus", 72), ("budgets", 73), ("signals", 74)):
        assert f" 1 of {count}" in shown(frame, State(view=view))


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_there(view: Any) -> None:
    """An empty table says what is not there; a frame of another version with less in it is no fault."""
    bare = {"unix_s": 0.0, "totals": {}}
    assert view.empty in shown(bare, State(view=view.name))
    assert "requests    -/s, - in all" in shown(bare)


def test_a_fault_is_said(frame: Any) -> None:
    """What is not ready, what was lost and how old the numbers are, and that it is paused."""
    frame["health"]["faults"] = ["draining", "upstream 127.0.0.1:8000 does not accept connections"]
    assert "not ready: draining; upstream 127.0.0.1:8000 does not accept connections" in shown(frame)
    lost = LOOK._replace(fault="connection refused", age_s=12.0)
    assert "connection lost: connection refused; the numbers are 12.0 s old; trying again" in shown(frame, look=lost)
    assert "connection lost: connection refused; trying again" in shown(None, look=lost)
    assert "waiting for the first answer" in shown(None)
    assert "  paused" in shown(frame, State(paused=True))


def test_what_stands_out(frame: Any) -> None:
    """What is nearly spent is told by a colour."""

    def style(spent: float) -> str:
        frame["budgets"][0]["spent"] = spent
        spans = [span for line in draw(frame, State(), LOOK).lines for span in line]
        return next(after.style for span, after in zip(spans, spans[1:], strict=False) if "daily" in span.text)

    assert [style(spent) for spent in (1.0, 4.0, 5.0, 7.0)] == ["good", "warn", "bad", "bad"]


def test_a_low_terminal_keeps_the_table(frame: Any) -> None:
    """The header gives way; the keys are in the last line; moving stops at the last row."""
    frame["tenants"] *= 20
    low = LOOK._replace(columns=80, rows=10)
    drawn = draw(frame, State(top=1 << 30), low)
    lines = page.text(drawn.lines).splitlines()
    assert len(lines) == 10
    assert lines[2].startswith("requests")
    assert lines[3].startswith(" 1 Tenants")
    assert lines[-1].startswith("h help")
    assert drawn.top == 60 - page.MIN_TABLE_ROWS
    assert len(page.text(draw(frame, State(), low._replace(rows=60)).lines).splitlines()) == 60


def test_a_narrow_terminal_leaves_out_columns(frame: Any) -> None:
    """First names are cut, then what matters least goes; what is sorted by stays."""
    frame["tenants"][0]["tenant"] = "a-tenant-with-a-very-long-name"
    narrow = LOOK._replace(columns=45)
    text = shown(frame, State(sort={"tenants": "by prices"}), narrow)
    assert "a-tenant-wi~" in text
    assert re.search(r"^tenant +req/s +tok/s +by prices v$", text, re.MULTILINE)
    assert "3 Streams" not in text


def test_help_has_the_letters_of_the_view() -> None:
    """So that nobody has to guess them."""
    text = shown(None, State(help=True, view="streams"))
    assert "T tok/s" in text
    assert "< >" in text


@settings(deadline=None)
@given(
    st.sampled_from([view.name for view in VIEWS]),
    st.integers(1, 140),
    st.integers(1, 40),
    st.text(max_size=20),
    st.booleans(),
    st.lists(st.sampled_from(["/", "h", ">", "r", "a", "ENTER", "DOWN", "END", " ", "TAB"]), max_size=5),
)
def test_it_always_fits(view: str, columns: int, height: int, name: str, lost: bool, keys: list[str]) -> None:
    """Whatever the size, the names and the keys: never a line too many or too long."""
    frame = live_frame.frame()
    frame["tenants"][0]["tenant"] = frame["streams"][0]["model"] = frame["budgets"][0]["account"] = name
    state = State(view=view)
    for key in keys:
        state = press(state, key)
    look = Look("[::1]:9480", columns, height, "no answer in time" if lost else "", 3.0)
    lines = draw(frame, state, look).lines
    assert len(lines) <= height
    for line in lines:
        text = "".join(span.text for span in line)
        assert words.width(text) <= columns
        assert text.isprintable()
