"""Usage objects and how several become one set of counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.record import TokenSource
from inferwatch_collectors.dialects.usage import (
    ONE_PROMPT,
    CompletionDetails,
    FinalPerPrompt,
    LastFinalWins,
    PromptDetails,
    Totals,
    Usage,
    summed,
)

RULE = LastFinalWins()


def usage(prompt: int | None, completion: int | None, cached: int | None = None, reasoning: int | None = None) -> Usage:
    """Return a usage with these counts."""
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        prompt_tokens_details=None if cached is None else PromptDetails(cached_tokens=cached),
        completion_tokens_details=None if reasoning is None else CompletionDetails(reasoning_tokens=reasoning),
    )


@pytest.mark.parametrize(
    ("usages", "per_prompt", "prompt", "completion"),
    [
        ({0: usage(7, 4)}, 1, 7, 4),
        ({0: usage(7, 4), 1: usage(7, 2)}, 2, 7, 6),  # n=2: one prompt
        ({0: usage(7, 4), 1: usage(5, 2)}, 1, 12, 6),  # two prompts
        ({0: usage(7, 1), 1: usage(7, 1), 2: usage(5, 1), 3: usage(5, 1)}, 2, 12, 4),  # two prompts, n=2
        ({0: usage(7, 1), 3: usage(5, 1)}, 2, 12, 2),  # the others have not begun
        ({0: usage(7, 1), 9: usage(7, 1)}, ONE_PROMPT, 7, 2),
        ({0: usage(7, 1)}, None, 7, 1),
        ({0: usage(7, 1), 1: usage(7, 1)}, None, None, 2),  # one prompt or two: nobody knows
        ({0: usage(None, 1), 1: usage(7, None)}, 2, 7, 1),
        ({0: usage(None, None)}, 1, None, None),
        ({0: usage(7, 0)}, 1, 7, 0),
    ],
)
def test_running_usage_adds_choices_and_prompts(
    usages: dict[int, Usage], per_prompt: int | None, prompt: int | None, completion: int | None
) -> None:
    """Completions are summed over choices, prompts over prompts: n choices of one prompt share it."""
    totals = RULE.running(usages, per_prompt)
    assert totals == Totals(prompt, completion, None, None, TokenSource.CONTINUOUS_USAGE)


def test_details_are_merged_like_their_counts() -> None:
    """Cached tokens belong to the prompt, reasoning tokens to the choice; what no usage tells stays unknown."""
    totals = RULE.running({0: usage(7, 4, reasoning=2), 1: usage(7, 4, cached=3, reasoning=1), 2: usage(5, 1)}, 2)
    assert (totals.prompt, totals.cached, totals.reasoning) == (12, 3, 3)


@pytest.mark.parametrize(
    ("told", "cached", "reasoning"),
    [
        (Usage(), None, None),
        (Usage(cached_tokens=5, reasoning_tokens=0), 5, 0),
        (Usage(prompt_tokens_details=PromptDetails(), cached_tokens=5), 5, None),
        (Usage(prompt_cache_hit_tokens=5), 5, None),
        (Usage(prompt_cache_hit_tokens=5, cached_tokens=0), 0, None),
        (Usage(prompt_tokens_details=PromptDetails(cached_tokens=0), prompt_cache_hit_tokens=5), 0, None),
        (Usage(prompt_tokens_details=PromptDetails(cached_tokens=0), cached_tokens=5), 0, None),
        (Usage(completion_tokens_details=CompletionDetails(), reasoning_tokens=2), None, 2),
        (Usage(completion_tokens_details=CompletionDetails(reasoning_tokens=1), reasoning_tokens=2), None, 1),
    ],
)
def test_where_details_may_stand(told: Usage, cached: int | None, reasoning: int | None) -> None:
    """They stand in objects of their own, with some engines beside the counts; an explicit 0 is not unknown."""
    assert (told.cached, told.reasoning) == (cached, reasoning)


@pytest.mark.parametrize(
    ("total", "completion"),
    [(135, 103), (41, 9), (134, 9), (136, 9), (None, 9)],
)
def test_reasoning_that_is_no_part_of_the_completion(total: int | None, completion: int) -> None:
    """The total shows whether it was counted beside it; where it shows neither, the count is taken as it is."""
    told = Usage(32, 9, completion_tokens_details=CompletionDetails(94), total_tokens=total)
    assert told.completion == completion
    assert RULE.running({0: told}, 1).completion == completion
    assert summed([told, Usage(1, 1)]).completion == completion + 1


@pytest.mark.parametrize(
    "told",
    [
        Usage(32, 9, total_tokens=41),
        Usage(32, 9, reasoning_tokens=0, total_tokens=41),
        Usage(None, 9, reasoning_tokens=4, total_tokens=13),
        Usage(9, None, reasoning_tokens=4, total_tokens=13),
    ],
)
def test_nothing_is_added_to_what_is_not_told(told: Usage) -> None:
    """Without reasoning, prompt or completion there is nothing to add up."""
    assert told.completion == told.completion_tokens


def test_reasoning_alone_is_something_generated() -> None:
    """A running count of xAI's that has no completion yet is not that of a prompt that comes back."""
    assert not Usage(32, 0, reasoning_tokens=4, total_tokens=36).nothing_generated()
    assert Usage(32, 0, total_tokens=32).nothing_generated()


def test_the_last_final_usage_wins_but_zeros_do_not() -> None:
    """A second final usage replaces the first, unless it says nothing."""
    assert RULE.final(None, usage(0, 0), 1) == usage(0, 0)
    assert RULE.final(usage(1, 1), usage(2, 2), 2) == usage(2, 2)
    assert RULE.final(usage(1, 1), usage(0, 0), 1) == usage(1, 1)


def test_final_usages_of_a_list_of_prompts_add_up() -> None:
    """trtllm-serve tells one for each prompt; with one prompt, or an unknown number, the last one stands."""
    rule = FinalPerPrompt()
    assert rule.final(None, usage(1, 2), 2) == usage(1, 2)
    added = rule.final(usage(1, 2), usage(10, 20), 2)
    assert (added.prompt_tokens, added.completion_tokens) == (11, 22)
    assert rule.final(usage(1, 2), usage(0, 0), 2) == usage(1, 2)
    assert rule.final(usage(1, 2), usage(10, 20), 1) == usage(10, 20)
    assert rule.final(usage(1, 2), usage(10, 20), 0) == usage(10, 20)


@given(
    counts=st.dictionaries(
        st.integers(0, 40), st.tuples(st.none() | st.integers(0, 99), st.none() | st.integers(0, 99)), max_size=12
    ),
    per_prompt=st.none() | st.integers(1, 5),
)
def test_the_order_of_choices_does_not_matter(
    counts: dict[int, tuple[int | None, int | None]], per_prompt: int | None
) -> None:
    """Events of several choices interleave as they like."""
    prompts = {index: 3 + index // (per_prompt or 1) for index in counts}
    usages = {index: usage(prompts[index], completion) for index, (_, completion) in counts.items()}
    backwards = dict(reversed(usages.items()))
    assert RULE.running(usages, per_prompt) == RULE.running(backwards, per_prompt)
