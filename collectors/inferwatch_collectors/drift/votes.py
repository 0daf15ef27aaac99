"""Who votes: one request a session, and no more than so many an hour.

Requests of one conversation are alike. Ten of them are not ten observations, and a test that takes them for such is
wrong on every stream with sessions in it. So a session, or else a user, has one vote in SESSION_S of its activity;
who comes with neither votes with each request. The interval spreads votes over the hour and bounds what drift costs.
"""

from typing import Final

# A session silent for so long is another conversation when it comes back.
SESSION_S: Final = 1800.0

# Sessions remembered, of all streams together: 1 MB. Above it the one that was silent for the longest is forgotten.
MAX_SESSIONS: Final = 8_192


class Sessions:
    """Which sessions have voted lately. Not more than MAX_SESSIONS of them."""

    def __init__(self, most: int = MAX_SESSIONS) -> None:
        self._seen_s: dict[tuple[str, str], float] = {}  # by tenant and session, silent longest first
        self._most = most
        self.cut = 0

    def first(self, tenant: str, session: str, now_s: float) -> bool:
        """Tell whether this request is the first of its session. A request without one ("") always is."""
        if not session:
            return True
        key = (tenant, session)
        last_s = self._seen_s.pop(key, None)
        if last_s is None and len(self._seen_s) >= self._most:
            oldest = next(iter(self._seen_s))
            if now_s - self._seen_s.pop(oldest) < SESSION_S:
                self.cut += 1
        self._seen_s[key] = now_s
        return last_s is None or not 0 <= now_s - last_s < SESSION_S
