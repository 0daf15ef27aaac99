"""Open requests that some budget is for: how far their streams are, and which of them must end.

A stream is cut before the next look would find that too much was spent: what it sends until then at its own pace is
added to what is spent. Where looks come late they look further ahead, by as much as they were late just now.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from inferwatch.tap import Open
from inferwatch_collectors.budgets.account import Account
from inferwatch_collectors.budgets.charges import Tariff
from inferwatch_collectors.budgets.enforcement import must_cut, tokens_ahead
from inferwatch_collectors.exchange import Progress
from inferwatch_collectors.open_requests import Link

# Half of a look's lateness is forgotten after 22 looks, two thirds of a second.
LATE_FADES: Final = 32

NS_PER_S: Final = 1_000_000_000


class Running:
    """One of them."""

    __slots__ = ("accounts", "arrival_s", "is_cut", "link", "opened")

    def __init__(self, opened: Open, accounts: list[Account]) -> None:
        self.opened = opened
        self.accounts = accounts
        self.arrival_s = opened.wall_ns / NS_PER_S
        self.link: Link | None = None  # whose it is, once it was looked at
        self.is_cut = False


class Streams:
    """All of them, by request id."""

    def __init__(
        self,
        tariff: Tariff,
        end_of: Callable[[Account], int],
        cut: Callable[[Link, tuple[int, ...]], None],
    ) -> None:
        """`end_of` tells how much may be spent of an account before its streams end; `cut` tells a relay which do."""
        self._tariff = tariff
        self._end_of = end_of
        self._cut = cut
        self._running: dict[str, Running] = {}
        self._late_ns = 0

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._running

    def opened(self, opened: Open, accounts: list[Account]) -> Running:
        """A request runs."""
        running = self._running[opened.request_id] = Running(opened, accounts)
        return running

    def closed(self, request_id: str) -> Running | None:
        """It does not any more; return what was known of it."""
        return self._running.pop(request_id, None)

    def drop(self, account: Account) -> None:
        """An account is no more."""
        for running in self._running.values():
            if account in running.accounts:
                running.accounts.remove(account)

    def timed(self, late_ns: int) -> None:
        """A tick came so late."""
        self._late_ns = max(late_ns, self._late_ns - self._late_ns // LATE_FADES)

    def look(self, accounts: Iterable[Account], links: Iterable[Link], *, calm_too: bool) -> None:
        """See how far running streams are."""
        for account in accounts:
            if calm_too or not account.is_calm:
                account.ahead = 0
        for link in links:
            for entry in link.entries.values():
                running = self._running.get(entry.opened.request_id)
                exchange = entry.exchange
                if running is None or exchange is None or not entry.opened.stream:
                    continue
                if running.link is not link:  # a new connection: what was said on the old one may be lost
                    running.link, running.is_cut = link, False
                watched = [each for each in running.accounts if calm_too or not each.is_calm]
                if watched:
                    self._progressed(running, exchange.progress, watched, self._late_ns + link.lag_ns)

    def _progressed(self, running: Running, progress: Progress, accounts: list[Account], late_ns: int) -> None:
        opened = running.opened
        for account in accounts:
            amount = self._amount(account, opened, progress, progress.completion_tokens)
            account.progressed(opened.request_id, amount)
            if account.rule.settings.on_limit == "cut" and not running.is_cut and opened.request_id in account.live:
                further = (progress.completion_tokens or 0) + tokens_ahead(progress, late_ns)
                account.ahead += max(0, self._amount(account, opened, progress, further) - amount)

    def _amount(self, account: Account, opened: Open, progress: Progress, completion_tokens: int | None) -> int:
        return self._tariff.of_tokens(
            *(account.rule.measured, opened.model, opened.tenant, opened.wall_ns),
            *(progress.prompt_tokens, progress.cached_tokens, completion_tokens),
        )

    def cut_spent(self, accounts: Iterable[Account]) -> Iterator[Account]:
        """Tell relays which streams must end; yield, for each, the account that ends it."""
        spent = {
            id(each)
            for each in accounts
            if each.rule.settings.on_limit == "cut"
            and must_cut(each.rule.settings, each.spent, each.ahead, self._end_of(each))
        }
        if not spent:
            return
        by_link: dict[int, tuple[Link, list[int]]] = {}
        for request_id, running in self._running.items():
            if running.is_cut or running.link is None:
                continue
            for account in running.accounts:
                if id(account) in spent and request_id in account.live:
                    running.is_cut = True
                    by_link.setdefault(id(running.link), (running.link, []))[1].append(running.opened.id)
                    yield account
                    break
        for link, ids in by_link.values():
            self._cut(link, tuple(ids))
