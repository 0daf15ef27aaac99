"""What is popular, on the same streams: one number a request, the logarithm of the answer's length, at their defaults.

* **evidently**: its documented default for a reference of more than 1,000 rows, the Wasserstein distance over the
  standard deviation of the reference, drift from 0.1 on, for each 500 requests. Written here by that description.
* **ADWIN, PageHinkley, KSWIN** are river's own, with its defaults.
* **3 sigma**: chunks of 500, the mean of a chunk outside three standard deviations of the reference's chunk means.
* **PSI > 0.1**, ten bins by the reference's deciles, each 500 requests.
* **plain e-detector**: that of the earlier study whose figures we measure ourselves by, written anew by its
  description: deciles, twelve tilts, dearer by three standard errors, no rhythm of the week; of several features the
  mean.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from scipy.stats import norm, wasserstein_distance

CHUNK: Final = 500
DECILES: Final = 10
ADWIN_CLOCK: Final = 32

# (reference, watched) -> after how many requests it first alarms
Peer = Callable[[Any, Any], int | None]


def _chunks(values: Any) -> Any:
    return values[: len(values) // CHUNK * CHUNK].reshape(-1, CHUNK)


def _first(alarms: Any) -> int | None:
    found = np.nonzero(alarms)[0]
    return int((found[0] + 1) * CHUNK) if len(found) else None


def evidently(reference: Any, watched: Any) -> int | None:
    """The distance of each chunk to the whole reference."""
    unit = reference.std() or 1.0
    thinned = np.sort(reference)[:: max(1, len(reference) // 2_000)]  # the same to three digits, and fast
    for place, chunk in enumerate(_chunks(watched)):
        if wasserstein_distance(thinned, chunk) / unit >= 0.1:
            return (place + 1) * CHUNK
    return None


def three_sigma(reference: Any, watched: Any) -> int | None:
    """Means of chunks."""
    means = _chunks(reference).mean(axis=1)
    return _first(abs(_chunks(watched).mean(axis=1) - means.mean()) > 3 * means.std())


def psi(reference: Any, watched: Any) -> int | None:
    """Population stability index above 0.1."""
    edges = np.quantile(reference, np.linspace(0.1, 0.9, 9))
    before = np.bincount(np.searchsorted(edges, reference), minlength=10) / len(reference)
    for place, chunk in enumerate(_chunks(watched)):
        now = np.maximum(np.bincount(np.searchsorted(edges, chunk), minlength=10) / CHUNK, 1e-4)
        if ((now - before) * np.log(now / np.maximum(before, 1e-4))).sum() > 0.1:
            return (place + 1) * CHUNK
    return None


def plain_e_detector(reference: Any, watched: Any) -> int | None:
    """Shiryaev-Roberts over tilts of the reference's deciles; a signal at an average of a million requests to a false
    one. Values are [requests], or [requests, features]; NaN is none."""
    if reference.ndim == 1:
        reference, watched = reference[:, None], watched[:, None]
    tables, places = zip(*map(_tilts, reference.T, watched.T), strict=True)
    table, seen = np.array(tables), np.array(places).T  # [features, bins, tilts], [requests, features]
    held, feature = np.zeros((table.shape[0], table.shape[2])), np.arange(table.shape[0])
    for place, bins in enumerate(seen):
        held = (held + 1) * table[feature, bins]
        if held.mean() >= 1e6:
            return place + 1
    return None


def _tilts(reference: Any, watched: Any) -> tuple[Any, Any]:
    """Return what each tilt of one feature gets by bin, and the bins of the watched; the last is that of no value."""
    reference = reference[~np.isnan(reference)]
    edges = np.unique(np.quantile(reference, np.linspace(0.1, 0.9, 9)))
    shares = np.bincount(np.searchsorted(edges, reference), minlength=len(edges) + 1) + 0.5
    shares /= shares.sum()
    scores = norm.ppf(np.cumsum(shares) - shares / 2)
    scores -= (shares * scores).sum()
    scores = np.clip(scores / np.sqrt((shares * scores**2).sum()), -3, 3)
    shifts = np.array([0.12, -0.12, 0.25, -0.25, 0.5, -0.5, 1.0, -1.0])[:, None]
    spreads = np.array([0.15, -0.15, 0.4, -0.4])[:, None] / np.sqrt(2)
    ratios = np.concatenate([np.exp(shifts * scores), np.exp(spreads * (scores**2 - 1))])
    ratios /= (ratios * shares).sum(axis=1, keepdims=True)
    ratios /= 1 + 3 * np.sqrt((shares * (ratios - 1) ** 2).sum(axis=1, keepdims=True) / len(reference))
    table = np.ones((DECILES + 1, len(ratios)))
    table[: len(shares)] = ratios.T
    return table, np.where(np.isnan(watched), DECILES, np.searchsorted(edges, watched))


def river(make: Callable[[], Any]) -> Peer:
    """A detector of river's, which has no reference: it is shown the last 5,000 of it or a few more, and only then
    counts. ADWIN looks at every 32nd value alone: where between two looks a change begins is left to chance."""

    def run(reference: Any, watched: Any) -> int | None:
        detector = make()
        more = int(abs(reference[0]) * 1e6) % ADWIN_CLOCK
        for value in reference[-5_000 - more :].tolist():
            detector.update(value)
        for place, value in enumerate(watched.tolist()):
            detector.update(value)
            if detector.drift_detected:
                return place + 1
        return None

    return run


def peers() -> dict[str, Peer]:
    """Return those that people use, by name."""
    from river import drift  # noqa: PLC0415 - slow to import

    return {
        "Evidently": evidently,
        "ADWIN": river(drift.ADWIN),
        "PageHinkley": river(drift.PageHinkley),
        "KSWIN": river(lambda: drift.KSWIN(seed=1)),
        "3 sigma": three_sigma,
        "PSI > 0.1": psi,
    }
