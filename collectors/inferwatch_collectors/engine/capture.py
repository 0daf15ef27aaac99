"""Is what the engine counted what we booked? The comparison, to the token. Pure: no clock, no I/O.

The difficulty is time. At a scrape the engine has counted tokens of requests that are still open, of which we know
little (nothing, of a plain answer) before they end. So a scrape is not judged when it is made, but when every request
that was open then has been booked: the tokens of all requests that came before it are then an upper bound of what it
may have counted, and what is above that bound came to the engine by another way, for certain.

* **At rest the bound is exact.** With nothing open, and nothing booked while the scrape was under way, the engine must
  have counted just what was booked. That is also a lower bound, so that booking too much shows.
* **Anchor.** Sums run from an anchor, a scrape at rest: the engine says that it is idle, and the scrape before said the
  same with the same counts (engines count a moment after they have sent). Each new anchor forgets the slack that busy
  scrapes have left. If the service is never at rest, the first anchor is taken in the midst of it after
  BASELINE_SCRAPES; `blurred` then says that the lower bound does not hold. So it is also after the engine restarted,
  since what it counted last nobody has read.
* **Missing** is what nobody was booked for, since ever. Its growth goes into a counter, by reason: as much as cut or
  unreported answers can have cost (see `claims`) is theirs, the rest is bypass. An answer may explain what is missing
  in the interval between two judgements in which it was booked, and in the next.
* **Given back.** What requests had that were hung up on before any count was on the wire, beyond what was seen of them,
  is neither: it is held, from the judgement in which it shows until it can be divided among them (see `hung_up`), and
  is booked then.
* **One scrape waits at a time**, the oldest. A request that stays open keeps it waiting; while it does, scrapes are not
  judged unless nothing is open at them.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

import msgspec

from inferwatch.record import LateCount, RequestRecord
from inferwatch_collectors.engine.claims import CUT, UNREPORTED, Claim, claims
from inferwatch_collectors.engine.hung_up import HungUps, left_no_count
from inferwatch_collectors.engine.names import EngineNames

BYPASS: Final = "bypass"
REASONS: Final = (BYPASS, CUT, UNREPORTED)

# A minute of scrapes at the default interval.
BASELINE_SCRAPES: Final = 12

# The ratio is over this time: long enough to be steady, short enough to recover when a leak has been stopped.
WINDOW_S: Final = 3600.0
POINT_S: Final = 60.0

PROMPT: Final = 0
COMPLETION: Final = 1
TYPES: Final = ("prompt", "completion")

Totals = tuple[int | None, int | None]  # prompt and completion tokens; None: the engine does not tell


class Books(msgspec.Struct, array_like=True):
    """What was booked of one type since the anchor, and how much more its requests may have cost, by reason."""

    low: int = 0
    high: int = 0
    unsure: dict[str, int] = {}  # of requests booked since the last judgement
    carried: dict[str, int] = {}  # left over from the interval before


class Account(msgspec.Struct, array_like=True):
    """The judgement of one type so far."""

    anchor: int  # the engine's total
    missing_before: int = 0  # at the anchor
    counted: int = 0  # how much of what is missing is in the counter
    missing: int = 0  # at the last judgement


class Point(msgspec.Struct, array_like=True, frozen=True):
    """A judgement as it is remembered: the engine's totals, and what of them was missing."""

    wall_s: float
    totals: tuple[int, int]
    missing: tuple[int, int]


class State(msgspec.Struct, array_like=True):
    """What outlives a restart, but for the books."""

    accounts: dict[int, Account] = {}
    blurred: bool = False
    points: list[Point] = []


class Mark(NamedTuple):
    """Where the books stood when a scrape was sent off."""

    booked: int
    low: tuple[int, int]
    high: tuple[int, int]
    quiet: bool  # nothing was open


class _Scrape:
    """A scrape that is not judged yet."""

    def __init__(self, mark: Mark, totals: Totals, high: list[int], waiting: set[str], *, rest: bool) -> None:
        self.mark = mark
        self.totals = totals
        self.high = high  # grows until nothing is waited for
        self.waiting = waiting  # ids of requests open at it
        self.rest = rest


class Verdict(NamedTuple):
    """What a judgement found, by the index of the type.

    Attributes:
        unbooked: (type, reason, tokens) that are missing and were not before.
        ratios: share of the engine's tokens in the last hour that were booked; None where it counted none.
        late: counts of requests that were booked without any.
    """

    unbooked: tuple[tuple[int, str, int], ...]
    ratios: tuple[float | None, float | None]
    late: tuple[LateCount, ...] = ()


class _Judgement(NamedTuple):
    """What is missing at a scrape and was not before, and the engine's totals at it."""

    unbooked: list[tuple[int, str, int]]
    totals: Totals


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_books: Final = msgspec.msgpack.Decoder(tuple[Books, Books]).decode
_decode_state: Final = msgspec.msgpack.Decoder(State).decode


class Capture:
    """Compares one engine's counts with the books. Its `names` are known once it has been read."""

    def __init__(self, names: EngineNames | None = None, *, gives_back: bool = False) -> None:
        """`gives_back`: somebody takes `Verdict.late`; without, all that hung-up requests had is unbooked."""
        self.names = names
        self._gives_back = gives_back
        self._hung_up = HungUps()
        self._books = (Books(), Books())
        self._state = State()
        self._booked = 0  # requests, in this process
        self._unheard = 0  # scrapes since the start without an anchor
        self._waiting: _Scrape | None = None
        self._rested: tuple[Totals, int] | None = None  # totals and `_booked` of the scrape before, if it was at rest

    # --- durability

    def books(self) -> bytes:
        """Return the books; they change with each record."""
        return _encode(self._books)

    def state(self) -> bytes:
        """Return the rest; it changes with each scrape."""
        return _encode(self._state)

    def hung_up(self) -> bytes:
        """Return who waits for tokens; changes with some records, and with scrapes."""
        return self._hung_up.dump()

    def load(self, books: bytes, state: bytes, hung_up: bytes = b"") -> None:
        """Go on where an earlier life was. All are of the same transaction.

        Raises:
            msgspec.DecodeError: they are no such thing.
        """
        self._hung_up.load(hung_up)
        self._books, self._state = _decode_books(books), _decode_state(state)

    # --- what happens

    @property
    def wants_rest(self) -> bool:
        """Whether something is waited for that two scrapes at rest would tell."""
        return bool(self._hung_up) or (not self._state.accounts and self._unheard < BASELINE_SCRAPES)

    def record(self, record: RequestRecord) -> bool:
        """Take a request that was booked; each once. Before an engine has been read there is nothing to compare.

        Return whether it waits for tokens now.
        """
        if self.names is None:
            return False
        self._booked += 1
        waiting = self._waiting
        awaited = waiting is not None and record.request_id in waiting.waiting
        claimed = claims(record, self.names)
        waits = self._gives_back and left_no_count(record)
        if waits:
            self._hung_up.add(record, claimed, copies=max(1, record.n) if self.names.prompt_per_choice else 1)
            claimed = claimed[0].told, claimed[1].told
        for index, claim in enumerate(claimed):
            self._add(self._books[index], claim)
            if awaited and waiting is not None:
                waiting.high[index] += claim.high
        if awaited and waiting is not None:
            waiting.waiting.discard(record.request_id)
        return waits

    def mark(self, open_requests: int) -> Mark:
        """Note where the books stand. Right before a scrape is sent off."""
        first, second = self._books
        return Mark(self._booked, (first.low, second.low), (first.high, second.high), open_requests == 0)

    def scraped(
        self, mark: Mark, totals: Totals, open_ids: AbstractSet[str], *, idle: bool, wall_s: float
    ) -> Verdict | None:
        """Take a scrape, once everything that happened before its answer has been told to us.

        `totals` are the engine's counts in it, of the types that can be compared; `open_ids` the requests that are open
        now; `idle`, whether the engine said that it is. Return what is found, None if nothing can be said yet.
        """
        rest = idle and mark.quiet and not open_ids and mark.booked == self._booked
        settled = rest and self._rested == (totals, self._booked)
        self._rested = (totals, self._booked) if rest else None
        if not self._state.accounts:
            self._begin(mark, totals, settled=settled, wall_s=wall_s)
            return None
        high = [books.high for books in self._books]
        judged = self._judge_waiting(open_ids)
        scrape = _Scrape(mark, totals, high, set(open_ids), rest=rest)
        if not scrape.waiting:
            self._waiting = None
            judged = self._judge(scrape, earlier=judged)
        elif self._waiting is None:
            self._waiting = scrape
        verdict = self._conclude(judged, wall_s, rest=rest, settled=settled) if judged is not None else None
        if settled:
            self._anchor(totals)
        return verdict

    def engine_restarted(self) -> None:
        """The engine began anew: what it counted last was never read."""
        self._state.blurred = True
        self._waiting = None
        self._rested = None

    # --- the books

    def _add(self, books: Books, claim: Claim) -> None:
        books.low += claim.low
        books.high += claim.high
        if claim.reason:
            books.unsure[claim.reason] = books.unsure.get(claim.reason, 0) + claim.unsure

    def _begin(self, mark: Mark, totals: Totals, *, settled: bool, wall_s: float) -> None:
        self._unheard += 1
        if not settled and self._unheard < BASELINE_SCRAPES:
            return
        for index, total in enumerate(totals):
            if total is not None:
                self._state.accounts[index] = Account(total)
        for books, low, high in zip(self._books, mark.low, mark.high, strict=True):
            books.low -= low
            books.high -= high
        if settled:
            self._hung_up.forget_all()
        self._state.blurred = not settled
        self._remember(totals, wall_s)

    def _anchor(self, totals: Totals) -> None:
        for index, account in self._state.accounts.items():
            total = totals[index]
            if total is not None:
                account.anchor = total
                account.missing_before = account.counted = account.missing
                self._books[index].low = self._books[index].high = 0
        self._state.blurred = False

    # --- judging

    def _judge_waiting(self, open_ids: AbstractSet[str]) -> _Judgement | None:
        waiting = self._waiting
        if waiting is None:
            return None
        waiting.waiting &= open_ids  # some end without a record: told twice, or of a relay that is gone
        if waiting.waiting:
            return None
        self._waiting = None
        return self._judge(waiting)

    def _judge(self, scrape: _Scrape, earlier: _Judgement | None = None) -> _Judgement:
        unbooked = earlier.unbooked if earlier else []
        for index, account in self._state.accounts.items():
            total = scrape.totals[index]
            if total is None:
                continue
            since = total - account.anchor
            explained = min(since, scrape.high[index])
            if scrape.rest and not self._state.blurred:
                explained = max(explained, scrape.mark.low[index])
            account.missing = account.missing_before + since - explained
            growth = account.missing - account.counted
            if growth > 0:
                account.counted = account.missing
                unbooked += [(index, reason, tokens) for reason, tokens in self._reasons(index, growth)]
        return _Judgement(unbooked, scrape.totals)

    def _conclude(self, judged: _Judgement, wall_s: float, *, rest: bool, settled: bool) -> Verdict:
        late: tuple[LateCount, ...] = ()
        if self._hung_up.due(wall_s, rest=rest, settled=settled):
            late = self._give_back(judged, rest=rest)
        for books in self._books:
            books.carried, books.unsure = books.unsure, {}
        ratios = self._ratios(judged.totals, wall_s)
        self._remember(judged.totals, wall_s)
        return Verdict(tuple(judged.unbooked), ratios, late)

    def _give_back(self, judged: _Judgement, *, rest: bool) -> tuple[LateCount, ...]:
        """Book what is held to those whose it is; what is left is unbooked."""
        compared = [
            index in self._state.accounts and judged.totals[index] is not None for index in (PROMPT, COMPLETION)
        ]
        unreported = any(UNREPORTED in pool for books in self._books for pool in (books.unsure, books.carried))
        division = self._hung_up.settle(compared, rest=rest, exact=rest and not self._state.blurred and not unreported)
        for index, account in self._state.accounts.items():
            given, left = division.given[index], division.left[index]
            account.missing -= given
            account.counted -= given
            self._books[index].low += given
            self._books[index].high += given
            if self._waiting is not None:
                self._waiting.high[index] += given
            if left:
                judged.unbooked.append((index, CUT, left))
        return division.late

    def _reasons(self, index: int, growth: int) -> Iterable[tuple[str, int]]:
        """Share what is missing out among the reasons, but for what is held."""
        books = self._books[index]
        for reason in (UNREPORTED, CUT):
            if reason is CUT:
                held = min(growth, self._hung_up.room(index))
                self._hung_up.hold(index, held)
                growth -= held
            for pool in (books.carried, books.unsure):
                share = min(growth, pool.get(reason, 0))
                if share > 0:
                    pool[reason] -= share
                    growth -= share
                    yield reason, share
        if growth > 0:
            yield BYPASS, growth

    # --- the window

    def _remember(self, totals: Totals, wall_s: float) -> None:
        points = self._state.points
        while points and points[-1].wall_s > wall_s:  # the clock was set back
            points.pop()
        if points and wall_s - points[-1].wall_s < POINT_S:
            return
        points.append(
            Point(wall_s, (totals[0] or 0, totals[1] or 0), (self._missing(PROMPT), self._missing(COMPLETION)))
        )
        while len(points) > 1 and points[1].wall_s <= wall_s - WINDOW_S:
            points.pop(0)

    def _missing(self, index: int) -> int:
        account = self._state.accounts.get(index)
        return account.missing - self._hung_up.tokens[index] if account is not None else 0

    def _ratios(self, totals: Totals, wall_s: float) -> tuple[float | None, float | None]:
        return self._ratio(PROMPT, totals, wall_s), self._ratio(COMPLETION, totals, wall_s)

    def _ratio(self, index: int, totals: Totals, wall_s: float) -> float | None:
        total, account = totals[index], self._state.accounts.get(index)
        points = [point for point in self._state.points if point.wall_s <= wall_s]
        if total is None or account is None or not points:
            return None
        begin = next((point for point in reversed(points) if point.wall_s <= wall_s - WINDOW_S), points[0])
        counted = total - begin.totals[index]
        return 1 - (self._missing(index) - begin.missing[index]) / counted if counted > 0 else None
