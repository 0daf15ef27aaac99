"""The page's tables of drift and of answers that were of no use, from the store."""

from typing import Any, Final

from inferwatch_collectors import metrics as m
from inferwatch_collectors.live.totals import values
from inferwatch_collectors.metric_store import MetricStore

MAX_ROWS: Final = 20

DIRECTIONS: Final = ("prompt", "answer", "pace")


def drift(store: MetricStore) -> dict[str, Any]:
    """Return whom drift is followed for: how many, how many drifted, and the rows with most evidence."""
    votes = dict(values(store, m.DRIFT_REFERENCE_VOTES))
    detected = dict(values(store, m.DRIFT_DETECTED))
    evidence = dict(values(store, m.DRIFT_EVIDENCE))
    rows: list[dict[str, Any]] = []
    for key, judging in values(store, m.DRIFT_JUDGING):
        each = {direction: evidence.get((*key, direction)) for direction in DIRECTIONS}
        drifted = bool(detected.get(key))
        rows.append(
            {
                "model": key[0],
                "tenant": key[1],
                "state": "drifted" if drifted else "judged" if judging else "learning",
                "votes": votes.get(key),
                **each,
            }
        )
    rows.sort(key=lambda row: (row["state"] != "drifted", -max(row[name] or 0.0 for name in DIRECTIONS), row["model"]))
    count = {state: sum(row["state"] == state for row in rows) for state in ("drifted", "judged", "learning")}
    return {**count, "rows": rows[:MAX_ROWS], "count": len(rows)}


def quality(store: MetricStore) -> dict[str, Any]:
    """Return the signs that answers were of no use: their sum, and the rows with most of them."""
    asked: dict[tuple[str, ...], float] = {}
    for labels, value in values(store, m.REQUESTS):
        asked[labels[:2]] = asked.get(labels[:2], 0.0) + value
    rows: list[dict[str, Any]] = []
    for (model, tenant, sign), count in values(store, m.QUALITY_SIGNS):
        if count:
            requests = asked.get((model, tenant), 0.0)
            share = count / requests if requests else None
            rows.append({"model": model, "tenant": tenant, "sign": sign, "count": count, "share": share})
    rows.sort(key=lambda row: (-row["count"], row["sign"], row["tenant"]))
    return {"signs": sum(row["count"] for row in rows), "rows": rows[:MAX_ROWS], "count": len(rows)}
