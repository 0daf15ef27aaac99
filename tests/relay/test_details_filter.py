"""details_filter: what we asked TGI for is taken out again, and nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.relay import details_filter
from inferwatch.relay.details_filter import DetailsFilter

TOKEN = (
    b'data:{"index":1,"token":{"id":5,"text":"a","logprob":-0.1,"special":false},'
    b'"generated_text":null,"details":null}\n\n'
)
LAST = b'data:{"index":2,"token":{"id":6,"text":"b","logprob":-0.1,"special":false},"generated_text":"ab","details":%b}\n\n'
DETAILS = b'{"finish_reason":"length","generated_tokens":2,"seed":null,"input_length":7}'
ASKED = b":\n\n" + TOKEN + LAST % DETAILS
BARE = b":\n\n" + TOKEN + LAST % b"null"


def shown(pieces: list[bytes]) -> tuple[bytes, DetailsFilter]:
    """Return what a client sees of a stream in these pieces."""
    hiding = DetailsFilter()
    out = b"".join(hiding.feed(piece) for piece in pieces)
    return out + hiding.finish(), hiding


@given(st.sets(st.integers(0, len(ASKED)), max_size=12))
def test_a_client_sees_what_it_would_have_seen(cuts: set[int]) -> None:
    """In whatever pieces it came; what was taken out is kept."""
    at = sorted(cuts | {0, len(ASKED)})
    out, hiding = shown([ASKED[start:end] for start, end in zip(at, at[1:], strict=False)])
    assert out == BARE
    assert json.loads(hiding.usages[-1])["generated_tokens"] == 2


def test_ordinary_events_pass_at_once() -> None:
    """Nothing is held but an event that is not whole."""
    hiding = DetailsFilter()
    assert hiding.feed(TOKEN) == TOKEN
    assert hiding.feed(TOKEN[:10]) == b""
    assert hiding.unshown() == b""
    assert hiding.feed(TOKEN[10:] + TOKEN[:5]) == TOKEN
    assert hiding.unshown() == TOKEN[:10]


def test_the_word_in_a_text_is_no_key() -> None:
    """Inside a string its quotes are escaped."""
    text = json.dumps({"token": {"text": ',"details":{"a":1}'}, "details": None}, separators=(",", ":")).encode()
    assert shown([b"data:" + text + b"\n\n"])[0] == b"data:" + text + b"\n\n"


def test_an_event_without_end_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bound it passes as it comes."""
    monkeypatch.setattr(details_filter, "MAX_HELD_BYTES", 100)
    hiding = DetailsFilter()
    sent = b"".join(hiding.feed(b"x" * 30) for _ in range(50))
    assert len(sent) >= 1500 - 130
    assert sent + hiding.finish() == b"x" * 1500


def test_a_stream_that_ends_in_the_midst_of_an_event() -> None:
    """What was held is shown."""
    assert shown([TOKEN + LAST[:50]])[0] == TOKEN + LAST[:50]
    assert shown([(LAST % DETAILS)[:-1]])[0] == (LAST % b"null")[:-1]
