"""Requests that were hung up on before any count was on the wire, and what the engine counted for them. Pure.

Of a stream without counts the prompt is unknown, and of its completion the events that were seen are booked, as an
estimate. Such a one gets its prompt, and of the completion what the engine counted beyond that.

What they had in all is certain once the engine is at rest: what it has counted and nobody was booked for. That is held
here as it shows, and then divided: prompt tokens by the size of the bodies, completion tokens by the time for which the
requests were with the engine, for each of their answers, less what was booked of them; nobody gets more than is
possible (see `claims`), nor more than it asked for. One request alone gets exactly what it had.

* **When.** At rest, when the engine must have noticed that its clients have left. If there is no rest, after LONGEST_S
  by what has shown until then: less than all, since under load a part hides behind what open requests still get.
  Whoever was served so is remembered in `others` until the next rest, takes part in that division, and gets nothing
  of it.
* **Bounds.** Above MAX_HUNG_UP the next ones are only `others` too. What falls to them is shown as `cut`.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from inferwatch.record import ErrorType, LateCount, Outcome, RequestRecord, lacks_count
from inferwatch_collectors.engine.claims import ABORT_S, Claim
from inferwatch_collectors.engine.dividing import beyond, divide, in_copies

# Some 150 bytes each in a memo that is written with each commit in which one more hangs up.
MAX_HUNG_UP: Final = 500

# Reports and budgets lag by so much at a service that is never at rest. Longer, and more of it is no guess.
LONGEST_S: Final = 300.0

# Operations whose answers cost tokens that can be compared; `other` is not told what it was.
_GENERATES: Final = frozenset({"chat", "text_completion", "generate_content"})

# The engine never had it, or refused it.
_NEVER_BEGUN: Final = frozenset(
    {ErrorType.CONNECT_FAILED, ErrorType.CONNECT_TIMEOUT, ErrorType.OUT_OF_FILES, ErrorType.ENGINE_5XX}
)


class HungUp(msgspec.Struct, array_like=True):
    """One request, or several that are told apart no more. Pairs are (prompt, completion)."""

    weights: tuple[int, int] = (0, 0)  # bytes, microseconds; for each answer
    bounds: tuple[int, int] = (0, 0)  # tokens, as the engine counts them
    copies: int = 1  # how often the engine counts the prompt
    closed_s: float = 0.0  # Unix time
    request_id: str = ""
    wall_ns: int = 0
    tenant: str = ""
    model: str = ""
    operation: str = ""
    outcome: Outcome = Outcome.CLIENT_ABORT
    user: str = ""  # these at the end: files of older versions do not have them
    feature: str = ""
    seen: int = 0  # tokens of its answers that are booked, as an estimate


class Held(msgspec.Struct, array_like=True):
    """What outlives a restart."""

    waiting: list[HungUp] = []
    others: HungUp = msgspec.field(default_factory=HungUp)
    tokens: list[int] = msgspec.field(default_factory=lambda: [0, 0])  # of all of them, counted and not given back


class Settled(NamedTuple):
    """A division. Pairs are (prompt, completion), in tokens as the engine counts them."""

    late: tuple[LateCount, ...]
    given: tuple[int, int]
    left: tuple[int, int]  # nobody's


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Held).decode


def left_no_count(record: RequestRecord) -> bool:
    """Tell whether the engine may have worked on `record` and nothing on the wire said how much."""
    return (
        lacks_count(record)  # first: it is not so of most
        and record.outcome not in (Outcome.OK, Outcome.REJECTED)
        and record.operation in _GENERATES
        and record.error not in _NEVER_BEGUN
    )


class HungUps:
    """Those of one engine."""

    def __init__(self, max_hung_up: int = MAX_HUNG_UP) -> None:
        self._max_hung_up = max_hung_up
        self._held = Held()

    def dump(self) -> bytes:
        """Return all of it."""
        return _encode(self._held)

    def load(self, data: bytes) -> None:
        """Go on where an earlier life was.

        Raises:
            msgspec.DecodeError: it is no such thing.
        """
        self._held = _decode(data) if data else Held()

    def __bool__(self) -> bool:
        """Tell whether any waits for its tokens."""
        return bool(self._held.waiting)

    @property
    def tokens(self) -> Sequence[int]:
        """What is held, by the index of the type."""
        return self._held.tokens

    def add(self, record: RequestRecord, claimed: tuple[Claim, Claim], *, copies: int) -> None:
        """Take one that `left_no_count`, with what it may have cost; the engine counts its prompt `copies` times."""
        sequences = max(record.n, record.choices, 1)
        with_engine_s = max(0.0, record.duration_s - (record.sent_s or 0.0))
        hung_up = HungUp(
            weights=(record.request_bytes * copies, round(with_engine_s * 1e6) * sequences),
            bounds=(claimed[0].unsure, claimed[1].unsure),
            copies=copies,
            closed_s=record.wall_ns / 1e9 + record.duration_s,
            request_id=record.request_id,
            wall_ns=record.wall_ns,
            tenant=record.tenant,
            model=record.model,
            operation=record.operation,
            outcome=record.outcome,
            user=record.user,
            feature=record.feature,
            seen=record.completion_tokens or 0,
        )
        if len(self._held.waiting) < self._max_hung_up:
            self._held.waiting.append(hung_up)
        else:
            self._forget(hung_up, (0, 0))

    def room(self, index: int) -> int:
        """Return how many tokens more they may have cost."""
        everybody = (*self._held.waiting, self._held.others)
        return max(0, sum(each.bounds[index] for each in everybody) - self._held.tokens[index])

    def hold(self, index: int, tokens: int) -> None:
        """Hold tokens that the engine has counted; no more than there is `room` for."""
        self._held.tokens[index] += tokens

    def due(self, wall_s: float, *, rest: bool, settled: bool) -> bool:
        """Tell whether to divide now: the engine is at `rest`, was so at two scrapes (`settled`), or it takes long."""
        if not self._held.waiting:
            return settled or any(self._held.tokens)  # what others left behind
        closed_s = [each.closed_s for each in self._held.waiting]
        return settled or (rest and max(closed_s) + ABORT_S <= wall_s) or min(closed_s) + LONGEST_S <= wall_s

    def settle(self, compared: Sequence[bool], *, rest: bool, exact: bool) -> Settled:
        """Divide what is held among those who wait, and begin anew.

        Args:
            compared: of which types the engine's count can be compared.
            rest: nothing was open: all that they had has shown.
            exact: and nothing else can have hidden some of it, so that no tokens are a count of 0.
        """
        held = self._held
        among = [*held.waiting, held.others] if rest else held.waiting
        weights = [[each.weights[index] for each in among] for index in (0, 1)]
        weights[1] = beyond(held.tokens[1], weights[1], [each.seen for each in among])
        prompts, completions = (
            divide(held.tokens[index], weights[index], [each.bounds[index] for each in among]) for index in (0, 1)
        )
        copies = [each.copies for each in among]
        singles = in_copies(prompts, copies, [each.bounds[0] for each in among])
        late = []
        given = [0, 0]
        waiting, held.waiting = held.waiting, []
        if rest:
            held.others = HungUp()
        for each, prompt, completion in zip(waiting, singles, completions, strict=False):
            had = (prompt * each.copies, completion)
            if not rest:
                self._forget(each, had)
            if (exact and not each.seen) or prompt or completion:
                given = [given[0] + had[0], given[1] + had[1]]
                late.append(_late(each, prompt if compared[0] else None, completion if compared[1] else None))
        left = (held.tokens[0] - given[0], held.tokens[1] - given[1])
        held.tokens = [0, 0]
        return Settled(tuple(late), (given[0], given[1]), left)

    def forget_all(self) -> None:
        """The comparison begins now: what they had is in no count that is compared."""
        self._held = Held()

    def _forget(self, hung_up: HungUp, had: tuple[int, int]) -> None:
        """Remember only what it weighs, and what it may have had beyond what it was given."""
        others, more = self._held.others, hung_up
        self._held.others = HungUp(
            weights=(others.weights[0] + more.weights[0], others.weights[1] + more.weights[1]),
            bounds=(
                others.bounds[0] + max(0, more.bounds[0] - had[0]),
                others.bounds[1] + max(0, more.bounds[1] - had[1]),
            ),
            seen=others.seen + more.seen,
        )


def _late(hung_up: HungUp, prompt: int | None, completion: int | None) -> LateCount:
    return LateCount(
        request_id=hung_up.request_id,
        wall_ns=hung_up.wall_ns,
        tenant=hung_up.tenant,
        model=hung_up.model,
        operation=hung_up.operation,
        outcome=hung_up.outcome,
        user=hung_up.user,
        feature=hung_up.feature,
        # Whose tokens were seen had a prompt: 0 is what the engine has not counted yet, or never does.
        prompt_tokens=(prompt or None) if hung_up.seen else prompt,
        completion_tokens=completion,
        estimated_tokens=hung_up.seen,
    )
