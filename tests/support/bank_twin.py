"""What `bank.lua` does, in Python: the same decisions on the same state, for tests without a Redis.

`tests/services/test_bank.py` holds the two against each other on a real one.
"""

import copy
import math
from typing import Any

from inferwatch_collectors.budgets.bank import FENCED, HELLO, OK, STALE, Answer, Grant, Request

MILLION = 1_000_000
DAY_MS = 86_400_000
SETTLE_MS = 3000
MAX_SHARES = 500_000
SHORT_MS = 60_000
SHORT_AGAIN_MS = 2000


class Twin:
    """The state of one namespace, and the server that holds it."""

    def __init__(self) -> None:
        self.run = "run0"
        self._runs = 0
        self.now_ms = 1_700_000_000_000
        self.state: dict[str, Any] = {}
        self.forget()

    def forget(self) -> None:
        """Lose everything."""
        self.state = {"hosts": {}, "meta": {}, "full": {}, "short": {}, "accounts": {}}

    def snapshot(self) -> dict[str, Any]:
        return copy.deepcopy(self.state)

    def restart(self) -> None:
        """Another server process has the data."""
        self._runs += 1
        self.run = f"run{self._runs}"

    def exchange(self, request: Request, accounts: tuple[str, ...], run: str) -> Answer:
        """Run the script."""
        state, now = self.state, self.now_ms
        meta, hosts = state["meta"], state["hosts"]
        me, lease_ms = request.host, request.lease_ms
        clock = meta.get("clock", 0) + int(min(max(now - meta.get("now", now), 0), lease_ms / 4))
        since, frozen, drift = meta.get("since", 0), meta.get("frozen", 0), meta.get("drift", 0)

        living: dict[str, list[int]] = {}
        shares = 0
        for host, each in list(hosts.items()):
            if host == me:
                living[me] = each
            elif each[2] + each[3] > clock:
                living[host] = each
                shares += each[4]
            elif each[2] + DAY_MS < clock:
                del hosts[host]
        alone = not set(living) - {me}
        if meta.get("run") != run:
            since = clock
            frozen = clock + (lease_ms if "run" in meta else min(lease_ms, SETTLE_MS))
        mine = hosts.get(me)
        lived = mine is not None and mine[2] + mine[3] > clock
        joins = request.incarnation == HELLO
        if joins and request.had_share > 0 and clock < frozen:
            frozen = max(frozen, since + lease_ms)
        is_frozen = clock < frozen
        incarnation = request.incarnation
        if joins:
            incarnation = (mine[0] if mine else 0) + 1
        elif mine is None or mine[0] != incarnation:
            return _refused(FENCED)
        elif request.seq <= mine[1]:
            return _refused(STALE)
        elif not lived:
            return _refused(FENCED)
        had = (request.had_share if joins else mine[4]) if is_frozen else 0  # type: ignore[index]
        granted = min(request.share, max(MAX_SHARES - shares, had, 0))
        full: list[str] = []
        if joins:
            added = granted - (mine[4] if lived and mine else 0)
            if added > 0:
                drift += added
                full = [key for key, score in sorted(state["full"].items(), key=_by_score) if score < drift]
        joined = clock if joins else mine[5]  # type: ignore[index]
        hosts[me] = [incarnation, request.seq, clock, lease_ms, granted, joined]
        grants = [
            self._grant(ask, account, me, incarnation, living, clock, drift, alone=alone, is_frozen=is_frozen)
            for ask, account in zip(request.asks, accounts, strict=True)
        ]
        short: list[str] = []
        if not joins:
            short = [key for key, at in sorted(state["short"].items(), key=_by_score) if at >= request.heard]
        state["short"] = {key: at for key, at in state["short"].items() if at > clock - SHORT_MS}
        meta |= {"run": run, "now": now, "clock": clock, "since": since, "frozen": frozen, "drift": drift}
        return Answer(OK, incarnation, clock, granted, int(is_frozen), full, short, grants)

    def _grant(
        self,
        ask: Any,
        account: str,
        me: str,
        incarnation: int,
        living: dict[str, list[int]],
        clock: int,
        drift: int,
        *,
        alone: bool,
        is_frozen: bool,
    ) -> Grant:
        state, now = self.state, self.now_ms
        entries = state["accounts"].setdefault(account, {})
        for other, amount in ask.known.items():
            if other not in entries and other != me:
                entries[other] = [0, amount, amount, now]
        others: list[str | int] = []
        taken = 0
        for other, entry in list(entries.items()):
            if other == me:
                continue
            host = living.get(other)
            if host is None and ask.kept_ms > 0 and entry[3] + ask.kept_ms < now:
                del entries[other]
                continue
            others += [other, entry[1]]
            if host is not None and (host[0] == entry[0] or host[5] + host[3] > clock):
                taken += max(entry[1], entry[2])
            elif host is not None:
                taken += max(entry[1], math.ceil(ask.limit / MILLION * host[4]))
            else:
                taken += entry[1]
        for other, host in living.items():
            if other != me and other not in entries:
                taken += math.ceil(ask.limit / MILLION * host[4])
        rest = ask.limit - taken
        if is_frozen:
            ceiling = max(ask.claim, min(ask.want, ask.have))
        else:
            least = max(ask.claim, min(ask.have, rest))
            more = min(ask.want, rest) - least
            if more > 0:
                free = rest - least
                if not alone:
                    free = min(free, max(-(-free // 2), ask.limit // 1000))
                ceiling = least + min(more, free)
            else:
                ceiling = max(ask.claim, min(ask.want, rest))
        free = max(rest - ceiling, 0)
        entries[me] = [incarnation, ask.spent, ceiling, now]
        if ask.limit > 0:
            part = math.floor(free / ask.limit * MILLION)
            if part < MAX_SHARES:
                state["full"][account] = part + drift
            else:
                state["full"].pop(account, None)
            if ceiling < ask.want and free * 20 < ask.limit and not is_frozen:
                last = state["short"].get(account)
                if last is None or last + SHORT_AGAIN_MS < clock:
                    state["short"][account] = clock
        return Grant(ceiling, free, others)


def _by_score(item: tuple[str, int]) -> tuple[int, str]:
    return item[1], item[0]


def _refused(status: int) -> Answer:
    return Answer(status, 0, 0, 0, 0, [], [], [])
