"""Quality without labels: signs that an answer was of no use, counted."""

from typing import Final

from inferwatch_collectors.metrics.base import Group, Kind, Metric

QUALITY_SIGNS: Final = Metric(
    name="inferwatch_quality_signs_total",
    kind=Kind.COUNTER,
    group=Group.DRIFT,
    labels=("model", "tenant", "sign"),
    help="Requests that show a sign that the answer was of no use.",
    measured="By sign, so one request may count under several. truncated, repetition: so the engine finished. empty: "
    "no token, or no more than its end. unheard, abandoned: the client hung up before the first token, or after it. "
    "stalled: a pause of quality.stall_s. With quality.listen also loop_suspected (it repeats itself while it "
    "streams), loop (it ended so, or was ended), loop_cut (quality.cut_loops ended it), refusal (it begins as they "
    "do), and retry, regeneration: the same prompt again within a minute, before it was answered or after; other "
    "sampling parameters do not make it another.",
)
QUALITY_HEARD: Final = Metric(
    name="inferwatch_quality_heard_total",
    kind=Kind.COUNTER,
    group=Group.DRIFT,
    labels=("model", "tenant"),
    help="Requests whose texts were looked at.",
    measured="What loop, refusal, retry and regeneration are parts of. Other signs are parts of requests_total.",
)
