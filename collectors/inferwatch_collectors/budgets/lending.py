"""This host's side of shared budgets: of what to speak, what to go by meanwhile, what to do without an answer.

The clockwork between the accounts, the board and `bank.lua`; no I/O. One exchange is under way at a time. What holds as
long as Redis is heard: the ceiling that relays see is never above what Redis has written down for this host. So a
ceiling goes up when the answer has come, and goes down, under the board's lock and no lower than what is spent and
held, before that is told.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from inferwatch.board import CEILING, ELSEWHERE, H_INITIAL, WANTED_EXPECTED, WANTED_WORST, Board
from inferwatch.budget_rules import MILLION, Digest
from inferwatch.settings.sharing import Redis
from inferwatch_collectors.budgets.absence import NS_PER_S, Absence
from inferwatch_collectors.budgets.account import Account
from inferwatch_collectors.budgets.bank import HELLO, MAX_ACCOUNTS, OK, AccountKey, Answer, Ask, Grant, Request
from inferwatch_collectors.budgets.giving_up import GivenUp
from inferwatch_collectors.budgets.holds import NOTHING, Pair, held_on
from inferwatch_collectors.budgets.leases import Lease, Standing

MS_PER_S: Final = 1000

# Each account is told anew now and then: to hear what others have spent, and keys may have been deleted, or evicted.
REFRESH_NS: Final = 10 * NS_PER_S


class Asked(NamedTuple):
    """What a host says of an account, and which one that is."""

    key: str
    ask: Ask
    account: Account | None = None  # None: it only gives up its initial share
    lease: Lease | None = None


class Sent(NamedTuple):
    """A request that is under way."""

    request: Request
    asked: tuple[Asked, ...]
    sent_ns: int

    @property
    def keys(self) -> tuple[str, ...]:
        """The accounts that it speaks of."""
        return tuple([each.key for each in self.asked])


class Lending:
    """Of one host. `accounts` are all that there are, shared or not."""

    def __init__(
        self, settings: Redis, host: str, board: Board, accounts: Callable[[], Mapping[Digest, Account]], now_ns: int
    ) -> None:
        self.settings = settings
        self._host = host
        self._board = board
        self._accounts = accounts
        self._incarnation = HELLO
        self._seq = 0
        self._clock = 0
        self._run = ""
        self._untold: dict[Digest, Account] = {}
        self._given_up = GivenUp(board)
        self._review_ns = 0
        self._refresh_ns = now_ns
        self.absence = Absence(settings, now_ns)
        # Of a collector before us; relays go by it.
        self._share = min(board.words[H_INITIAL], settings.initial_ppm)
        self._parts = False
        self._shown = (False, False)  # whether relays were told that Redis is away
        self.is_frozen = False

    # --- what relays go by

    @property
    def unreported(self) -> int:
        """Accounts of which something waits to be told."""
        return len(self._untold) + len(self._given_up.untold)

    def initial(self, limit: int) -> int:
        """Return what this host may spend of an account of which it has not asked for more."""
        return limit * self._share // MILLION

    def write(self, account: Account, base: int, now_ns: int) -> None:
        """Bring an account's words up to date, and learn from them. Under the lock."""
        lease, words = account.lease, self._board.words
        if lease is None:
            words[base + CEILING] = words[base + ELSEWHERE] = 0
            return
        words[base + CEILING] = self._ceiling_word(account, lease, now_ns)
        words[base + ELSEWHERE] = lease.elsewhere
        lease.saw(account.spent, Pair(words[base + WANTED_EXPECTED], words[base + WANTED_WORST]), now_ns)
        words[base + WANTED_EXPECTED] = words[base + WANTED_WORST] = 0
        if lease.is_due(account.standing, now_ns, initial=self.initial(account.rule.limit)):
            self._untold[account.digest] = account

    def end_of_streams(self, account: Account, now_ns: int) -> int:
        """Return at which spending of this host streams of an account must end."""
        lease, limit = account.lease, account.rule.limit
        if lease is None:
            return limit
        left = max(0, limit - lease.elsewhere)
        if lease.ceiling is None or lease.told is None or self.absence.allows_all(now_ns):
            return left
        is_last = lease.free <= 0 or self.is_frozen or self.absence.is_on(now_ns)
        return min(left, lease.ceiling) if is_last else left

    def watch(self, now_ns: int) -> None:
        """Let relays go by what is to be done while Redis is away, or is back."""
        state = (self.absence.is_on(now_ns), self.absence.ends_leases(now_ns))
        if state == self._shown:
            return
        with self._board.locked() as held:
            if not held:
                return
            self._board.words[H_INITIAL] = self._share_word(now_ns)
        self._shown = state
        for account in self._accounts().values():
            account.dirty = account.dirty or account.lease is not None

    def _share_word(self, now_ns: int) -> int:
        absence = self.absence
        if absence.allows_all(now_ns):
            return MILLION
        if absence.ends_leases(now_ns):
            return 0
        if absence.is_on(now_ns) and not absence.was_heard and not self._share:
            return self.settings.initial_ppm  # nobody has told us how much it is
        return self._share

    def _ceiling_word(self, account: Account, lease: Lease, now_ns: int) -> int:
        if self.absence.allows_all(now_ns):
            return max(0, account.rule.limit - lease.elsewhere) + 1
        if self.absence.ends_leases(now_ns):
            return 1
        return 0 if lease.ceiling is None else lease.ceiling + 1

    # --- what to say

    def connected(self, run: str) -> None:
        """A connection is there, to the server with this run id."""
        if run != self._run:
            self._run, self._incarnation = run, HELLO

    def request(self, now_ns: int, wall_s: float) -> Sent | None:
        """Return what to say now; None: nothing, or the board is locked."""
        if self._incarnation == HELLO:
            self._seq = 0
            return Sent(self._say(()), (), now_ns)
        is_time = now_ns - self._review_ns >= self.settings.report_interval_s * NS_PER_S
        if is_time:
            self._review(now_ns, wall_s)
        if not is_time and not self.unreported:
            return None
        due = list(self._untold.values())[:MAX_ACCOUNTS]
        with self._board.locked() as held:
            if not held:
                return None
            spoken = [each for account in due if (each := self._ask(account, now_ns)) is not None]
        for account in due:
            del self._untold[account.digest]
        if is_time:
            self._review_ns = now_ns
        given_up = self._given_up.due(MAX_ACCOUNTS - len(spoken), self._accounts())
        spoken += [Asked(key, ask) for key, ask in given_up]
        self._seq += 1
        return Sent(self._say(tuple([each.ask for each in spoken])), tuple(spoken), now_ns)

    def _say(self, asks: tuple[Ask, ...]) -> Request:
        settings = self.settings
        return Request(
            host=self._host,
            incarnation=self._incarnation,
            seq=self._seq,
            lease_ms=round(settings.lease_s * MS_PER_S),
            share=0 if self._parts else settings.initial_ppm,
            had_share=self._share,
            heard=self._clock,
            asks=asks,
        )

    def _review(self, now_ns: int, wall_s: float) -> None:
        """See what there is to tell beside what is urgent."""
        refresh = now_ns - self._refresh_ns >= REFRESH_NS
        if refresh:
            self._refresh_ns = now_ns
        accounts = self._accounts()
        for account in accounts.values():
            lease = account.lease
            if lease is None:
                continue
            lease.saw(account.spent, NOTHING, now_ns)
            initial = self.initial(account.rule.limit)
            worth = lease.is_worth_telling(account.standing, now_ns, initial=initial, lease_s=self.settings.lease_s)
            if worth or refresh:
                self._untold[account.digest] = account
        self._given_up.forget(wall_s, accounts)

    def _ask(self, account: Account, now_ns: int) -> Asked | None:
        """Return what to say of an account; lowers its ceiling to what will be told. Under the lock."""
        lease, rule, slot = account.lease, account.rule, account.slot
        if lease is None or self._accounts().get(account.digest) is not account:
            return None
        held = held_on(self._board.words, self._board.base(slot)) if slot >= 0 else NOTHING
        standing = Standing(account.spent, held, rule.limit, by_expected=account.standing.by_expected)
        initial = self.initial(rule.limit)
        have = initial if lease.ceiling is None else lease.ceiling
        want = standing.claim
        if not self._parts:
            want = max(lease.wish(standing, now_ns, initial=initial, lease_s=self.settings.lease_s), want)
        if want < have:
            have = lease.ceiling = want
            self._show(account, lease, now_ns)
        ask = Ask(
            limit=rule.limit,
            spent=account.spent,
            claim=standing.claim,
            have=have,
            want=want,
            end_s=account.spending.period.end_s if account.spending.period is not None else 0,
            kept_ms=_kept_s(account) * MS_PER_S,
            known=lease.others if lease.is_forgotten else {},
        )
        return Asked(key_of(account), ask, account, lease)

    def _show(self, account: Account, lease: Lease, now_ns: int) -> None:
        if account.slot >= 0:
            self._board.words[self._board.base(account.slot) + CEILING] = self._ceiling_word(account, lease, now_ns)

    # --- what was said

    def answered(self, answer: Answer, sent: Sent, now_ns: int) -> bool:
        """Take up an answer; False if Redis does not know us: it will be told everything."""
        if answer.status != OK:
            self._incarnation = HELLO
            return False
        if self.absence.ends_leases(now_ns):
            self._lose_leases()
        self.absence.heard(sent.sent_ns)
        self._clock = answer.clock
        self.is_frozen = bool(answer.is_frozen)
        if sent.request.incarnation == HELLO:
            self._incarnation = answer.incarnation
            self._remember_all()
        self._given_up.told(sent.keys)
        self._given_up.add(answer.full)
        self._given_up.add(answer.short)
        for asked, grant in zip(sent.asked, answer.grants, strict=True):
            self._granted(asked, grant, sent.sent_ns)
        with self._board.locked() as held:
            if held:  # else with the next answer
                self._give_up(now_ns)
                for asked in sent.asked:
                    if asked.account is not None and asked.account.lease is not None:
                        self._show(asked.account, asked.account.lease, now_ns)
                self._share = answer.share
                self._board.words[H_INITIAL] = self._share_word(now_ns)
        return True

    def part(self) -> None:
        """This host stops: all that it has spent is to be told, and what it was lent given back."""
        self._parts = True
        self._tell_all()

    def failed(self, sent: Sent) -> None:
        """There was no answer: what was said may have been heard, and is said again."""
        for asked in sent.asked:
            if asked.account is not None:
                self._untold[asked.account.digest] = asked.account

    def _granted(self, asked: Asked, grant: Grant, sent_ns: int) -> None:
        account, lease, ask = asked.account, asked.lease, asked.ask
        if account is None or lease is None or account.lease is not lease:
            return  # given up, or a new period has begun
        others = grant.by_host()
        # Of a window, spending goes out; of a period, only Redis can have forgotten it.
        lost = {host: amount for host, amount in lease.others.items() if ask.end_s and host not in others}
        lease.is_forgotten = bool(lost) and not ask.known
        if lease.is_forgotten:
            self._untold[account.digest] = account
        lease.others = lost | others
        lease.elsewhere = sum(lease.others.values())
        lease.ceiling = grant.ceiling
        lease.free = grant.free
        lease.told = ask.spent
        lease.asked_ns = sent_ns
        account.dirty = True

    def _tell_all(self) -> list[Lease]:
        """Have all shared accounts told; return their leases."""
        shared = {digest: account.lease for digest, account in self._accounts().items() if account.lease is not None}
        self._untold = {digest: self._accounts()[digest] for digest in shared}
        return list(shared.values())

    def _remember_all(self) -> None:
        """Say everything that is known, to a Redis that may know nothing."""
        for lease in self._tell_all():
            lease.is_forgotten = True

    def _lose_leases(self) -> None:
        self._share = 0
        for lease in self._tell_all():
            lease.ceiling = 0

    def _give_up(self, now_ns: int) -> None:
        """Do without the initial share of accounts that others need it of. Under the lock."""
        accounts = self._accounts()
        for key, digest, end_s in self._given_up.asked():
            account = accounts.get(digest)
            if account is None:
                self._given_up.take(key, digest, end_s)
            elif account.lease is not None and key_of(account) == key:
                lease = account.lease
                if lease.ceiling is None:
                    held = held_on(self._board.words, self._board.base(account.slot)) if account.slot >= 0 else NOTHING
                    lease.ceiling = account.spent + held.worst
                    self._show(account, lease, now_ns)
                lease.short(now_ns)
                self._untold[digest] = account


def key_of(account: Account) -> str:
    """Return what an account is called in its present period."""
    period = account.spending.period
    start_s, end_s = (period.start_s, period.end_s) if period is not None else (0, 0)
    return str(AccountKey(account.digest, account.rule.measured, start_s, end_s))


def _kept_s(account: Account) -> int:
    """Return for how long spending counts of a rolling budget that nobody confirms; 0: it is none."""
    if account.spending.period is not None:
        return 0
    return account.rule.settings.window_s + account.spending.bucket_s
