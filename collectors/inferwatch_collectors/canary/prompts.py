"""What the engine is asked unless the configuration has others: six short texts of different kinds, so that a change
that spares one kind shows in another. Short ones cost little, and fill no block of a prefix cache that others need.
"""

from typing import Final

PROMPTS: Final = (
    "The capital of France is",
    "Q: What is 17 times 23?\nA:",
    "def fibonacci(n):\n    if n < 2:\n        return",
    "Es war einmal ein König, der hatte drei",
    '{"name": "Alice", "age": 31, "city":',
    "I did not expect the letter, and when I opened it I",
)
