"""What is looked at in a request, as data: each feature is one number or one yes-or-no of the prompt, the answer or
its pace.

The weights are the prior of the bets: what people ask about first (lengths, cut and useless answers) is found sooner
than a share of characters, and the others that little later. `Watched` divides by their sum over what has a
reference, so that the mean over features keeps the rate of false alarms.
"""

import enum
from typing import Final, NamedTuple


class Kind(enum.Enum):
    """How a feature is cut into bins."""

    QUANTITY = "quantity"
    FLAG = "flag"


class Direction(enum.StrEnum):
    """Whose doing it is: values of the label `direction`."""

    PROMPT = "prompt"  # the users'
    ANSWER = "answer"  # the model's, given the prompts
    PACE = "pace"  # the engine's


class Feature(NamedTuple):
    """One of them. `words` say it to people."""

    name: str
    direction: Direction
    kind: Kind
    words: str
    weight: float = 1.0
    text: bool = False  # it needs the text, not only the record
    partial: bool = False  # many requests do not have it


_Q: Final = Kind.QUANTITY
_F: Final = Kind.FLAG
_PROMPT: Final = Direction.PROMPT
_ANSWER: Final = Direction.ANSWER
_PACE: Final = Direction.PACE

FIRST: Final = 8.0
CORE: Final = 3.0

# From the booked record alone.
RECORD_FEATURES: Final = (
    Feature("prompt_tokens", _PROMPT, _Q, "length of prompts in tokens", FIRST),
    Feature("completion_tokens", _ANSWER, _Q, "length of answers in tokens", FIRST),
    Feature("finish_length", _ANSWER, _F, "answers cut by the length limit", FIRST),
    Feature("finish_tool_calls", _ANSWER, _F, "answers that end in a call of a tool", CORE),
    Feature("finish_other", _ANSWER, _F, "answers that end in any other way than stop, length or a tool", CORE),
    Feature("empty", _ANSWER, _F, "answers without any text", CORE),
    Feature("abandoned", _ANSWER, _F, "clients that hung up"),
    Feature("ttft", _PACE, _Q, "time to the first token, given the prompt's length and the load", partial=True),
    Feature("gap", _PACE, _Q, "mean time between tokens, given the load", partial=True),
    Feature("gap_max", _PACE, _Q, "longest pause between tokens, beside the mean", partial=True),
)

# What `text.read` says of a text, of prompts and of answers alike.
TEXT_NAMES: Final = (
    ("chars", "length in characters"),
    ("word_chars", "length of words"),
    ("distinct_words", "share of words that are not repeated"),
    ("compressed", "size when compressed"),
    ("upper", "share of capital letters"),
    ("digits", "share of digits"),
    ("punctuation", "share of punctuation"),
    ("symbols", "share of the symbols of program code"),
    ("newlines", "share of line ends"),
    ("accented", "share of accented Latin letters"),
    ("cyrillic", "share of Cyrillic letters"),
    ("cjk", "share of Chinese, Japanese and Korean characters"),
    ("other_script", "share of other scripts"),
    ("english", "share of frequent English words"),
    ("german", "share of frequent German words"),
    ("french", "share of frequent French words"),
    ("spanish", "share of frequent Spanish words"),
    ("italian", "share of frequent Italian words"),
    ("portuguese", "share of frequent Portuguese words"),
    ("dutch", "share of frequent Dutch words"),
    ("likeness", "likeness to the reference's own texts"),
)

TEXT_FEATURES: Final = (
    *(
        Feature(
            f"{direction}_{name}", direction, _Q, f"{words} of {direction}s", CORE if name == "likeness" else 1.0, True
        )
        for direction in (_PROMPT, _ANSWER)
        for name, words in TEXT_NAMES
    ),
    Feature("refusal", _ANSWER, _F, "answers that begin as refusals do", FIRST, True),
    Feature("loop", _ANSWER, _F, "answers that repeat themselves without an end", FIRST, True),
    Feature(
        "json", _ANSWER, _F, "answers that are valid JSON, of those that begin as JSON", FIRST, text=True, partial=True
    ),
    Feature(
        "tool_json",
        *(_ANSWER, _F, "calls of tools whose arguments are valid JSON, of those that begin as JSON", CORE),
        text=True,
        partial=True,
    ),
)


# Of the embedding of a prompt: see `meaning`.
LIKENESS: Final = Feature(
    "prompt_embedding_likeness", _PROMPT, _Q, "likeness of prompts' embeddings to the reference's", CORE, True, True
)


def embedding_features(numbers: int) -> tuple[Feature, ...]:
    """Return those of an embedding that is projected to so many numbers; none of none."""
    if not numbers:
        return ()
    return (
        LIKENESS,
        *(
            Feature(f"prompt_embedding_{place}", _PROMPT, _Q, f"number {place} of prompts' embeddings", 1.0, True, True)
            for place in range(1, numbers + 1)
        ),
    )


def features(*, text: bool) -> tuple[Feature, ...]:
    """Return those that are looked at."""
    return (*RECORD_FEATURES, *TEXT_FEATURES) if text else RECORD_FEATURES
