"""vLLM's streamed replies: the exact bytes of every server-sent event.

Most events of most streams differ in nothing but one token's text. For those the bytes before and after the text are
made once per choice, and an event is three joined pieces of bytes; the vocabulary brings its texts JSON-encoded.
Whatever is rarer (log-probabilities, token ids, tools, several tokens in a chunk, the last chunk) is assembled
from parts. Both ways give the same bytes, which a test holds.

What appears where, in vLLM 0.32:

- chat: the role chunks of all choices come with the first token of any;
- `usage` is on a chunk only with `continuous_usage_stats`, per choice and cumulative, right after `choices`;
- `system_fingerprint` is on each choice's last chunk, or, when usage was asked for, on the final usage chunk only;
- a token that a parser swallowed has no chunk, except the last, which carries an empty delta.
"""

from collections.abc import Sequence as Items
from typing import Any

import msgspec

from inferwatch_simulator.answers import Answer, Kind
from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.personas import vllm_shapes as shapes
from inferwatch_simulator.personas.vllm_requests import Generation
from inferwatch_simulator.scheduler import Sequence
from inferwatch_simulator.text import Piece

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"

_encode = msgspec.json.encode


def error_event(message: str = "Internal server error", kind: str = "InternalServerError", code: int = 500) -> bytes:
    """A failure in the midst of a stream, at HTTP 200. Written with Python's `json.dumps`, hence its blanks."""
    text = f'{{"error": {{"message": "{message}", "type": "{kind}", "param": null, "code": {code}}}}}'
    return f"data: {text}\n\n".encode()


FAILURE = (error_event(), DONE)


class _Choice:
    """One answer on its way out."""

    __slots__ = ("after", "answer", "before", "calls_shown", "front", "index", "offset")

    def __init__(self, index: int, answer: Answer, front: bytes) -> None:
        self.index = index
        self.answer = answer
        self.front = front  # up to and with `"choices":[{"index":0,`
        self.before = b""  # front and the beginning of the text
        self.after = b""  # the end of the text up to the end of the choice
        self.calls_shown = 0
        self.offset = 0  # characters of text sent


class Events:
    """Writes the events of one streamed reply. `tokens` must be called with consecutive ranges for each choice."""

    _object: str

    def __init__(
        self, identity: shapes.Identity, generation: Generation, answers: Items[Answer], config: SimulatorConfig
    ) -> None:
        self._identity = identity
        self._generation = generation
        self._config = config
        self._answers = answers
        self._head = b'data: {"id":%b,"object":"%b","created":%d,"model":%b,"choices":[' % (
            _encode(identity.reply_id),
            self._object.encode(),
            identity.created,
            _encode(identity.model),
        )
        self._fingerprint = b',"system_fingerprint":' + _encode(identity.fingerprint)
        self._choices = [
            _Choice(index, answer, self._head + b'{"index":%d,' % index) for index, answer in enumerate(answers)
        ]
        parsed = generation.reasoning or generation.tools
        self._plain = generation.logprobs is None and not generation.return_token_ids and not parsed
        for choice in self._choices:
            self._prepare(choice)

    def _prepare(self, choice: _Choice) -> None:
        raise NotImplementedError

    def _assembled(self, choice: _Choice, start: int, end: int, *, last: bool) -> bytes | None:
        """The choice object without its opening and index, or None if these tokens have no chunk."""
        raise NotImplementedError

    def _usage(self, choice: _Choice, generated: int) -> bytes:
        raise NotImplementedError

    def opening(self) -> list[bytes]:
        """What comes before the first token."""
        return []

    def tokens(self, index: int, start: int, end: int, *, last: bool) -> bytes | None:
        """The event for tokens [start, end) of a choice; None if they have none."""
        choice = self._choices[index]
        if self._plain and start and end - start == 1 and not last:
            body = choice.before + choice.answer.pieces[start].json + choice.after
        else:
            assembled = self._assembled(choice, start, end, last=last)
            if assembled is None:
                return None
            body = choice.front + assembled
        if self._generation.continuous_usage:
            return b"%b]%b}\n\n" % (body, self._usage(choice, end))
        if last and not self._generation.include_usage:
            return b"%b]%b}\n\n" % (body, self._fingerprint)
        return body + b"]}\n\n"

    def closing(self, sequences: Items[Sequence]) -> list[bytes]:
        """What comes after the last token: usage, if asked for, and the end mark."""
        if not self._generation.include_usage:
            return [DONE]
        counted = shapes.count(self._generation, self._answers, sequences[0])
        usage: dict[str, Any] = {
            "prompt_tokens": counted.prompt,
            "total_tokens": counted.prompt + counted.completion,
            "completion_tokens": counted.completion,
            "prompt_tokens_details": shapes.prompt_details(self._generation, counted, self._config),
            "completion_tokens_details": shapes.reasoning_details(self._generation, counted.reasoning),
        }
        event = self._head + b'],"usage":' + _encode(_without_nulls(usage)) + self._fingerprint
        if self._config.enable_per_request_metrics and len(sequences) == 1:
            event += b',"metrics":' + _encode(_without_nulls(shapes.timings(sequences[0])))
        return [event + b"}\n\n", DONE]

    def _shown_ids(self, choice: _Choice, start: int, end: int) -> bytes:
        if not self._generation.return_token_ids:
            return b"null"
        return _encode([piece.token_id for piece in choice.answer.pieces[start:end]])


def _without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    """The final usage chunk alone leaves nulls out."""
    return {
        key: _without_nulls(inner) if isinstance(inner, dict) else inner
        for key, inner in value.items()
        if inner is not None
    }


class ChatEvents(Events):
    """Events of `/v1/chat/completions`."""

    _object = "chat.completion.chunk"

    def _prepare(self, choice: _Choice) -> None:
        choice.before = choice.front + b'"delta":{"content":"'
        choice.after = b'"},"logprobs":null,"finish_reason":null,"token_ids":null}'

    def opening(self) -> list[bytes]:
        return [self._role(choice) for choice in self._choices]

    def _role(self, choice: _Choice) -> bytes:
        usage = self._usage(choice, 0) if self._generation.continuous_usage else b""
        ids = _encode(shapes.prompt_ids(self._generation, 0)) if self._generation.return_token_ids else b"null"
        delta = b'"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
        return choice.front + delta + usage + b',"prompt_token_ids":' + ids + b',"prompt_text":null}\n\n'

    def _usage(self, choice: _Choice, generated: int) -> bytes:
        prompt = self._generation.prompts[0].tokens
        thought = choice.answer.kinds[:generated].count(Kind.REASONING) if self._generation.reasoning else 0
        details = shapes.reasoning_details(self._generation, thought)
        return (
            b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,"completion_tokens_details":%b}'
            % (
                prompt,
                prompt + generated,
                generated,
                b"null" if details is None else _encode(details),
            )
        )

    def _assembled(self, choice: _Choice, start: int, end: int, *, last: bool) -> bytes | None:
        generation = self._generation
        logprobs = generation.logprobs is not None and not generation.hides_metadata
        ids = generation.return_token_ids and not generation.hides_metadata
        delta = self._delta(choice, start, end)
        if delta is None:
            if not last and not logprobs and not ids:
                return None
            delta = {}
        shown = shapes.chat_logprobs(choice.answer.pieces[start:end], generation.logprobs or 0) if logprobs else None
        parts = [b'"delta":', _encode(delta), b',"logprobs":', _encode(shown), b',"finish_reason":']
        if last:
            parts += [
                _encode(shapes.finish_reason(choice.answer, generation)),
                b',"stop_reason":',
                _encode(choice.answer.stop_reason),
            ]
        else:
            parts.append(b"null")
        parts += [b',"token_ids":', self._shown_ids(choice, start, end) if ids else b"null", b"}"]
        return b"".join(parts)

    def _delta(self, choice: _Choice, start: int, end: int) -> dict[str, Any] | None:
        """What the tokens add to the message; None if a parser has nothing to say of them."""
        generation, answer = self._generation, choice.answer
        content: str | None = None
        reasoning: str | None = None
        calls: list[dict[str, Any]] = []
        for piece, kind in zip(answer.pieces[start:end], answer.kinds[start:end], strict=True):
            if kind == Kind.CONTENT:
                content = (content or "") + piece.text
            elif kind == Kind.REASONING:
                reasoning = (reasoning or "") + piece.text
            elif kind == Kind.TOOL_NAME:
                calls.append(self._named_call(choice))
            elif kind == Kind.TOOL_ARGUMENTS:
                _add_arguments(calls, choice.calls_shown - 1, piece.text)
        if generation.tools and not content:
            content = None  # the tool parser drops empty text, the reasoning parser does not
        delta: dict[str, Any] = {}
        if content is not None or calls:
            delta["content"] = content
        if reasoning is not None and generation.include_reasoning:
            delta["reasoning"] = reasoning
        if calls:
            delta["tool_calls"] = calls
        return delta or None

    def _named_call(self, choice: _Choice) -> dict[str, Any]:
        position = choice.calls_shown
        choice.calls_shown += 1
        return {
            "id": shapes.call_id(self._identity, choice.index, position),
            "type": "function",
            "index": position,
            "function": {"name": choice.answer.calls[position].name},
        }


def _add_arguments(calls: list[dict[str, Any]], position: int, text: str) -> None:
    """Continue the last argument delta of this call, or begin one."""
    if calls and calls[-1]["index"] == position and "arguments" in calls[-1]["function"]:
        calls[-1]["function"]["arguments"] += text
    else:
        calls.append({"index": position, "function": {"arguments": text}})


class CompletionEvents(Events):
    """Events of `/v1/completions`."""

    _object = "text_completion"

    def _prepare(self, choice: _Choice) -> None:
        choice.before = choice.front + b'"text":"'
        choice.after = (
            b'","logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}'
        )

    def _usage(self, choice: _Choice, generated: int) -> bytes:
        prompt = self._generation.prompts[choice.index // self._generation.n].tokens
        return b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}' % (
            prompt,
            prompt + generated,
            generated,
        )

    def _assembled(self, choice: _Choice, start: int, end: int, *, last: bool) -> bytes | None:
        generation, answer = self._generation, choice.answer
        pieces = [] if generation.prompt_only else answer.pieces[start:end]
        text = "".join(piece.text for piece in pieces)
        prompt_ids = logprobs = None
        echoed: list[Piece] = []
        if start == 0 and generation.echo:
            text = generation.prompts[choice.index // generation.n].text + text
            echoed = shapes.echoed(generation, choice.index)
        if start == 0 and (generation.echo or generation.return_token_ids):
            prompt_ids = shapes.prompt_ids(generation, choice.index)
        if generation.logprobs is not None:
            logprobs = shapes.completion_logprobs(pieces, generation.logprobs, choice.offset, echoed)
        choice.offset += len(text)
        return b"".join(
            (
                b'"text":',
                _encode(text),
                b',"logprobs":',
                _encode(logprobs),
                b',"finish_reason":',
                _encode(answer.finish_reason if last else None),
                b',"stop_reason":',
                _encode(answer.stop_reason if last else None),
                b',"prompt_token_ids":',
                _encode(prompt_ids),
                b',"token_ids":',
                self._shown_ids(choice, start, end),
                b"}",
            )
        )
