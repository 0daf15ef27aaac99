"""Of what a reference is, as the engine says it of itself: a reference is good for that alone. Pure."""

import msgspec

from inferwatch_collectors.drift.written import UnixTime
from inferwatch_collectors.engine.said import Said


class Made(msgspec.Struct, array_like=True, frozen=True):
    """What answered. A field is "" or 0 where the engine does not tell it."""

    version: str = ""
    root: str = ""  # where the weights are from
    max_tokens: int = 0  # the longest context that it was started for

    @classmethod
    def of(cls, said: Said, model: str) -> "Made":
        """Return what an engine said of one of its models."""
        served = said.of(model)
        return cls(said.version, served.root, served.max_tokens)

    def is_another(self, now: "Made") -> bool:
        """Tell whether `now` is something else. A page of models that is not shown at the moment is no other model; an
        engine that does not tell its version any more is another one."""
        return self.version != now.version or _differ(self.root, now.root) or _differ(self.max_tokens, now.max_tokens)

    def with_(self, now: "Made") -> "Made":
        """Return what is known with `now`, which is not another one."""
        return Made(now.version, now.root or self.root, now.max_tokens or self.max_tokens)

    def __str__(self) -> str:
        weights = f", weights {self.root}" if self.root else ""
        tokens = f", context of {self.max_tokens} tokens" if self.max_tokens else ""
        return f"version {self.version or 'not told'}{weights}{tokens}"


def _differ(before: str | int, now: str | int) -> bool:
    return bool(before and now) and before != now


class Change(msgspec.Struct, array_like=True, frozen=True):
    """The engine became another one."""

    before: Made
    now: Made
    wall_s: UnixTime  # when it said so
    used_again: bool  # there was a reference of `now`; else one is being learnt

    def __str__(self) -> str:
        then = "the reference of then is used again" if self.used_again else "learning anew"
        return f"engine changed from {self.before} to {self.now}; {then}"
