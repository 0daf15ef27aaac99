"""The page's tables of drift and of answers of no use."""

from typing import Any

from inferwatch_collectors import metrics as m
from inferwatch_collectors.live import signs


def test_nothing_is_followed(traffic: Any) -> None:
    """Then there is no row, and nobody drifted."""
    assert signs.drift(traffic.store) == {"drifted": 0, "judged": 0, "learning": 0, "rows": [], "count": 0}
    assert signs.quality(traffic.store) == {"signs": 0, "rows": [], "count": 0}


def test_drift(traffic: Any) -> None:
    """Who drifted first, then by evidence; what is not judged has none."""
    for tenant, judging, detected, weeks in (("new", 0, None, None), ("same", 1, 0, 0.5), ("other", 1, 1, 40.0)):
        traffic.gauge(m.DRIFT_JUDGING, judging, "qwen", tenant)
        traffic.gauge(m.DRIFT_REFERENCE_VOTES, 700, "qwen", tenant)
        traffic.gauge(m.DRIFT_DETECTED, detected, "qwen", tenant)
        traffic.gauge(m.DRIFT_EVIDENCE, weeks, "qwen", tenant, "answer")
    told = signs.drift(traffic.store)
    assert [(row["tenant"], row["state"], row["answer"]) for row in told["rows"]] == [
        ("other", "drifted", 40.0),
        ("same", "judged", 0.5),
        ("new", "learning", None),
    ]
    assert (told["drifted"], told["judged"], told["learning"], told["count"]) == (1, 1, 1, 3)
    assert told["rows"][0] | {"prompt": None, "pace": None, "votes": 700} == told["rows"][0]


def test_quality(traffic: Any) -> None:
    """By how many, with their part of that tenant's requests."""
    for _ in range(8):
        traffic.request()
    traffic.store.counter(m.QUALITY_SIGNS, ("qwen", "acme", "empty")).add(2)
    traffic.store.counter(m.QUALITY_SIGNS, ("qwen", "acme", "stalled")).add(4)
    traffic.store.counter(m.QUALITY_SIGNS, ("qwen", "acme", "loop"))
    traffic.store.counter(m.QUALITY_SIGNS, ("qwen", "gone", "loop")).add(1)
    told = signs.quality(traffic.store)
    assert [(row["sign"], row["count"], row["share"]) for row in told["rows"]] == [
        ("stalled", 4, 0.5),
        ("empty", 2, 0.25),
        ("loop", 1, None),
    ]
    assert (told["signs"], told["count"]) == (7, 3)


def test_rows_are_bounded(traffic: Any) -> None:
    """What is left out is counted."""
    for number in range(signs.MAX_ROWS + 5):
        traffic.gauge(m.DRIFT_JUDGING, 1, "qwen", f"t{number}")
        traffic.store.counter(m.QUALITY_SIGNS, ("qwen", f"t{number}", "loop")).add()
    for told in (signs.drift(traffic.store), signs.quality(traffic.store)):
        assert (len(told["rows"]), told["count"]) == (signs.MAX_ROWS, signs.MAX_ROWS + 5)
