"""When an answer is a loop beyond doubt, so that what would still come of it may be spared. Exact, live, pure.

A loop is suspected at its fourth repeat (`tail_cycle`); real text does that, too: a refrain, a table, a picture. It is
beyond doubt when it has gone on without a letter's change for REPEATS repeats in all and MIN_BYTES, which is some 500
tokens in any language: a letter that takes more bytes is more of a token. What has no word in it (rulers, blanks, rows
of figures, an array of `0x00`) may be meant so for much longer.

The repeats are followed letter by letter, from where they began: how an engine cuts its text changes only by one piece
when it is known, and never whether.

Where the form of an answer was asked for (a schema, a grammar) and in arguments of tools, the same words may be called
for again and again, as rows that are alike are. There only blanks are a loop: no document needs a page of them between
two of its marks, and it is how a model fails that may say nothing else.
"""

import re
import sys
from typing import Any, Final

import msgspec

from inferwatch_collectors.dialects.content import BAD_JSON
from inferwatch_collectors.quality.tail_cycle import TailCycle

# Four times as many as make a suspicion.
REPEATS: Final = 12
# 512 tokens of English. Of real text (bench/RESULTS-drift.md) nothing repeats itself for half as long.
MIN_BYTES: Final = 2_048
# Without a word: a page of `0, 0, 0`, and the fill of a buffer.
MIN_PLAIN_BYTES: Final = 8_192

# Letters with no figure or underscore among them: of `0x00` no part is one.
_WORD: Final = re.compile(r"\b[^\W\d_]+\b")

# Members of a request that ask for a form: OpenAI's, vLLM's, SGLang's, llama.cpp's, TGI's, Ollama's, Anthropic's; and
# the objects that have some of them inside.
_FORMS: Final = frozenset({
    "response_format", "format", "output_format", "json_schema", "grammar", "regex", "ebnf",
    "structured_outputs", "structural_tag", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
})  # fmt: skip
_HOLDERS: Final = frozenset({"text", "output_config", "parameters", "sampling_params", "options"})
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def asks_for_a_form(body: bytes) -> bool:
    """Tell whether a request says what form its answer must have; also if the body cannot be read."""
    try:
        known = {
            name: msgspec.json.decode(raw) for name, raw in _members(body).items() if name in _FORMS or name in _HOLDERS
        }
    except BAD_JSON:
        return True
    places = (known, *(known[name] for name in _HOLDERS & known.keys() if isinstance(known[name], dict)))
    return any(not _is_free(place[name]) for place in places for name in _FORMS & place.keys())


def _is_free(form: Any) -> bool:
    """Tell whether what stands for a form asks for none."""
    return not form or (isinstance(form, dict) and form.get("type") == "text")


def enough(period: str, *, blanks_only: bool) -> int:
    """Return how many characters of repeats of `period` are a loop beyond doubt."""
    if blanks_only and not period.isspace():
        return sys.maxsize
    least = MIN_BYTES if _WORD.search(period) else MIN_PLAIN_BYTES
    size, size_bytes = len(period), len(period.encode("utf-8", "surrogatepass"))
    return max(REPEATS * size, -(-least * size // size_bytes))


class Runaway:
    """Takes the text of one answer as it comes. `blanks_only`: nothing else is a loop, see above."""

    __slots__ = ("_at", "_blanks_only", "_cycle", "_enough", "_lasts", "_period", "_turns")

    def __init__(self, *, blanks_only: bool = False) -> None:
        self._cycle = TailCycle()
        self._blanks_only = blanks_only
        self._period = ""  # of what is followed; "": nothing is suspected
        self._turns = ""  # twice that: what comes next is a part of it
        self._at = 0  # where in the period the text stands
        self._lasts = 0  # characters
        self._enough = sys.maxsize

    def take(self, text: str, pieces: int = 1) -> bool:
        """Take the next piece, or several; tell whether the answer is a loop beyond doubt with it."""
        suspected = self._cycle.take(text, pieces)
        if self._period:
            if not self._goes_on(text):
                self._suspect(suspected=self._cycle.finish())
        elif suspected:
            self._suspect(suspected=True)
        return self._lasts >= self._enough

    @property
    def share(self) -> float:
        """How much it is of such a loop: 1 is beyond doubt."""
        return self._lasts / self._enough

    def _suspect(self, *, suspected: bool) -> None:
        """Begin to follow what the tail's look has found just now, if anything."""
        self._period = (self._cycle.period or "") if suspected else ""
        self._turns = 2 * self._period
        self._at = 0
        self._lasts = self._cycle.lasts()
        self._enough = enough(self._period, blanks_only=self._blanks_only) if self._period else sys.maxsize

    def _goes_on(self, text: str) -> bool:
        """Tell whether `text` is what the loop would say next."""
        period, turns, end = self._period, self._turns, self._at + len(text)
        if end > len(turns):  # a long piece
            turns = period * (end // len(period) + 1)
        if turns[self._at : end] != text:
            return False
        self._at = end % len(period)
        self._lasts += len(text)
        return True
