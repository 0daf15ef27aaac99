"""What one request explains of the engine's counts."""

from collections.abc import Callable
from typing import Any

import pytest

from inferwatch.record import Outcome, RequestRecord, TokenSource
from inferwatch_collectors.engine.claims import ABORT_S, CUT, MAX_TOKENS_PER_S, TEMPLATE_TOKENS, UNREPORTED, claims
from inferwatch_collectors.engine.names import BY_ENGINE

VLLM, SGLANG = BY_ENGINE["vllm"], BY_ENGINE["sglang"]
ABORTED = {"outcome": Outcome.CLIENT_ABORT, "token_source": TokenSource.CONTINUOUS_USAGE}
HUNG_UP = {
    "outcome": Outcome.CLIENT_ABORT, "token_source": TokenSource.NONE, "prompt_tokens": None, "completion_tokens": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("names", "n", "low", "high"),
    [(VLLM, 1, 10, 10), (VLLM, 3, 30, 30), (SGLANG, 1, 10, 10), (SGLANG, 3, 10, 30)],
)
def test_a_finished_answer(record: Callable[..., RequestRecord], names: Any, n: int, low: int, high: int) -> None:
    """It explains what was reported: with n answers the prompt n times, where the engine is known to count so."""
    prompt, completion = claims(record(n=n, choices=n), names)
    assert (prompt.low, prompt.high, prompt.unsure, prompt.reason) == (low, high, 0, "")
    assert (completion.low, completion.high, completion.unsure, completion.reason) == (5, 5, 0, "")


def test_an_aborted_stream(record: Callable[..., RequestRecord]) -> None:
    """It explains what it told; of its prompts perhaps none was begun, and some tokens more may have been made."""
    prompt, completion = claims(record(**ABORTED, n=2, choices=2), VLLM)
    assert prompt == (0, 20, (100 + TEMPLATE_TOKENS) * 2, CUT)
    assert completion == (5, 5, int((0.5 + ABORT_S) * MAX_TOKENS_PER_S) * 2, CUT)


def test_a_plain_answer_that_was_hung_up_on(record: Callable[..., RequestRecord]) -> None:
    """It explains nothing for certain, since no count of it is on the wire."""
    prompt, completion = claims(record(**HUNG_UP, stream=False), VLLM)
    assert (prompt.low, prompt.high, prompt.reason) == (0, 0, CUT)
    assert (completion.low, completion.high, completion.reason) == (0, 0, CUT)
    assert prompt.unsure > 0
    assert completion.unsure > 0


@pytest.mark.parametrize("source", [TokenSource.NONE, TokenSource.CHUNK_ESTIMATE, TokenSource.CONTINUOUS_USAGE])
def test_an_answer_without_a_final_count(record: Callable[..., RequestRecord], source: TokenSource) -> None:
    """What a finished answer did not report is unreported, not bypass."""
    for claim in claims(record(token_source=source), VLLM):
        assert claim.reason == UNREPORTED
        assert claim.unsure > 0


@pytest.mark.parametrize(
    "changes", [{"method": "GET"}, {"method": "HEAD"}, {"outcome": Outcome.REJECTED, "status": 400}]
)
def test_what_generates_nothing(record: Callable[..., RequestRecord], changes: dict[str, Any]) -> None:
    """A fetched answer (also of a response made earlier) and a refused request explain nothing."""
    assert claims(record(**changes), VLLM) == ((0, 0, 0, ""), (0, 0, 0, ""))


def test_what_was_asked_for_is_a_bound(record: Callable[..., RequestRecord]) -> None:
    """No more can have been generated than `max_tokens` allowed, what is known of it included."""
    assert claims(record(**HUNG_UP, max_tokens=40), VLLM)[1].unsure == 40
    assert claims(record(**ABORTED, max_tokens=40), VLLM)[1].unsure == 35
    assert claims(record(**ABORTED, max_tokens=3), VLLM)[1].unsure == 0
