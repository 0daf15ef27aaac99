"""What chat and text completions share: counting, gaps, errors, and input that is not what it should be."""

import json
from typing import Any

import pytest

from inferwatch.record import TokenSource
from inferwatch_collectors.dialects.base import MAX_CHOICES, MAX_NAME_CHARS, Observation, RequestFacts
from inferwatch_collectors.dialects.openai_chat import OPENAI_CHAT
from inferwatch_collectors.dialects.openai_completions import OPENAI_COMPLETIONS
from inferwatch_collectors.dialects.pooling import EMBEDDINGS

# One step of a script: (milliseconds, choice, text, cumulative completion count or None)
Step = tuple[int, int, str, int | None]


def completion(index: int, text: str, tokens: int | None = None, prompt: int = 7, finish: str | None = None) -> bytes:
    """Return a text completion chunk with, or without, continuous usage."""
    choice = {"index": index, "text": text, "finish_reason": finish}
    chunk: dict[str, Any] = {"id": "cmpl-1", "model": "m", "choices": [choice]}
    if tokens is not None:
        chunk["usage"] = {"prompt_tokens": prompt, "total_tokens": prompt + tokens, "completion_tokens": tokens}
    return json.dumps(chunk).encode()


def observe(*events: bytes, facts: RequestFacts = RequestFacts(), name: bytes = b"") -> Observation:  # noqa: B008
    """Return what these text completion events, all at one moment, leave behind."""
    seen = Observation(facts)
    for data in events:
        OPENAI_COMPLETIONS.read_event(seen, 1, name, data)
    return seen


@pytest.mark.parametrize(
    ("steps", "gaps"),
    [
        pytest.param([(1, 0, "a", None), (3, 0, "b", None), (6, 0, "c", None)], [(2, 1), (3, 1)], id="one a chunk"),
        pytest.param([(1, 0, "a", 1), (3, 0, "b", 2)], [(2, 1)], id="counted, one a chunk"),
        pytest.param([(1, 0, "a", 1), (4, 0, "bcd", 4)], [(1, 3)], id="three tokens in one chunk"),
        pytest.param([(1, 0, "abc", 3), (4, 0, "d", 4)], [(3, 1)], id="three tokens first"),
        pytest.param([(1, 0, "a", 1), (3, 0, "", 2), (6, 0, "bc", 4)], [(2, 1), (1.5, 2)], id="held-back text"),
        pytest.param([(1, 0, "", 1), (3, 0, "ab", 2)], [(2, 1)], id="held back from the start"),
        pytest.param([(1, 0, "a", 1), (3, 0, "b", 1), (6, 0, "c", 2)], [(5, 1)], id="text without a token"),
        pytest.param([(1, 0, "a", None), (3, 0, "", None), (6, 0, "b", None)], [(5, 1)], id="empty, uncounted"),
        pytest.param([(1, 0, "a", None), (3, 0, "b", None), (6, 0, "c", 3)], [(2, 1), (3, 1)], id="usage at the end"),
        pytest.param([(1, 0, "a", None), (3, 0, "", 43)], [], id="usage on a bare finish"),
        pytest.param([(1, 0, "a", 1), (3, 0, "b", None), (6, 0, "c", 3)], [(2, 1), (3, 1)], id="usage now and then"),
        pytest.param([(1, 0, "a", 5), (3, 0, "b", 2)], [(2, 1)], id="a count that goes back"),
        pytest.param([(1, 0, "a", None), (1, 0, "b", None)], [(0, 1)], id="one read"),
        pytest.param(
            [(1, 0, "a", 1), (2, 1, "x", 1), (3, 0, "b", 2), (6, 1, "y", 3)],
            [(2, 1), (2, 2)],
            id="choices are sequences of their own",
        ),
        pytest.param([(3, 0, "a", None), (1, 0, "b", None)], [], id="a clock that goes back measures nothing"),
    ],
)
def test_gaps_are_per_token_and_choice(steps: list[Step], gaps: list[tuple[float, int]]) -> None:
    """k new tokens of a choice after g seconds are k gaps of g/k; without counts an event stands for one token."""
    seen = Observation(RequestFacts())
    for at_ms, index, text, tokens in steps:
        OPENAI_COMPLETIONS.read_event(seen, at_ms * 1_000_000, b"", completion(index, text, tokens))
    assert [gap_s for gap_s, _ in seen.gaps] == pytest.approx([gap_ms / 1e3 for gap_ms, _ in gaps])
    assert [count for _, count in seen.gaps] == [count for _, count in gaps]
    assert seen.gap_count == sum(count for _, count in gaps)
    assert seen.gap_sum_ns == sum(gap_ms * count for gap_ms, count in gaps) * 1e6
    assert seen.gap_max_s == pytest.approx(max((gap_ms for gap_ms, _ in gaps), default=0) / 1e3)


def test_no_gap_across_a_hole() -> None:
    """Where bytes are missing, the time to the next token is not a gap between two tokens."""
    seen = Observation(RequestFacts())
    OPENAI_COMPLETIONS.read_event(seen, 10, b"", completion(0, "a", 1))
    seen.bytes_missing()
    OPENAI_COMPLETIONS.read_event(seen, 50, b"", completion(0, "b", 20))
    OPENAI_COMPLETIONS.read_event(seen, 60, b"", completion(0, "c", 21))
    assert seen.gaps == [(10e-9, 1)]


@pytest.mark.parametrize(
    ("events", "facts", "choices", "expected"),
    [
        pytest.param(
            [completion(0, "a", 1), completion(0, "b", 2)], RequestFacts(), 1,
            (7, 2, TokenSource.CONTINUOUS_USAGE), id="cut: the last one counts, never the sum",
        ),
        pytest.param(
            [completion(0, "a", 1), completion(0, "b", 2, finish="stop")], RequestFacts(), 1,
            (7, 2, TokenSource.FINAL_USAGE), id="cut after the finish: nothing can be missing",
        ),
        pytest.param(
            [completion(0, "a", 1), completion(0, "b", finish="stop")], RequestFacts(), 1,
            (7, 1, TokenSource.CONTINUOUS_USAGE), id="cut after a finish without a count",
        ),
        pytest.param(
            [completion(0, "a", 1, finish="stop"), completion(1, "b", 1)], RequestFacts(2), 2,
            (7, 2, TokenSource.CONTINUOUS_USAGE), id="n=2, one unfinished",
        ),
        pytest.param(
            [completion(0, "a", 1, finish="stop")], RequestFacts(2), 2,
            (7, 1, TokenSource.CONTINUOUS_USAGE), id="n=2, one not begun",
        ),
        pytest.param(
            [completion(i, "a", i + 1, prompt=5 + i // 2) for i in range(4)], RequestFacts(2), 4,
            (11, 10, TokenSource.CONTINUOUS_USAGE), id="two prompts, n=2",
        ),
        pytest.param(
            [completion(0, "a", 1), b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":8}}'],
            RequestFacts(), 1, (9, 8, TokenSource.FINAL_USAGE), id="the final usage replaces all",
        ),
        pytest.param(
            [b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":8}}', b'{"choices":[],"moderation":1}'],
            RequestFacts(), 1, (9, 8, TokenSource.FINAL_USAGE), id="chunks may follow the final usage",
        ),
        pytest.param(
            [b'{"usage":{"prompt_tokens":9,"completion_tokens":8}}'], RequestFacts(), 1,
            (9, 8, TokenSource.FINAL_USAGE), id="no choices at all",
        ),
        pytest.param(
            [b'{"choices":null,"usage":{"prompt_tokens":9,"completion_tokens":8}}'], RequestFacts(), 1,
            (9, 8, TokenSource.FINAL_USAGE), id="choices null",
        ),
        pytest.param(
            [completion(0, "a"), completion(0, "b"), completion(0, "", 12, finish="stop")], RequestFacts(), 1,
            (7, 12, TokenSource.FINAL_USAGE), id="usage on the finish chunk only",
        ),
        pytest.param(
            [completion(0, "a", 0, prompt=0), completion(0, "b", 0, prompt=0), completion(0, "", 5, finish="stop")],
            RequestFacts(), 1, (7, 5, TokenSource.FINAL_USAGE), id="zeros until it is known",
        ),
        pytest.param(
            [completion(0, "", 0)], RequestFacts(), 1,
            (7, 0, TokenSource.CONTINUOUS_USAGE), id="the prompt is in, no token yet",
        ),
        pytest.param(
            [completion(0, "a"), completion(1, "b")], RequestFacts(), 2,
            (None, 2, TokenSource.CHUNK_ESTIMATE), id="no usage",
        ),
        pytest.param([completion(0, "")], RequestFacts(), 1, (None, None, TokenSource.NONE), id="nothing"),
        pytest.param(
            [b'{"choices":[],"usage":{}}'], RequestFacts(), 1,
            (None, None, TokenSource.NONE), id="usage without counts",
        ),
    ],
)  # fmt: skip
def test_counts_of_a_stream(
    events: list[bytes], facts: RequestFacts, choices: int, expected: tuple[int | None, int | None, TokenSource]
) -> None:
    """The engine's last word counts, per choice while it runs and for all of them at the end."""
    totals = OPENAI_COMPLETIONS.totals(observe(*events, facts=facts), choices)
    assert (totals.prompt, totals.completion, totals.source) == expected


def test_details_come_from_the_final_usage() -> None:
    """Cached and reasoning tokens are taken where they are told, and unknown where not."""
    start = (
        b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":8,"prompt_tokens_details":{"cached_tokens":4}'
    )
    told = observe(start + b',"completion_tokens_details":{"reasoning_tokens":0}}}')
    half = observe(start + b',"completion_tokens_details":null}}')
    assert OPENAI_COMPLETIONS.totals(told, 1)[2:4] == (4, 0)
    assert OPENAI_COMPLETIONS.totals(half, 1)[2:4] == (4, None)


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        (b"", b'{"error":{"message":"boom","code":500}}', True),
        (b"", b'{"error":"boom"}', True),
        (b"error", b'{"message":"boom"}', True),
        (b"error", b"boom", True),
        (b"error", b"", True),
        (b"", b'{"error": "no \'escape\' of "this" here"}', True),
        (b"", b'{"choices":[{"index":0,"text":"a"}],"error":{"message":"late"}}', True),
        (b"", b'{"choices":[],"usage":{"prompt_tokens":1},"error":"late"}', True),
        (b"", b'{"choices":[{"index":0,"text":"a"}],"error":null}', False),
        (b"", b'{"choices":[{"index":0,"text":"an \\"error\\": in text"}]}', False),
        (b"other", b'{"choices":[]}', False),
        (b"", b"[DONE]", False),
    ],
)
def test_errors_inside_a_stream(name: bytes, data: bytes, error: bool) -> None:
    """An error is one as an object, as a string, or by the name of its event; the word in a text is not."""
    seen = observe(data, b"[DONE]", name=name)
    assert seen.error is error
    assert seen.done


def test_the_end_mark_is_no_event() -> None:
    """[DONE] ends the stream and counts for nothing else."""
    seen = observe(completion(0, "a"), b"[DONE]")
    assert (seen.events, seen.done, seen.malformed, seen.lossy) == (1, True, 0, False)
    assert observe(b" [DONE] ").done


@pytest.mark.parametrize(
    "data",
    [
        b'{"id":1,"model":2,"choices":[{"index":0,"text":"a"}]}',
        b'{"choices":[{"text":"a"}]}',
        b'{"choices":[{"index":null,"text":"a"}]}',
        b'{"choices":[{"index":-1,"text":"a"}]}',
        b'{"choices":[{"index":"0","text":"a"}]}',
        b'{"choices":[{"index":99999999999999999999,"text":"a"}]}',
        b'{"choices":[{"index":0,"text":"a","finish_reason":{"type":"stop"}}]}',
        b'{"choices":[{"index":0,"text":"a","logprobs":{"top":[NaN]}}]}',
        b'{"choices":[{"index":0,"text":"\\ud83d"}]}',
        b'{"choices":[{"index":0,"text":"\xff"}]}',
        b'{"choices":[{"index":0,"text":"a"}],"usage":"none"}',
        b'{"choices":[{"index":0,"text":"a"}],"usage":{"completion_tokens":"1"}}',
        b'{"choices":[{"index":0,"text":"a"}],"usage":{"completion_tokens":-1,"prompt_tokens":-1}}',
        b'{"choices":[{"index":0,"text":"a"}],"usage":[]}',
        b'{"choices":[null,{"index":0,"text":"a"}]}',
    ],
)
def test_wrong_fields_do_not_lose_the_token(data: bytes) -> None:
    """A field of the wrong type is unknown; the token in the same event still counts, once, for choice 0."""
    seen = observe(data)
    assert {index: choice.events for index, choice in seen.choices.items()} == {0: 1}
    assert (seen.events, seen.malformed) == (1, 0)
    assert OPENAI_COMPLETIONS.totals(seen, 1)[:2] == (None, 1)


@pytest.mark.parametrize("data", [b"{", b"1", b'"a"', b"[]", b"{]}", b"\xff", b'{"a":' + b"[" * 100_000])
def test_what_is_no_object_is_counted_and_ignored(data: bytes) -> None:
    """A broken event raises nothing and changes nothing but its own count."""
    seen = observe(completion(0, "a", 1), data, completion(0, "b", 2))
    assert (seen.events, seen.malformed, seen.lossy) == (2, 1, True)
    assert OPENAI_COMPLETIONS.totals(seen, 1).completion == 2


def test_empty_data_is_nothing() -> None:
    """`data:` without data keeps a connection alive; it is neither an event nor a fault."""
    seen = observe(b"", b"  ")
    assert (seen.events, seen.malformed) == (0, 0)


def test_choices_without_an_index_are_numbered() -> None:
    """Several choices in one event that do not tell their index are taken in order, their usage for all of them."""
    seen = observe(b'{"choices":[{"text":"a"},{"text":"b"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}')
    assert sorted(seen.choices) == [0, 1]
    assert OPENAI_COMPLETIONS.totals(seen, 2)[:2] == (3, 2)


def test_what_the_engine_names_is_bounded() -> None:
    """Endless names and endless choices do not fill the memory."""
    long = "x" * 10_000
    seen = Observation(RequestFacts())
    for index in range(10, 10 + MAX_CHOICES):
        seen.choice(index)
    chunk = {"id": long, "model": long, "choices": [{"index": 5, "text": "a", "finish_reason": long}]}
    data = json.dumps(chunk).encode()
    OPENAI_COMPLETIONS.read_event(seen, 1, b"", data)
    assert len(seen.choices) == MAX_CHOICES
    assert (len(seen.engine_id), len(seen.engine_model)) == (MAX_NAME_CHARS, MAX_NAME_CHARS)
    assert len(observe(data).choices[5].finish) < 100


def test_the_first_names_stay() -> None:
    """Id and model are those of the first event that tells them."""
    seen = observe(
        b'{"id":"","model":"","choices":[]}',
        b'{"id":"cmpl-1","model":"m","choices":[]}',
        b'{"id":"other","model":"other"}',
    )
    assert (seen.engine_id, seen.engine_model) == ("cmpl-1", "m")


def test_a_plain_reply() -> None:
    """Id, model, usage and each choice's finish are taken; nothing about time."""
    seen = Observation(RequestFacts())
    reply = {
        "id": "chatcmpl-1",
        "model": "m",
        "choices": [
            {"index": 1, "finish_reason": "stop", "message": {"content": "a"}},
            {"index": 0, "finish_reason": "length", "message": {"content": "b"}},
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 0}},
    }
    OPENAI_CHAT.read_reply(seen, json.dumps(reply).encode())
    assert OPENAI_CHAT.totals(seen, 2) == (3, 2, 0, None, TokenSource.FINAL_USAGE)
    assert {index: choice.finish for index, choice in seen.choices.items()} == {0: "length", 1: "stop"}
    assert (seen.engine_id, seen.engine_model, seen.gap_count, seen.error) == ("chatcmpl-1", "m", 0, False)


@pytest.mark.parametrize(
    ("body", "malformed", "error", "completion_tokens"),
    [
        (b"", 1, False, None),
        (b"<html>", 1, False, None),
        (b"[]", 1, False, None),
        (b'{"error":{"message":"x"}}', 0, True, None),
        (b'{"error":null,"usage":{"completion_tokens":3}}', 0, False, 3),
        (b'{"choices":5,"usage":{"completion_tokens":3}}', 0, False, 3),
        (b'{"choices":[{"index":0,"logprobs":NaN}],"usage":{"completion_tokens":3}}', 0, False, 3),
        (b'{"choices":[],"usage":{"completion_tokens":"3"}}', 0, False, None),
    ],
)
def test_plain_replies_that_are_not_right(
    body: bytes, malformed: int, error: bool, completion_tokens: int | None
) -> None:
    """What is right in a reply is kept, what is not is unknown."""
    seen = Observation(RequestFacts())
    OPENAI_CHAT.read_reply(seen, body)
    assert (seen.malformed, seen.error) == (malformed, error)
    assert OPENAI_CHAT.totals(seen, 1).completion == completion_tokens


def test_finishes_from_the_end_of_a_reply() -> None:
    """They are found in their order; text that quotes JSON is not taken for one."""
    seen = Observation(RequestFacts())
    tail = rb'as \"finish_reason\": \"no\""},"finish_reason":"stop"},{"index":1,"text":"","finish_reason" : "length"}]}'
    OPENAI_COMPLETIONS.read_reply_tail(seen, tail)
    assert {index: choice.finish for index, choice in seen.choices.items()} == {0: "stop", 1: "length"}


def test_embeddings_have_usage_and_no_completion() -> None:
    """An embedding reply that does not tell completion tokens has none to tell."""
    seen, dialect = Observation(RequestFacts()), EMBEDDINGS
    dialect.read_reply(seen, b'{"data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":9,"total_tokens":9}}')
    assert dialect.totals(seen, 0) == (9, None, None, None, TokenSource.FINAL_USAGE)


@pytest.mark.parametrize(
    ("raw", "prompt", "completion_tokens"),
    [
        (b'{"prompt_tokens":3,"completion_tokens":2,"completion_tokens_details":null}', 3, 2),
        (b'{"prompt_tokens":"3","completion_tokens":2}', None, 2),
        (b"{}", None, None),
    ],
)
def test_usage_as_the_relay_kept_it(raw: bytes, prompt: int | None, completion_tokens: int | None) -> None:
    """The raw JSON of a usage object is read like one in a reply."""
    usage = OPENAI_CHAT.read_usage(raw)
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (prompt, completion_tokens)


def test_a_broken_usage_is_none() -> None:
    """What the relay cut out may be no object."""
    assert OPENAI_CHAT.read_usage(b'{"prompt_tokens":3,"com') is None
    assert OPENAI_CHAT.read_usage(b"null") is None


@pytest.mark.parametrize(
    ("reply", "prompt"),
    [
        (b'[{"meta_info":{"prompt_tokens":5}},{"score":NaN,"meta_info":{"prompt_tokens":6}}]', 11),
        (b'[{"meta_info":{"prompt_tokens":5}},{"meta_info":{"prompt_tokens":-1}}]', 5),
        (b'[{"meta_info":{}}]', None),
        (b'["meta_info"]', None),
        (b'[{"meta_info":', None),
    ],
)
def test_an_array_of_counts_is_read_as_far_as_it_is_right(reply: bytes, prompt: int | None) -> None:
    """One answer that is not as it should be takes no count from the others."""
    seen = Observation(RequestFacts())
    EMBEDDINGS.read_reply(seen, reply)
    assert EMBEDDINGS.totals(seen, 1).prompt == prompt
