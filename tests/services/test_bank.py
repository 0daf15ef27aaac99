"""bank.lua on a real Redis: it decides as its twin does, on anything that hosts may say, in any order."""

import random
import time

import msgspec
import pytest
from bank_twin import Twin

from inferwatch_collectors.budgets import bank
from inferwatch_collectors.budgets.bank import FENCED, HELLO, OK, STALE, Answer, Ask, Request

from .redis_server import RedisServer

NAMESPACE = "twins"
ACCOUNTS = tuple(f"{number:032x}:tokens:0:{ends}" for number, ends in enumerate((0, 0, 4_000_000_000, 4_000_000_000)))
HOSTS = ("a", "b", "c")
LEASE_MS = 120
MOST = 10**15  # nano-dollars, or tokens: whole numbers must stay whole


class Both:
    """The real one and its twin, told the same."""

    def __init__(self, server: RedisServer) -> None:
        self._client = server.client()
        self._script = self._client.script_load(bank.SCRIPT)
        self.twin = Twin()
        self.run = "first"

    def forget(self) -> None:
        self._client.flushdb()
        self.twin.forget()

    def say(self, request: Request, accounts: tuple[str, ...]) -> Answer:
        keys = bank.keys(NAMESPACE, accounts)
        real = bank.decode(self._client.evalsha(self._script, len(keys), *keys, bank.encode(request), self.run))
        # The twin has no clock: it takes the real one's, where that wrote down when it was.
        if real.status == OK:
            self.twin.now_ms = int(self._client.hget(f"{{{NAMESPACE}}}:meta", "now"))
        else:
            seconds, micros = self._client.time()
            self.twin.now_ms = seconds * 1000 + micros // 1000
        ours = self.twin.exchange(request, accounts, self.run)
        assert plain(real) == plain(ours), request
        return real


def plain(answer: Answer) -> object:
    """Without the order of others, which is that of a hash, nor of names of one score."""
    tree = msgspec.to_builtins(answer)
    tree[5], tree[6] = sorted(map(short, answer.full)), sorted(map(short, answer.short))
    tree[7] = [(grant.ceiling, grant.free, grant.by_host()) for grant in answer.grants]
    return tree


def short(key: str) -> str:
    return key.rpartition("account:")[2]


@pytest.mark.parametrize("seed", range(8))
def test_it_decides_as_its_twin_does(redis_server: RedisServer, seed: int) -> None:
    """Hellos, reports, claims, returns, repetitions, restarts and pauses at random."""
    chance = random.Random(seed)
    both = Both(redis_server)
    known = dict.fromkeys(HOSTS, (HELLO, 0, 0))  # incarnation, seq, clock
    seen: set[int] = set()
    lent = frozen = named = 0
    for turn in range(250):
        host = chance.choice(HOSTS)
        incarnation, seq, heard = known[host]
        if chance.random() < 0.05:
            incarnation = HELLO
        asks, accounts = [], tuple(chance.sample(ACCOUNTS, chance.randrange(4)))
        if incarnation == HELLO:
            seq, accounts = 0, ()
        elif chance.random() < 0.03:
            incarnation += 1  # nobody's
        elif chance.random() > 0.05:  # else it is said again
            seq += 1
        for account in accounts:
            limit = chance.choice([0, 1000, MOST])
            spent = chance.randrange(limit // 3 + 1)
            claim = spent + chance.randrange(limit // 10 + 1)
            ends = int(account.rpartition(":")[2])
            asks.append(
                Ask(
                    limit=limit,
                    spent=spent,
                    claim=claim,
                    have=chance.randrange(limit + 1),
                    want=max(claim, chance.randrange(limit + 1)),
                    end_s=ends,
                    kept_ms=0 if ends else chance.choice([20, 100_000]),
                    known={"gone": 7} if chance.random() < 0.1 else {},
                )
            )
        request = Request(
            host=host,
            incarnation=incarnation,
            seq=seq,
            lease_ms=LEASE_MS,
            share=chance.choice([0, 20_000, 300_000]),
            had_share=chance.choice([0, 20_000]),
            heard=heard,
            asks=tuple(asks),
        )
        answer = both.say(request, accounts)
        seen.add(answer.status)
        if answer.status == OK:
            known[host] = (answer.incarnation, seq, answer.clock)
            frozen += answer.is_frozen
            named += len(answer.full) + len(answer.short)
            lent += sum(grant.ceiling > ask.claim for grant, ask in zip(answer.grants, asks, strict=True))
        elif answer.status == FENCED:
            known[host] = (HELLO, 0, 0)
        if chance.random() < 0.01:
            both.run = f"restarted {turn}"
        if chance.random() < 0.003:
            both.forget()
        if chance.random() < 0.3:
            time.sleep(chance.random() * 0.06)
    assert seen == {OK, FENCED, STALE}
    assert min(lent, frozen, named) > 0


def test_amounts_are_exact(redis_server: RedisServer) -> None:
    """To the last nano-dollar of the largest budget that can be shared."""
    both = Both(redis_server)
    limit = 9_000_000 * 10**9
    first = both.say(Request(host="a", incarnation=0, seq=0, lease_ms=4, share=0, had_share=0, heard=0), ())
    time.sleep(0.01)
    for seq in range(1, 9):  # until it lends: its clock goes on by a millisecond with each
        time.sleep(0.002)
        ask = Ask(limit=limit, spent=limit - 3, claim=limit - 2, have=0, want=limit - 1, end_s=0, kept_ms=9, known={})
        request = Request(
            host="a",
            incarnation=first.incarnation,
            seq=seq,
            lease_ms=4,
            share=0,
            had_share=0,
            heard=0,
            asks=(ask,),
        )
        answer = both.say(request, ACCOUNTS[:1])
        if answer.status == FENCED:
            first = both.say(Request(host="a", incarnation=0, seq=0, lease_ms=4, share=0, had_share=0, heard=0), ())
    assert answer.grants[0].ceiling == limit - 1
    assert redis_server.spent(NAMESPACE) == limit - 3


def test_nothing_stays_for_ever(redis_server: RedisServer) -> None:
    """Accounts end by themselves, and the lists of them with them."""
    both = Both(redis_server)
    past = f"{7:032x}:tokens:0:1000"
    hello = both.say(Request(host="a", incarnation=0, seq=0, lease_ms=LEASE_MS, share=0, had_share=0, heard=0), ())
    ask = Ask(limit=10, spent=9, claim=9, have=9, want=9, end_s=1000, kept_ms=0, known={})
    one = Request(
        host="a",
        incarnation=hello.incarnation,
        seq=1,
        lease_ms=LEASE_MS,
        share=0,
        had_share=0,
        heard=0,
        asks=(ask,),
    )
    both.say(one, (past,))
    client = redis_server.client()
    assert not client.exists(bank.account_key(NAMESPACE, past))
    assert client.zcard(f"{{{NAMESPACE}}}:full") == client.zcard(f"{{{NAMESPACE}}}:ends") == 0
    both.twin.state["full"].clear()
    kept = msgspec.structs.replace(one, seq=2, asks=(msgspec.structs.replace(ask, end_s=4_000_000_000),))
    both.say(kept, ACCOUNTS[2:3])
    assert client.ttl(bank.account_key(NAMESPACE, ACCOUNTS[2])) > 0
