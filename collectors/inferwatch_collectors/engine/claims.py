"""What one booked request explains of an engine's token counts. Pure.

A finished answer whose counts the engine reported explains exactly those. An answer that was cut, or that reported
nothing, explains what is known of it, and may have cost the engine more: a plain answer that was hung up on leaves no
count on the wire at all, and an aborted stream was a few tokens further than it told. How much more is bounded by what
was asked for and by what is physically possible, generously: it decides what unexplained tokens are called, not how
many there are.
"""

from typing import Final, NamedTuple

from inferwatch.record import Outcome, RequestRecord, TokenSource
from inferwatch_collectors.engine.names import EngineNames

# One sequence on the fastest hardware with speculation, and then some.
MAX_TOKENS_PER_S: Final = 1_000

# An engine notices that its client has left within a step; SGLang looks every two seconds, trtllm-serve every one.
ABORT_S: Final = 3.0

# A token of text is at least a byte; what a chat template adds is not in the body.
TEMPLATE_TOKENS: Final = 1_024

# They fetch, they do not generate.
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

# Running counts of an answer that ended well: the last of them was missed.
_NOT_FINAL: Final = frozenset(
    {TokenSource.PARTIAL_USAGE, TokenSource.CONTINUOUS_USAGE, TokenSource.CHUNK_ESTIMATE, TokenSource.NONE}
)

CUT: Final = "cut"
UNREPORTED: Final = "unreported"


class Claim(NamedTuple):
    """Tokens of one type.

    Attributes:
        low, high: the engine counted at least and at most these, as far as is known.
        unsure: and perhaps so many more.
        reason: why, "" if it is sure.
    """

    low: int = 0
    high: int = 0
    unsure: int = 0
    reason: str = ""

    @property
    def told(self) -> "Claim":
        """What is booked, without what may be."""
        return Claim(self.low, self.high)


NOTHING: Final = Claim()


def claims(record: RequestRecord, names: EngineNames) -> tuple[Claim, Claim]:
    """Return what `record` explains of the prompt and of the completion tokens of an engine that counts as `names`."""
    if record.method in _SAFE_METHODS or record.outcome is Outcome.REJECTED:
        return NOTHING, NOTHING
    n = max(1, record.n)
    reason = ""
    if record.outcome is not Outcome.OK:
        reason = CUT
    elif record.token_source in _NOT_FINAL:
        reason = UNREPORTED
    prompt, completion = record.prompt_tokens or 0, record.completion_tokens or 0
    exact = not reason and names.prompt_per_choice
    low, high = prompt * n if exact else prompt, prompt * n
    if not reason:
        return Claim(low, high), Claim(completion, completion)
    sequences = max(n, record.choices)
    more_prompt = (record.request_bytes + TEMPLATE_TOKENS) * n
    more_completion = int((record.duration_s + ABORT_S) * MAX_TOKENS_PER_S) * sequences
    if record.max_tokens is not None:
        more_completion = min(more_completion, max(0, record.max_tokens - completion))
    # Not all prompts of a list, nor all answers to one, need have been begun.
    return Claim(0, high, more_prompt, reason), Claim(completion, completion, more_completion, reason)
