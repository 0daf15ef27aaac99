"""The lines of the log when a signal begins: what moved, since when, whose. Figures and names of features alone."""

import logging
from typing import Final

from inferwatch_collectors.drift.following import Followed
from inferwatch_collectors.drift.together import Told, most_of
from inferwatch_collectors.drift.words import told

_log: Final = logging.getLogger(__name__)

# What has the most evidence, as much as fits into a line.
FEATURES: Final = 3


def log_signal(followed: Followed, parts: int) -> None:
    """Say that a stream is not as before. `parts`: by how many its evidence is divided."""
    _log.warning(
        "drift model=%s tenant=%s evidence_weeks=%.3g since=%d moved=%s",
        followed.model,
        followed.tenant,
        followed.weeks / parts,
        followed.since_s,
        "; ".join(told(effect) for effect in followed.effects()[:FEATURES]),
    )


def log_together(said: Told | None) -> None:
    """Say that all together are not as before; nothing of fewer than two."""
    if said is None:
        return
    _log.warning(
        "drift_together streams=%d evidence_weeks=%.3g since=%s most=%s moved=%s",
        said.streams,
        said.evidence_weeks,
        said.since,
        most_of(said),
        "; ".join(f"{each.words} {each.evidence_weeks:.3g}" for each in said.moved[:FEATURES]),
    )
