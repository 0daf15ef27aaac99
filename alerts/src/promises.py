"""alerts/slo.yml: what users were promised, read and checked."""

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from inferwatch_collectors import metrics as m

FILE: Final = Path(__file__).resolve().parents[1] / "slo.yml"

Name = Literal["availability", "ttft", "itl"]

# Whose buckets a threshold must be one of.
TIMED: Final = {"ttft": m.TIME_TO_FIRST_TOKEN, "itl": m.INTER_TOKEN_LATENCY}


class Promise(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One objective. What a model's own leaves out is None, and the general one counts."""

    objective: Annotated[float, Meta(gt=0, lt=1)] | None = None
    threshold_s: Annotated[float, Meta(gt=0)] | None = None
    min_bad_events: Annotated[int, Meta(ge=0)] | None = None


class Links(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Addresses that stand in alerts."""

    runbooks: str
    grafana: str


class Promises(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    links: Links
    slos: dict[Name, Promise]
    models: dict[str, dict[Name, Promise]] = {}

    def __post_init__(self) -> None:
        for name in ("availability", "ttft", "itl"):
            promise = self.slos.get(name)
            if promise is None or promise.objective is None or promise.min_bad_events is None:
                raise ValueError(f"slos.{name}: objective and min_bad_events are needed")
            if (promise.threshold_s is None) != (name not in TIMED):
                raise ValueError(f"slos.{name}.threshold_s: ttft and itl need one, availability has none")
        for where, by_name in [("slos", self.slos), *((f"models.{key}", each) for key, each in self.models.items())]:
            for name, promise in by_name.items():
                _check_threshold(f"{where}.{name}.threshold_s", name, promise.threshold_s)

    def of(self, name: Name, model: str | None) -> Promise:
        """Return the promise for a model; for None that of all models without their own."""
        general = self.slos[name]
        own = self.models.get(model, {}).get(name, Promise()) if model is not None else Promise()
        merged = {
            field: getattr(general, field) if getattr(own, field) is None else getattr(own, field)
            for field in Promise.__struct_fields__
        }
        return Promise(**merged)


def _check_threshold(where: str, name: str, threshold_s: float | None) -> None:
    if threshold_s is None:
        return
    buckets = TIMED[name].buckets if name in TIMED else None
    if buckets is None or threshold_s not in buckets.bounds:
        bounds = ", ".join(map(str, buckets.bounds)) if buckets else "none"
        raise ValueError(f"{where}: {threshold_s} is no bucket bound, expected one of {bounds}")


def read(text: str) -> Promises:
    """Read the file.

    Raises:
        ValueError: something is missing, unknown or out of range; the message names the key.
    """
    return msgspec.yaml.decode(text, type=Promises)


PROMISES: Final = read(FILE.read_text("utf-8"))
