"""When what was learnt becomes the reference: by itself when it is ripe, or by command.

To pin a stream takes some tenths of a second in which nothing else is done, and many may have begun in the same minute:
those that are found ripe wait, and one is pinned at a time. Time comes from the caller.
"""

import logging
from typing import Final

from inferwatch.settings.drift import Drift
from inferwatch_collectors.drift.following import MIN_VALUES, Followed
from inferwatch_collectors.drift.judging import Judging
from inferwatch_collectors.drift.reference import Terms
from inferwatch_collectors.drift.roster import Roster
from inferwatch_collectors.drift.words import made_of, stream_of
from inferwatch_collectors.wall_time import HOUR_S

_log: Final = logging.getLogger(__name__)


class Pinning:
    """Pins the streams of a roster."""

    def __init__(self, streams: Roster, settings: Drift, terms: Terms) -> None:
        self._streams = streams
        self._settings = settings
        self._terms = terms
        self._ripe: list[Followed] = []

    @property
    def is_busy(self) -> bool:
        """Whether any still wait that were found ripe."""
        return bool(self._ripe)

    def look(self) -> None:
        """Find those that are ripe."""
        self._ripe = [each for each in self._streams if self._is_ripe(each) or self._is_ripe(each.meaning)]

    def pin_one(self, now_weeks: float, wall_s: float) -> None:
        """Pin one of those that were found ripe, if any waits."""
        if not self._ripe:
            return
        each = self._ripe.pop()
        if each not in self._streams:
            return  # it was another engine's, or made room
        if self._is_ripe(each):
            self._pin(each, now_weeks, wall_s)
        elif self._is_ripe(each.meaning):
            self._pin_meaning(each, now_weeks, wall_s)

    def command(self, model: str, tenant: str, now_weeks: float, wall_s: float) -> tuple[bool, str]:
        """Take what was learnt for the reference; or, if there is one, begin to learn another.

        Returns:
            Whether that was done, and what was done or why not.
        """
        each = self._streams.get((model, tenant))
        if each is None:
            return False, "no such model and tenant is followed"
        if each.lesson is None:
            each.learn_anew(wall_s)
            self._streams.write(each)
            return True, "the reference is forgotten, another one is being learnt"
        least = self._settings.reference_requests_min
        if each.lesson.votes < least:
            return False, f"too few votes: {each.lesson.votes}, expected at least {least}"
        if not self._pin(each, now_weeks, wall_s):
            return False, "no feature was seen often enough"
        self._pin_meaning(each, now_weeks, wall_s)
        return True, "\n".join(("pinned", *made_of(stream_of(each, self._streams.parts))))

    def _is_ripe(self, each: Judging | None) -> bool:
        settings = self._settings
        if each is None or each.lesson is None or each.lesson.votes < settings.reference_requests_min:
            return False
        return each.lesson.learnt_s >= settings.reference_hours * HOUR_S

    def _pin(self, each: Followed, now_weeks: float, wall_s: float) -> bool:
        if not each.pin(self._terms, now_weeks, wall_s):
            return False
        self._streams.count()
        self._streams.write(each)
        assert each.about is not None
        _log.info(
            "drift_reference_pinned model=%s tenant=%s number=%d votes=%d hours=%d features=%d",
            each.model,
            each.tenant,
            each.about.number,
            each.about.votes,
            (each.about.pinned_s - each.about.from_s) // HOUR_S,
            len(each.of) - (len(each.watched.off) if each.watched is not None else 0),
        )
        return True

    def _pin_meaning(self, each: Followed, now_weeks: float, wall_s: float) -> None:
        """Take what was learnt of embeddings, if that is enough; else it is when it will be."""
        meaning, least = each.meaning, self._settings.reference_requests_min
        if meaning is None or meaning.lesson is None or meaning.lesson.votes < least:
            return
        if meaning.take_up(MIN_VALUES, self._terms, now_weeks, wall_s):
            self._streams.write(each)
            _log.info("drift_embeddings_pinned model=%s tenant=%s number=%d", each.model, each.tenant, meaning.number)
