"""Who votes: one request of a session in half an hour, and no more than so many an hour.

Requests of one conversation are alike. Ten of them are not ten observations, and a test that takes them for such is
wrong on every stream with sessions in it. So a session has one vote in SESSION_S, counted from that vote: who stays all
day votes all day. The interval spreads votes over the hour and bounds what drift costs.

* **A session or user named in the headers** votes with the first request of each SESSION_S, if a vote is due then.
* **Any other** is known by the body (`whose`), which is read when a vote is due, and not before. What is remembered is
  who has voted, by the key of the request that did; those that come after it in its session have that key, too.
* **The Responses API** tells but the id of the answer it goes on from. So the answers that follow a vote are remembered
  like the vote.
"""

from collections.abc import Hashable, Iterable
from typing import Any, Final

from inferwatch.record import RequestRecord
from inferwatch.tap import Open
from inferwatch_collectors.drift.whose import Whose

# Twenty votes of who stays for ten hours: what is the same for longer is what this session is like, and that is to be
# learnt.
SESSION_S: Final = 1800.0

# Remembered, of all streams together: 6 MB. That is half an hour of 18 streams that vote once a second. Above it the
# oldest is forgotten.
MAX_SESSIONS: Final = 32_768

# Looked for in each request of the Responses API, some 0.1 µs a kB.
_GOES_ON: Final = b'"previous_response_id"'


class Sessions:
    """Which sessions have voted lately. Not more than MAX_SESSIONS of them."""

    def __init__(self, most: int = MAX_SESSIONS) -> None:
        self._voted_s: dict[Hashable, float] = {}  # the oldest first
        self._open_s: dict[str, float] = {}  # by request: when the session voted that goes on after its answer
        self._whose = Whose()
        self._most = most
        self.cut = 0

    def takes(self, opened: Open, now_s: float, *, due: bool, responses: bool = False) -> bool:
        """Tell whether a request votes for its session, which has voted then. `due`: a vote is wanted.

        Without a body, nor a name in the headers, each is its own. `responses`: it is of the Responses API.
        """
        if who := opened.session or opened.user:
            key = (opened.tenant, opened.model, who)
            if self._voted((key,), now_s) is not None:
                return False
            self._note(key, now_s)
            return due
        if not due and not (responses and _GOES_ON in opened.body):
            return False
        keys = self._whose.keys(opened)
        voted_s = self._voted(keys, now_s)
        takes = due and voted_s is None
        if takes and keys:
            self._note(keys[-1], now_s)
            voted_s = now_s
        if responses and voted_s is not None:
            self._make_room(self._open_s, now_s)
            self._open_s[opened.request_id] = voted_s
        return takes

    def answered(self, record: RequestRecord) -> None:
        """Take each request when it is over."""
        voted_s = self._open_s.pop(record.request_id, None) if self._open_s else None
        if voted_s is not None and record.engine_id:
            self._note(self._whose.answer(record.tenant, record.model, record.engine_id), voted_s)

    def _voted(self, keys: Iterable[Hashable], now_s: float) -> float | None:
        """Return when the session with one of these keys voted, if that was lately."""
        for key in keys:
            voted_s = self._voted_s.get(key)
            if voted_s is not None and 0 <= now_s - voted_s < SESSION_S:
                return voted_s
        return None

    def _note(self, key: Hashable, now_s: float) -> None:
        self._voted_s.pop(key, None)
        self._make_room(self._voted_s, now_s)
        self._voted_s[key] = now_s

    def _make_room(self, of: dict[Any, float], now_s: float) -> None:
        if len(of) >= self._most:
            self.cut += now_s - of.pop(next(iter(of))) < SESSION_S
