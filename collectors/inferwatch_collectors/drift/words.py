"""Drift in words: what moved, by how much, since when, whose. For the log, the report and HTTP. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from math import exp, floor, isfinite, log10
from typing import Final

import msgspec

from inferwatch_collectors.drift.effects import Effect
from inferwatch_collectors.drift.features import Direction, Kind
from inferwatch_collectors.drift.following import MIN_VALUES, Followed
from inferwatch_collectors.drift.learning import EDGE_VOTES
from inferwatch_collectors.drift.made import Made
from inferwatch_collectors.drift.makeup import Makeup
from inferwatch_collectors.drift.signals import PACE_VOTES
from inferwatch_collectors.drift.together import Told
from inferwatch_collectors.drift.together import lines as together_lines
from inferwatch_collectors.wall_time import HOUR_S, HOURS_OF_WEEK, utc

# Of each stream: what has less evidence than these did not move, or cannot be told from it.
TOP: Final = 8
# A tail is told in place of the median if it moved so many times as much: where all has moved, it is about as much;
# where a tenth of the traffic has moved by 1.5 standard deviations, more than three times.
MIDDLE_FIRST: Final = 2.5
# Behind the point: what is less is nothing that people would call a difference.
MAX_DIGITS: Final = 6

# By a reference of so many votes a feature is judged that one request in ten had (see `following.MIN_VALUES`). By a
# smaller one it may be off though many had it.
SCARCE_VOTES: Final = 10 * (MIN_VALUES + EDGE_VOTES + PACE_VOTES)


class Moved(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One feature, beside how it was."""

    feature: str
    direction: str
    words: str
    evidence_weeks: float
    psi: float
    wasserstein: float
    before: float | None = None  # a flag's share, or the median
    now: float | None = None
    any_before: float | None = None  # the share of requests that have any of what most had, or have, none
    any_now: float | None = None
    above: float | None = None  # a value that nearly all of the reference were not above
    above_before: float | None = None  # the share of requests that are
    above_now: float | None = None
    up_to: float | None = None  # a value that nearly all of the reference were above
    up_to_before: float | None = None  # the share of requests that are not
    up_to_now: float | None = None


class MadeOf(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is in a reference, or on the way to it."""

    requests: int  # that came while it was learnt
    votes: int  # those that were looked at
    sessions: int  # of the votes, those of a session or a user
    hours_of_week: int  # in which votes were seen, of 168
    prompts: dict[str, float] = {}  # share of each language or script, the most frequent first; with texts
    answers: dict[str, float] = {}


class Stream(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model for one tenant."""

    model: str
    tenant: str
    state: str  # `learning`, `judging`, `drifted`
    votes: int  # in the reference, or on the way to it
    evidence_weeks: float | None = None  # after division by the number of streams
    since: str = ""  # until when nothing was unusual, in UTC; "": no signal
    reference: str = ""  # what it is of, in words
    engine: str = ""  # what is learnt or judged is of this engine, as it says itself
    changed: str = ""  # it was another one before, in words, with the time
    made_of: MadeOf | None = None  # None: an older version did not count it
    kept: tuple[str, ...] = ()  # engines of before, of which something is kept, the latest first
    off: tuple[str, ...] = ()  # features that are not judged
    why_off: dict[str, tuple[str, ...]] = {}  # the same by the reason, in words
    moved: tuple[Moved, ...] = ()
    embeddings: str = ""  # what of them is judged, in words; "": none are made
    up: int | None = None  # requests that users voted up or down, since the counters began; None: nobody voted
    down: int | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of them."""

    weeks_per_false_alarm: float
    text: bool
    waits: bool = False  # the engine, which told its version before, does not: nothing is judged at present
    tenant: str = ""  # of this one alone; "": of all
    together: Told | None = None  # all without a signal of their own; None: fewer than two are judged
    streams: tuple[Stream, ...]


def told(effect: Effect) -> str:
    """Return what moved, as people say it: of a quantity its middle, unless a tail, or who has any, moved far more."""
    feature = effect.feature
    if feature.kind is Kind.FLAG:
        return f"{feature.words}: {effect.before:.2%} before, {effect.now:.2%} now"
    ways = (
        (effect.any, "any in", 1.0),
        (effect.middle, "", MIDDLE_FIRST),
        (effect.high, "above {edge} in", 1.0),
        (effect.low, "up to {edge} in", 1.0),
    )
    split, how, _ = max(ways, key=lambda way: -1.0 if way[0] is None else way[0].moved * way[2])
    if split is None or not how:
        return f"{feature.words}: {_medians(effect)}"
    edge = "nearly all of before" if feature.direction is Direction.PACE else figure(split.edge)
    where = how.format(edge=edge)
    return f"{feature.words}: {where} {split.before:.1%} of {_OF[feature.direction]} before, {split.now:.1%} now"


_OF: Final = {Direction.PROMPT: "prompts", Direction.ANSWER: "answers", Direction.PACE: "answers"}


def _medians(effect: Effect) -> str:
    before, now = effect.median_before, effect.median_now
    if before is not None and now is not None and effect.feature.direction is Direction.PACE:
        # It is a logarithm of times: what is known is how many times as long they are.
        return f"median {figure(exp(now - before))} times as long as before"
    side = "above" if effect.now > effect.before else "below"
    if before is None:
        return "more" if side == "above" else "less"
    return f"median {figure(before)} before, {f'{side} all of that' if now is None else figure(now)} now"


def figure(value: float) -> str:
    """Return a number with three digits that count, without an exponent."""
    if value == 0 or not isfinite(value):
        return "0"
    digits = min(MAX_DIGITS, 2 - floor(log10(abs(value))))
    rounded = round(value, digits) + 0.0  # not -0
    return f"{rounded:,.{digits}f}".rstrip("0").rstrip(".") if digits > 0 else f"{rounded:,.0f}"


def stream_of(
    followed: Followed, parts: int, thumbs: tuple[int, int] | None = None, kept: Sequence[Made] = ()
) -> Stream:
    """Return what there is to say of one. `thumbs`: what users said of it, up and down; `kept`: see `Stream`."""
    up, down = thumbs or (None, None)
    change = followed.changed
    changed = f"{change}, since {utc(change.wall_s)}" if change is not None else ""
    engine = str(followed.made) if followed.made is not None and followed.made.version else ""
    others = tuple(map(str, kept))
    made = _made_of(followed.makeup)
    if followed.watched is None or followed.about is None:
        return Stream(
            model=followed.model,
            tenant=followed.tenant,
            state="learning",
            votes=followed.votes,
            engine=engine,
            changed=changed,
            kept=others,
            made_of=made,
            up=up,
            down=down,
        )
    about = followed.about
    hours = (about.pinned_s - about.from_s) // HOUR_S
    of = f" of {about.engine_model}" if about.engine_model else ""
    moved = tuple(_moved(effect, parts) for effect in followed.effects()[:TOP])
    return Stream(
        model=followed.model,
        tenant=followed.tenant,
        state="drifted" if followed.signalling else "judging",
        votes=followed.votes,
        evidence_weeks=followed.weeks / parts,
        since=utc(followed.since_s) if followed.signalling else "",
        reference=f"number {about.number}, pinned {utc(about.pinned_s)} from {about.votes} votes in {hours} h{of}",
        engine=engine,
        changed=changed,
        kept=others,
        made_of=made,
        off=tuple(feature.name for feature in followed.off),
        why_off=_why_off(followed, about.votes),
        embeddings=_embeddings(followed),
        moved=moved,
        up=up,
        down=down,
    )


def _why_off(followed: Followed, votes: int) -> dict[str, tuple[str, ...]]:
    """Return the features that are not judged, by the reason. `votes`: in the reference."""
    scarce = "hardly any request had it" if votes >= SCARCE_VOTES else f"too few values of it in only {votes} votes"
    later = tuple(feature.name for feature in followed.unlearnt)
    others = tuple(feature.name for feature in followed.off if feature.name not in later)
    found = {scarce: others, "its own reference is still being learnt": later}
    return {why: names for why, names in found.items() if names}


def _embeddings(followed: Followed) -> str:
    meaning = followed.meaning
    if meaning is None:
        return ""
    if meaning.watched is None:
        return f"a reference is being learnt, {meaning.votes} so far"
    return f"judged by reference number {meaning.number}"


def _made_of(makeup: Makeup) -> MadeOf | None:
    if not makeup.requests:
        return None
    return MadeOf(
        requests=makeup.requests,
        votes=makeup.votes,
        sessions=makeup.sessions,
        hours_of_week=makeup.hours,
        prompts=makeup.shares(Direction.PROMPT),
        answers=makeup.shares(Direction.ANSWER),
    )


def _moved(effect: Effect, parts: int) -> Moved:
    flag = effect.feature.kind is Kind.FLAG
    some, high, low = effect.any, effect.high, effect.low
    return Moved(
        feature=effect.feature.name,
        direction=effect.feature.direction.value,
        words=told(effect),
        evidence_weeks=effect.weeks / parts,
        psi=effect.psi,
        wasserstein=effect.wasserstein,
        before=effect.before if flag else effect.median_before,
        now=effect.now if flag else effect.median_now,
        any_before=None if some is None else some.before,
        any_now=None if some is None else some.now,
        above=None if high is None else high.edge,
        above_before=None if high is None else high.before,
        above_now=None if high is None else high.now,
        up_to=None if low is None else low.edge,
        up_to_before=None if low is None else low.before,
        up_to_now=None if low is None else low.now,
    )


def as_text(report: Report) -> str:
    """Return it for a terminal."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield (
        f"Drift: at most one false signal in {report.weeks_per_false_alarm:g} weeks, over all models and tenants; "
        f"texts are {'looked at' if report.text else 'not looked at (drift.text)'}"
    )
    if report.waits:
        yield "OFF: the engine does not say what version it is, as it did before: nothing is judged at present."
    if not report.streams:
        yield f"Nothing is followed of {_shown(report.tenant)}." if report.tenant else "Nothing is followed yet."
    yield from together_lines(report.together)
    for stream in report.streams:
        yield ""
        yield from _of_stream(stream)


def _of_stream(stream: Stream) -> Iterator[str]:
    who = f"{_shown(stream.model)} for {_shown(stream.tenant)}"
    if stream.evidence_weeks is None:
        yield f"{who}: learning, {stream.votes} votes so far"
        yield from made_of(stream)
        yield from _engine(stream)
        yield from _thumbs(stream)
        return
    if stream.state == "drifted":
        yield f"{who}: DRIFTED, evidence {stream.evidence_weeks:.3g} weeks, unlike before since {stream.since}"
    else:
        yield f"{who}: as in the reference, evidence {stream.evidence_weeks:.3g} weeks"
    yield f"  reference {stream.reference}"
    yield from made_of(stream)
    yield from _engine(stream)
    if stream.embeddings:
        yield f"  embeddings of prompts: {stream.embeddings}"
    yield from (
        f"  {moved.words} (evidence {moved.evidence_weeks:.3g} weeks, PSI {moved.psi:.2g}, "
        f"Wasserstein {moved.wasserstein:.2g} sd)"
        for moved in _notable(stream)
    )
    yield from _thumbs(stream)


def made_of(stream: Stream) -> Iterator[str]:
    """Yield what a reference is made of, for who must decide whether it is any good."""
    if (made := stream.made_of) is not None:
        yield (
            f"  made of {made.votes} votes, {made.sessions} of sessions or users, from {made.requests} requests in "
            f"{made.hours_of_week} of the week's {HOURS_OF_WEEK} hours"
        )
        for what, shares in (("prompts", made.prompts), ("answers", made.answers)):
            if shares:
                yield f"  {what}: {', '.join(f'{share:.0%} {kind}' for kind, share in shares.items())}"
    yield from (f"  not judged, {why}: {', '.join(names)}" for why, names in stream.why_off.items())


def _engine(stream: Stream) -> Iterator[str]:
    if stream.changed:
        yield f"  {stream.changed}"
    elif stream.engine:
        yield f"  engine {stream.engine}"
    yield from (f"  kept: what was learnt of the engine of {made}" for made in stream.kept)


def _thumbs(stream: Stream) -> Iterator[str]:
    if stream.up is not None and stream.down is not None:
        yield f"  users' own votes: {stream.up} up, {stream.down} down"


def _notable(stream: Stream) -> Iterable[Moved]:
    """Return what is worth a line: all that carries the signal, or the first three."""
    return stream.moved if stream.state == "drifted" else stream.moved[:3]


def _shown(name: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in name) or "(none)"
