"""May this request begin: room in each budget that it belongs to, taken at once or not at all.

What is asked for, and when there is room, is in `reckoning`.

A budget that is shared with other hosts has a ceiling on the board instead of its limit: what this host may come to by
itself. The collector asks Redis for more of it in the background; nobody waits for that here.

All of it is one look at the board under its lock: what one worker takes, the next one sees. Without the lock or a slot
a request passes, and is counted, and so it does where nothing but what is held stands against it and the collector has
been silent for long: a fault of ours refuses nobody.
"""

import time
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from inferwatch.board import (
    ADMITTED,
    CEILING,
    COMPLETION_TOKENS,
    COUNT_MASK,
    ELSEWHERE,
    END_S,
    H_BEAT_NS,
    H_FULL,
    H_INITIAL,
    H_UNSURE,
    MEASURED,
    PROMPT_PER_KB,
    REJECTED,
    RELEASED_EXPECTED,
    RELEASED_WORST,
    ROOM_S,
    SPENT,
    TAKEN_EXPECTED,
    TAKEN_WORST,
    WANTED_EXPECTED,
    WANTED_WORST,
    WOULD_REJECT,
    Board,
)
from inferwatch.budget_rules import BY_TOKENS, MILLION, SCALE, Match, Names, Rule, Rulebook, TokenRate
from inferwatch.price_book import PriceBook
from inferwatch.relay.reckoning import BYTES_PER_TOKEN, TEMPLATE_TOKENS, Account, Need, Wish, fits, most
from inferwatch.settings.budgets import Budgets

# A collector that is restarted is back within a second. Later, what is held is not let go of any more, and would fill
# every budget: only what is known to be spent counts then.
SILENT_NS: Final = 10_000_000_000

# What is held is free again when some request ends: soon.
HELD_RETRY_S: Final = 1

# Without the lock once, others would wait as long as we did.
UNSURE_NS: Final = 1_000_000_000

# (slot, expected, worst, position of the account's `taken` after it): see `tap.Open.reserved`.
Reserved = tuple[tuple[int, int, int, int], ...]


class BudgetRefusal(NamedTuple):
    """There is no room: what to tell the client."""

    budget: str
    message: str
    retry_after_s: int
    spent: bool  # nothing ends that would make room before then: the client need not try
    soon: bool = False  # there would be room but for what is held, perhaps by what has just ended


class Admission(NamedTuple):
    """The request may begin; `reserved` goes into its `Open`."""

    reserved: Reserved = ()


NOTHING_RESERVED: Final = Admission()


class Gate(Protocol):
    """Who admits requests."""

    def admit(self, names: Names, wish: Wish, *, last: bool = True) -> Admission | BudgetRefusal:
        """Take room for a request, or say why not. `last`: it will not be asked again for this one."""


class Budgeting:
    """The gate of one relay process."""

    def __init__(
        self,
        budgets: Budgets,
        prices: PriceBook,
        board: Board,
        *,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._board = board
        self._monotonic_ns = monotonic_ns
        self._wall_ns = wall_ns
        self._settings = budgets
        self._prices = prices
        self._book = Rulebook(budgets)
        self._unsure_until_ns = 0
        self.unsure = 0  # requests that passed because the lock was not to be had

    def use(self, budgets: Budgets, prices: PriceBook) -> None:
        """Take up a new configuration."""
        self._settings, self._prices, self._book = budgets, prices, Rulebook(budgets)

    def admit(self, names: Names, wish: Wish, *, last: bool = True) -> Admission | BudgetRefusal:
        """Take room for a request in all of its budgets, or say which one has none.

        `last`: a refusal counts also where there may be room soon.
        """
        matches = self._book.matching(names)
        if not matches:
            return NOTHING_RESERVED
        now_ns = self._monotonic_ns()
        if now_ns < self._unsure_until_ns:
            self.unsure += 1
            return NOTHING_RESERVED
        wall_ns = self._wall_ns()
        board = self._board
        # What needs no board is reckoned before others have to wait for it.
        rates = [self._rate(match.rule, names, wall_ns) for match in matches]
        if not board.lock():
            self._unsure_until_ns = self._monotonic_ns() + UNSURE_NS
            self.unsure += 1
            return NOTHING_RESERVED
        try:
            return self._judge(matches, rates, wish, now_ns, wall_ns, last=last)
        finally:
            board.unlock()

    def _rate(self, rule: Rule, names: Names, wall_ns: int) -> TokenRate | None:
        """Return what a token costs at most; None: the board knows, or nobody."""
        measured = rule.measured
        if measured in BY_TOKENS:
            return BY_TOKENS[measured]
        if measured in MEASURED:
            return None
        rates = self._prices.rates(names.model, names.tenant, wall_ns)
        if rates is None:
            return TokenRate(0, 0)
        return TokenRate(max(rates.input, rates.cached_input), max(rates.output, rates.reasoning), rates.per_request)

    def _judge(
        self,
        matches: tuple[Match, ...],
        rates: list[TokenRate | None],
        wish: Wish,
        now_ns: int,
        wall_ns: int,
        *,
        last: bool,
    ) -> Admission | BudgetRefusal:
        board, words = self._board, self._board.words
        silent = now_ns - words[H_BEAT_NS] > SILENT_NS
        takes: list[tuple[int, Need]] = []
        bases: list[tuple[int, bool]] = []  # with whether there was room
        refusal: BudgetRefusal | None = None
        refusing: list[int] = []
        soon = True  # of all that refuse
        for match, rate in zip(matches, rates, strict=True):
            slot = board.find(match.digest, make=True)
            if slot < 0:
                words[H_FULL] += 1
                continue
            base = board.base(slot)
            rule = match.rule
            need = self._need(base, wish, rate or board.rate(rule.measured), rule)
            account = _account(words, base, rule, wall_ns, silent=silent)
            if rule.shared:
                _want(words, base, need)
            cuttable = wish.stream and rule.settings.on_limit == "cut"
            if silent:  # by what is known to be spent alone
                words[H_UNSURE] += 1
                room = account.spent < rule.limit
            else:
                room = fits(account, need, by_expected=rule.settings.reserve == "expected", cuttable=cuttable)
            if not room and rule.settings.on_limit != "observe":
                refusing.append(base)
                soon = soon and not silent and _fits_alone(account, need, rule, cuttable=cuttable)
                found = _refusal(match, account, words, base, wall_ns)
                # Of several the one that lasts longest: to come back before then is of no use.
                refusal = found if refusal is None or found.retry_after_s > refusal.retry_after_s else refusal
                continue
            bases.append((base, room))
            takes.append((slot, need))
        if refusal is not None:
            for base in refusing if last or not soon else ():
                words[base + REJECTED] += 1
            return refusal._replace(soon=soon)
        for base, room in bases:
            words[base + (ADMITTED if room else WOULD_REJECT)] += 1
        reserved = tuple([_take(words, board.base(slot), slot, need) for slot, need in takes if need.worst])
        return Admission(reserved) if reserved else NOTHING_RESERVED

    def _need(self, base: int, wish: Wish, rate: TokenRate, rule: Rule) -> Need:
        """Return what the request comes to in one budget."""
        words, context = self._board.words, self._settings.context_tokens
        choices = max(wish.choices, 1)
        prompt = min(wish.prompt_bytes + TEMPLATE_TOKENS, context * choices)
        answer = 0
        if wish.generates:
            # Hostile numbers end here: no answer is longer than the context.
            answer = min(wish.max_tokens or self._settings.default_reserve_tokens, context)
        worst = most(rate, prompt, answer, choices, context)
        per_kb = words[base + PROMPT_PER_KB]
        likely_prompt = min(
            wish.prompt_bytes * per_kb // 1000 + 1 if per_kb else wish.prompt_bytes // BYTES_PER_TOKEN + 1, prompt
        )
        likely = words[base + COMPLETION_TOKENS]
        if not likely and answer:  # nothing known of this account: what can be will be
            return Need(min(worst, rule.limit), min(worst, rule.limit))
        expected = rate.amount(likely_prompt, choices * min(likely, answer))
        # More than the limit is no more than the limit to anybody, and small numbers do not overflow.
        worst = min(worst, rule.limit)
        return Need(min(expected, worst), worst)


def _fits_alone(account: Account, need: Need, rule: Rule, *, cuttable: bool) -> bool:
    """Tell whether there would be room if nothing were held and this host were lent all."""
    alone = Account(account.spent, Need(0, 0), rule.limit)
    return fits(alone, need, by_expected=rule.settings.reserve == "expected", cuttable=cuttable)


def _account(words: "memoryview[int]", base: int, rule: Rule, wall_ns: int, *, silent: bool) -> Account:
    over = _is_over(words, base, wall_ns)
    spent = 0 if over else words[base + SPENT]
    if silent:  # nor does anybody ask other hosts for more
        return Account(spent + _elsewhere(words, base, rule, over=over), Need(0, 0), rule.limit)
    limit = rule.limit
    if rule.shared:
        ceiling = 0 if over else words[base + CEILING]
        limit = min(limit, ceiling - 1) if ceiling else limit * words[H_INITIAL] // MILLION
    held = Need(
        (words[base + TAKEN_EXPECTED] - words[base + RELEASED_EXPECTED]) & COUNT_MASK,
        (words[base + TAKEN_WORST] - words[base + RELEASED_WORST]) & COUNT_MASK,
    )
    return Account(spent, held, limit)


def _is_over(words: "memoryview[int]", base: int, wall_ns: int) -> bool:
    """Tell whether a period is over, also if the collector has not said so yet."""
    end_s = words[base + END_S]
    return bool(end_s) and wall_ns >= end_s * 1_000_000_000


def _elsewhere(words: "memoryview[int]", base: int, rule: Rule, *, over: bool) -> int:
    """Return what other hosts are known to have spent of a budget."""
    return words[base + ELSEWHERE] if rule.shared and not over else 0


def _want(words: "memoryview[int]", base: int, need: Need) -> None:
    """Let the collector know how much requests ask for, before it is refused if there is time."""
    if need.expected > words[base + WANTED_EXPECTED]:
        words[base + WANTED_EXPECTED] = need.expected
    if need.worst > words[base + WANTED_WORST]:
        words[base + WANTED_WORST] = need.worst


def _take(words: "memoryview[int]", base: int, slot: int, need: Need) -> tuple[int, int, int, int]:
    words[base + TAKEN_EXPECTED] = (words[base + TAKEN_EXPECTED] + need.expected) & COUNT_MASK
    position = words[base + TAKEN_WORST] = (words[base + TAKEN_WORST] + need.worst) & COUNT_MASK
    return slot, need.expected, need.worst, position


def _refusal(match: Match, account: Account, words: "memoryview[int]", base: int, wall_ns: int) -> BudgetRefusal:
    """Say it in words that leak nothing of other tenants: the client's own budget, its limit, when it is over."""
    settings = match.rule.settings
    whose = ", ".join(f"{key} {value}" for key, value in zip(settings.per, match.values, strict=True) if value)
    name = f"budget `{settings.name}`" + (f" of {whose}" if whose else "")
    limit = f"{settings.limit} {settings.unit}"
    span = f"the last {settings.window_s} s" if settings.period == "rolling" else f"this {settings.period}"
    spent = account.spent
    if account.limit < match.rule.limit:  # by all hosts
        spent += _elsewhere(words, base, match.rule, over=_is_over(words, base, wall_ns))
    if spent < match.rule.limit:
        rest = _plain(match.rule.limit - spent, match.rule)
        message = (
            f"{name}: {rest} of {limit} for {span} are left, and requests under way may need them; "
            "try again, or ask for fewer max_tokens"
        )
        return BudgetRefusal(settings.name, message, HELD_RETRY_S, spent=False)
    wall_s = wall_ns // 1_000_000_000
    end_s = words[base + END_S] or words[base + ROOM_S]
    retry_after_s = max(1, end_s - wall_s) if end_s else HELD_RETRY_S
    message = f"{name} is spent: {limit} for {span}"
    if end_s:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end_s))
        message += f"; there is room again at {when}"
    return BudgetRefusal(settings.name, message, retry_after_s, spent=True)


def _plain(amount: int, rule: Rule) -> str:
    scale = SCALE[rule.settings.unit]
    return f"{amount / scale:.6f}".rstrip("0").rstrip(".") if scale > 1 else str(amount)
