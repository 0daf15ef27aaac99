"""THE table: every metric Inferwatch exports, as data, a chapter a module.

The store, the exposition, `docs/metrics.md` and the tests are all made from it, so a name is written in one place.
Names, labels and bucket bounds are public: changing one is breaking. A metric's measuring points stand beside it,
because a latency without "from where to where" cannot be compared with anybody else's.

Three rules hold for all of them:
* A value that is not known is not exported (no series, rather than 0).
* Label values come from closed sets, from the configuration, or through the cardinality guard.
* Where OpenTelemetry defines a twin, our bounds contain all of its bounds, so that the twin's counts follow exactly.

A new chapter is a module beside this one, a line below and a `Group`.
"""

from typing import Final

from inferwatch_collectors.metrics.anomalies import *  # noqa: F403
from inferwatch_collectors.metrics.base import *  # noqa: F403 - one name space: `m.REQUESTS`
from inferwatch_collectors.metrics.base import Group, Metric
from inferwatch_collectors.metrics.budgets import *  # noqa: F403
from inferwatch_collectors.metrics.canary import *  # noqa: F403
from inferwatch_collectors.metrics.cost import *  # noqa: F403
from inferwatch_collectors.metrics.data_plane import *  # noqa: F403
from inferwatch_collectors.metrics.drift import *  # noqa: F403
from inferwatch_collectors.metrics.energy import *  # noqa: F403
from inferwatch_collectors.metrics.engine import *  # noqa: F403
from inferwatch_collectors.metrics.feedback import *  # noqa: F403
from inferwatch_collectors.metrics.gpu import *  # noqa: F403
from inferwatch_collectors.metrics.gpu_instances import *  # noqa: F403
from inferwatch_collectors.metrics.gpu_sampler import *  # noqa: F403
from inferwatch_collectors.metrics.latency import *  # noqa: F403
from inferwatch_collectors.metrics.otlp import *  # noqa: F403
from inferwatch_collectors.metrics.prices import *  # noqa: F403
from inferwatch_collectors.metrics.quality import *  # noqa: F403
from inferwatch_collectors.metrics.requests import *  # noqa: F403
from inferwatch_collectors.metrics.service import *  # noqa: F403
from inferwatch_collectors.metrics.time import *  # noqa: F403
from inferwatch_collectors.metrics.tokens import *  # noqa: F403

_CHAPTERS: Final = tuple(Group)

# In the order of the chapters, and within one as declared: `/metrics` and the reference page are read by people.
TABLE: Final[tuple[Metric, ...]] = tuple(
    sorted(
        (value for value in list(globals().values()) if isinstance(value, Metric)),
        key=lambda metric: _CHAPTERS.index(metric.group),
    )
)

BY_NAME: Final[dict[str, Metric]] = {metric.name: metric for metric in TABLE}
