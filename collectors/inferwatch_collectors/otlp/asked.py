"""What a request asked for beside its prompt: the numbers of OpenTelemetry's `gen_ai.request.…`, and the answer's form.

Read from the body while it is there, where each API has them; the limit of tokens is as the relay has read it.
Nothing of the prompt is decoded. Stop sequences are content, and not among these.
"""

import math
from collections import OrderedDict
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from inferwatch.tap import Open
from inferwatch_collectors.dialects.content import BAD_JSON
from inferwatch_collectors.dialects.lenient import load_object, salvage
from inferwatch_collectors.otlp.attributes import Value

# As many may be open: some 400 bytes each.
MAX_OPEN: Final = 20_000

# What OTLP can carry.
_Int = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None


class _Numbers(msgspec.Struct):
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: _Int = None
    sampling_seed: _Int = None  # SGLang


class _Form(msgspec.Struct):
    type: str = ""


class _Body(_Numbers):
    parameters: _Numbers | None = None  # TGI
    sampling_params: _Numbers | None = None  # SGLang
    options: _Numbers | None = None  # Ollama
    response_format: _Form | None = None


_decode: Final = msgspec.json.Decoder(_Body).decode

# Each is an attribute of that name.
_NAMES: Final = ("temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "seed")

# Less than none is engines' word for no limit at all, and no number that anybody could compare.
_COUNT: Final = "top_k"

# OpenAI's words, and OpenTelemetry's.
_FORMS: Final = {"text": "text", "json_object": "json", "json_schema": "json"}


def read(body: bytes, max_tokens: int = 0) -> dict[str, Value]:
    """Return attributes of what `body` asks for, without what makes no sense. `max_tokens`: 0 if it does not say."""
    asked = _asked(body)
    found: dict[str, Value | None] = {"gen_ai.request.max_tokens": max_tokens or None}
    for place in (asked, asked.parameters, asked.sampling_params, asked.options):
        if place is not None:
            for name in _NAMES:
                value = getattr(place, name)
                if value is not None and math.isfinite(value) and (name != _COUNT or value >= 0):
                    found.setdefault(f"gen_ai.request.{name}", value)
            if place.sampling_seed is not None:
                found.setdefault("gen_ai.request.seed", place.sampling_seed)
    if asked.response_format is not None:
        found["gen_ai.output.type"] = _FORMS.get(asked.response_format.type)
    return {name: value for name, value in found.items() if value is not None}


def _asked(body: bytes) -> _Body:
    if not body:
        return _Body()
    try:
        return _decode(body)
    except BAD_JSON:  # something is of a wrong type, or it is no JSON at all
        loaded: dict[str, Any] | None = load_object(body)
        return _Body() if loaded is None else salvage(loaded, _Body)


class Asked:
    """Has what open requests asked for."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, dict[str, Value]] = OrderedDict()
        self.cut = 0  # forgotten, because there were too many

    def opened(self, opened: Open) -> None:
        """Take a request while its body is there. Of one that is cut nothing but the limit is known."""
        is_whole = len(opened.body) == opened.body_bytes
        if found := read(opened.body if is_whole else b"", opened.max_tokens):
            self._open[opened.request_id] = found
            if len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
                self.cut += 1

    def take(self, request_id: str) -> dict[str, Value]:
        """Return what a request asked for, and let go of it."""
        return self._open.pop(request_id, {})
