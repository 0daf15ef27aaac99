"""The caller's `tracestate`: what a span keeps of it, and that nothing else of it is kept."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import TraceState

from inferwatch.tap import Open
from inferwatch_collectors.otlp import trace_state
from inferwatch_collectors.otlp.trace_state import MAX_CHARS, Members, TraceStates, kept

OT = ("ot", "th:c8;rv:0123456789abcd")


@pytest.mark.parametrize(
    ("header", "keys", "members"),
    [
        ("ot=th:c8;rv:0123456789abcd", ("ot",), (OT,)),
        ("dd=s:1;o:rum, ot=th:c8;rv:0123456789abcd\t,,es=s:0.1", ("ot",), (OT,)),
        ("dd=s:1;o:rum,ot=p:8;r:62", ("ot", "dd"), (("dd", "s:1;o:rum"), ("ot", "p:8;r:62"))),
        ("fw529a3039@dt=FfxJ;x", ("fw529a3039@dt",), (("fw529a3039@dt", "FfxJ;x"),)),
        ("ot=th:c8;ann:ann@example.com;rv:+4930123456", ("ot",), (("ot", "th:c8"),)),
        ("ot=ann@example.com", ("ot",), ()),
        ("dd=ann@example.com", ("ot",), ()),
        ("ot=th:c8", (), ()),
    ],
    ids=[
        "ot",
        "among others",
        "another that is named",
        "of a tenant",
        "more in ot",
        "other in ot",
        "not named",
        "none",
    ],
)
def test_what_is_kept(header: str, keys: tuple[str, ...], members: Members) -> None:
    """Members whose keys are named, in their order; of OpenTelemetry's own the numbers that it has."""
    assert kept(header, keys) == members


@pytest.mark.parametrize(
    "header",
    ["", "ot", "ot=", "=1", "Ot=1", "dd=a=b", "dd=1,dd=2", "dd=é", "dd=" + "x" * 257, "d d=1", "@dt=1", "ot=th:c8,dd"],
)
def test_of_a_header_that_is_not_valid_nothing_is_kept(header: str) -> None:
    """Not even the members that are: so W3C wants it."""
    assert kept(header + ",ot=th:c8" * (header not in ("", "ot=th:c8,dd")), ("ot", "dd")) == ()


def test_bounds() -> None:
    """No more than 32 members are valid, and what is kept of them is no longer than 512 characters: whole members."""
    many = [f"k{number}=v" for number in range(31)]
    keys = tuple(f"k{number}" for number in range(31))
    assert len(kept(",".join([*many, "ot=th:c8"]), (*keys, "ot"))) == 32
    assert kept(",".join([*many, "ot=th:c8", "dd=1"]), keys) == ()

    long = kept(f"a={'x' * 256},b={'y' * 256},c=z", ("a", "b", "c"))
    assert long == (("a", "x" * 256), ("c", "z"))
    assert len(",".join("=".join(each) for each in long)) <= MAX_CHARS


@given(st.text(max_size=60) | st.from_regex(r"([a-z]{1,3}=[ -~]{0,5},?){0,6}", fullmatch=True))
def test_what_is_kept_is_valid_to_opentelemetry(header: str) -> None:
    """Whatever comes, nothing is raised, and nothing is kept that its own class would refuse."""
    members = kept(header, Everything())

    assert tuple(TraceState(members).items()) == members


class Everything:
    def __contains__(self, _: object) -> bool:
        return True


def opened(request_id: str = "r1", **changes: Any) -> Open:
    fields: dict[str, Any] = {
        "id": 1, "request_id": request_id, "wall_ns": 0, "arrival_ns": 0, "sent_ns": 0, "method": "POST", "path": "/",
        "tenant": "acme", "model": "m", "stream": True, "asked_usage": False, "choices": 1,
        "headers": {"tracestate": "dd=1,ot=th:c8"}, "body": b"", "body_bytes": 0, "trace_id": "a" * 32,
        "parent_span_id": "b" * 16,
    }  # fmt: skip
    return Open(**fields | changes)


def test_it_says_something_of_a_callers_trace_only() -> None:
    """Without a valid `traceparent` there is none; and it is told once."""
    states = TraceStates(("ot",))
    states.opened(opened())
    states.opened(opened("r2", parent_span_id=""))
    states.opened(opened("r3", headers={}))

    assert [states.take(name) for name in ("r1", "r1", "r2", "r3")] == [(("ot", "th:c8"),), (), (), ()]


def test_no_more_are_open_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the oldest are forgotten, and counted."""
    monkeypatch.setattr(trace_state, "MAX_OPEN", 2)
    states = TraceStates(("ot",))
    for number in range(3):
        states.opened(opened(f"r{number}"))

    assert states.cut == 1
    assert states.take("r0") == ()
    assert states.take("r2")
