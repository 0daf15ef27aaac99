"""Votes wait until the engine has said again what it is, so that no version is judged by another one's reference.

The engine is asked every ASK_S while votes wait. An answer is about the votes that came before the engine was asked:
with the same answer before them and behind them they are counted, with another one they are dropped. So are those that
came before a sign of a restart, which may have been of anything.

An engine that tells no version is not waited for: its votes are counted as they come. Whether it is one is known when
it has been asked, or could not be asked TRIES times in a row. One that told its version and cannot be asked any more
keeps votes waiting: nothing is judged, and `is_stuck` says so.

Pure: time comes from the caller.
"""

from collections import deque
from typing import Final, NamedTuple

from inferwatch.record import RequestRecord
from inferwatch_collectors.drift.following import Followed, Heard
from inferwatch_collectors.embeddings.sketch import Sketch
from inferwatch_collectors.engine.said import Said

# The engine's metrics are scraped as often. At the usual 3,600 votes an hour five of each stream wait.
ASK_S: Final = 5.0
# When so many wait, the engine is asked sooner.
MANY: Final = 256
# Of all streams together: 10 kB each with texts, 2 kB without.
MAX_HELD: Final = 1_024

# Longer than an engine takes that is busy; then there is something to be told.
STUCK_S: Final = 60.0
TRIES: Final = 3

# After a change, requests that began before it may still be told, by relays that were not connected; not for longer.
LATE_S: Final = 3_600.0


class Vote(NamedTuple):
    """One that waits, with all that it was seen with."""

    followed: Followed
    record: RequestRecord
    heard: Heard | None
    load: int
    now_s: float
    hour: int
    sketch: Sketch | None = None  # of the prompt, if it was embedded


class Holding:
    """The votes that wait."""

    def __init__(self, *, asks: bool) -> None:
        """`asks`: somebody asks the engine; else all votes are counted as they come."""
        self._asks = asks
        self._held: deque[Vote] = deque()
        self._taken = 0  # votes that ever came to wait, and doubts
        self._asked_s = float("-inf")
        self._doubted = 0  # at so many; an answer to what was asked before that is about nothing
        self._sure = False  # nothing has happened since the last answer
        self._silent = 0  # tries in a row
        self._late = False  # a vote was late since the engine was asked: it may change again
        self._changed_s = float("-inf")
        self._changed_wall_ns = 0
        self.said: Said | None = None  # the last answer
        self.dropped = 0

    @property
    def waits(self) -> bool:
        """Whether a vote has to wait."""
        if not self._asks:
            return False
        tells = self.said is not None and bool(self.said.version)
        return not (self._silent >= TRIES and not tells) and (tells or not self._sure)

    def is_stuck(self, now_s: float) -> bool:
        """Tell whether votes have been waiting for longer than any engine takes."""
        return bool(self._held) and now_s - self._held[0].now_s > STUCK_S

    def wants_answer(self, now_s: float) -> bool:
        """Tell whether the engine should be asked now."""
        return bool(self._held or self._late) and (now_s - self._asked_s >= ASK_S or len(self._held) >= MANY)

    def is_late(self, record: RequestRecord, now_s: float) -> bool:
        """Tell whether a request began before the engine was what it is: then its vote is dropped."""
        late = now_s - self._changed_s < LATE_S and record.wall_ns < self._changed_wall_ns
        self.dropped += late
        self._late = self._late or late
        return late

    def take(self, vote: Vote) -> None:
        """Let a vote wait."""
        self._taken += 1
        if len(self._held) >= MAX_HELD:
            self.dropped += 1  # not the oldest: it says how long they have been waiting
        else:
            self._held.append(vote)

    def asking(self, now_s: float) -> int:
        """The engine is being asked. Return what `told` is to be given: which votes the answer is about."""
        self._asked_s, self._late = now_s, False
        return self._taken

    def told(self, mark: int, said: Said) -> list[Vote]:
        """Take the answer. Return the votes that it is about: theirs is this engine, if it was the one before them."""
        self.said, self._sure, self._silent = said, mark >= self._doubted, 0
        about = max(0, len(self._held) - (self._taken - mark))
        votes = [self._held.popleft() for _ in range(about)]
        return votes + self._let_go()

    def changed(self, now_s: float, wall_s: float) -> None:
        """What answers now is another one than before: from about now on."""
        self._changed_s, self._changed_wall_ns = now_s, int(wall_s * 1e9)

    def silent(self) -> list[Vote]:
        """The engine could not be asked. Return the votes that need not wait for it any longer."""
        self._silent += 1
        return self._let_go()

    def doubt(self) -> None:
        """There are signs that the engine has been started anew."""
        self._taken += 1
        self._doubted, self._sure, self._silent = self._taken, False, 0
        self.dropped += len(self._held)
        self._held.clear()

    def _let_go(self) -> list[Vote]:
        if self.waits:
            return []
        votes = list(self._held)
        self._held.clear()
        return votes
