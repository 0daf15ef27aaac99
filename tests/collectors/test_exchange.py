"""One request from its opening to its record."""

import gzip
import json
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferwatch.record import ErrorType, Outcome, RequestRecord, TokenClass, TokenSource
from inferwatch.tap import Close, Head, Open
from inferwatch_collectors import exchange as exchange_module
from inferwatch_collectors.exchange import Exchange
from inferwatch_collectors.verdict import FIRST_TOKEN_MISSING_REASONS

MS = 1_000_000
ARRIVAL = 1_000 * MS
CHAT = "/v1/chat/completions"
SSE_HEAD = {"content-type": "text/event-stream; charset=utf-8"}
JSON_HEAD = {"content-type": "application/json"}


def opened(**changes: Any) -> Open:
    """Return the opening of a streamed chat request."""
    values: dict[str, Any] = {
        "id": 1, "request_id": "r-1", "wall_ns": 5, "arrival_ns": ARRIVAL, "sent_ns": ARRIVAL + 2 * MS,
        "method": "POST", "path": CHAT, "tenant": "team-a", "model": "tiny", "stream": True, "asked_usage": True,
        "choices": 1, "headers": {}, "body": b"{}", "body_bytes": 2,
    }  # fmt: skip
    return Open(**values | changes)


def closed(at_ms: int = 100, **changes: Any) -> Close:
    """Return the end of a request that went well, `at_ms` after its arrival."""
    values: dict[str, Any] = {"id": 1, "stamp_ns": ARRIVAL + at_ms * MS, "outcome": "ok", "error": "", "status": 200}
    return Close(**values | changes)


def event(
    index: int = 0, tokens: int | None = None, finish: str | None = None, prompt: int = 11, **delta: Any
) -> bytes:
    """Return a chat chunk as a server-sent event, with continuous usage if `tokens` is given."""
    chunk: dict[str, Any] = {"id": "chatcmpl-1", "model": "tiny"}
    chunk["choices"] = [{"index": index, "delta": delta, "finish_reason": finish}]
    if tokens is not None:
        chunk["usage"] = {"prompt_tokens": prompt, "total_tokens": prompt + tokens, "completion_tokens": tokens}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def usage_event(prompt: int, completion: int, **more: Any) -> bytes:
    """Return the last event of a stream that tells its usage."""
    usage = {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion, **more}
    return (
        b"data: " + json.dumps({"id": "chatcmpl-1", "model": "tiny", "choices": [], "usage": usage}).encode() + b"\n\n"
    )


ROLE = event(role="assistant", content="")
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"boom","type":"InternalServerError","code":500}}\n\n'
REPLY = json.dumps(
    {
        "id": "chatcmpl-1",
        "model": "tiny",
        "choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 3},
    }
).encode()

# (milliseconds after arrival, data)
Reads = list[tuple[int, bytes]]

GOOD: Reads = [
    (20, ROLE + event(content="a", tokens=1)),
    (30, event(content="b", tokens=2)),
    (50, event(content="c", tokens=3, finish="stop")),
    (50, usage_event(11, 3)),
    (51, DONE),
]


def play(
    reads: Reads,
    close: Close | None = None,
    open_: Open | None = None,
    head: dict[str, str] | None = None,
    status: int | None = 200,
) -> RequestRecord:
    """Return the record of a request whose reply came in these reads. `status` None: no head ever came."""
    exchange = Exchange(open_ or opened())
    if status is not None:
        exchange.head(Head(1, ARRIVAL + 10 * MS, status, SSE_HEAD if head is None else head))
    for at_ms, data in reads:
        exchange.read(ARRIVAL + at_ms * MS, data)
    return exchange.close(close or closed())


def test_a_streamed_request() -> None:
    """Every field of the record, for a stream in which all went well."""
    record = play(
        GOOD,
        closed(head_ns=ARRIVAL + 9 * MS, response_bytes=777, stalled_ns=3 * MS, retried=True),
        opened(trace_id="t" * 32, span_id="s" * 16, parent_span_id="p" * 16, user="u", feature="f", session="x"),
    )
    assert record == RequestRecord(
        request_id="r-1",
        wall_ns=5,
        tenant="team-a",
        model="tiny",
        operation="chat",
        route=CHAT,
        method="POST",
        stream=True,
        outcome=Outcome.OK,
        status=200,
        error=ErrorType.NONE,
        prompt_tokens=11,
        cached_tokens=None,
        completion_tokens=3,
        reasoning_tokens=None,
        token_source=TokenSource.FINAL_USAGE,
        choices=1,
        finish_reasons=("stop",),
        duration_s=0.1,
        sent_s=0.002,
        head_s=0.009,
        ttft_s=0.02,
        ttft_answer_s=0.02,
        first_token=TokenClass.ANSWER,
        first_token_missing="",
        gap_count=2,
        gap_sum_s=0.03,
        gap_max_s=0.02,
        gap_max_at_s=0.03,
        stalled_s=0.003,
        events=5,
        request_bytes=2,
        response_bytes=777,
        dropped_bytes=0,
        retried=True,
        engine_id="chatcmpl-1",
        engine_model="tiny",
        trace_id="t" * 32,
        span_id="s" * 16,
        parent_span_id="p" * 16,
        user="u",
        feature="f",
        session="x",
    )


def test_a_plain_request() -> None:
    """A reply that is not streamed has counts and a finish, and no first token; none is missing, either."""
    record = play([(20, REPLY[:30]), (21, REPLY[30:])], open_=opened(stream=False), head=JSON_HEAD)
    assert (record.stream, record.outcome, record.token_source) == (False, Outcome.OK, TokenSource.FINAL_USAGE)
    assert (record.prompt_tokens, record.completion_tokens, record.finish_reasons) == (11, 3, ("stop",))
    assert (record.ttft_s, record.first_token_missing, record.gap_count, record.events) == (None, "", 0, 0)


def test_a_plain_reply_to_a_request_for_a_stream() -> None:
    """What came counts: nothing was streamed, so no first token is missing."""
    record = play([(20, REPLY)], head=JSON_HEAD)
    assert (record.prompt_tokens, record.completion_tokens, record.first_token_missing) == (11, 3, "")


def test_a_route_that_does_not_generate() -> None:
    """Time and bytes only, whatever the body looks like."""
    record = play(
        [(20, b'{"count":5,"usage":{"prompt_tokens":9}}')],
        closed(response_bytes=40, usages={-1: b'{"prompt_tokens":9,"completion_tokens":1}'}, dropped_bytes=1),
        opened(path="/tokenize", stream=False),
        JSON_HEAD,
    )
    assert (record.operation, record.route, record.outcome) == ("other", "/tokenize", Outcome.OK)
    assert (record.prompt_tokens, record.token_source, record.response_bytes) == (None, TokenSource.NONE, 40)


def test_embeddings() -> None:
    """Embeddings have a prompt and no first token."""
    body = b'{"data":[],"model":"e","usage":{"prompt_tokens":9,"total_tokens":9,"completion_tokens":0}}'
    record = play([(20, body)], open_=opened(path="/v1/embeddings", stream=False), head=JSON_HEAD)
    assert (record.operation, record.prompt_tokens, record.completion_tokens) == ("embeddings", 9, 0)
    assert record.first_token_missing == ""


@pytest.mark.parametrize(
    ("reads", "close", "status", "outcome", "error"),
    [
        pytest.param(GOOD, {}, 200, "ok", "", id="fine"),
        pytest.param(GOOD[:-1], {}, 200, "ok", "", id="no [DONE]"),
        pytest.param(GOOD[:3], {}, 200, "ok", "", id="no usage, no [DONE]"),
        pytest.param(GOOD[:2], {}, 200, "stream_error", "no_finish", id="no finish"),
        pytest.param([], {}, 200, "stream_error", "no_finish", id="no events"),
        pytest.param([(20, b": ping\n\n")], {}, 200, "stream_error", "no_finish", id="comments only"),
        pytest.param([(20, ROLE)], {}, 200, "stream_error", "no_finish", id="role only"),
        pytest.param(
            [*GOOD[:3], (60, event(index=1, content="x"))],
            {},
            200,
            "stream_error",
            "no_finish",
            id="one of two choices",
        ),
        pytest.param([*GOOD[:2], (60, ERROR + DONE)], {}, 200, "stream_error", "engine_event", id="error and [DONE]"),
        pytest.param([(20, ERROR)], {}, 200, "stream_error", "engine_event", id="error at once"),
        pytest.param([(20, b'data: {"error":"boom"}\n\n')], {}, 200, "stream_error", "engine_event", id="error string"),
        pytest.param(
            [(20, b'event: error\ndata: {"message":"x"}\n\n')],
            {},
            200,
            "stream_error",
            "engine_event",
            id="event: error",
        ),
        pytest.param([*GOOD[:3], (60, ERROR)], {}, 200, "stream_error", "engine_event", id="error after the finish"),
        pytest.param(
            [(20, ERROR)],
            {"outcome": "client_abort"},
            200,
            "stream_error",
            "engine_event",
            id="client left after an error",
        ),
        pytest.param(
            [(20, ERROR)],
            {"outcome": "stream_error", "error": "upstream_reset"},
            200,
            "stream_error",
            "engine_event",
            id="reset after an error",
        ),
        pytest.param(GOOD[:2], {"outcome": "client_abort"}, 200, "client_abort", "", id="client left"),
        pytest.param(GOOD, {"outcome": "client_abort"}, 200, "ok", "", id="client left after [DONE]"),
        pytest.param(
            GOOD[:2],
            {"outcome": "stream_error", "error": "upstream_reset"},
            200,
            "stream_error",
            "upstream_reset",
            id="cut",
        ),
        pytest.param(
            GOOD[:2],
            {"outcome": "stream_error", "error": "idle_timeout"},
            200,
            "stream_error",
            "idle_timeout",
            id="stalled",
        ),
        pytest.param([(20, b"{}")], {"status": 500}, 500, "upstream_error", "engine_5xx", id="500"),
        pytest.param([(20, b"{}")], {"status": 503}, 503, "upstream_error", "engine_5xx", id="503"),
        pytest.param([(20, b'{"error":{}}')], {"status": 404}, 404, "rejected", "engine_4xx", id="404"),
        pytest.param([], {"status": 429}, 429, "rejected", "engine_4xx", id="429"),
        pytest.param(
            [],
            {"status": 503, "outcome": "upstream_error"},
            503,
            "upstream_error",
            "engine_5xx",
            id="503, said so already",
        ),
        pytest.param([], {"status": 500, "outcome": "client_abort"}, 500, "client_abort", "", id="500, client left"),
        pytest.param(
            [],
            {"status": 502, "outcome": "upstream_error", "error": "connect_failed"},
            None,
            "upstream_error",
            "connect_failed",
            id="no engine",
        ),
        pytest.param(
            [],
            {"status": 413, "outcome": "rejected", "error": "request_too_large"},
            None,
            "rejected",
            "request_too_large",
            id="refused by the relay",
        ),
        pytest.param([], {"status": 404}, None, "rejected", "engine_4xx", id="404, head unseen"),
        pytest.param([], {"outcome": "brand_new"}, 200, "stream_error", "", id="a verdict of a newer relay"),
    ],
)
def test_outcomes(reads: Reads, close: dict[str, Any], status: int | None, outcome: str, error: str) -> None:
    """The transport's verdict, refined by the status and by what stands in the answer."""
    head = SSE_HEAD if (status or 200) < 400 else JSON_HEAD
    record = play(reads, closed(**close), status=status, head=head)
    assert (record.outcome, record.error) == (outcome, error)


def test_a_plain_reply_with_an_error_inside() -> None:
    """An error at status 200 is one, without a stream, too."""
    record = play([(20, b'{"error":{"message":"x"}}')], open_=opened(stream=False), head=JSON_HEAD)
    assert (record.outcome, record.error) == (Outcome.STREAM_ERROR, ErrorType.ENGINE_EVENT)


@pytest.mark.parametrize(
    ("reads", "close", "status", "reason"),
    [
        pytest.param(GOOD, {}, 200, "", id="none missing"),
        pytest.param([(20, ROLE)], {"outcome": "client_abort"}, 200, "client_abort", id="client left"),
        pytest.param([], {"outcome": "client_abort", "status": 0}, None, "client_abort", id="client left early"),
        pytest.param([(20, ERROR + DONE)], {}, 200, "error_event", id="error"),
        pytest.param([(20, ROLE + DONE)], {}, 200, "empty", id="nothing generated"),
        pytest.param([(20, event(finish="stop") + DONE)], {}, 200, "empty", id="an empty answer"),
        pytest.param(
            [(20, ROLE)], {"outcome": "stream_error", "error": "upstream_reset"}, 200, "upstream_error", id="cut"
        ),
        pytest.param([(20, ROLE)], {"outcome": "stream_error", "error": "idle_timeout"}, 200, "timeout", id="stalled"),
        pytest.param(
            [],
            {"outcome": "upstream_error", "error": "first_byte_timeout", "status": 504},
            None,
            "timeout",
            id="no head",
        ),
        pytest.param(
            [],
            {"outcome": "upstream_error", "error": "connect_failed", "status": 502},
            None,
            "upstream_error",
            id="no engine",
        ),
        pytest.param([], {"status": 503}, 503, "upstream_error", id="engine full"),
        pytest.param([], {"status": 404}, 404, "", id="refused"),
        pytest.param([], {"status": 429, "outcome": "rejected"}, None, "", id="refused by the relay"),
        pytest.param([(20, b""), *GOOD[1:]], {}, 200, "tap_gap", id="copies missing before it"),
        pytest.param([(20, ROLE)], {"dropped_bytes": 9}, 200, "tap_gap", id="copies missing at the end"),
    ],
)
def test_why_there_is_no_first_token(reads: Reads, close: dict[str, Any], status: int | None, reason: str) -> None:
    """A stream without a first token says why, from a closed set."""
    head = SSE_HEAD if (status or 200) < 400 else JSON_HEAD
    record = play(reads, closed(**close), status=status, head=head)
    assert record.first_token_missing == reason
    assert (record.ttft_s is None) is (record.first_token is None)
    assert reason in FIRST_TOKEN_MISSING_REASONS | {""}


def test_keep_alive_comments_are_no_first_token() -> None:
    """Comments may be the first bytes of the body; the first token is what comes after them."""
    record = play([(15, b": keep-alive\n\n"), (18, b": keep-alive\n\n"), *GOOD])
    assert (record.ttft_s, record.outcome, record.events) == (0.02, Outcome.OK, 5)


def test_reasoning_and_answer_have_their_own_first_tokens() -> None:
    """Both times are known: when it began to think and when it began to talk."""
    record = play([(20, ROLE), (30, event(reasoning="hm")), (70, event(content="a", finish="stop")), (80, DONE)])
    assert (record.ttft_s, record.ttft_answer_s, record.first_token) == (0.03, 0.07, TokenClass.REASONING)


@pytest.mark.parametrize(
    ("outcome", "choices", "asked", "max_tokens"),
    [
        ("client_abort", 1, 20, 20),
        ("client_abort", 6, 20, 120),
        ("client_abort", 1, 0, None),
        ("client_abort", 0, 20, None),
        ("client_abort", 65536, 10**18, None),
        ("ok", 1, 20, None),
    ],
)
def test_what_a_broken_off_request_had_asked_for(
    outcome: str, choices: int, asked: int, max_tokens: int | None
) -> None:
    """The most that all its answers may have had together is kept, as far as it is known."""
    reads = GOOD if outcome == "ok" else GOOD[:2]
    record = play(reads, closed(outcome=outcome), opened(choices=choices, max_tokens=asked))
    assert record.max_tokens == max_tokens


def test_a_stream_cut_in_the_middle_of_a_character() -> None:
    """Half an event at the end is nobody's token and nobody's fault."""
    half = 'data: {"choices":[{"index":0,"delta":{"content":"→'.encode()[:-1]
    record = play([*GOOD[:2], (60, half)], closed(outcome="client_abort"))
    assert (record.completion_tokens, record.token_source, record.events) == (2, TokenSource.CONTINUOUS_USAGE, 3)
    assert record.outcome is Outcome.CLIENT_ABORT


def test_a_cut_stream_books_each_choice_s_last_count() -> None:
    """n choices share their prompt; counts are cumulative per choice and are not added up over events."""
    reads = [(20 + i, event(index=i % 2, content="x", tokens=1 + i // 2)) for i in range(7)]
    record = play(reads, closed(outcome="client_abort"), opened(choices=2, body=b'{"n":2}'))
    assert (record.prompt_tokens, record.completion_tokens, record.choices) == (11, 7, 2)
    assert record.token_source is TokenSource.CONTINUOUS_USAGE


def test_a_cut_stream_of_several_prompts() -> None:
    """Each prompt counts once, by its own length."""
    events = [
        b"data: "
        + json.dumps(
            {
                "choices": [{"index": i, "text": "x"}],
                "usage": {"prompt_tokens": 5 + i // 2, "completion_tokens": i + 1},
            }
        ).encode()
        + b"\n\n"
        for i in range(4)
    ]
    body = b'{"prompt":["a","b"],"n":2}'
    record = play(
        [(20, b"".join(events))],
        closed(outcome="client_abort"),
        opened(path="/v1/completions", choices=4, body=body, body_bytes=len(body)),
    )
    assert (record.operation, record.prompt_tokens, record.completion_tokens) == ("text_completion", 11, 10)


def test_usage_not_asked_for_is_an_estimate() -> None:
    """Without usage the events with output are counted, said to be an estimate, and the prompt is unknown."""
    record = play([(20, ROLE), (30, event(content="a")), (40, event(content="b", finish="length")), (41, DONE)])
    assert (record.prompt_tokens, record.completion_tokens) == (None, 2)
    assert record.token_source is TokenSource.CHUNK_ESTIMATE


def test_details_of_the_final_usage() -> None:
    """Cached and reasoning tokens are told, not computed; reasoning may even exceed the completion."""
    details = {"prompt_tokens_details": {"cached_tokens": 8}, "completion_tokens_details": {"reasoning_tokens": 4}}
    record = play([*GOOD[:3], (60, usage_event(11, 3, **details)), (61, DONE)])
    assert (record.cached_tokens, record.reasoning_tokens) == (8, 4)


def test_missing_copies_are_made_good_where_the_relay_is_further() -> None:
    """The relay's last usage of a choice wins if it counts more, the copies' if theirs does."""
    close = closed(
        outcome="client_abort",
        dropped_bytes=500,
        usages={0: b'{"prompt_tokens":11,"completion_tokens":9}', 1: b'{"prompt_tokens":11,"completion_tokens":1}'},
    )
    reads = [(20, event(content="a", tokens=1)), (25, event(index=1, content="b", tokens=2)), (30, b"")]
    record = play(reads, close, opened(choices=2))
    assert (record.prompt_tokens, record.completion_tokens) == (11, 11)
    assert (record.token_source, record.dropped_bytes) == (TokenSource.CONTINUOUS_USAGE, 500)
    assert record.outcome is Outcome.CLIENT_ABORT


def test_a_final_usage_of_the_relay_s_that_is_behind_is_not_taken() -> None:
    """Whichever counts more was written later."""
    reads = [(15, b""), *GOOD]
    for told, completion in ((1, 3), (7, 7)):
        usages = {-1: f'{{"prompt_tokens":11,"completion_tokens":{told}}}'.encode()}
        assert play(reads, closed(dropped_bytes=9, usages=usages)).completion_tokens == completion


def test_with_all_copies_the_relay_s_notes_are_not_needed() -> None:
    """Copies that are whole say all there is."""
    record = play(GOOD, closed(usages={-1: b'{"prompt_tokens":99,"completion_tokens":99}'}))
    assert (record.prompt_tokens, record.completion_tokens) == (11, 3)


@pytest.mark.parametrize(
    "usages",
    [{-1: b"broken"}, {-1: b"null"}, {0: b'{"completion_tokens":-5}'}, {-1: b'{"prompt_tokens":"9"}'}, {-7: b"{}"}],
)
def test_broken_notes_of_the_relay_are_ignored(usages: dict[int, bytes]) -> None:
    """They are cut out of bytes that an engine sent."""
    record = play([(20, b"")], closed(dropped_bytes=9, usages=usages, tail=b"\xff\x00data: {"))
    assert (record.prompt_tokens, record.completion_tokens, record.token_source) == (None, None, TokenSource.NONE)


@pytest.mark.parametrize("tail_bytes", [120, 700, 100_000])
def test_how_it_ended_is_read_from_the_tail(tail_bytes: int) -> None:
    """Finish, end mark and errors come from the end that the relay kept; its tokens are not counted again."""
    body = b"".join(data for _, data in GOOD)
    tail = (body.replace(b'"stop"', b'"length"') if tail_bytes > 200 else DONE)[-tail_bytes:]
    close = closed(
        dropped_bytes=9, response_bytes=len(body), tail=tail, usages={-1: b'{"prompt_tokens":11,"completion_tokens":3}'}
    )
    record = play([GOOD[0], (30, b"")], close)
    assert record.finish_reasons == (("length",) if tail_bytes > 200 else ())
    assert (record.outcome, record.completion_tokens, record.events) == (Outcome.OK, 3, 2)
    assert (record.ttft_s, record.gap_count) == (0.02, 0)


def test_an_error_in_the_tail_is_one() -> None:
    """An error event is not overlooked because its copy was lost."""
    tail = (event(content="x") + ERROR + DONE)[20:]
    record = play([GOOD[0], (30, b"")], closed(dropped_bytes=9, response_bytes=9_999, tail=tail))
    assert (record.outcome, record.error) == (Outcome.STREAM_ERROR, ErrorType.ENGINE_EVENT)


def test_nothing_is_called_unfinished_on_incomplete_evidence() -> None:
    """A finish that nobody saw may have been among the missing copies."""
    assert play([GOOD[0], (30, b"")], closed(dropped_bytes=9)).outcome is Outcome.OK


def test_a_gap_breaks_the_chain_of_gaps() -> None:
    """The first token after missing copies has no gap; the next one has."""
    reads = [GOOD[0], (25, b""), (60, event(content="c", tokens=9)), (65, event(content="d", tokens=10, finish="stop"))]
    record = play(reads, closed(dropped_bytes=9))
    assert (record.gap_count, record.gap_sum_s, record.ttft_s) == (1, 0.005, 0.02)
    assert record.completion_tokens == 10


def test_a_request_taken_up_again() -> None:
    """After a reconnect body, head and early copies are gone: what comes is read, what was missed is unknown."""
    reopened = opened(resumed=True, body=b"", body_bytes=2)
    record = play(GOOD[1:], closed(head_ns=ARRIVAL + 9 * MS), reopened, status=None)
    assert (record.prompt_tokens, record.completion_tokens, record.token_source) == (11, 3, TokenSource.FINAL_USAGE)
    assert (record.finish_reasons, record.outcome, record.head_s) == (("stop",), Outcome.OK, 0.009)
    assert (record.ttft_s, record.first_token_missing) == (None, "tap_gap")


def test_half_a_reply_after_a_reconnect_is_not_called_malformed() -> None:
    """The other half went by unseen; that is no fault of the engine's."""
    exchange = Exchange(opened(resumed=True, stream=False, body=b""))
    exchange.read(ARRIVAL + 20 * MS, REPLY[60:])
    record = exchange.close(closed(usages={-1: b'{"prompt_tokens":11,"completion_tokens":3}'}))
    assert (record.completion_tokens, record.outcome, exchange.malformed_events) == (3, Outcome.OK, 0)


def test_the_body_of_an_error_is_not_read() -> None:
    """Nothing was generated for it, whatever it quotes."""
    record = play([(20, REPLY)], closed(status=500), opened(stream=False), JSON_HEAD, 500)
    assert (record.token_source, record.engine_id) == (TokenSource.NONE, "")


def test_a_request_of_which_only_the_close_is_left() -> None:
    """A close alone is enough to book."""
    close = closed(
        usages={-1: b'{"prompt_tokens":11,"completion_tokens":3}'},
        tail=REPLY[-70:],
        response_bytes=len(REPLY),
        dropped_bytes=len(REPLY),
    )
    record = play([], close, opened(resumed=True, stream=False, body=b""), status=None)
    assert (record.prompt_tokens, record.completion_tokens) == (11, 3)
    plain = play([(20, b"")], closed(dropped_bytes=9, response_bytes=9_999, tail=REPLY[60:]), head=JSON_HEAD)
    assert plain.finish_reasons == ("stop",)


def test_a_plain_reply_whose_copy_was_lost_but_whose_tail_is_all_of_it() -> None:
    """A tail as long as the body is the body."""
    close = closed(dropped_bytes=len(REPLY), response_bytes=len(REPLY), tail=REPLY)
    record = play([(20, b"")], close, opened(stream=False), JSON_HEAD)
    assert (record.prompt_tokens, record.completion_tokens, record.finish_reasons) == (11, 3, ("stop",))


def test_a_reply_too_long_to_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is booked from the relay's notes."""
    monkeypatch.setattr("inferwatch_collectors.dialects.body.MAX_REPLY_BYTES", 100)
    close = closed(
        response_bytes=len(REPLY), usages={-1: b'{"prompt_tokens":11,"completion_tokens":3}'}, tail=REPLY[80:]
    )
    record = play([(20, REPLY)], close, opened(stream=False), JSON_HEAD)
    assert (record.prompt_tokens, record.completion_tokens, record.finish_reasons) == (11, 3, ("stop",))
    assert record.outcome is Outcome.OK


def test_a_compressed_stream() -> None:
    """Content-encoding gzip is read like the plain bytes."""
    data = gzip.compress(b"".join(data for _, data in GOOD))
    record = play([(20, data[:50]), (20, data[50:])], head=SSE_HEAD | {"content-encoding": "gzip"})
    assert (record.prompt_tokens, record.completion_tokens, record.outcome) == (11, 3, Outcome.OK)


def test_an_encoding_that_cannot_be_read() -> None:
    """What nobody can decode is unknown: no counts, no verdict on its end, and the reason is told."""
    record = play([(20, b"\x0b\x02\x80")], closed(tail=b"\x0b"), head=SSE_HEAD | {"content-encoding": "br"})
    assert (record.token_source, record.completion_tokens, record.outcome) == (TokenSource.NONE, None, Outcome.OK)
    assert record.first_token_missing == "unreadable"


def test_gaps_are_drained_in_portions() -> None:
    """Each gap is handed out once, with the number of tokens that it stands for."""
    exchange = Exchange(opened())
    exchange.head(Head(1, ARRIVAL, 200, SSE_HEAD))
    assert exchange.drain_gaps() == []
    exchange.read(ARRIVAL + 10 * MS, event(content="a", tokens=1))
    exchange.read(ARRIVAL + 30 * MS, event(content="bc", tokens=3))
    assert exchange.drain_gaps() == [(0.01, 2)]
    assert exchange.drain_gaps() == []
    exchange.read(ARRIVAL + 40 * MS, event(content="d", tokens=4))
    assert exchange.drain_gaps() == [(0.01, 1)]
    assert exchange.close(closed()).gap_count == 3


def test_gaps_that_nobody_drains_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit they are cut and counted; the record's sums are not affected."""
    monkeypatch.setattr(exchange_module, "MAX_PENDING_GAPS", 3)
    exchange = Exchange(opened())
    exchange.head(Head(1, ARRIVAL, 200, SSE_HEAD))
    for i in range(10):
        exchange.read(ARRIVAL + i * MS, event(content="a", tokens=1 + 2 * i))
    assert len(exchange.drain_gaps()) == 3
    assert exchange.gaps_cut == 12
    assert exchange.cuts == {"token_gaps"}
    assert exchange.close(closed()).gap_count == 18


def test_a_dead_relay_interrupts_its_requests() -> None:
    """What was seen until then is booked."""
    exchange = Exchange(opened())
    exchange.head(Head(1, ARRIVAL + 10 * MS, 200, SSE_HEAD))
    size = 0
    for at_ms, data in GOOD[:2]:
        exchange.read(ARRIVAL + at_ms * MS, data)
        size += len(data)
    record = exchange.interrupted(ARRIVAL + 90 * MS)
    assert (record.outcome, record.error, record.status) == (Outcome.INTERRUPTED, ErrorType.RELAY_DIED, 200)
    assert (record.prompt_tokens, record.completion_tokens) == (11, 2)
    assert record.token_source is TokenSource.CONTINUOUS_USAGE
    assert (record.duration_s, record.head_s, record.ttft_s, record.response_bytes) == (0.09, 0.01, 0.02, size)


def test_a_relay_that_died_before_the_answer() -> None:
    """Nothing is known but that it was asked."""
    record = Exchange(opened(sent_ns=0)).interrupted(ARRIVAL + 90 * MS)
    assert (record.outcome, record.status, record.token_source) == (Outcome.INTERRUPTED, 0, TokenSource.NONE)
    assert (record.sent_s, record.head_s, record.first_token_missing) == (None, None, "interrupted")


def test_an_open_stream_is_small() -> None:
    """Neither the request's body and headers nor the text of the answer are kept while a stream is open."""
    exchange = Exchange(opened(body=b"x" * 1_000_000, headers={"user-agent": "y" * 1000}))
    exchange.head(Head(1, ARRIVAL, 200, SSE_HEAD))
    for i in range(1000):
        exchange.read(ARRIVAL + i * MS, event(content="long " * 10, tokens=i + 1))
        exchange.drain_gaps()
    assert (exchange.opened.body, exchange.opened.headers) == (b"", {})
    assert deep_size(exchange, set()) < 4_000


def deep_size(value: Any, seen: set[int]) -> int:
    """Return the bytes of an object and all that it alone refers to, without classes, functions and dialects."""
    if id(value) in seen or isinstance(value, type) or callable(value) or hasattr(value, "generates"):
        return 0
    seen.add(id(value))
    size = sys.getsizeof(value)
    if isinstance(value, dict):
        inner = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple):
        inner = list(value)
    else:
        names = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
        names += getattr(value, "__struct_fields__", ())
        inner = [getattr(value, name) for name in names if hasattr(value, name)]
    return size + sum(deep_size(item, seen) for item in inner)


STREAMS = st.lists(
    st.one_of(
        st.builds(
            event,
            index=st.integers(0, 2),
            tokens=st.none() | st.integers(0, 9),
            finish=st.sampled_from([None, None, None, "stop"]),
            content=st.sampled_from(["", "a", "µ→", None]),
            reasoning=st.sampled_from(["", "hm", None]),
        ),
        st.sampled_from(
            [ROLE, DONE, ERROR, b": ping\n\n", b"data: {\n\n", b"event: x\r\ndata: {}\r\n\r\n", usage_event(11, 3)]
        ),
    ),
    max_size=25,
).map(b"".join)


def played(data: bytes, places: list[int], stamps: list[int]) -> tuple[RequestRecord, list[tuple[float, int]]]:
    """Return record and gaps of a stream read up to each of `places` at the stamps that go with them."""
    exchange = Exchange(opened(choices=0))
    exchange.head(Head(1, ARRIVAL, 200, SSE_HEAD))
    start = 0
    gaps: list[tuple[float, int]] = []
    for place, stamp in zip(places, stamps, strict=True):
        exchange.read(ARRIVAL + stamp * MS, data[start:place])
        start = place
        gaps += exchange.drain_gaps()
    record = exchange.close(closed())
    return record, gaps + exchange.drain_gaps()


@given(
    data=STREAMS,
    cuts=st.lists(st.integers(min_value=1), max_size=8),
    more=st.lists(st.integers(min_value=1), max_size=8),
)
def test_regrouping_the_reads_changes_nothing(data: bytes, cuts: list[int], more: list[int]) -> None:
    """Splitting reads further, with the stamps that their bytes had, gives the same record and the same gaps."""
    if not data:
        return
    coarse = sorted({1 + cut % len(data) for cut in cuts} | {len(data)})
    fine = sorted({1 + cut % len(data) for cut in more} | set(coarse))
    stamp_of = [next(i for i, place in enumerate(coarse) if place >= end) for end in fine]
    assert played(data, fine, stamp_of) == played(data, coarse, list(range(len(coarse))))


MUTATIONS = st.lists(
    st.tuples(st.sampled_from(["flip", "insert", "delete", "repeat"]), st.integers(min_value=0), st.integers(0, 255)),
    max_size=12,
)


def mutated(data: bytes, mutations: list[tuple[str, int, int]]) -> bytes:
    """Return `data` with these faults in it."""
    out = bytearray(data)
    for kind, place, value in mutations:
        at = place % (len(out) + 1)
        if kind == "insert":
            out.insert(at, value)
        elif kind == "delete":
            del out[at : at + value % 7]
        elif kind == "repeat":
            out[at:at] = out[max(0, at - value) : at]
        elif at < len(out):
            out[at] ^= value
    return bytes(out)


@given(data=STREAMS, mutations=MUTATIONS, step=st.integers(1, 200), framing=st.sampled_from([SSE_HEAD, JSON_HEAD, {}]))
@example(
    data=b'data: {"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"completion_tokens":-1}}\n\n',
    mutations=[],
    step=9,
    framing=SSE_HEAD,
)
@example(data=b'data: {"choices":{"0":[]},"usage":[{}],"error":NaN}\n\n', mutations=[], step=9, framing=SSE_HEAD)
def test_no_fault_in_the_bytes_does_harm(
    data: bytes, mutations: list[tuple[str, int, int]], step: int, framing: dict[str, str]
) -> None:
    """Whatever an engine sends, nothing raises, no count and no time is negative, and a gap may be anywhere."""
    broken = mutated(data, mutations)
    exchange = Exchange(opened(body=broken))
    exchange.head(Head(1, ARRIVAL, 200, framing))
    for start in range(0, len(broken), step):
        exchange.read(ARRIVAL + start * MS, broken[start : start + step])
    if step % 3 == 0:
        exchange.read(ARRIVAL, b"")
    close = closed(usages={-1: broken[:50], 0: broken[6:]}, tail=broken[-200:], response_bytes=len(broken))
    record = exchange.close(close)
    counts = (record.prompt_tokens, record.completion_tokens, record.cached_tokens, record.reasoning_tokens)
    assert all(count is None or count >= 0 for count in counts)
    assert all(gap_s >= 0 and tokens > 0 for gap_s, tokens in exchange.drain_gaps())
    assert record.gap_sum_s >= record.gap_max_s * 0.999 >= 0
    assert all(time_s is None or time_s >= 0 for time_s in (record.ttft_s, record.ttft_answer_s, record.head_s))
    assert (record.completion_tokens is None) or record.token_source is not TokenSource.NONE


@pytest.mark.parametrize(("outcome", "malformed"), [("ok", 1), ("client_abort", 0), ("stream_error", 0)])
def test_half_a_reply_is_malformed_only_if_it_was_all(outcome: str, malformed: int) -> None:
    """A reply that was cut off is no document, and no fault of the engine's formatting."""
    exchange = Exchange(opened(stream=False))
    exchange.head(Head(1, ARRIVAL, 200, JSON_HEAD))
    exchange.read(ARRIVAL, REPLY[:50])
    record = exchange.close(closed(outcome=outcome))
    assert (record.token_source, exchange.malformed_events) == (TokenSource.NONE, malformed)


def test_malformed_events_are_counted() -> None:
    """How many events could not be read is there for a metric."""
    exchange = Exchange(opened())
    exchange.head(Head(1, ARRIVAL, 200, SSE_HEAD))
    exchange.read(ARRIVAL, b"data: {\n\ndata: nope\n\n" + ROLE)
    assert exchange.malformed_events == 2


@pytest.mark.parametrize(
    ("request_id", "kept"),
    [
        ("0af7651916cd43dd8448eb211c80319c", True),
        ("550e8400-e29b-41d4-a716-446655440000", True),
        ("ann@example.com", False),
        ("4111111111111111", False),
        ("", True),
    ],
)
def test_an_id_that_the_client_chose_is_not_kept(request_id: str, kept: bool) -> None:
    """vLLM's id has the client's X-Request-Id in it: one that a library made is a key to join by, any other a text."""
    reply = b'{"id":"chatcmpl-%s","choices":[]}' % request_id.encode()
    exchange = Exchange(opened(stream=False, headers={"x-request-id": request_id}))
    exchange.head(Head(1, ARRIVAL, 200, {"content-type": "application/json"}))
    exchange.read(ARRIVAL, reply)

    assert exchange.close(closed()).engine_id == (f"chatcmpl-{request_id}" if kept else "")
