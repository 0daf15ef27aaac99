"""Shared budgets in the running collector: keeps a connection to Redis and lets `Lending` speak through it.

Nothing waits for it but it itself: relays go by the board, and the rest of the collector by what was heard last.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

from inferwatch import redis_address
from inferwatch.config import ConfigError
from inferwatch.settings.sharing import Redis
from inferwatch_collectors import metrics as m
from inferwatch_collectors.budgets.bank import HELLO
from inferwatch_collectors.budgets.lending import Lending
from inferwatch_collectors.budgets.redis_link import FENCED, REASONS, LinkError, RedisLink
from inferwatch_collectors.metric_store import MetricStore

_log: Final = logging.getLogger(__name__)

# How often to see whether there is something to say: as often as the accounts are looked at.
TICK_S: Final = 0.03

# Between two tries to connect: within one report of Redis' return everybody has said what they have.
RETRY_S: Final = 0.25

# A name that is not written down yet could be forgotten together with what was spent under it, which relays would tell
# again under another name: twice the same.
COMMIT_S: Final = 5.0

# The ledger's name for the name of this host; 64 bits, so that no two hosts have the same one.
HOST: Final = "budget_host"
HOST_BYTES: Final = 8


def host_name(store: MetricStore) -> str:
    """Return what this host is called in Redis: as long as its ledger lives, for it speaks of what is in there."""
    memo = store.memo(HOST)
    if not memo.data:
        memo.set(secrets.token_hex(HOST_BYTES).encode())
    return memo.data.decode("ascii", "replace")


class Sharing:
    """One host's talk with Redis."""

    def __init__(
        self,
        settings: Redis,
        lending: Lending,
        store: MetricStore,
        commit: Callable[[float], Awaitable[bool]],
    ) -> None:
        """`commit` waits until the ledger has everything up to now, or so many seconds; returns whether it has."""
        self._settings = settings
        self.lending = lending
        self._store = store
        self._commit = commit
        self._is_told = False  # that there is an outage
        self._is_asking = False
        self.settled = asyncio.Event()
        """Redis has answered, or will not at once."""
        for reason in REASONS:
            store.counter(m.BUDGET_REDIS_FAILURES, (reason,))
        store.counter(m.BUDGET_REDIS_EXCHANGES)
        store.counter(m.BUDGET_REDIS_OUTAGES)

    async def run(self) -> None:
        """Talk for ever."""
        while not await self._commit(COMMIT_S):
            _log.warning("budgets_not_shared reason=ledger_not_durable")
            self.settled.set()
            self._watch()
            await asyncio.sleep(RETRY_S)  # a failing disk is told of at once
        while True:
            try:
                await self._talk()
            except (LinkError, ConfigError) as error:
                self._failed(error)
            self.settled.set()
            self._watch()
            await asyncio.sleep(RETRY_S)

    async def part(self, timeout_s: float) -> None:
        """Tell what was spent last, and give back what was lent: others can have it at once. While `run` runs."""
        self.lending.part()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.lending.unreported or self._is_asking:
                    await asyncio.sleep(TICK_S)

    async def _talk(self) -> None:
        # Read anew with each connection: passwords are rotated by writing the file.
        link = await RedisLink.open(await asyncio.to_thread(redis_address.read, self._settings), self._settings)
        try:
            self.lending.connected(link.run)
            while True:
                await self._exchange(link)
                self._watch()
                await asyncio.sleep(TICK_S)
        finally:
            await link.close()

    async def _exchange(self, link: RedisLink) -> None:
        sent = self.lending.request(time.monotonic_ns(), time.time())
        if sent is None:
            return
        self._is_asking = True
        try:
            answer = await link.exchange(sent.request, sent.keys)
        except LinkError:
            self.lending.failed(sent)
            raise
        finally:
            self._is_asking = False
        self._store.counter(m.BUDGET_REDIS_EXCHANGES).add()
        if not self.lending.answered(answer, sent, time.monotonic_ns()):
            self._store.counter(m.BUDGET_REDIS_FAILURES, (FENCED,)).add()
            await asyncio.sleep(RETRY_S)  # two hosts with copies of one ledger take turns
        elif sent.request.incarnation != HELLO:
            self.settled.set()
        if self._is_told:
            self._is_told = False
            _log.warning("budgets_redis_back frozen=%s unreported=%d", self.lending.is_frozen, self.lending.unreported)

    def _failed(self, error: LinkError | ConfigError) -> None:
        reason = str(error) if isinstance(error, LinkError) else "configuration"
        if isinstance(error, LinkError):
            self._store.counter(m.BUDGET_REDIS_FAILURES, (reason,)).add()
        self.lending.absence.missed()
        if not self._is_told:
            self._is_told = True
            self._store.counter(m.BUDGET_REDIS_OUTAGES).add()
            _log.error("budgets_redis_failed reason=%s then=%s", reason, self._settings.when_away)

    def _watch(self) -> None:
        self.lending.watch(time.monotonic_ns())

    def refresh(self) -> None:
        """Bring the gauges up to date: right before each exposition."""
        now_ns, lending = time.monotonic_ns(), self.lending
        self._store.gauge(m.BUDGET_REDIS_UP).set(int(not lending.absence.is_on(now_ns) and lending.absence.was_heard))
        silence_s = lending.absence.lasts_s(now_ns) if lending.absence.was_heard else None
        self._store.gauge(m.BUDGET_REDIS_SILENCE).set(silence_s)
        self._store.gauge(m.BUDGET_REDIS_FROZEN).set(int(lending.is_frozen))
        self._store.gauge(m.BUDGET_REDIS_UNREPORTED).set(lending.unreported)

    def forget(self) -> None:
        """Take the gauges back: budgets are not shared any more."""
        for gauge in (m.BUDGET_REDIS_UP, m.BUDGET_REDIS_SILENCE, m.BUDGET_REDIS_FROZEN, m.BUDGET_REDIS_UNREPORTED):
            self._store.gauge(gauge).set(None)
