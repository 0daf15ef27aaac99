"""Text completions: text, prompt lists and echo."""

import json
from typing import Any

import pytest

from inferwatch.record import TokenClass, TokenSource
from inferwatch_collectors.dialects.base import UNKNOWN_NS, Observation, RequestFacts
from inferwatch_collectors.dialects.openai_completions import OPENAI_COMPLETIONS
from inferwatch_collectors.dialects.usage import ONE_PROMPT


@pytest.mark.parametrize(
    ("body", "choices", "facts"),
    [
        (b'{"prompt":"a"}', 1, RequestFacts(ONE_PROMPT)),
        (b'{"prompt":["a","b"]}', 2, RequestFacts(1, prompts=2)),
        (b'{"prompt":["a","b"],"n":2}', 4, RequestFacts(2, prompts=2)),
        (b'{"prompt":["a","b"],"n":2}', 0, RequestFacts(2, prompts=0)),
        (b'{"prompt":["a","b"],"n":"2"}', 4, RequestFacts(2, prompts=2)),  # vLLM takes it for 2
        (b'{"prompt":"a","n":null}', 0, RequestFacts(1, prompts=0)),
        (b'{"prompt":"a","n":0}', 0, RequestFacts(1, prompts=0)),
        (b'{"prompt":"a","n":-3}', 0, RequestFacts(1, prompts=0)),
        (b'{"prompt":"a","n":[2]}', 0, RequestFacts(None, prompts=0)),
        (b'{"prompt":["a","b"],"n":2,"lo', 4, RequestFacts(None, prompts=0)),  # cut by the relay
        (b"", 4, RequestFacts(None, prompts=0)),  # dropped by the relay
        (b"", 1, RequestFacts(ONE_PROMPT)),
        (b'{"prompt":"a","echo":true,"max_tokens":0}', 1, RequestFacts(ONE_PROMPT, True)),
        (b'{"prompt":"a","echo":true,"max_tokens":5}', 1, RequestFacts(ONE_PROMPT, False)),
        (b'{"prompt":"a","echo":true}', 1, RequestFacts(ONE_PROMPT, False)),
        (b"[1]", 0, RequestFacts(None, prompts=0)),
        (b"\xff\xfe", 0, RequestFacts(None, prompts=0)),
        (b"[" * 100_000, 0, RequestFacts(None, prompts=0)),
    ],
)
def test_facts_of_a_request(body: bytes, choices: int, facts: RequestFacts) -> None:
    """n tells which prompt a choice belongs to; where the body does not tell, it stays unknown."""
    assert OPENAI_COMPLETIONS.facts(body, choices) == facts


def observe(facts: RequestFacts, *texts: Any) -> Observation:
    """Return what chunks with these texts, 10 ns apart, leave behind."""
    seen = Observation(facts)
    for position, text in enumerate(texts, 1):
        data = json.dumps({"choices": [{"index": 0, "text": text}]}).encode()
        OPENAI_COMPLETIONS.read_event(seen, position * 10, b"", data)
    return seen


def test_text_is_the_answer() -> None:
    """The first non-empty text is the first token, and it is visible."""
    seen = observe(RequestFacts(), "", "a", "b")
    assert (seen.first_ns, seen.answer_ns, seen.first_class) == (20, 20, TokenClass.ANSWER)
    assert seen.gap_count == 1


def test_the_prompt_alone_is_no_answer() -> None:
    """With echo and nothing to generate, the text that comes back is the prompt."""
    seen = observe(RequestFacts(echo_only=True), "the prompt")
    assert (seen.first_ns, seen.choices[0].events) == (UNKNOWN_NS, 0)


def test_text_of_a_wrong_type_is_no_token() -> None:
    """A number where text should be is dropped, the choice is not."""
    seen = observe(RequestFacts(), 5, "a")
    assert (seen.first_ns, seen.choices[0].events) == (20, 1)


@pytest.mark.parametrize(
    ("choice", "events"),
    [
        ({"token_ids": [5]}, 1),
        ({"text": "", "token_ids": [5]}, 1),
        ({"text": "a", "token_ids": [5]}, 1),
        ({"token_ids": [5], "finish_reason": "length"}, 1),
        ({"token_ids": [5, 6], "finish_reason": "stop"}, 1),
        ({"token_ids": [6], "finish_reason": "stop"}, 0),  # the token that ends it
        ({"token_ids": [], "finish_reason": "stop"}, 0),
        ({"text": "", "token_ids": None}, 0),
        ({"text": "a", "token_ids": 5}, 1),
        ({"token_ids": 5}, 0),
    ],
)
def test_tokens_in_place_of_text(choice: dict[str, Any], events: int) -> None:
    """Where no text is made of them, their ids are the output; the one that ends an answer is none by itself."""
    seen = Observation(RequestFacts())
    OPENAI_COMPLETIONS.read_event(seen, 10, b"", json.dumps({"choices": [{"index": 0, **choice}]}).encode())
    assert seen.choices[0].events == events
    assert (seen.first_ns != UNKNOWN_NS) is bool(events)


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion}


@pytest.mark.parametrize(
    ("changes", "booked"),
    [
        ({}, (53, 68, TokenSource.CONTINUOUS_USAGE)),
        ({"lossy": True}, (3, 1, TokenSource.FINAL_USAGE)),  # the second's end may have been missed
        ({"done": True}, (3, 1, TokenSource.FINAL_USAGE)),
        ({"facts": RequestFacts(ONE_PROMPT)}, (3, 1, TokenSource.FINAL_USAGE)),
        ({"facts": RequestFacts(None, prompts=2)}, (3, 1, TokenSource.FINAL_USAGE)),
    ],
)
def test_a_list_of_prompts_that_breaks_off(changes: dict[str, Any], booked: tuple[int, int, TokenSource]) -> None:
    """Of trtllm-serve's, one has ended and has its usage, the other's counts were running: together they are all."""
    seen = Observation(RequestFacts(1, prompts=2, choices=2))
    for event in (
        {"choices": [{"index": 0, "text": "a", "finish_reason": "stop"}], "usage": usage(3, 1)},
        {"choices": [], "usage": usage(3, 1)},
        {"choices": [{"index": 1, "text": "b", "finish_reason": None}], "usage": usage(50, 67)},
    ):
        OPENAI_COMPLETIONS.read_event(seen, 1, b"", json.dumps(event).encode())
    for name, value in changes.items():
        setattr(seen, name, value)
    totals = OPENAI_COMPLETIONS.totals(seen, 2)
    assert (totals.prompt, totals.completion, totals.source) == booked
