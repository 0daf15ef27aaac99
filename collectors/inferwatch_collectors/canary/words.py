"""The canary in words: is the model the same, since when not, by how much, what else changed. Pure."""

from collections.abc import Iterator, Mapping

import msgspec

from inferwatch_collectors.canary.probed import Probed
from inferwatch_collectors.wall_time import HOUR_S, utc


class Model(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model."""

    model: str
    state: str  # `learning`, `judging`, `changed`
    replies: int  # in the reference, or on the way to it
    evidence_weeks: float | None = None
    since: str = ""  # until when nothing was unusual, in UTC
    distance_nats: float | None = None  # how far the last replies are from the reference
    usual_nats: float | None = None  # how far they are when nothing has changed
    far_share: float | None = None  # of the last replies
    others_share: float | None = None
    reference: str = ""
    changed: dict[str, tuple[str, str]] = {}  # what says of itself that it is another: before, now


class Canary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of them."""

    weeks_per_false_alarm: float
    off: str = ""  # why nothing comes of probes at present
    models: tuple[Model, ...] = ()


def model_of(probed: Probed, parts: int, around: Mapping[str, str]) -> Model:
    """Return what there is to say of one. `around`: what engine, model and driver say of themselves."""
    distance, usual = probed.distance, probed.usual
    if probed.about is None:
        return Model(
            model=probed.model, state="learning", replies=probed.replies, distance_nats=distance, usual_nats=usual
        )
    about = probed.about
    hours = (about.pinned_s - about.from_s) // HOUR_S
    shares = {} if probed.watched is None else {each.feature.name: each.now for each in probed.watched.effects()}
    of = "".join(f", {what} {name}" for what, name in about.around.items())
    return Model(
        model=probed.model,
        state="changed" if probed.signalling else "judging",
        replies=about.replies,
        evidence_weeks=probed.weeks / parts,
        since=utc(probed.since_s) if probed.signalling else "",
        distance_nats=distance,
        usual_nats=usual,
        far_share=shares.get("canary_far"),
        others_share=shares.get("canary_others"),
        reference=f"number {about.number}, pinned {utc(about.pinned_s)} from {about.replies} replies in {hours} h{of}",
        changed={
            what: (before, now) for what, before in about.around.items() if (now := around.get(what, before)) != before
        },
    )


def told(model: Model) -> str:
    """Return by how much it changed, and what else did, as people say it."""
    return "; ".join(_facts(model))


def _facts(model: Model) -> Iterator[str]:
    if model.distance_nats is not None and model.usual_nats is not None:
        yield (
            f"log-probabilities of the next token are {model.distance_nats:.3g} nats from the reference, "
            f"usual is {model.usual_nats:.3g}"
        )
    if model.others_share:
        yield f"most of the likeliest tokens are others in {model.others_share:.0%} of the last replies"
    for what, (before, now) in model.changed.items():
        yield f"{what} was {before}, is {now}"


def lines(canary: Canary) -> Iterator[str]:
    """Yield it for a terminal."""
    yield (
        f"Canary: is the model the same? At most one false signal in {canary.weeks_per_false_alarm:g} weeks, over all "
        "models"
    )
    if canary.off:
        yield f"  OFF: nothing comes of probes at present: {canary.off}"
    for model in canary.models:
        name = "".join(char if char.isprintable() else "?" for char in model.model)
        if model.state == "learning":
            yield f"{name}: learning, {model.replies} replies so far"
            continue
        if model.state == "changed":
            yield f"{name}: CHANGED, evidence {model.evidence_weeks:.3g} weeks, unlike before since {model.since}"
        else:
            yield f"{name}: as in the reference, evidence {model.evidence_weeks:.3g} weeks"
        yield f"  reference {model.reference}"
        yield from (f"  {fact}" for fact in _facts(model))
