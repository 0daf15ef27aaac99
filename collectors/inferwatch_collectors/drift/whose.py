"""Whose request it is, by what clients send anyway: keys of its session, made of its body.

In this order: a name in the body, of a user or a session (NAMES; Anthropic's `metadata.user_id`; of the Responses API
the conversation, or the answer that it goes on from); else the conversation itself. A chat sends what was said before
along each time, so the users' messages so far begin with those of every earlier request of it. Each such beginning is
a key: a request is of a session that has voted if any of them has. Instructions and answers do not count, for clients
put the time of day into the former and cut thoughts out of the latter. A fixed dialogue before the question is no
session: no request ended with it. Without messages, a request is of one session with those that are the same
(`quality.asked`).

Keys are hashes under a secret of this process: nothing is kept from which a text or a name could be read.

Pure.
"""

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from inferwatch.tap import Open
from inferwatch_collectors.dialects.content import BAD_JSON
from inferwatch_collectors.quality.asked import asked

# Who it is; the first that is there counts.
NAMES: Final = ("safety_identifier", "prompt_cache_key", "user", "conversation", "previous_response_id")

# Beginnings of a conversation that are tried: its first, for who begins each run alike, and the newest. Nobody says
# more in half an hour.
MAX_TURNS: Final = 256
# Of a body that cannot be read, as one that was cut, the beginning: it is where a conversation's is.
HEAD_BYTES: Final = 4_096
DIGEST_BYTES: Final = 16
_KEY_USE: Final = b"iw-drift-session"  # blake2b's `person`: two uses of one secret give unrelated hashes


class _Body(msgspec.Struct, gc=False):
    """What is read of a body; the rest is skipped."""

    safety_identifier: Any = None
    prompt_cache_key: Any = None
    user: Any = None
    conversation: Any = None
    previous_response_id: Any = None
    metadata: Any = None
    messages: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


class _Message(msgspec.Struct, gc=False):
    role: Any = None
    content: msgspec.Raw = msgspec.Raw()


_body: Final = msgspec.json.Decoder(_Body).decode
_messages: Final = msgspec.json.Decoder(list[_Message]).decode
_text: Final = msgspec.json.Decoder(str).decode
_parts: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


class Whose:
    """Makes keys."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def keys(self, opened: Open) -> Sequence[bytes]:
        """Return the keys of the request's session, its own the last; none without a body. One may be enough."""
        body, of = opened.body, (opened.tenant, opened.model)
        if not body:
            return ()
        try:
            read = _body(body)
            if name := _name(read):
                return (self._hashed(*of, name).digest(),)
            if said := self._said(opened, read.messages or read.input):
                return said
        except BAD_JSON:
            return (self._hashed(*of, "head", body[:HEAD_BYTES]).digest(),)
        return (self._hashed(*of, "same", asked(opened)).digest(),)

    def answer(self, tenant: str, model: str, engine_id: str) -> bytes:
        """Return the key of those that go on from this answer."""
        return self._hashed(tenant, model, f"previous_response_id {engine_id}").digest()

    def _said(self, opened: Open, raw: msgspec.Raw) -> Sequence[bytes]:
        """Return a key for each beginning that ends with a message of the user's."""
        try:
            messages = [each.content for each in _messages(raw) if each.role == "user"]
        except BAD_JSON:
            return ()  # there are none, or texts to be embedded, say
        said = [text for text in map(_of_message, messages) if text]
        hashed = self._hashed(opened.tenant, opened.model, "said")
        keys = []
        for number, text in enumerate(said):
            hashed.update(b"%d\0%b" % (len(text), text))
            if not number or number >= len(said) - MAX_TURNS:
                keys.append(hashed.digest())
        return keys

    def _hashed(self, tenant: str, model: str, kind: str, of: bytes = b"") -> "hashlib.blake2b":
        head = f"{tenant}\0{model}\0{kind}\0".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(head + of, digest_size=DIGEST_BYTES, key=self._secret, person=_KEY_USE)


def _name(body: _Body) -> str:
    for name in NAMES:
        value = getattr(body, name)
        if isinstance(value, dict):
            value = value.get("id")
        if isinstance(value, str) and value:
            return f"{name} {value}"
    user = body.metadata.get("user_id") if isinstance(body.metadata, dict) else None
    return f"user_id {user}" if isinstance(user, str) and user else ""


def _of_message(content: msgspec.Raw) -> bytes:
    """Return what a user says in it; a tool's result is not that, and where a cache ends is no part of it."""
    raw = bytes(content)
    if raw.startswith(b'"'):
        return _text(raw).encode("utf-8", "surrogatepass")
    if not raw.startswith(b"["):
        return b""
    said = []
    for part in _parts(raw):
        if bytes(part.get("type", b"")) == b'"tool_result"':
            continue
        if "text" in part:
            said.append(_text(part["text"]).encode("utf-8", "surrogatepass"))
        else:  # a picture
            said += [bytes(raw) for name, raw in part.items() if name not in ("type", "cache_control")]
    return b"\0".join(said)
