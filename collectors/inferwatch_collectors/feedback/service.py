"""`POST /feedback`: who votes, on which request, and what becomes of the vote.

* **Who.** Whoever has the token. Its digest is compared in constant time, and without one nobody is let in.
* **On what.** A request that the ledger has, or one that is still open: then the model's own name for itself is not
  known yet, and the report looks it up. A request whose row is gone (`ledger.retention_days`), or that another host
  served, is unknown. It is named by our id, or by the engine's for the last MAX_ENGINE_IDS requests.
* **Again.** A request has one vote, the last that came. The same once more changes nothing. The counter by thumb counts
  each request once, under its first vote; the report reads the ledger, and so the last.
* **Durable.** The answer comes when the vote is committed. A failing disk is told to the caller, who may try again.
"""

import asyncio
import hmac
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

from msgspec.structs import replace

from inferwatch.admin_token import digest
from inferwatch.record import RequestRecord
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import CardinalityGuard
from inferwatch_collectors.feedback.comments import Comments
from inferwatch_collectors.feedback.vote import Ballot, BallotError, read
from inferwatch_collectors.ledger.base import Ledger, LedgerError
from inferwatch_collectors.ledger.vote import Asked, Thumb, Vote
from inferwatch_collectors.metric_store import MetricStore

# A comment in JSON, each character escaped.
MAX_BODY_BYTES: Final = 32 * 1024

# Under way at once. A page that sends all its votes in one go waits in its own connections.
MAX_UNDER_WAY: Final = 16

# An id of an engine's, and ours: 4 MB.
MAX_ENGINE_IDS: Final = 16_384

# A relay tells of an end within `tap.flush_interval_s`.
SETTLE_S: Final = 0.3

# What was finished is in the ledger a quarter of a second later.
FLUSH_TIMEOUT_S: Final = 2.0

# What became of votes: label values of `inferwatch_feedback_calls_total`.
TAKEN: Final = "taken"
REPLACED: Final = "replaced"
REPEATED: Final = "repeated"
UNKNOWN: Final = "unknown"
INVALID: Final = "invalid"
REFUSED: Final = "refused"
BUSY: Final = "busy"
FAILED: Final = "failed"
RESULTS: Final = (TAKEN, REPLACED, REPEATED, UNKNOWN, INVALID, REFUSED, BUSY, FAILED)

_STATUS: Final = {UNKNOWN: 404, INVALID: 400, REFUSED: 401, BUSY: 429, FAILED: 503}

_SCHEME: Final = "bearer "


class Reply(NamedTuple):
    """What goes back."""

    status: int
    result: str
    text: str


class FeedbackService:
    """Takes votes."""

    def __init__(
        self,
        digests: Mapping[str, str],
        ledger: Ledger,
        comments: Comments,
        store: MetricStore,
        guard: CardinalityGuard,
        *,
        still_open: Callable[[str], Asked | None],
        flush: Callable[[float], Awaitable[bool]],
    ) -> None:
        """`digests`: see `use`; `still_open` tells whose an open request is; `flush` commits what is finished."""
        self._digest = ""
        self.use(digests)
        self._ledger = ledger
        self.comments = comments
        self._store = store
        self._guard = guard
        self._still_open = still_open
        self._flush = flush
        self._ids: dict[str, str] = {}  # by the engine's id, oldest first
        self._under_way = 0
        self.results: Counter[str] = Counter()

    def record(self, record: RequestRecord) -> None:
        """Remember a finished request by the engine's id."""
        if record.engine_id:
            self._ids.pop(record.engine_id, None)
            if len(self._ids) >= MAX_ENGINE_IDS:
                del self._ids[next(iter(self._ids))]
            self._ids[record.engine_id] = record.request_id

    def use(self, digests: Mapping[str, str]) -> None:
        """Take up the digests of `admin_token.digests`."""
        self._digest = digests.get("feedback", "")

    def may(self, headers: Mapping[str, str]) -> bool:
        """Tell whether who asks has the token; counts who has not."""
        given = headers.get("Authorization", "")
        scheme, key = given[: len(_SCHEME)], given[len(_SCHEME) :].strip()
        known = bool(self._digest) and hmac.compare_digest(digest(key), self._digest)
        allowed = known and scheme.lower() == _SCHEME
        self.results[REFUSED] += not allowed
        return allowed

    async def take(self, body: bytes, wall_ns: int, now_s: float) -> Reply:
        """Take the body of a request that `may`. `wall_ns` is Unix time, `now_s` CLOCK_MONOTONIC."""
        if self._under_way >= MAX_UNDER_WAY:
            return self._said(BUSY, f"{MAX_UNDER_WAY} votes are under way")
        self._under_way += 1
        try:
            ballot = read(body)
            return await self._taken(ballot, wall_ns, now_s)
        except BallotError as error:
            return self._said(INVALID, str(error))
        except LedgerError as error:
            return self._said(FAILED, f"the ledger cannot take it now: {error.fault}")
        finally:
            self._under_way -= 1

    async def _taken(self, ballot: Ballot, wall_ns: int, now_s: float) -> Reply:
        request_id, asked, sure = await self._asked(ballot.request_id)
        if asked is None and not sure:
            return self._said(FAILED, "the ledger does not take what is finished now: the request may be in it later")
        if asked is None:
            return self._said(UNKNOWN, "no such request here: another host's, or older than the ledger keeps")
        vote = Vote(
            request_id=request_id,
            wall_ns=wall_ns,
            tenant=asked.tenant,
            model=asked.model,
            variant=asked.variant,
            thumb=ballot.thumb,
            score=ballot.score,
            label=ballot.label,
            comment=await self.comments.kept(ballot.comment, asked.tenant, wall_ns / 1e9),
        )
        before = await self._ledger.vote(vote)
        if before is None:
            labels = self._guard.labels(asked.model, asked.tenant, asked.operation, now_s=now_s)
            # All of them begin together, as `Recorder` has them begin with the first request: a share has a value then.
            counters = {
                thumb: self._store.counter(m.FEEDBACK_VOTES, (labels.model, labels.tenant, thumb.value))
                for thumb in Thumb
            }
            counters[vote.thumb].add()
            return self._said(TAKEN, "")
        same = replace(before, wall_ns=vote.wall_ns, variant=vote.variant) == vote
        return self._said(REPEATED if same else REPLACED, "")

    async def _asked(self, given: str) -> tuple[str, Asked | None, bool]:
        """Return our id, whose it was, and whether it would be known if there were one."""
        request_id = self._ids.get(given, given)
        found = await self._ledger.asked(request_id) or self._still_open(request_id)
        sure = True
        if found is None:  # just finished: perhaps the relay has not told of it, or it is not committed
            await asyncio.sleep(SETTLE_S)
            request_id = self._ids.get(given, given)
            sure = await self._flush(FLUSH_TIMEOUT_S)
            found = await self._ledger.asked(request_id)
        return request_id, found, sure

    def _said(self, result: str, text: str) -> Reply:
        self.results[result] += 1
        return Reply(_STATUS.get(result, 200), result, text)

    def close(self) -> None:
        """Let go of the thread."""
        self.comments.close()
