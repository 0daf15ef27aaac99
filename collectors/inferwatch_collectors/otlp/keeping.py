"""From what was said to what is kept of it, as attributes of a span. Runs in the exporting thread; fails closed.

Whatever goes wrong with a text, nothing of that request's texts is kept, and it is counted: a scanner that gave up has
not said that there is nobody in it.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from inferwatch.record import Outcome, RequestRecord
from inferwatch_collectors.dialects.base import REASONING, TOOL_CALL
from inferwatch_collectors.dialects.content import Piece, Source
from inferwatch_collectors.otlp.attributes import Value
from inferwatch_collectors.otlp.content import Said
from inferwatch_collectors.privacy.base import MARGIN_CHARS, ScanTimeoutError

if TYPE_CHECKING:  # it needs the extra `privacy`, which most who export do not have
    from inferwatch_collectors.privacy.redaction import Redactor

# Of an answer that broke off nobody has more, and it may have done so within a value, of which what is there looks like
# nothing. What is written in groups, cards and accounts above all, is no longer than this; the rest is one word.
END_CHARS: Final = 64

# Why answers end by themselves, in engines' words. With any other reason, or none, one broke off.
_WHOLE: Final = frozenset(
    {"stop", "eos", "eos_token", "word", "stop_sequence", "end_turn", "completed", "complete"}
    | {"tool_calls", "function_call", "tool_use"}
)

# Results of looking at a request's content, the label values of `inferwatch_privacy_requests_total`.
KEPT: Final = "kept"
CUT: Final = "cut"  # kept up to a bound, or but for the end of an answer that broke off
TIMEOUT: Final = "timeout"
FAILED: Final = "failed"
OVERFLOW: Final = "overflow"
RESULTS: Final = (KEPT, CUT, TIMEOUT, FAILED, OVERFLOW)

_ROLES: Final = {Source.USER: "user", Source.ASSISTANT: "assistant", Source.TOOL: "tool"}
_PARTS: Final = {REASONING: "reasoning", TOOL_CALL: "inferwatch.tool_call"}


class Keeper:
    """Says what is kept, and counts."""

    def __init__(self, redactor: "Redactor") -> None:
        self._redactor = redactor
        self.entities = redactor.entities
        self.results: Counter[str] = Counter()
        self.found: Counter[str] = Counter()  # by entity

    def attributes(self, said: Said, record: RequestRecord) -> dict[str, Value]:
        """Return what a span keeps of the content; nothing after a failure."""
        found: Counter[str] = Counter()
        try:
            made = self._hashed(said, record, found) if said.mode == "hashed" else self._marked(said, record, found)
        except ScanTimeoutError:
            self.results[TIMEOUT] += 1
            return {}
        except Exception:  # noqa: BLE001 - a fence: what could not be looked at is not kept
            self.results[FAILED] += 1
            return {}
        broke_off = said.mode == "hashed" and bool(said.answer) and not _is_whole(record)
        cut = said.prompt_cut or said.answer_cut or broke_off
        self.results[CUT if cut else KEPT] += 1
        self.found += found
        made |= {f"inferwatch.personal_data.{name}": count for name, count in sorted(found.items())}
        if cut:
            made["inferwatch.content.cut"] = True
        return made

    def _hashed(self, said: Said, record: RequestRecord, found: Counter[str]) -> dict[str, Value]:
        made: dict[str, Value] = {}
        spoken = [piece for piece in said.prompt if piece.source is not Source.SETTING]
        last = spoken[-1] if spoken else None
        system: list[dict[str, str]] = []
        messages: list[dict[str, object]] = []
        for piece in spoken:
            is_cut = said.prompt_cut and piece is last
            text = self._text(piece.text, record, found, _within if is_cut else len)
            if piece.source is Source.SYSTEM:
                system.append({"type": "text", "content": text})
            else:
                part = {"type": "text", "content": text}
                messages.append({"role": _ROLES[piece.source], "parts": [part]})
        if system:
            made["gen_ai.system_instructions"] = _json(system)
        if messages:
            made["gen_ai.input.messages"] = _json(messages)
        if said.answer:
            made["gen_ai.output.messages"] = _json(self._answers(said, record, found))
        made |= self._settings(said.prompt, record)
        return made

    def _answers(self, said: Said, record: RequestRecord, found: Counter[str]) -> list[dict[str, object]]:
        choices: dict[int, list[dict[str, str]]] = {}
        keeps = _within if said.answer_cut else len if _is_whole(record) else _before_the_end
        for (choice, classes), text in sorted(said.answer.items()):
            kept = self._text(text, record, found, keeps)
            choices.setdefault(choice, []).append({"type": _PARTS.get(classes, "text"), "content": kept})
        reasons = record.finish_reasons
        return [
            {
                "role": "assistant",
                "parts": parts,
                "finish_reason": (reasons[0] if len(set(reasons)) == 1 else "unknown") if reasons else "error",
            }
            for _, parts in sorted(choices.items())
        ]

    def _text(self, text: str, record: RequestRecord, found: Counter[str], keeps: Callable[[str], int]) -> str:
        kept = self._redactor.hashed(text, record.tenant, record.wall_ns / 1e9, keeps=keeps)
        found += kept.found
        return kept.text

    def _marked(self, said: Said, record: RequestRecord, found: Counter[str]) -> dict[str, Value]:
        made: dict[str, Value] = {}
        prompt = "\n".join(piece.text for piece in said.prompt if piece.source is not Source.SETTING)
        answer = "\n".join(text for _, text in sorted(said.answer.items()))
        for name, text in (("prompt", prompt), ("answer", answer)):
            if text:
                kept = self._redactor.fingerprint(text, record.tenant, record.wall_ns / 1e9)
                found += kept.found
                made[f"inferwatch.{name}.fingerprint"] = kept.text
                made[f"inferwatch.{name}.characters"] = len(text)
        made |= self._settings(said.prompt, record)
        return made

    def _settings(self, prompt: Iterable[Piece], record: RequestRecord) -> dict[str, Value]:
        """Stop sequences, names and ids of users: a keyed hash of each, whatever the mode. They are nobody's prose."""
        texts = [piece.text for piece in prompt if piece.source is Source.SETTING]
        if not texts:
            return {}
        pseudonyms = self._redactor.pseudonyms
        wall_s = record.wall_ns / 1e9
        return {
            "inferwatch.settings": tuple(pseudonyms.token(record.tenant, wall_s, "SETTING", text) for text in texts)
        }


def _is_whole(record: RequestRecord) -> bool:
    reasons = record.finish_reasons
    return record.outcome is Outcome.OK and bool(reasons) and _WHOLE.issuperset(reason.lower() for reason in reasons)


def _within(text: str) -> int:
    """Return how much is kept of a text of which there was more."""
    return max(0, len(text) - MARGIN_CHARS)


def _before_the_end(text: str) -> int:
    """Return how much is kept of a text that broke off: neither its last characters nor the word that they begin in.

    However long that is: a certificate's key, or all of a text without blanks.
    """
    before = text[: max(0, len(text) - END_CHARS)]
    return len(before) if not before or before[-1].isspace() else len(before) - len(before.rsplit(maxsplit=1)[-1])


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
