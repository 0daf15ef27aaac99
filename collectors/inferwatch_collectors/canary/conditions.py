"""Whether a probe may be sent now, of which models, and to what kind of engine: `probing.Conditions` as things are."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from inferwatch_collectors import metrics as m
from inferwatch_collectors.engine.watch import EngineWatch
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.upstream_probe import UpstreamProbe


class Present(NamedTuple):
    """What changes with reloads and signals is asked anew each time."""

    store: MetricStore
    engine_watch: EngineWatch
    upstream: Callable[[], UpstreamProbe]
    draining: Callable[[], bool]
    has_port: bool  # our own data port is known

    def hindered(self) -> str:
        """Return why no probe may be sent now; "" if one may."""
        upstream = self.upstream()
        if not self.has_port:
            return "no_port"
        if self.draining():
            return "draining"
        if upstream.up is False:
            return "down"
        return "busy" if self.store.gauge(m.ENGINE_REQUESTS_WAITING, (upstream.name,)).value else ""

    def served(self) -> Sequence[str]:
        """Return the models that the engine lists."""
        return [each.name for each in self.engine_watch.said.models]

    def engine(self) -> str:
        """Return what the engine is, "" if that is not known."""
        return self.engine_watch.engine
