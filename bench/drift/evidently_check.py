"""Is `peers.evidently` what Evidently does? Its own default test for a reference of more than 1,000 rows, on chunks.

    python -m venv /tmp/evidently && /tmp/evidently/bin/pip install 'evidently==0.7.23' 'pandas<3'
    PYTHONPATH=. /tmp/evidently/bin/python -m bench.drift.evidently_check

700 MB to compare two functions: not installed with the benchmark. Exits with 1 where a decision differs that is not
within a rounding of the threshold (ours looks at every 25th value of the reference).
"""

import sys
from typing import Final

import numpy as np
import pandas as pd
from bench.drift.peers import CHUNK, evidently
from evidently.legacy.calculations.stattests import registry
from evidently.legacy.core import ColumnType

CHUNKS: Final = 200
ROUNDING: Final = 0.003


def main() -> int:
    """Compare decisions on chunks that are shifted by nothing to a fifth of a standard deviation."""
    rng = np.random.default_rng(1)
    reference = rng.normal(size=50_000)
    rows = pd.Series(reference)
    differ = 0
    test = registry._get_default_stattest(rows, rows, ColumnType.Numerical)  # noqa: SLF001 - what it takes itself
    for number in range(CHUNKS):
        chunk = rng.normal(0.2 * number / CHUNKS, 1, CHUNK)
        column = pd.Series(chunk)
        theirs = test(rows, column, ColumnType.Numerical, test.default_threshold)
        near = abs(theirs.drift_score - test.default_threshold) < ROUNDING
        differ += not near and bool(theirs.drifted) != (evidently(reference, chunk) is not None)
    print(f"{test.display_name}, threshold {test.default_threshold}: {differ} of {CHUNKS} decisions differ")
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
