"""What was said, gathered for those requests whose content is kept; it leaves the loop as it came, and only in memory.

The text of an answer comes in pieces as the engine cut them, and a value may lie across two: so the pieces are joined,
and the whole is looked at once, in the thread that exports (`privacy.redaction`). Each request's texts have a bound,
and all together have one. After a hole in the copies the answer is let go: two ends that do not belong together could
hide what they hold, or show half of it.
"""

from collections.abc import Container
from typing import Final, NamedTuple

from inferwatch.record import RequestRecord
from inferwatch.settings.privacy import Privacy
from inferwatch.tap import Open
from inferwatch_collectors.dialects.base import Dialect
from inferwatch_collectors.dialects.content import Listener, Piece
from inferwatch_collectors.otlp.sampling import kept

# A thousand requests of the default size at once.
MAX_HELD_BYTES: Final = 64 * 1024 * 1024


class Said(NamedTuple):
    """The texts of one request, raw. Not to be kept."""

    mode: str
    prompt: tuple[Piece, ...]
    answer: dict[tuple[int, int], str]  # by (choice, class)
    prompt_cut: bool
    answer_cut: bool
    size: int  # characters


class _Hearing:
    """One request."""

    __slots__ = ("_content", "_left", "_pieces", "_prompt", "cut", "mode", "prompt_cut", "size")

    def __init__(self, content: "Content", mode: str, prompt: list[Piece], prompt_cut: bool, size: int) -> None:
        self._content = content
        self.mode = mode
        self._prompt = prompt
        self.prompt_cut = prompt_cut
        self._pieces: dict[tuple[int, int], list[str]] = {}
        self._left = content.max_text
        self.cut = False
        self.size = size

    def text(self, stamp_ns: int, choice: int, classes: int, text: str, pieces: int = 1) -> None:
        if self.cut:
            return
        if len(text) > self._left or not self._content.has_room(len(text)):
            text, self.cut = text[: self._left], True
        self._left -= len(text)
        self.size += len(text)
        self._content.held += len(text)
        self._pieces.setdefault((choice, classes), []).append(text)

    def missing(self) -> None:
        self._pieces.clear()
        self.cut = True

    def closed(self, record: RequestRecord) -> None:
        """`Content.take` has been here before."""

    def said(self) -> Said:
        answer = {key: "".join(pieces) for key, pieces in self._pieces.items()}
        return Said(self.mode, tuple(self._prompt), answer, self.prompt_cut, self.cut, self.size)


class Content:
    """Chooses whose content is gathered, and has it until the request is booked."""

    def __init__(self, settings: Privacy, max_held: int = MAX_HELD_BYTES) -> None:
        self.max_text = settings.max_text_bytes
        self._default = (settings.content, settings.sample_ratio)
        self._tenants = {own.tenant: (own.content, own.sample_ratio) for own in settings.tenants}
        self._max_held = max_held
        self._open: dict[str, _Hearing] = {}
        self.held = 0  # characters of all open requests
        self.overflow = 0  # requests whose content was not gathered because there was too much of it

    def has_room(self, size: int) -> bool:
        """Tell whether so much more may be held."""
        return self.held + size <= self._max_held

    def opened(self, opened: Open, dialect: Dialect) -> Listener | None:
        """Listen to a request whose content is kept."""
        mode, ratio = self._tenants.get(opened.tenant, self._default)
        if mode == "none" or not dialect.generates or not kept(opened.trace_id, ratio):
            return None
        if not self.has_room(self.max_text):
            self.overflow += 1
            return None
        prompt: list[Piece] = []
        left, cut = self.max_text, False
        for piece in dialect.prompt(opened.body):
            if len(piece.text) >= left:
                prompt.append(Piece(piece.source, piece.text[:left]))
                left, cut = 0, True
                break
            prompt.append(piece)
            left -= len(piece.text)
        hearing = _Hearing(self, mode, prompt, cut, self.max_text - left)
        # An echoed prompt runs into what was generated: a value at its end and the text's first letters are one word
        # then, and neither is known for what it is.
        hearing.cut = b'"echo"' in opened.body
        self.held += hearing.size
        before = self._open.pop(opened.request_id, None)
        if before is not None:
            self.held -= before.size
        self._open[opened.request_id] = hearing
        return hearing

    def take(self, request_id: str) -> Said | None:
        """Return what was said in a request that is booked, and let go of it."""
        hearing = self._open.pop(request_id, None)
        if hearing is None:
            return None
        self.held -= hearing.size
        return hearing.said()

    def forget(self, open_ids: Container[str]) -> None:
        """Let go of what will not be booked here: requests that are not among `open_ids` any more."""
        for request_id in [each for each in self._open if each not in open_ids]:
            self.take(request_id)
