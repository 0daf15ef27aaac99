"""reckoning: what a request asks of a budget, and whether there is room for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.budget_rules import TokenRate
from inferwatch.relay.reckoning import Account, Need, fits, generates, is_asked_for, most


@pytest.mark.parametrize(
    ("account", "need", "expected", "cuttable", "room"),
    [
        # account: spent, held, limit; what is asked for; by what is expected; can be stopped; room
        (Account(0, Need(0, 0), 100), Need(10, 100), True, False, True),  # the worst fits
        (Account(1, Need(0, 0), 100), Need(10, 100), False, False, False),  # it does not, and nothing else counts
        (Account(0, Need(30, 900), 100), Need(20, 300), True, False, True),  # half is left by what is expected
        (Account(0, Need(31, 900), 100), Need(20, 300), True, False, False),  # it is not
        (Account(0, Need(30, 900), 100), Need(20, 300), False, False, False),  # worst cases only
        (Account(10, Need(0, 0), 100), Need(100, 100), True, False, True),  # alone, and more than half is left
        (Account(51, Need(0, 0), 100), Need(100, 100), True, False, False),  # alone, but near the limit
        (Account(10, Need(0, 0), 100), Need(100, 100), False, False, False),  # never overspent
        (Account(60, Need(20, 900), 100), Need(20, 300), True, True, True),  # can be stopped: what is expected counts
        (Account(60, Need(20, 900), 100), Need(21, 300), True, True, False),
        (Account(99, Need(0, 0), 100), Need(50, 300), True, True, True),  # alone, and can be stopped
        (Account(100, Need(0, 0), 100), Need(0, 0), True, True, False),  # spent is spent
    ],
)
def test_when_there_is_room(account: Account, need: Need, expected: bool, cuttable: bool, room: bool) -> None:
    """By the worst case always; by what is expected in the first half, or where a stream can be stopped."""
    assert fits(account, need, by_expected=expected, cuttable=cuttable) == room


amounts = st.integers(0, 1000)


@given(spent=amounts, held=amounts, need=amounts, limit=st.integers(1, 1000))
def test_what_is_admitted_by_the_worst_case_can_never_be_overspent(
    spent: int, held: int, need: int, limit: int
) -> None:
    """Whatever everybody does: spent, and all that runs at its worst, is within the limit."""
    if fits(Account(spent, Need(0, held), limit), Need(0, need), by_expected=False, cuttable=False):
        assert spent + held + need <= limit


@given(st.data(), amounts, amounts, amounts, st.integers(1, 1000))
def test_with_half_of_the_budget_left_nobody_is_refused(
    data: st.DataObject, spent: int, held: int, need: int, limit: int
) -> None:
    """By what is spent and expected, whatever the worst cases are."""
    if spent + held + need > limit / 2:
        return
    worst = Need(held, held + data.draw(amounts)), Need(need, need + data.draw(amounts))
    assert fits(Account(spent, worst[0], limit), worst[1], by_expected=True, cuttable=data.draw(st.booleans()))


@given(
    prompt=st.integers(0, 5000),
    answer=st.integers(0, 5000),
    used=st.integers(0, 5000),
    generated=st.integers(0, 5000),
    choices=st.integers(1, 8),
    context=st.integers(1, 4000),
    rates=st.tuples(amounts, amounts),
)
def test_the_most_is_no_less_than_any_request_within_the_bounds(
    prompt: int, answer: int, used: int, generated: int, choices: int, context: int, rates: tuple[int, int]
) -> None:
    """Whatever a request does within its body, its max_tokens and the context, it costs no more."""
    prompt, answer = min(prompt, context * choices), min(answer, context)
    rate = TokenRate(*rates)
    used, generated = min(used, prompt), min(generated, answer, max(context - used, 0) if choices == 1 else answer)
    assert rate.amount(used, choices * generated) <= most(rate, prompt, answer, choices, context)


@pytest.mark.parametrize(
    ("method", "path", "asked"),
    [
        (b"POST", "/v1/chat/completions", True),
        (b"POST", "/openai/v1/completions", True),
        (b"POST", "/v1/messages", True),
        (b"POST", "/anything/new", True),
        (b"POST", "/v1/messages/count_tokens", False),
        (b"POST", "/tokenize", False),
        (b"GET", "/v1/models", False),
        (b"GET", "/health", False),
    ],
)
def test_every_post_is_asked_for_but_those_known_to_be_free(method: bytes, path: str, asked: bool) -> None:
    """A route that nobody thought of is no way around a budget."""
    assert is_asked_for(method, path) == asked


def test_routes_that_only_read_need_room_for_the_prompt() -> None:
    """Embeddings generate nothing."""
    assert not generates("/v1/embeddings")
    assert generates("/v1/chat/completions")
