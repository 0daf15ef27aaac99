"""trace_context: our span between the caller's and the engine's."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.relay import trace_context

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("flags", ["00", "01", "ff"])
def test_parent_is_replaced_and_the_rest_is_kept(flags: str) -> None:
    """Trace id and flags stay the caller's; -00 is its decision not to sample."""
    context = trace_context.join(f"00-{TRACE}-{PARENT}-{flags}".encode())
    assert context is not None
    assert (context.trace_id, context.parent_span_id) == (TRACE, PARENT)
    assert re.fullmatch(r"[0-9a-f]{16}", context.span_id)
    assert context.span_id != PARENT
    assert context.header == f"traceparent: 00-{TRACE}-{context.span_id}-{flags}\r\n".encode()


def test_each_request_has_its_own_span() -> None:
    """Span ids do not repeat."""
    header = f"00-{TRACE}-{PARENT}-01".encode()
    assert len({context.span_id for _ in range(100) if (context := trace_context.join(header))}) == 100


def test_later_version_is_read_as_ours() -> None:
    """W3C: a higher version may have more behind the flags; we answer with version 00."""
    context = trace_context.join(f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like".encode())
    assert context is not None
    assert context.header.startswith(b"traceparent: 00-")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-01-",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-01\n",
        f"cc-{TRACE}-{PARENT}-01.more",
        f"00-{TRACE}-{PARENT}-01, 00-{TRACE}-{PARENT}-01",
    ],
)
def test_invalid_header_is_left_alone(header: str) -> None:
    """It is passed on as it came, and gives us no trace."""
    valid_when_stripped = header.strip() == f"00-{TRACE}-{PARENT}-01"
    assert (trace_context.join(header.encode()) is None) is not valid_when_stripped


@given(st.binary(max_size=80))
def test_no_bytes_crash_it(header: bytes) -> None:
    """Whatever a client sends, the answer is a context or None."""
    context = trace_context.join(header)
    assert context is None or len(context.trace_id) == 32


def test_minted_trace_is_valid_and_sampled() -> None:
    """So that the engine makes its span, and ours has no parent."""
    context = trace_context.mint()
    again = trace_context.join(context.header.removeprefix(b"traceparent: ").rstrip())
    assert again is not None
    assert (again.trace_id, again.parent_span_id) == (context.trace_id, context.span_id)
    assert context.parent_span_id == ""
    assert context.header.endswith(b"-01\r\n")
