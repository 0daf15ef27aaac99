"""Ask the engine for counts where the client did not, by splicing bytes into the request body.

A client that hangs up in mid-stream leaves exact counts behind only if the engine sent them with every event. Nothing
is re-serialised: the body the engine parses is the client's, but for one member. Asked only where it cannot hurt:
`stream` is true (vLLM answers 400 to `stream_options` otherwise), the engine is known to take it (`engines.Profile`),
and the client's own `stream_options`, if any, is an object we understand. Whatever else is in it stays.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from inferwatch.engines import INVOCATIONS, PROFILES, Asked, Profile
from inferwatch.relay import form_data, python_json, stream_options
from inferwatch.relay.json_scan import BYTE_ORDER_MARK, Member, ObjectScanner
from inferwatch.relay.lax_values import MAX_DIGITS, is_true, whole
from inferwatch.relay.usage_filter import Hide

_OPTIONS: Final = b"stream_options"
_WANTED: Final = frozenset({_OPTIONS})

# Ends of the paths on which some engine is asked.
_ASKED_ON: Final = tuple(
    {end for profile in PROFILES.values() if profile.asked is not Asked.NOTHING for end in profile.asked_on}
)
_GENERATING: Final = frozenset({b"messages", b"prompt"})

# The most that an answer may have: OpenAI's two names, Responses', llama.cpp's; and TGI's, SGLang's and Ollama's, in
# objects of their own.
_MOST: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens", "n_predict")
_NESTED: Final = ("parameters", "sampling_params", "options")
_NESTED_MOST: Final = ("max_new_tokens", "max_tokens", "num_predict")
_SCAN_WANTED: Final = _GENERATING | {_OPTIONS, *(name.encode() for name in ("stream", "model", "n", *_MOST, *_NESTED))}

# The client's own where they cannot be told: left alone.
_UNREADABLE: Final = b""

_PARAMETERS: Final = b"parameters"
_DETAILS: Final = b"details"

# TGI's own route that always streams, and Ollama's, which stream unless told not to.
_STREAM_ROUTES: Final = ("/generate_stream",)
_STREAM_BY_DEFAULT: Final = ("/api/chat", "/api/generate")
_OWN_STREAMS: Final = _STREAM_ROUTES + _STREAM_BY_DEFAULT

# A list of more prompts than this is still booked right; only the relay's note of the number stops here.
MAX_CHOICES: Final = 65536

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
_decode_nested = msgspec.json.Decoder(dict[str, Any]).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode


def read(body: bytes, path: str = "") -> tuple[Facts, bytes | None] | None:
    """Return the facts and the client's own `stream_options` (None: absent). None if the body is no JSON object.

    `path` (without query) says whether a body without `stream` streams.
    """
    narrow = python_json.narrow(body)
    if narrow is None:
        return None
    return _read(narrow, path) or _read_as_python(narrow, path)


def _read(body: bytes, path: str) -> tuple[Facts, bytes | None] | None:
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


def _read_as_python(body: bytes, path: str) -> tuple[Facts, bytes | None] | None:
    repaired = python_json.repaired(body)
    found = _read(repaired, path) if repaired is not body else None
    if found is None or found[1] is None:
        return found
    member = _scan(body, _WANTED).members.get(_OPTIONS)  # as the client wrote it
    return found[0], _UNREADABLE if member is None or member.value is None else member.value


def read_form(body: bytes, content_type: bytes) -> Facts | None:
    """Return the facts in the beginning of a multipart form; None if it is none."""
    boundary = form_data.boundary_of(content_type)
    found = form_data.fields(body, boundary) if boundary is not None else None
    return _facts_by(found.get, "", prompts=1) if found is not None else None


def asking(profile: Profile, path: str, body: bytes, options: bytes | None) -> Edit | None:
    """Return the edit by which a streaming request to `path` asks what the engine's profile allows; None: nothing."""
    if takes_options(profile, path):
        if path.endswith(INVOCATIONS) and not _generates(body):
            return None
        return _wide_edit(body, options, profile) if python_json.is_wide(body) else edit(body, options, profile)
    if profile.asked_details and is_details_route(path) and not python_json.is_wide(body):
        return details_edit(body)
    return None


def _generates(body: bytes) -> bool:
    """Tell whether it is a body for which an answer is generated, among those that `/invocations` takes."""
    return not _GENERATING.isdisjoint(_scan(python_json.narrow(body) or b"", _GENERATING).members)


def is_usage_route(path: str) -> bool:
    """Tell whether some engine takes `stream_options` on `path`; whatever stands before does not matter."""
    return path.endswith(_ASKED_ON)


def takes_options(profile: Profile, path: str) -> bool:
    """Tell whether this engine does, and is to be asked."""
    return profile.asked is not Asked.NOTHING and path.endswith(profile.asked_on)


def is_details_route(path: str) -> bool:
    """Tell whether `path` takes TGI's `parameters.details`, and streams."""
    return path.endswith(_STREAM_ROUTES) or path == "/"


def edit(body: bytes, options: bytes | None, profile: Profile) -> Edit | None:
    """Return the edit for a streaming request, or None if there is nothing (or nothing safe) to ask."""
    if options is None:
        closing = len(body.rstrip(b" \t\r\n")) - 1
        return Edit(closing, closing, b',"%b":%b' % (_OPTIONS, stream_options.VALUES[profile.asked]), Hide.ALL)
    wish = stream_options.wish(options, profile)
    if wish is None:
        return None
    scanner = _scan(body, _WANTED)
    member = scanner.members.get(_OPTIONS)
    if scanner.broken or member is None:
        return None
    value, hide = wish
    return Edit(member.start, member.end, value, hide)


def _wide_edit(body: bytes, options: bytes | None, profile: Profile) -> Edit | None:
    """The same for UTF-16 and UTF-32: only Python's parser takes them, and of a repeated key it takes the last."""
    wish = stream_options.wish(options if options is not None else b"null", profile)
    if wish is None:
        return None
    end, encoding = python_json.end_of_wide(body)
    member = b',"%b":%b' % (_OPTIONS, wish[0])
    return Edit(end, end, member.decode().encode(encoding), wish[1])


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


def _scan(body: bytes, wanted: frozenset[bytes]) -> ObjectScanner:
    scanner = ObjectScanner(wanted)
    scanner.feed(body)
    return scanner


def _facts(model: Any, n: Any, prompts: int, most: int, *, stream: bool) -> Facts:
    copies = min(whole(n), MAX_CHOICES) or 1
    return Facts(
        model=model if isinstance(model, str) else "",
        stream=stream,
        choices=min(prompts * copies, MAX_CHOICES),
        n=copies,
        max_tokens=min(most, MAX_TOKENS),
    )


def _facts_by(value: Callable[[str], Any], path: str, *, prompts: int) -> Facts:
    """Return what the members say, by name."""
    most = _most(*map(value, _MOST))
    for key in _NESTED:
        if isinstance(inner := value(key), dict):
            most = max(most, _most(*map(inner.get, _NESTED_MOST)))
    return _facts(value("model"), value("n"), prompts, most, stream=_streams(value("stream"), path))


def _most(*values: Any) -> int:
    """Which of two names an engine goes by is its own affair: the larger number holds for either."""
    return max(map(whole, values))


def _nested_most(raw: bytes) -> int:
    """Return the limit in an object of an engine's own, 0 if there is none."""
    try:
        inner = _decode_nested(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0
    return _most(*map(inner.get, _NESTED_MOST))


def _streams(stream: Any, path: str) -> bool:
    """Tell whether the answer is to be streamed."""
    if path.endswith(_OWN_STREAMS):
        return path.endswith(_STREAM_ROUTES) or stream is None or is_true(stream)
    return is_true(stream)


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

    __slots__ = ("_ask", "_form", "_held", "_offset", "_path", "_profile", "_scanner", "_seen", "hide")

    def __init__(self, profile: Profile, path: str, form: Facts | None = None) -> None:
        """`form`: what is known of a body that is a form."""
        self._profile = profile
        self._form = form
        self._ask = takes_options(profile, path)
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
        if options is None or (stream_options.is_null(options) and not self.facts().stream):
            return None
        return stream_options.wish(options, self._profile)

    def finish(self) -> bytes:
        """Return the end of the body."""
        scanner, held = self._scanner, self._held
        self._held = b""
        asks = self._ask and not scanner.broken and scanner.closing >= 0 and self._generates() and self.facts().stream
        if not asks:
            self.hide = None
        elif _OPTIONS not in scanner.members:
            self.hide = Hide.ALL
            return b',"%b":%b' % (_OPTIONS, stream_options.VALUES[self._profile.asked]) + held
        return held

    def _generates(self) -> bool:
        return not (self._path.endswith(INVOCATIONS) and _GENERATING.isdisjoint(self._scanner.members))

    def facts(self) -> Facts:
        """Return what the members seen so far say."""
        if self._form is not None:
            return self._form
        members = self._scanner.members

        def value(key: str) -> Any:
            member = members.get(key.encode())
            if member is None or member.value is None:
                return None
            try:
                return msgspec.json.decode(member.value)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return None

        facts = _facts_by(value, self._path, prompts=1)
        # A prompt may be a list longer than what is kept of it: then the number of choices is unknown.
        return msgspec.structs.replace(facts, choices=0) if b"prompt" in members else facts
