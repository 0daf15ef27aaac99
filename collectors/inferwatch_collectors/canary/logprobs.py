"""From an engine's reply to the log-probabilities of the likeliest next tokens. It never raises on what an engine sends
but with a reason. Pure.
"""

from typing import Any, Final

import msgspec

# vLLM says -9999 where a probability is 0; below this none is told from another.
MIN_LOGPROB: Final = -30.0

# JSON's integers may be longer than a float: beyond this nothing is a logarithm of anything.
MAX_ABSOLUTE: Final = 1e300

# More are never asked for; an engine adds the token that it took.
MAX_TOKENS: Final = 64


class UnreadableError(Exception):
    """There is nothing to compare in a reply. `reason` is a value of the label `result`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read(body: bytes, api: str, asked: int) -> dict[str, float]:
    """Return token -> log-probability of a reply to `api` ("completions" or "chat") that was asked for `asked` tokens.

    Tokens that look alike are one; so half of those asked for are enough.

    Raises:
        UnreadableError: `malformed`, `no_logprobs` or `not_a_number`.
    """
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnreadableError("malformed") from None
    choices = decoded.get("choices") if isinstance(decoded, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        raise UnreadableError("malformed")
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        raise UnreadableError("no_logprobs")
    pairs = _chat(logprobs) if api == "chat" else _completions(logprobs)
    found = {token: _number(value) for token, value in pairs[:MAX_TOKENS] if isinstance(token, str)}
    if 2 * len(found) < asked:
        raise UnreadableError("no_logprobs")
    return found


def _completions(logprobs: dict[str, Any]) -> list[tuple[Any, Any]]:
    tops = logprobs.get("top_logprobs")
    first = tops[0] if isinstance(tops, list) and tops else None
    return list(first.items()) if isinstance(first, dict) else []


def _chat(logprobs: dict[str, Any]) -> list[tuple[Any, Any]]:
    content = logprobs.get("content")
    first = content[0] if isinstance(content, list) and content else None
    tops = first.get("top_logprobs") if isinstance(first, dict) else None
    rows = tops if isinstance(tops, list) else []
    return [(row.get("token"), row.get("logprob")) for row in rows if isinstance(row, dict)]


def _number(value: Any) -> float:
    # Compared before it is converted: a longer integer has no float. No comparison holds for NaN.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not -MAX_ABSOLUTE < value < MAX_ABSOLUTE:
        raise UnreadableError("not_a_number")
    return max(MIN_LOGPROB, min(0.0, float(value)))
