"""From what is known of a request to work over stretches of time."""

from typing import Any

import pytest

from inferwatch.record import ErrorType, Outcome
from inferwatch.settings.cost import Attribution
from inferwatch_collectors.attribution.accounts import Account, Ended, Work
from inferwatch_collectors.attribution.weights import UNIT, Weights
from inferwatch_collectors.exchange import Progress

S = 10**9
WEIGHTS = Weights.of(Attribution())  # prompt 0.25, cached 0.025, completion 1
LABELS = ("qwen", "acme", "chat")


def open_account(sent_s: float = 10) -> Account:
    sent_ns = int(sent_s * S)
    return Account(1, "r", 0, "acme", "qwen", LABELS, sent_ns, sent_ns, sent_ns, waits_from_ns=sent_ns)


def seen(first_s: float | None, last_s: float, prompt: int | None, completion: int | None) -> Progress:
    return Progress(None if first_s is None else int(first_s * S), int(last_s * S), prompt, None, completion)


def ended(end_s: float, **changes: Any) -> Ended:
    fields: dict[str, Any] = {
        "request_id": "r", "wall_ns": 0, "tenant": "acme", "model": "qwen", "labels": LABELS, "arrival_ns": 10 * S,
        "sent_ns": 10 * S, "end_ns": int(end_s * S), "first_ns": None, "prompt_tokens": 100, "cached_tokens": None,
        "completion_tokens": 50, "worked": True,
    }  # fmt: skip
    return Ended(**fields | changes)


def told(works: Any) -> list[tuple[float, float, float]]:
    """(from s, to s, weight) of each."""
    return [(work.start_ns / S, work.end_ns / S, work.weight / UNIT) for work in works]


def test_a_prompt_is_read_until_the_first_token_and_tokens_come_after_it() -> None:
    """Each look tells what is new: the prompt once, completion tokens since the look before."""
    account = open_account()
    assert told(account.progressed(seen(None, 10, None, None), WEIGHTS)) == []
    assert account.waiting_ns(10 * S, 11 * S) == S
    assert told(account.progressed(seen(12, 13, 100, 40), WEIGHTS)) == [(10, 12, 25), (12, 13, 40)]
    assert account.waiting_ns(10 * S, 14 * S) == 0
    assert told(account.progressed(seen(12, 14, 100, 90), WEIGHTS)) == [(13, 14, 50)]
    assert told(account.progressed(seen(12, 15, 100, 90), WEIGHTS)) == []
    assert told(account.ended(ended(16, completion_tokens=100, first_ns=12 * S), WEIGHTS)) == [(14, 16, 10)]


def test_only_what_was_told_live_may_be_charged_late() -> None:
    """Tokens told while they come wait for nobody's guess; all else was charged by its time where it was late."""
    account = open_account()
    works = list(account.progressed(seen(12, 13, 100, 40), WEIGHTS))
    assert [work.live for work in works] == [False, True]
    assert [work.live for work in account.ended(ended(16, first_ns=12 * S), WEIGHTS)] == [True]
    assert [work.live for work in open_account().ended(ended(16, first_ns=12 * S), WEIGHTS)] == [False, False]


def test_a_prompt_that_is_counted_only_at_the_end_waits_for_it() -> None:
    """Its tokens are charged as they come; the time before the first one waits."""
    account = open_account()
    assert told(account.progressed(seen(12, 13, None, 40), WEIGHTS)) == [(12, 13, 40)]
    assert account.waiting_ns(0, 20 * S) == 2 * S
    assert told(account.ended(ended(14, completion_tokens=40), WEIGHTS)) == [(10, 12, 25)]


def test_a_plain_reply_is_even_over_its_time() -> None:
    """Where its prompt ended nobody can see."""
    account = open_account()
    assert told(account.ended(ended(14, cached_tokens=60), WEIGHTS)) == [(10, 14, 10 + 1.5 + 50)]
    assert account.waiting_ns(0, 20 * S) == 0


def test_a_short_stream_that_nobody_looked_at() -> None:
    """All of it is told by its end."""
    account = Account.of_ended(3, ended(14, first_ns=11 * S))
    assert told(account.ended(ended(14, first_ns=11 * S), WEIGHTS)) == [(10, 11, 25), (11, 14, 50)]


def test_a_request_without_counts_goes_by_its_time() -> None:
    """A plain reply that was hung up on: it did cost, but nobody says how much."""
    account = open_account()
    assert told(account.ended(ended(14, prompt_tokens=None, completion_tokens=None), WEIGHTS)) == []
    assert account.waiting_ns(12 * S, 20 * S) == 2 * S


def test_a_stream_cut_before_its_first_token_goes_by_its_time() -> None:
    """It was in the queue or its prompt was read: with the engine in any case."""
    account = open_account()
    list(account.progressed(seen(None, 10, None, None), WEIGHTS))
    assert told(account.ended(ended(13, prompt_tokens=None, completion_tokens=None), WEIGHTS)) == []
    assert account.waiting_ns(0, 20 * S) == 3 * S


def test_what_was_refused_did_no_work_and_kept_nothing_busy() -> None:
    """The engine's 400 costs nothing."""
    account = open_account()
    assert told(account.ended(ended(11, prompt_tokens=None, completion_tokens=None, worked=False), WEIGHTS)) == []
    assert account.waiting_ns(0, 20 * S) == 0
    assert account.present_ns(0, 20 * S) == 0


def test_a_count_that_shrinks_takes_nothing_back() -> None:
    """Chunks were counted first, then the engine says fewer: what is charged is charged."""
    account = open_account()
    list(account.progressed(seen(12, 13, 100, 40), WEIGHTS))
    assert told(account.ended(ended(14, completion_tokens=30), WEIGHTS)) == []


def test_tokens_whose_first_was_not_seen() -> None:
    """After a restart the engine's running count goes on; the first of them that is seen stands for the first."""
    account = open_account()
    assert told(account.progressed(seen(None, 20, 100, 500), WEIGHTS)) == [(10, 20, 25), (20, 20, 500)]


def test_an_abandoned_request_ends_where_it_was_last_seen() -> None:
    """What was waited for is charged by its time until then."""
    account = open_account()
    account.seen_ns = 15 * S
    account.abandoned()
    assert account.end_ns == 15 * S
    assert account.waiting_ns(0, 100 * S) == 5 * S


@pytest.mark.parametrize(
    ("changes", "worked"),
    [
        ({}, True),
        ({"prompt": None, "completion": None, "outcome": Outcome.CLIENT_ABORT}, True),
        ({"prompt": None, "completion": None, "outcome": Outcome.REJECTED, "error": ErrorType.ENGINE_4XX}, False),
        ({"prompt": None, "completion": None, "outcome": Outcome.UPSTREAM_ERROR, "error": ErrorType.ENGINE_5XX}, True),
        (
            {"prompt": None, "completion": None, "outcome": Outcome.UPSTREAM_ERROR, "error": ErrorType.CONNECT_FAILED},
            False,
        ),
        ({"outcome": Outcome.REJECTED}, True),  # refused, and yet it has counts: the counts are believed
    ],
)
def test_whether_the_engine_worked(host: Any, changes: dict[str, Any], worked: bool) -> None:
    """What never reached the engine, or was refused by it, did not; everything else did."""
    record = host.Host().record(host.Job("r", 1_000, 4_000, **changes))
    found = Ended.of(record, LABELS, 500)
    assert found.worked is worked
    assert (found.sent_ns, found.end_ns, found.first_ns) == (500, 3 * S + 500, None)


def test_work_is_even_by_default() -> None:
    """A Work without tokens teaches nothing."""
    assert Work(0, 1, 5).prompt_tokens == Work(0, 1, 5).decode_tokens == 0
