"""What hosts and Redis say to each other about shared budgets: one call, `bank.lua`, and its arguments.

Sans I/O: makes keys and arguments, reads answers. Names of accounts in Redis are digests; hosts are random numbers.
"""

from importlib.resources import files
from typing import Final

import msgspec

from inferwatch.budget_rules import Digest

SCRIPT: Final = files("inferwatch_collectors.budgets").joinpath("bank.lua").read_text()

# Accounts in one exchange: some milliseconds of Redis, in which it does nothing else.
MAX_ACCOUNTS: Final = 256

# Status of an answer.
OK: Final = 0
FENCED: Final = 1  # Redis does not know us (any more), or somebody else came with our name since: say hello again
STALE: Final = 2  # it has heard something later from us

HELLO: Final = 0  # the incarnation of who has none yet


class AccountKey(msgspec.Struct, frozen=True):
    """An account in one period, by all that must be the same for amounts to be added up."""

    digest: Digest
    measured: str  # a unit, or for dollars the basis
    start_s: int  # Unix seconds; 0: rolling
    end_s: int

    def __str__(self) -> str:
        return f"{self.digest[0]:016x}{self.digest[1]:016x}:{self.measured}:{self.start_s}:{self.end_s}"


class Ask(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """What a host says of an account. Amounts in smallest steps."""

    limit: int  # 0: it knows nothing of the budget, and gives up its initial share
    spent: int
    claim: int  # what it will have come to when all that runs has ended
    have: int  # the ceiling that it goes by
    want: int  # the ceiling that it wants; if less than `have`, it goes by that already
    end_s: int  # 0: rolling
    kept_ms: int  # rolling: how long spending counts that nobody confirms
    known: dict[str, int]  # what other hosts had spent, for a Redis that has forgotten it


class Request(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """What a host says."""

    host: str
    incarnation: int  # from the last hello; HELLO for this to be one
    seq: int  # grows by the message
    lease_ms: int
    share: int  # wanted initial share, millionths
    had_share: int  # the one that it goes by; 0: it has never been here
    heard: int  # `clock` of the last answer
    asks: tuple[Ask, ...] = ()


class Grant(msgspec.Struct, array_like=True, frozen=True):
    """What it gets of one account."""

    ceiling: int
    free: int  # neither spent nor lent
    others: list[str | int]  # host, what it has spent, host, …

    def by_host(self) -> dict[str, int]:
        """Return what the others have spent."""
        pairs = zip(self.others[::2], self.others[1::2], strict=True)
        return {str(host): int(spent) for host, spent in pairs}


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """What Redis says."""

    status: int
    incarnation: int
    clock: int
    share: int  # the initial share, millionths
    is_frozen: int  # 1: nothing is lent, since this Redis was started lately
    full: list[str]  # at a hello: accounts of which the host has no initial share
    short: list[str]  # accounts of which some host got too little since `heard`
    grants: list[Grant]  # one for each `asks`, in their order


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Answer).decode


def keys(namespace: str, accounts: tuple[str, ...]) -> list[str]:
    """Return the keys of an exchange; the braces keep them together."""
    return [
        *(f"{{{namespace}}}:{name}" for name in ("hosts", "meta", "full", "short", "ends")),
        *(account_key(namespace, account) for account in accounts),
    ]


def account_key(namespace: str, account: str) -> str:
    """Return the key of an account."""
    return f"{{{namespace}}}:account:{account}"


def account_of(key: str) -> tuple[Digest, int] | None:
    """Return an account's digest and the end of its period (0: rolling) from its key; None: it is no such key."""
    try:
        digest, _, _, end_s = key.rpartition("account:")[2].split(":")
        return (int(digest[:16], 16), int(digest[16:32], 16)), int(end_s)
    except ValueError:
        return None


def encode(request: Request) -> bytes:
    """Return the argument of the script."""
    return _encode(request)


def decode(data: bytes) -> Answer:
    """Return what the script said.

    Raises:
        msgspec.DecodeError: it is none of ours.
    """
    return _decode(data)
