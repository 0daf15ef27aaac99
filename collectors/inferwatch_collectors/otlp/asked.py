"""What a request asked for beside its prompt: the numbers of OpenTelemetry's `gen_ai.request.…`, and the answer's form.

Read from the body while it is there, whatever API it speaks: the names differ, the meanings do not. Nothing of the
prompt is decoded. Stop sequences are content, and not among these.
"""

from collections import OrderedDict
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from inferwatch.tap import Open
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
    max_tokens: _Int = None
    max_completion_tokens: _Int = None  # OpenAI's newer name
    max_output_tokens: _Int = None  # the Responses API
    max_new_tokens: _Int = None  # TGI
    num_predict: _Int = None  # Ollama
    n_predict: _Int = None  # llama.cpp

    def limit(self) -> int | None:
        names = (self.max_completion_tokens, self.max_tokens, self.max_output_tokens, self.max_new_tokens)
        return next((each for each in (*names, self.num_predict, self.n_predict) if each is not None), None)


class _Form(msgspec.Struct):
    type: str = ""


class _Body(_Numbers):
    parameters: _Numbers | None = None  # TGI
    options: _Numbers | None = None  # Ollama
    response_format: _Form | str | None = None


_decoder: Final = msgspec.json.Decoder(_Body)

# OpenAI's words, and OpenTelemetry's.
_FORMS: Final = {"text": "text", "json_object": "json", "json_schema": "json"}


def read(body: bytes) -> dict[str, Value]:
    """Return attributes of what `body` asks for; nothing of one that is cut, or no JSON, or says something else."""
    try:
        asked = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):  # a ValidationError is one, too
        return {}
    numbers = asked.parameters or asked.options or asked
    form = _FORMS.get(asked.response_format.type) if isinstance(asked.response_format, _Form) else None
    found: dict[str, Value | None] = {
        "gen_ai.request.temperature": numbers.temperature,
        "gen_ai.request.top_p": numbers.top_p,
        "gen_ai.request.top_k": numbers.top_k,
        "gen_ai.request.frequency_penalty": numbers.frequency_penalty,
        "gen_ai.request.presence_penalty": numbers.presence_penalty,
        "gen_ai.request.seed": numbers.seed,
        "gen_ai.request.max_tokens": numbers.limit(),
        "gen_ai.output.type": form,
    }
    return {name: value for name, value in found.items() if value is not None}


class Asked:
    """Has what open requests asked for."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, dict[str, Value]] = OrderedDict()
        self.cut = 0  # forgotten, because there were too many

    def opened(self, opened: Open) -> None:
        """Take a request while its body is there."""
        if found := read(opened.body):
            self._open[opened.request_id] = found
            if len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
                self.cut += 1

    def take(self, request_id: str) -> dict[str, Value]:
        """Return what a request asked for, and let go of it."""
        return self._open.pop(request_id, {})
