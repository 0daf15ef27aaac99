"""Ask the engine for counts where the client did not, by splicing bytes into the request body.

A client that hangs up in mid-stream leaves exact counts behind only if the engine sent them with every event. Nothing
is re-serialised: the body the engine parses is the client's, but for one member. Asked only where it cannot hurt:
`stream` is true (vLLM answers 400 to `stream_options` otherwise), the engine is known to take it (`engines.Profile`),
and the client's own `stream_options`, if any, is an object we understand. Whatever else is in it stays.
"""

from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from inferwatch.engines import Asked, Profile
from inferwatch.relay.json_scan import BYTE_ORDER_MARK, Member, ObjectScanner
from inferwatch.relay.usage_filter import Hide

_OPTIONS: Final = b"stream_options"
_WANTED: Final = frozenset({_OPTIONS})

# What is asked for, by how much: the members of `stream_options`.
_MEMBERS: Final = {
    Asked.USAGE: ("include_usage",),
    Asked.CONTINUOUS: ("include_usage", "continuous_usage_stats"),
}
_VALUES: Final = {
    asked: b"{" + b",".join(b'"%b":true' % name.encode() for name in names) + b"}" for asked, names in _MEMBERS.items()
}

# The most that an answer may have: OpenAI's two names, Responses', llama.cpp's; and TGI's, SGLang's and Ollama's, in
# objects of their own.
_MOST: Final = (b"max_completion_tokens", b"max_tokens", b"max_output_tokens", b"n_predict")
_NESTED: Final = (b"parameters", b"sampling_params", b"options")
_NESTED_MOST: Final = ("max_new_tokens", "max_tokens", "num_predict")
_SCAN_WANTED: Final = frozenset({_OPTIONS, b"stream", b"model", b"n", b"prompt", *_MOST, *_NESTED})

_PARAMETERS: Final = b"parameters"
_DETAILS: Final = b"details"

# TGI's own route that always streams, and Ollama's, which stream unless told not to.
_STREAM_ROUTES: Final = ("/generate_stream",)
_STREAM_BY_DEFAULT: Final = ("/api/chat", "/api/generate")
_OWN_STREAMS: Final = _STREAM_ROUTES + _STREAM_BY_DEFAULT

# What vLLM takes for true in `stream` (pydantic's lax booleans), seen on the wire.
_TRUE_WORDS: Final = frozenset({"1", "on", "t", "true", "y", "yes"})

# A list of more prompts than this is still booked right; only the relay's note of the number stops here.
MAX_CHOICES: Final = 65536

# No engine takes a number of tokens with more.
MAX_DIGITS: Final = 18
MAX_TOKENS: Final = 10**MAX_DIGITS - 1

# `stream_options` is under 100 bytes, and nothing but a line break follows a body.
MAX_HELD_BYTES: Final = 64 * 1024


class Facts(msgspec.Struct, frozen=True):
    """What the relay needs to know of a request body."""

    model: str = ""
    stream: bool = False
    choices: int = 1  # n × prompts; 0: unknown
    n: int = 1  # choices asked for per prompt
    max_tokens: int = 0  # of each answer; 0: not given


class Edit(msgspec.Struct, frozen=True):
    """Replace body[start:end] by `insert`; `hide` is what to take out of the reply again."""

    start: int
    end: int
    insert: bytes
    hide: Hide

    def apply(self, body: bytes) -> bytes:
        return body[: self.start] + self.insert + body[self.end :]


class _Body(msgspec.Struct):
    model: Any = None
    stream: Any = None
    stream_options: Raw | UnsetType = UNSET
    n: Any = None
    max_completion_tokens: Any = None
    max_tokens: Any = None
    max_output_tokens: Any = None
    n_predict: Any = None
    prompt: Raw | UnsetType = UNSET
    parameters: Raw | UnsetType = UNSET
    sampling_params: Raw | UnsetType = UNSET
    options: Raw | UnsetType = UNSET


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_options = msgspec.json.Decoder(dict[str, Any]).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode


def read(body: bytes, path: str = "") -> tuple[Facts, bytes | None] | None:
    """Return the facts and the client's own `stream_options` (None: absent). None if the body is no JSON object.

    `path` (without query) says whether a body without `stream` streams.
    """
    try:
        # Windows' tools write a mark in front, and Python's parser, so the engine's, skips it.
        decoded = _decode_body(body.removeprefix(BYTE_ORDER_MARK))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    options = None if isinstance(decoded.stream_options, UnsetType) else bytes(decoded.stream_options)
    prompts = 1 if isinstance(decoded.prompt, UnsetType) else _prompts(decoded.prompt)
    most = _most(decoded.max_completion_tokens, decoded.max_tokens, decoded.max_output_tokens, decoded.n_predict)
    for inner in (decoded.parameters, decoded.sampling_params, decoded.options):
        if not isinstance(inner, UnsetType):
            most = max(most, _nested_most(bytes(inner)))
    return _facts(decoded.model, decoded.n, prompts, most, stream=_streams(decoded.stream, path)), options


def asking(profile: Profile, path: str, body: bytes, options: bytes | None) -> Edit | None:
    """Return the edit by which a streaming request to `path` asks what the engine's profile allows; None: nothing."""
    if is_usage_route(path):
        return edit(body, options, profile.asked) if profile.asked is not Asked.NOTHING else None
    return details_edit(body) if profile.asked_details else None


def is_usage_route(path: str) -> bool:
    """Tell whether `path` takes `stream_options`; whatever stands before does not matter."""
    return path.endswith(("/chat/completions", "/completions"))


def is_details_route(path: str) -> bool:
    """Tell whether `path` takes TGI's `parameters.details`, and streams."""
    return path.endswith(_STREAM_ROUTES) or path == "/"


def edit(body: bytes, options: bytes | None, asked: Asked = Asked.CONTINUOUS) -> Edit | None:
    """Return the edit for a streaming request, or None if there is nothing (or nothing safe) to ask."""
    if options is None:
        closing = len(body.rstrip(b" \t\r\n")) - 1
        return Edit(closing, closing, b',"%b":%b' % (_OPTIONS, _VALUES[asked]), Hide.ALL)
    wish = _wish(options, asked)
    if wish is None:
        return None
    scanner = ObjectScanner(_WANTED)
    scanner.feed(body)
    member = scanner.members.get(_OPTIONS)
    if scanner.broken or member is None:
        return None
    value, hide = wish
    return Edit(member.start, member.end, value, hide)


def details_edit(body: bytes) -> Edit | None:
    """Return the edit that asks TGI for `details`; None if the client has asked, or has said what we do not understand.

    One member is spliced into `parameters`, or `parameters` into the body.
    """
    scanner = ObjectScanner(frozenset({_PARAMETERS}))
    scanner.feed(body)
    if scanner.broken or scanner.closing < 0:
        return None
    member = scanner.members.get(_PARAMETERS)
    if member is None:
        comma = b"," if scanner.count else b""
        insert = comma + b'"parameters":{"details":true}'
        return Edit(scanner.closing, scanner.closing, insert, Hide.DETAILS)
    value = body[member.start : member.end].rstrip(b" \t\r\n")
    if value == b"null":
        return Edit(member.start, member.start + len(value), b'{"details":true}', Hide.DETAILS)
    inner = ObjectScanner(frozenset({_DETAILS}))
    inner.feed(value)
    if inner.broken or inner.closing < 0:
        return None
    own = inner.members.get(_DETAILS)
    if own is None:
        insert = (b"," if inner.count else b"") + b'"details":true'
        return Edit(member.start + inner.closing, member.start + inner.closing, insert, Hide.DETAILS)
    if own.value is None or own.value.strip() not in (b"false", b"null"):
        return None
    return Edit(member.start + own.start, member.start + own.end, b"true", Hide.DETAILS)


def _is_null(options: bytes) -> bool:
    return options.strip() == b"null"


def _wish(options: bytes, asked: Asked) -> tuple[bytes, Hide] | None:
    """Return the `stream_options` to send instead of the client's, or None to leave it alone.

    vLLM needs `include_usage` for continuous usage. What an object without `include_usage` means differs between its
    versions (true once, false in 0.32), so that one is left alone.
    """
    if _is_null(options):
        return _VALUES[asked], Hide.ALL
    try:
        wish = _decode_options(options)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    include = wish.get("include_usage", "")
    continuous = wish.get("continuous_usage_stats", False)
    if not isinstance(include, bool | None) or not isinstance(continuous, bool | None):
        return None
    if include and (continuous or asked is Asked.USAGE):
        return None
    for name in _MEMBERS[asked]:
        wish[name] = True
    return msgspec.json.encode(wish), Hide.CONTINUOUS if include else Hide.ALL


def _facts(model: Any, n: Any, prompts: int, most: int, *, stream: bool) -> Facts:
    copies = min(_whole(n), MAX_CHOICES) or 1
    return Facts(
        model=model if isinstance(model, str) else "",
        stream=stream,
        choices=min(prompts * copies, MAX_CHOICES),
        n=copies,
        max_tokens=min(most, MAX_TOKENS),
    )


def _most(*values: Any) -> int:
    """Which of two names an engine goes by is its own affair: the larger number holds for either."""
    return max(map(_whole, values))


def _nested_most(raw: bytes) -> int:
    """Return the limit in an object of an engine's own, 0 if there is none."""
    try:
        inner = _decode_options(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0
    return _most(*map(inner.get, _NESTED_MOST))


def _streams(stream: Any, path: str) -> bool:
    """Tell whether the answer is to be streamed."""
    if path.endswith(_OWN_STREAMS):
        return path.endswith(_STREAM_ROUTES) or stream is None or _is_true(stream)
    return _is_true(stream)


def _whole(value: Any) -> int:
    """Take what vLLM takes for a number (pydantic's lax integers); anything else is 0."""
    if isinstance(value, str):
        value = value.strip()
        return int(value) if value.isdecimal() and len(value) <= MAX_DIGITS else 0
    if isinstance(value, float):
        return int(value) if value.is_integer() and value > 0 else 0
    return value if type(value) is int and value > 0 else 0


def _is_true(value: Any) -> bool:
    if isinstance(value, str):
        return value.lower() in _TRUE_WORDS
    return value is True or (type(value) in (int, float) and value == 1)


def _prompts(prompt: Raw) -> int:
    """A list of strings or of token lists is many prompts; a string, or a list of token ids, is one."""
    start = bytes(memoryview(prompt)[:64]).lstrip()
    if not start.startswith(b"[") or not start[1:].lstrip().startswith((b'"', b"[")):
        return 1
    try:
        return max(len(_decode_list(prompt)), 1)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 1


class StreamedEdit:
    """The same for a body too large to wait for: pieces in, pieces out, holding back only what may have to change.

    Held are the last closing brace with what follows it, and the value of `stream_options` while it is incomplete. When
    `stream` comes behind `stream_options`, the value is replaced before we know: without `stream` the engine refuses
    either. But for null, which it takes: that is only replaced behind `stream`.
    """

    __slots__ = ("_ask", "_asked", "_held", "_offset", "_path", "_scanner", "_seen", "hide")

    def __init__(self, *, asked: Asked, path: str = "") -> None:
        self._asked = asked
        self._ask = asked is not Asked.NOTHING
        self._path = path
        self._scanner = ObjectScanner(_SCAN_WANTED)
        self._held = b""
        self._offset = 0  # of the first held byte
        self._seen: Member | None = None  # the last `stream_options`; of a repeated key the last counts
        self.hide: Hide | None = None

    def feed(self, data: bytes) -> bytes:
        """Return what may go to the engine."""
        scanner = self._scanner
        scanner.feed(data)
        data = self._held + data
        cut = len(data)
        if self._ask and not scanner.broken:
            if scanner.open_value is not None and scanner.open_value[0] == _OPTIONS:
                cut = scanner.open_value[1] - self._offset
            elif scanner.closing >= 0:
                cut = scanner.closing - self._offset
        if len(data) - cut > MAX_HELD_BYTES:  # an endless value, or blanks without end: not worth asking
            self._ask = False
            cut = len(data)
        out, self._held = data[:cut], data[cut:]
        start, self._offset = self._offset, self._offset + cut
        member = scanner.members.get(_OPTIONS)
        if member is None or member is self._seen or not self._ask:
            return out
        self._seen = member
        wish = self._wish(member.value)
        if wish is None:
            self.hide = None
            return out
        value, self.hide = wish
        return out[: member.start - start] + value + out[member.end - start :]

    def _wish(self, options: bytes | None) -> tuple[bytes, Hide] | None:
        """Return what to send instead of the client's `stream_options` (None: too long to be any)."""
        if options is None or (_is_null(options) and not self.facts().stream):
            return None
        return _wish(options, self._asked)

    def finish(self) -> bytes:
        """Return the end of the body."""
        scanner, held = self._scanner, self._held
        self._held = b""
        asks = self._ask and not scanner.broken and scanner.closing >= 0 and self.facts().stream
        if not asks:
            self.hide = None
        elif _OPTIONS not in scanner.members:
            self.hide = Hide.ALL
            return b',"%b":%b' % (_OPTIONS, _VALUES[self._asked]) + held
        return held

    def facts(self) -> Facts:
        """Return what the members seen so far say."""
        members = self._scanner.members

        def value(key: bytes) -> Any:
            member = members.get(key)
            if member is None or member.value is None:
                return None
            try:
                return msgspec.json.decode(member.value)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return None

        most = _most(*map(value, _MOST))
        for key in _NESTED:
            if isinstance(inner := value(key), dict):
                most = max(most, _most(*map(inner.get, _NESTED_MOST)))
        stream = _streams(value(b"stream"), self._path)
        facts = _facts(value(b"model"), value(b"n"), 1, most, stream=stream)
        # A prompt may be a list longer than what is kept of it: then the number of choices is unknown.
        return msgspec.structs.replace(facts, choices=0) if b"prompt" in members else facts
