"""Which requests vote: when one of a model and tenant is due, the next of a session that has not voted (`votes`).

It is chosen when the request begins, while its body is there. Who is heard votes from there; any other is remembered
until it is over, and votes by its record. Time comes from the caller.
"""

from typing import Final

from inferwatch.record import RequestRecord
from inferwatch.tap import Open
from inferwatch_collectors.dialects.base import Dialect
from inferwatch_collectors.dialects.openai_responses import OPENAI_RESPONSES
from inferwatch_collectors.drift.following import Followed
from inferwatch_collectors.drift.roster import Roster
from inferwatch_collectors.drift.votes import Sessions

# Requests that vote and are open, or whose relay was killed before it told of their end: 1 MB.
MAX_CHOSEN: Final = 8_192
# Bodies that may be read in the time of one vote, in search of a session that has not voted: where few people ask much,
# nearly all have.
LOOKS: Final = 10


class Choosing:
    """All requests."""

    def __init__(self, streams: Roster, interval_s: float) -> None:
        """`interval_s`: between two votes of a stream."""
        self._streams = streams
        self._interval_s = interval_s
        self._sessions = Sessions()
        self._chosen: dict[str, Followed | None] = {}  # by request that votes when it is over
        self.choices_cut = 0  # of those forgotten

    @property
    def sessions_cut(self) -> int:
        """Sessions that were forgotten while they could still have voted twice."""
        return self._sessions.cut

    def choose(self, opened: Open, dialect: Dialect, now_s: float) -> None:
        """Choose whether a request that nobody hears votes when it is over."""
        key = (opened.model, opened.tenant)
        followed = self._streams.known(key)
        if followed is None and self._streams.leaves_out(key):
            return
        if not self.takes(followed, opened, dialect, now_s):
            return
        if len(self._chosen) >= MAX_CHOSEN:
            del self._chosen[next(iter(self._chosen))]
            self.choices_cut += 1
        self._chosen[opened.request_id] = followed

    def takes(self, followed: Followed | None, opened: Open, dialect: Dialect, now_s: float) -> bool:
        """Tell whether a request votes. `followed`: None if it may be the first of its model and tenant."""
        due = followed is None or now_s >= followed.next_s
        taken = self._sessions.takes(opened, now_s, due=due, responses=dialect is OPENAI_RESPONSES)
        looked = due and not (opened.session or opened.user)
        if followed is not None and (taken or looked):
            # The clock stands still between two ticks: several may be due in one.
            followed.next_s = max(followed.next_s, now_s - 1.0) + self._interval_s / (1 if taken else LOOKS)
        return taken

    def over(self, record: RequestRecord) -> tuple[bool, Followed | None]:
        """Take each request when it is over. Return whether it was chosen, and whose vote it is, if that was known."""
        self._sessions.answered(record)
        if record.request_id not in self._chosen:
            return False, None
        return True, self._chosen.pop(record.request_id)
