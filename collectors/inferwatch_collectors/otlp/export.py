"""Everything that leaves by OTLP: what is handed over by the loop, and the threads that send it.

On the loop a request costs a look at its trace id and an append; spans are made, content is looked at, and bytes are
encoded in a thread for each signal. No endpoint, however slow, is ever waited for but there.
"""

import logging
import time
from collections.abc import Callable, Container
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from inferwatch.config import Config
from inferwatch.record import Outcome, RequestRecord
from inferwatch.tap import Open
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import OTHER
from inferwatch_collectors.dialects.base import Dialect
from inferwatch_collectors.dialects.content import Listener
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.otlp import attributes as plain
from inferwatch_collectors.otlp import environment
from inferwatch_collectors.otlp.asked import Asked
from inferwatch_collectors.otlp.content import Content, Said
from inferwatch_collectors.otlp.keeping import OVERFLOW, RESULTS, Keeper
from inferwatch_collectors.otlp.logs import Line, LineHandler, LogMaker
from inferwatch_collectors.otlp.metrics import MetricsMaker, wants_latest
from inferwatch_collectors.otlp.outbox import Outbox
from inferwatch_collectors.otlp.retries import Failed, Retries
from inferwatch_collectors.otlp.sampling import Sampler
from inferwatch_collectors.otlp.spans import SpanMaker
from inferwatch_collectors.otlp.trace_state import Members, TraceStates
from inferwatch_collectors.otlp.transport import delivered, exporter, resource, scope
from inferwatch_collectors.privacy import start as privacy
from inferwatch_collectors.privacy.keys import KeyWatch
from inferwatch_collectors.vitals import Vitals

_log: Final = logging.getLogger(__name__)

# A record with its strings; a text's characters may have four bytes each.
RECORD_BYTES: Final = 2_000
MAX_QUEUED_BYTES: Final = 64 * 1024 * 1024

# A collection holds all series: while one cannot be delivered, the next is the better one.
MAX_COLLECTIONS: Final = 2

# Requests that were booked elsewhere leave what was said behind; once a minute is soon enough.
FORGET_INTERVAL_S: Final = 60.0

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class _Finished(NamedTuple):
    record: RequestRecord
    said: Said | None
    retried: Failed | None
    asked: dict[str, plain.Value]
    state: Members


class OtlpExport:
    """Made if anything is exported."""

    def __init__(
        self,
        config: Callable[[], Config],
        store: MetricStore,
        engine: Callable[[], str],
        *,
        instance: str,
    ) -> None:
        """`config` is the one in force, `engine` the name of the engine, "" if not known. Blocking: reads keys.

        Raises:
            ConfigError: the environment or the keys cannot be used.
        """
        settings = config().otlp
        self._config = config
        self._engine = engine
        self._retries = Retries()
        self._asked = Asked()
        self._states = TraceStates(settings.tracestate_keys)
        self._resource, self._scope = resource(instance), scope(latest=wants_latest())
        self._content: Content | None = None
        self._keeper: Keeper | None = None
        self._key: KeyWatch | None = None
        self._traces: Outbox[_Finished] | None = None
        self._logs: Outbox[RequestRecord | Line] | None = None
        self._metrics: Outbox[object] | None = None
        self._exporters: list[object] = []
        self._handler: LineHandler | None = None
        self._collect: MetricsMaker | None = None
        self._store = store
        if environment.exports(settings, "traces"):
            self._open_traces()
        if environment.exports(settings, "logs"):
            self._open_logs()
        if environment.exports(settings, "metrics"):
            self._open_metrics()
        self._metrics_due_s = 0.0
        self._forget_due_s = 0.0

    def start(self) -> None:
        """Begin to send. Once, after the store was restored."""
        for name in environment.unheeded():
            _log.warning("otlp_variable_unheeded name=%s instead=%s", name, environment.UNHEEDED[name])
        for _, box in self._boxes():
            box.start()
        if self._logs is not None:
            self._handler = LineHandler(self._logs.put)
            logging.getLogger().addHandler(self._handler)
        if self._metrics is not None:
            self._collect = MetricsMaker(
                self._store,
                self._resource,
                self._scope,
                start_ns=self._begun_ns(),
                common=self._common,
                latest=wants_latest(),
            )

    # --- on the loop

    def takes(self, record: RequestRecord) -> bool:
        """Tell whether a span of this request is exported: then an exemplar may name its trace."""
        if self._traces is None or not self._sampler.takes(record):
            return False
        # Health checks and lists of models in nobody's trace.
        return record.operation != OTHER or record.outcome is not Outcome.OK or bool(record.parent_span_id)

    def opened(self, opened: Open, dialect: Dialect) -> Listener | None:
        """Take a request while its body is there."""
        if self._traces is None:
            return None
        self._states.opened(opened)
        if dialect.generates:
            self._retries.opened(opened)
            self._asked.opened(opened)
        return None if self._content is None else self._content.opened(opened, dialect)

    def record(self, record: RequestRecord) -> None:
        """Take a request that was booked."""
        if self._traces is not None:
            said = None if self._content is None else self._content.take(record.request_id)
            retried = self._retries.booked(record)
            asked = self._asked.take(record.request_id)
            state = self._states.take(record.request_id)
            if self.takes(record):
                finished = _Finished(record, said, retried, asked, state)
                self._traces.put(finished, RECORD_BYTES + (4 * said.size if said else 0))
        if self._logs is not None:
            self._logs.put(record, RECORD_BYTES)

    def tick(self, now_s: float, open_ids: Callable[[], Container[str]], refresh: Callable[[], None]) -> None:
        """Collect the metrics when they are due, after `refresh`. `now_s` is CLOCK_MONOTONIC; `open_ids`: requests."""
        if self._collect is not None and self._metrics is not None and now_s >= self._metrics_due_s:
            self._metrics_due_s = now_s + self._metrics_s
            refresh()
            data, series = self._collect.data(time.time_ns())
            self._metrics.put(data, series)
        if self._content is not None and now_s >= self._forget_due_s:
            self._forget_due_s = now_s + FORGET_INTERVAL_S
            self._content.forget(open_ids())

    def follow(self, vitals: Vitals) -> None:
        """Show what is counted here."""
        if self._traces is not None:
            vitals.cut("otlp_retries", lambda: self._retries.cut)
            vitals.cut("otlp_asked", lambda: self._asked.cut)
            vitals.cut("otlp_trace_states", lambda: self._states.cut)
        for signal, box in self._boxes():
            vitals.count(m.OTLP_ITEMS, (signal, "exported"), lambda box=box: box.exported)  # type: ignore[misc]
            vitals.count(m.OTLP_ITEMS, (signal, "failed"), lambda box=box: box.failed)  # type: ignore[misc]
            vitals.count(m.OTLP_ITEMS, (signal, "dropped"), lambda box=box: box.dropped)  # type: ignore[misc]
        keeper, content = self._keeper, self._content
        if keeper is None or content is None:
            return
        for result in RESULTS:
            if result != OVERFLOW:
                vitals.count(m.PRIVACY_REQUESTS, (result,), lambda result=result: keeper.results[result])  # type: ignore[misc]
        vitals.count(m.PRIVACY_REQUESTS, (OVERFLOW,), lambda: content.overflow)
        for name in keeper.entities:
            vitals.count(m.PRIVACY_FOUND, (name,), lambda name=name: keeper.found[name])  # type: ignore[misc]

    def refresh(self, vitals: Vitals) -> None:
        """Bring the readings up to date."""
        for signal, box in self._boxes():
            if signal != "metrics":
                vitals.gauge(m.OTLP_QUEUE, box.queued, (signal,))
        if self._key is not None:
            vitals.gauge(m.PRIVACY_KEY, int(self._key.is_current))

    def close(self, timeout_s: float) -> None:
        """Send what waits, for so long at most, then give up. Blocks: not for the event loop."""
        if self._handler is not None:
            logging.getLogger().removeHandler(self._handler)
        due_s = time.monotonic() + timeout_s
        for _, box in self._boxes():
            box.close(max(0.0, due_s - time.monotonic()))
        for each in self._exporters:
            each.shutdown()  # type: ignore[attr-defined]

    # --- in the threads

    def _send_spans(self, batch: list[_Finished]) -> bool:
        server = self._server()
        if self._key is not None:
            self._key.look()
        spans = []
        for finished in batch:
            record = finished.record
            attributes = plain.attributes(record, server, self._engine()) | finished.asked
            if finished.said is not None and self._keeper is not None:
                attributes |= self._keeper.attributes(finished.said, record)
            spans.append(self._spans.span(record, attributes, finished.retried, finished.state))
        return self._export_spans(spans)

    def _send_logs(self, batch: list[RequestRecord | Line]) -> bool:
        maker = self._log_maker
        return self._export_logs(
            [maker.line(each) if isinstance(each, Line) else maker.request(each) for each in batch]
        )

    # --- making

    def _boxes(self) -> list[tuple[str, Outbox[object]]]:
        every = (("traces", self._traces), ("logs", self._logs), ("metrics", self._metrics))
        return [(signal, box) for signal, box in every if box is not None]  # type: ignore[misc]

    def _server(self) -> tuple[str, int]:
        parts = urlsplit(self._config().upstream.url)
        return parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)

    def _common(self) -> dict[str, str | int]:
        """Return the attributes of all GenAI metrics."""
        host, port = self._server()
        provider = self._engine() or plain.UNKNOWN_PROVIDER
        return {"gen_ai.provider.name": provider, "server.address": host, "server.port": port}

    def _exporter(self, signal: str) -> Callable[[object], bool]:
        made = exporter(self._config().otlp, signal)
        self._exporters.append(made)
        return delivered(made.export)

    def _open_traces(self) -> None:
        config = self._config()
        self._sampler = Sampler(config.otlp)
        if config.privacy.keeps_content():
            self._keeper = Keeper(privacy.redactor(config.privacy))
            self._content = Content(config.privacy)
            self._key = KeyWatch(config.privacy.key_file)
        self._spans = SpanMaker(self._resource, self._scope, config.otlp.stall_s)
        self._export_spans = self._exporter("traces")
        self._traces = Outbox(
            "traces",
            self._send_spans,
            max_items=environment.number("traces", "OTEL_BSP_MAX_QUEUE_SIZE"),
            batch_items=environment.number("traces", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"),
            delay_s=environment.number("traces", "OTEL_BSP_SCHEDULE_DELAY") / 1000,
            max_bytes=MAX_QUEUED_BYTES,
        )

    def _open_logs(self) -> None:
        self._log_maker = LogMaker(
            self._resource, self._scope, lambda record: plain.attributes(record, self._server(), self._engine())
        )
        self._export_logs = self._exporter("logs")
        self._logs = Outbox(
            "logs",
            self._send_logs,
            max_items=environment.number("logs", "OTEL_BLRP_MAX_QUEUE_SIZE"),
            batch_items=environment.number("logs", "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE"),
            delay_s=environment.number("logs", "OTEL_BLRP_SCHEDULE_DELAY") / 1000,
            max_bytes=MAX_QUEUED_BYTES,
        )

    def _open_metrics(self) -> None:
        interval_s = environment.number("metrics", "OTEL_METRIC_EXPORT_INTERVAL") / 1000
        self._metrics_s = self._config().otlp.metrics_interval_s or interval_s
        export = self._exporter("metrics")
        self._metrics = Outbox(
            "metrics",
            lambda batch: export(batch[0]),  # batches of one
            max_items=MAX_COLLECTIONS,
            batch_items=1,
            delay_s=0.0,
            max_bytes=MAX_QUEUED_BYTES,
        )

    def _begun_ns(self) -> int:
        """Return since when the books count: from then on sums are cumulative, through restarts."""
        memo = self._store.memo("otlp_begun")
        if not memo.data:
            memo.set(str(time.time_ns()).encode())
        return int(memo.data)
