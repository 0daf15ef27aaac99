"""All streams that have no signal of their own, taken together: what moved a little in each of a hundred tenants.

The evidence of a stream, divided by the number of streams, is its part of the mean of all; so the sum of these parts
is evidence as good as any, and one bar on it keeps the rate of the whole product: whatever reaches the bar alone has
reached it together with the others. Those that have a signal of their own are left out, which makes the sum less:
one that stays unlike before must not hide the others.

Pure.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from inferwatch_collectors.drift.following import Followed
from inferwatch_collectors.wall_time import utc

# It is over when there is less than this part of the bar: of 20 weeks one, which is what chance makes of a mean.
END_SHARE: Final = 0.05

TOP_STREAMS: Final = 5
TOP_FEATURES: Final = 5


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One of them."""

    model: str
    tenant: str
    evidence_weeks: float  # after division by the number of streams


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """A feature, in all of them."""

    feature: str
    direction: str
    words: str
    evidence_weeks: float


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What there is to say of all together."""

    state: str  # `judging`, `drifted`
    streams: int  # that are judged and have no signal of their own
    evidence_weeks: float  # the sum of theirs, after division by the number of streams
    since: str = ""  # until when nothing was unusual where there is most of it, in UTC; "": no signal
    most: tuple[Part, ...] = ()  # those with the most evidence
    moved: tuple[Shared, ...] = ()  # what has the most evidence over all of them


class Together:
    """Whether they have moved."""

    def __init__(self) -> None:
        self.signalling = False  # as in an earlier life, if there was one: it is told once

    def judge(self, streams: Iterable[Followed], parts: int, bar_weeks: float) -> bool:
        """Look at what they were last judged to have; True when a signal begins. `bar_weeks`: of all together."""
        weeks = sum(each.judged_weeks for each in _alone(streams)) / max(1, parts)
        if weeks < END_SHARE * bar_weeks:
            self.signalling = False
        if weeks >= bar_weeks and not self.signalling:
            self.signalling = True
            return True
        return False

    def told(self, streams: Iterable[Followed], parts: int) -> Told | None:
        """Return what there is to say; None of fewer than two."""
        found = sorted(_alone(streams), key=lambda each: each.weeks, reverse=True)
        if len(found) < 2:
            return None
        return Told(
            state="drifted" if self.signalling else "judging",
            streams=len(found),
            evidence_weeks=sum(each.weeks for each in found) / parts,
            since=utc(found[0].since_s) if self.signalling else "",
            most=tuple(
                Part(model=each.model, tenant=each.tenant, evidence_weeks=each.weeks / parts)
                for each in found[:TOP_STREAMS]
            ),
            moved=tuple(_moved(found, parts)),
        )


def _alone(streams: Iterable[Followed]) -> list[Followed]:
    return [each for each in streams if each.watched is not None and not each.signalling]


def _moved(streams: Sequence[Followed], parts: int) -> Iterator[Shared]:
    whole: dict[str, float] = {}
    of = {}
    for each in streams:
        for feature, weeks in each.weeks_by_feature():
            whole[feature.name] = whole.get(feature.name, 0.0) + weeks / parts
            of[feature.name] = feature
    for name in sorted(whole, key=lambda name: whole[name], reverse=True)[:TOP_FEATURES]:
        yield Shared(feature=name, direction=of[name].direction.value, words=of[name].words, evidence_weeks=whole[name])


def most_of(told: Told) -> str:
    """Return whose evidence it is, for a line."""
    return ", ".join(f"{_shown(each.model)} for {_shown(each.tenant)} {each.evidence_weeks:.3g}" for each in told.most)


def lines(told: Told | None) -> Iterator[str]:
    """Yield it for a terminal."""
    if told is None:
        return
    who = f"All {told.streams} that have not drifted alone, together"
    if told.state != "drifted":
        yield f"{who}: as in their references, evidence {told.evidence_weeks:.3g} weeks"
        return
    yield f"{who}: DRIFTED, evidence {told.evidence_weeks:.3g} weeks, unlike before since {told.since}"
    yield f"  most of it: {most_of(told)}"
    yield from (f"  {moved.words} (evidence {moved.evidence_weeks:.3g} weeks)" for moved in told.moved)


def _shown(name: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in name) or "(none)"
