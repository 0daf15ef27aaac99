"""What a request asks of a budget, and whether there is room for it: arithmetic alone.

What is asked for. The *worst* is what a request can cost: a token for each byte of its body (byte-level tokenizers make
no more of it) and what a chat template adds, and for each choice the `max_tokens` of the client, or a default; prompt
and answer together no more than the longest context. The *expected* is what the account's own requests turned out to
be; without enough of them it is the worst.

When there is room (`fits`). Always if what is spent, the worst of all that runs, and the worst of this request stay
within the limit: then nothing can be overspent, in whatever order requests come and end. With `reserve: expected` also
while half of the budget is left by what is spent and expected: worst cases that will not happen refuse nobody there.
And a request that is alone may always begin in that half, for otherwise a budget smaller than one worst case would
never be used. A `cut` budget can stop a stream, so there streams need room for what is expected.
"""

from typing import Final, NamedTuple

from inferwatch.budget_rules import TokenRate

# What chat templates and tool schemas put around a prompt, beside one token for each byte of it.
TEMPLATE_TOKENS: Final = 512

# English has some four bytes a token, JSON around it fewer; for accounts that have not shown theirs yet.
BYTES_PER_TOKEN: Final = 3

# Below this part of the limit requests are judged by what they are expected to cost.
EXPECTED_SHARE: Final = 0.5

# Routes that generate nothing and run nothing, by their end; POST to anything else is asked for.
FREE_ROUTES: Final = (
    "/tokenize",
    "/detokenize",
    "/chat_tokenize",
    "/apply-template",
    "/render",
    "/count_tokens",
    "/input_tokens",
    "/cancel",
    "/api/show",
    "/load_lora_adapter",
    "/unload_lora_adapter",
)
# Routes that read a prompt and generate nothing.
PROMPT_ROUTES: Final = (
    "/embeddings",
    "/embedding",
    "/embed",
    "/encode",
    "/score",
    "/rerank",
    "/reranking",
    "/pooling",
    "/classify",
)


class Wish(NamedTuple):
    """What the relay knows of a request before it is sent."""

    prompt_bytes: int  # of the body
    choices: int = 1  # n x prompts; 0: unknown
    max_tokens: int = 0  # 0: not given
    stream: bool = False
    generates: bool = True


class Need(NamedTuple):
    """Amounts in a budget's smallest steps; `expected` <= `worst`."""

    expected: int
    worst: int


class Account(NamedTuple):
    """One account as the board shows it. Amounts in smallest steps."""

    spent: int
    held: Need
    limit: int


def fits(account: Account, need: Need, *, by_expected: bool, cuttable: bool) -> bool:
    """Tell whether there is room for `need`. See the top of this file.

    `by_expected`: the budget reserves what is expected; `cuttable`: this request can be stopped at the limit.
    """
    spent, held, limit = account
    if spent >= limit:
        return False
    if spent + held.worst + need.worst <= limit:
        return True
    if not by_expected:
        return False
    expected = spent + held.expected + need.expected
    if cuttable:
        return expected <= limit or (held.worst == 0 and held.expected == 0)
    return expected <= limit * EXPECTED_SHARE or (held.worst == 0 and spent <= limit * EXPECTED_SHARE)


def most(rate: TokenRate, prompt: int, answer: int, choices: int, context: int) -> int:
    """Return the most that at most `prompt` tokens and `choices` answers of at most `answer` tokens each can cost."""
    if choices > 1 or prompt + answer <= context:
        return rate.amount(prompt, choices * answer)
    # One of them fills the context: the longer the prompt, the less is left to answer.
    return max(rate.amount(prompt, context - prompt), rate.amount(context - answer, answer))


def is_asked_for(method: bytes, path: str) -> bool:
    """Tell whether a request needs room in budgets."""
    return method == b"POST" and not path.endswith(FREE_ROUTES)


def generates(path: str) -> bool:
    """Tell whether a POST to `path` may generate tokens."""
    return not path.endswith(PROMPT_ROUTES)
