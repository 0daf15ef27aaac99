"""What a request of an account is expected to come to, learnt from its own finished ones. Pure.

Of completions the 99th percentile, in powers of two: the upper end of its bucket, so up to twice of what was seen. Of
prompts the tokens for 1,000 bytes of body. An account that has shown too little of itself expects nothing: its requests
are then taken at their worst. Nobody else's requests are looked at, or a new account's first thousand requests would be
taken for small ones.
"""

from typing import Final

# From so many on the 99th percentile is more than the largest one seen.
MIN_SEEN: Final = 50

# Half is forgotten after so many: the mix of an hour, not of a month.
FORGET_AT: Final = 1000

SHARE: Final = 0.99

BUCKETS: Final = 32

# Bodies of a few words are mostly JSON.
PROMPT_MARGIN: Final = 1.25


class Expected:
    """Of one account."""

    __slots__ = ("_bytes", "_counts", "_prompt_tokens", "_seen", "completion_tokens", "prompt_per_kb")

    def __init__(self, completion_tokens: int = 0, prompt_per_kb: int = 0) -> None:
        """Begin with what an earlier life had learnt; 0: nothing."""
        self._counts = [0] * BUCKETS
        self._seen = 0
        self._bytes = self._prompt_tokens = 0
        self.completion_tokens = completion_tokens  # of a choice; 0: not known
        self.prompt_per_kb = prompt_per_kb  # of body; 0: not known

    def observe(self, completion_tokens: int, choices: int, prompt_tokens: int, body_bytes: int) -> None:
        """Take one finished request."""
        self._counts[min((completion_tokens // max(choices, 1)).bit_length(), BUCKETS - 1)] += 1
        self._seen += 1
        self._prompt_tokens += prompt_tokens
        self._bytes += body_bytes
        if self._seen >= MIN_SEEN:
            self.completion_tokens = self._quantile()
            self.prompt_per_kb = max(1, round(self._prompt_tokens * 1000 * PROMPT_MARGIN / max(self._bytes, 1)))
        if self._seen >= FORGET_AT:
            self._counts = [count // 2 for count in self._counts]
            self._seen = sum(self._counts)
            self._prompt_tokens //= 2
            self._bytes //= 2

    def _quantile(self) -> int:
        above = 0
        for bits in range(BUCKETS - 1, -1, -1):
            above += self._counts[bits]
            if above > self._seen * (1 - SHARE):
                return 1 << bits
        return 1
