"""Every wire format: what is booked of a reply, whatever the split of its bytes and wherever it ends."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from specimens import SPECIMENS, Expected, Specimen

from inferwatch.record import ErrorType, Outcome, RequestRecord, TokenSource
from inferwatch.relay.masking import masked_close
from inferwatch.tap import Close, Head, Open
from inferwatch_collectors.exchange import Exchange

NAMES = [specimen.name for specimen in SPECIMENS]
STREAMED = [
    specimen for specimen in SPECIMENS if specimen.content_type in {"text/event-stream", "application/x-ndjson"}
]


def play(
    specimen: Specimen, reads: Iterable[bytes], *, method: str = "POST", outcome: str = "ok", tail: bytes = b""
) -> RequestRecord:
    """Return the record of a reply that came in these reads, all at one moment; an empty one is a hole.

    `tail`: the end of a reply much longer than `reads`, as the relay has kept it.
    """
    body = json.dumps(specimen.request).encode()
    exchange = Exchange(
        Open(
            id=1, request_id="r", wall_ns=1, arrival_ns=1, sent_ns=2, method=method, path=specimen.path, tenant="t",
            model="", stream=bool(specimen.request.get("stream")), asked_usage=False,
            choices=_choices(specimen), headers={}, body=body, body_bytes=len(body),
        )
    )  # fmt: skip
    exchange.head(Head(1, 3, 200, {"content-type": specimen.content_type, **specimen.headers}))
    size = 0
    for data in reads:
        exchange.read(5, data)
        size += len(data)
    size += 1_000_000 if tail else 0
    close = Close(id=1, stamp_ns=9, outcome=outcome, error="", status=200, response_bytes=size, head_ns=3, tail=tail)
    return exchange.close(close)


def _choices(specimen: Specimen) -> int:
    prompt = specimen.request.get("prompt")
    return int(specimen.request.get("n", 1)) * (len(prompt) if isinstance(prompt, list) else 1)


# Plain replies whose counts are not at their end, and what is known of them then: (prompt, completion).
COUNTED_ELSEWHERE: dict[str, tuple[int | None, int | None]] = {
    "tgi: best_of generates more than it shows": (7, 3),  # of the best, by the head
    "tgi: the prompt's tokens in the body": (None, None),
    "sglang: plain, two prompts": (None, None),
    "triton: plain with tensors": (None, None),
    "sglang rerank: each answer has its own count": (None, None),
    "sglang classify: several": (None, None),
    "llama.cpp: a list of prompts": (None, None),
    "llama.cpp: a list of prompts, two answers to each": (None, None),
}


def booked(record: RequestRecord) -> Expected:
    """Return what a record says of the answer."""
    return Expected(
        prompt=record.prompt_tokens,
        completion=record.completion_tokens,
        source=record.token_source.value,
        finish=record.finish_reasons,
        first=None if record.first_token is None else record.first_token.value,
        cached=record.cached_tokens,
        reasoning=record.reasoning_tokens,
        outcome=record.outcome.value,
        gaps=record.gap_count,
    )


@pytest.mark.parametrize("specimen", SPECIMENS, ids=NAMES)
def test_what_is_booked(specimen: Specimen) -> None:
    """Counts with their source, how it finished, what came first, and whether it failed."""
    assert booked(play(specimen, [specimen.body])) == specimen.expected


@pytest.mark.parametrize("specimen", SPECIMENS, ids=NAMES)
def test_the_split_does_not_matter(specimen: Specimen) -> None:
    """Byte by byte, and split in two at every position, it is the same record."""
    body = specimen.body
    whole = play(specimen, [body])
    assert play(specimen, [body[at : at + 1] for at in range(len(body))]) == whole
    for at in range(1, len(body)):
        assert play(specimen, [body[:at], body[at:]]) == whole


PLAIN = [specimen for specimen in SPECIMENS if specimen.content_type == "application/json"]


@pytest.mark.parametrize("specimen", PLAIN, ids=[specimen.name for specimen in PLAIN])
def test_of_a_plain_reply_too_long_to_copy_the_end_is_enough(specimen: Specimen) -> None:
    """Lost copies cost no token: the engine's counts are booked from the last bytes that the relay kept."""
    record = play(specimen, [b""], tail=specimen.body[8:])
    expected = COUNTED_ELSEWHERE.get(specimen.name, (specimen.expected.prompt, specimen.expected.completion))
    assert (record.prompt_tokens, record.completion_tokens) == expected


def from_the_spool(specimen: Specimen, close: Close, *, head: bool) -> Expected:
    """Return what is booked of a request of which there is only this, as after both planes have died."""
    exchange = Exchange(
        Open(
            id=1, request_id="r", wall_ns=1, arrival_ns=1, sent_ns=2, method="POST", path=specimen.path, tenant="t",
            model="", stream=bool(specimen.request.get("stream")), asked_usage=False, choices=_choices(specimen),
            headers={}, body=b"", body_bytes=9, resumed=True, n=int(specimen.request.get("n", 1)),
        )
    )  # fmt: skip
    if head:
        exchange.head(Head(1, 3, 200, {"content-type": specimen.content_type, **specimen.headers}))
    return booked(exchange.close(close))


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("missing", [0, 1])
@pytest.mark.parametrize("specimen", SPECIMENS, ids=NAMES)
def test_a_spooled_request_books_the_same_without_its_texts(specimen: Specimen, missing: int, head: bool) -> None:
    """Counts, their source and how it finished, of a whole reply and of the end of a longer one."""
    size = len(specimen.body) + missing
    close = Close(id=1, stamp_ns=9, outcome="ok", error="", status=200, response_bytes=size, tail=specimen.body)
    record = from_the_spool(specimen, masked_close(close), head=head)
    assert record == from_the_spool(specimen, close, head=head)


# Of a request whose body is gone it is not known that it offered tools, nor what SGLang's settings said of its prompts.
WITHOUT_ITS_BODY: dict[str, dict[str, Any]] = {
    "tgi chat: offered tools it answers in text, and counts the second generation alone": {"source": "final_usage"},
    "tgi chat: the same in a plain reply": {"source": "final_usage"},
    "sglang: two prompts": {"prompt": None, "cached": None},
    "sglang: two answers to one prompt": {"prompt": None, "cached": None},
    "sglang: plain, two prompts": {"prompt": None, "cached": None},
    # Which of them had ended is not sure where events may be missing.
    "trtllm completions: a list of prompts that breaks off behind the first": {
        "prompt": 3, "completion": 2, "source": "final_usage",
    },
}  # fmt: skip


@pytest.mark.parametrize("specimen", SPECIMENS, ids=NAMES)
def test_of_a_short_reply_without_copies_the_end_is_all(specimen: Specimen) -> None:
    """Nothing that was counted is missing, nor how it finished: only times are."""
    body = specimen.body
    close = Close(id=1, stamp_ns=9, outcome="ok", error="", status=200, response_bytes=len(body), tail=body)
    expected = specimen.expected._replace(**WITHOUT_ITS_BODY.get(specimen.name, {}))
    made = from_the_spool(specimen, close, head=True)
    assert made == expected._replace(first=None, gaps=0, outcome=made.outcome)


EACH_ITS_OWN = [
    specimen for specimen in SPECIMENS if specimen.name.startswith("llama.cpp") and "n=2, a" in specimen.name
]


@pytest.mark.parametrize("kept", range(9))
@pytest.mark.parametrize(("start", "end"), [(start, end) for start in range(8) for end in range(start + 1, 9)])
def test_usage_of_one_choice_is_not_booked_as_the_whole(start: int, end: int, kept: int) -> None:
    """Whatever copies are missing, and however many of the last events the relay has kept."""
    (specimen,) = EACH_ITS_OWN
    events = [event + b"\n\n" for event in specimen.body.split(b"\n\n")]
    reads = [*events[:start], b"", *events[end:]]
    record = play(specimen, reads, tail=b"".join(events[9 - kept :]))
    assert (record.completion_tokens or 0) <= 3
    assert record.completion_tokens == 3 or record.token_source is not TokenSource.FINAL_USAGE


@pytest.mark.parametrize("lost", [2, 5])
def test_each_choice_has_a_usage_though_its_end_was_missed(lost: int) -> None:
    """So the sum is what it is."""
    (specimen,) = EACH_ITS_OWN
    events = [event + b"\n\n" for event in specimen.body.split(b"\n\n")]
    record = play(specimen, [b"".join(events[:lost]), b"", b"".join(events[lost + 1 :])])
    assert (record.prompt_tokens, record.completion_tokens) == (11, 3)


def test_of_a_long_plain_reply_with_several_choices_llamacpp_counts_the_first() -> None:
    """Also if it is read from its end."""
    (specimen,) = (each for each in SPECIMENS if "of a plain reply with n=2" in each.name)
    record = play(specimen, [b""], tail=specimen.body[8:])
    assert (record.completion_tokens, record.token_source) == (1, TokenSource.PARTIAL_USAGE)


@given(st.sampled_from(SPECIMENS), st.data())
def test_no_split_matters(specimen: Specimen, data: st.DataObject) -> None:
    """Any set of cuts gives the same record."""
    body = specimen.body
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=20)) | {0, len(body)})
    pieces = [body[start:end] for start, end in zip(cuts, cuts[1:], strict=False) if start < end]
    assert play(specimen, pieces) == play(specimen, [body])


@pytest.mark.parametrize("specimen", STREAMED, ids=[specimen.name for specimen in STREAMED])
def test_a_reply_cut_anywhere_books_no_more_than_the_whole(specimen: Specimen) -> None:
    """A client that leaves gets what had come: counts only grow, and nothing is malformed for being cut."""
    whole = play(specimen, [specimen.body])
    for at in range(len(specimen.body)):
        record = play(specimen, [specimen.body[:at]], outcome=Outcome.CLIENT_ABORT.value)
        if whole.completion_tokens is not None:
            assert (record.completion_tokens or 0) <= whole.completion_tokens
        if record.prompt_tokens is not None and whole.prompt_tokens is not None:
            # vLLM's and Anthropic's starts count in another way than their ends; no other prompt shrinks.
            assert record.prompt_tokens <= max(whole.prompt_tokens, 60_997)
        assert record.outcome in {
            Outcome.CLIENT_ABORT, Outcome.OK, Outcome.REJECTED, Outcome.STREAM_ERROR,
        }  # fmt: skip


@given(st.sampled_from(STREAMED), st.data())
def test_a_hole_anywhere_is_survived(specimen: Specimen, data: st.DataObject) -> None:
    """With a piece missing there is a record, no gap across the hole, and no first token that may have been another."""
    body = specimen.body
    start = data.draw(st.integers(0, len(body) - 1))
    end = data.draw(st.integers(start + 1, len(body)))
    record = play(specimen, [part for part in (body[:start], b"", body[end:]) if part or start])
    assert record.error is not ErrorType.INTERNAL
    whole = play(specimen, [body])
    if whole.completion_tokens is not None and record.completion_tokens is not None:
        assert record.completion_tokens <= whole.completion_tokens + 1


@pytest.mark.parametrize("specimen", SPECIMENS, ids=NAMES)
def test_fetching_a_stored_reply_books_nothing(specimen: Specimen) -> None:
    """The same bytes as the answer to a GET: it was generated, and paid, before."""
    record = play(specimen, [specimen.body], method="GET")
    assert (record.prompt_tokens, record.completion_tokens, record.token_source.value) == (None, None, "none")
    assert record.operation == "other"


@given(st.sampled_from(SPECIMENS), st.lists(st.binary(max_size=60), max_size=8), st.integers(0, 200))
def test_garbage_is_no_fault_of_ours(specimen: Specimen, garbage: list[bytes], keep: int) -> None:
    """Whatever follows the beginning of a reply, there is a record."""
    record = play(specimen, [specimen.body[:keep], *[piece for piece in garbage if piece]])
    assert record.error is not ErrorType.INTERNAL
